//! Identifies the vectors of a model.

use std::hash::Hasher;
use std::io::{Read, Result};
use std::path::Path;

use twox_hash::XxHash3_64;

use super::model::{Model, tokenizer_of};
use crate::arrow_file::to_text;
use crate::config::EncodeConfig;

/// Returns a text on which a model's vectors depend: while it is the same, so are they.
///
/// It consists of the model's name, the content of its files and its tokenizer, the settings of its inputs and outputs,
/// the provider, and the version of ONNX Runtime. Reads all these files. The result is `None` if they cannot be read,
/// or have changed since the model was opened.
pub(super) fn of(model: &Model, config: &EncodeConfig) -> Option<String> {
    let mut text = model.path.file_name()?.to_string_lossy().into_owned();
    text.push_str(&format!("\nformat {PREPARATION_VERSION}, on {}, {}", model.provider.name(), ort::info()));
    for file in model.files() {
        text.push_str(&format!("\nmodel {}", content(file).ok()?));
    }
    let tokenizer = config.tokenizer.clone().unwrap_or_else(|| tokenizer_of(&model.path));
    if tokenizer.exists() {
        text.push_str(&format!("\ntokenizer {}", content(&tokenizer).ok()?));
    }
    // These settings do not change vectors. A column may have another name and the same content.
    let defaults = EncodeConfig::default();
    let settings = EncodeConfig {
        model: None,
        tokenizer: None,
        column: None,
        pair_column: config.pair_column.as_ref().map(|_| String::new()),
        on_bad_sample: defaults.on_bad_sample,
        storage: defaults.storage,
        runtime: None,
        cache_dir: None,
        cache_limit: defaults.cache_limit,
        sessions: defaults.sessions,
        views: Vec::new(),
        combine: defaults.combine,
        ..config.clone()
    };
    text.push_str(&format!("\n{settings:?}"));
    (!model.is_outdated().ok()?).then_some(text)
}

/// Returns a checksum of a file's content.
fn content(path: &Path) -> Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut sum = XxHash3_64::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(to_text(sum.finish())),
            read => sum.write(&buffer[..read]),
        }
    }
}

/// The version of how rows are prepared: raised if vectors change with the same settings.
const PREPARATION_VERSION: u32 = 1;
