//! Keeps `--output` from overwriting what the run reads or keeps.

use std::path::Path;

use crate::config::PipelineConfig;
use crate::encode::external_data::named_files;
use crate::encode::{FileState, tokenizer_of};
use crate::source::local_files;
use crate::{Fault, Faults, Result};

/// Refuses a file, which must be there, that is the run's data, its model, or one of these `others`, or is in a folder
/// of the run's own.
pub(super) fn must_be_apart(path: &Path, config: &PipelineConfig, others: &[&Path]) -> Result<()> {
    let Ok(own) = FileState::of(path) else { return Ok(()) };
    let is_own = |path: &Path| FileState::of(path).is_ok_and(|state| state.is_same_file(&own));
    let refused = |what: &str| {
        let message = format!("`{}` is {what}; name another file", path.display());
        Err(Faults::one(Faults::COMMAND_LINE, Fault::new("--output", message)).into())
    };
    // Faults of the uris are reported when the source is opened.
    let uris = config.sources.iter().map(|source| &source.uri).chain([&config.source.uri, &config.pairs.corpus]);
    if uris.flat_map(|uri| local_files(uri).unwrap_or_default()).any(|file| is_own(&file)) {
        return refused("among the files that the run reads (source.uri)");
    }
    let encode = &config.encode;
    let views = encode.views.iter().chain(&config.guards.guide).map(|view| (&view.model, &view.tokenizer));
    for (model, tokenizer) in views.chain([(&encode.model, &encode.tokenizer)]) {
        let model_files = model.iter().flat_map(|model| named_files(model).unwrap_or_default());
        let tokenizers = model.iter().map(|model| tokenizer_of(model));
        let mut files = model_files.chain(tokenizers).chain(tokenizer.clone()).chain(encode.runtime.clone());
        if files.any(|file| is_own(&file)) {
            return refused("a file of the model");
        }
    }
    if others.iter().any(|file| is_own(file)) {
        return refused("a file of the run itself");
    }
    let folder = own.resolved().parent();
    for (key, kept) in [("checkpoint.dir", &config.checkpoint.dir), ("store.cache_dir", &config.store.cache_dir)] {
        if let Some(kept) = kept
            && kept.canonicalize().is_ok_and(|kept| folder == Some(&kept))
        {
            return refused(&format!("in a folder that the run keeps for itself ({key})"));
        }
    }
    Ok(())
}
