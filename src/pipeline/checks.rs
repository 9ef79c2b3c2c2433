//! What settings, columns and rows must be, each together with the others.

use crate::config::{Fault, Faults, GuardsConfig, PipelineConfig, WalkConfig};
use crate::error::{Error, Result};
use crate::refresh::{Selection, Snapshot, negative};
use crate::sample::SampleId;
use crate::store::EmbeddingTable;

/// Settings made in code pass the same checks as those of a file.
pub(super) fn check(config: &PipelineConfig, has_source: bool) -> Result<(), Faults> {
    let mut faults = config.faults();
    faults.retain(|f| !(has_source && f.key == "source.uri"));
    Faults::none_or("the settings", faults)
}

/// Which columns mini-batches carry, and of which no two samples of one may share the value.
pub(super) fn selection(config: &PipelineConfig, payload: &[String], encoded: &[String]) -> Result<Selection> {
    let PipelineConfig { guards, pairs, walk, .. } = config;
    let content = if guards.duplicates { encoded.to_vec() } else { Vec::new() };
    let distinct = pairs.columns().into_iter().map(|[_, positive]| positive).chain(&guards.distinct);
    let distinct = distinct.cloned().collect();
    let positive = pairs.positive.as_ref().or(encoded.first()).filter(|_| walk.negatives > 0);
    let taken = |column: &&String| (1..=walk.negatives).any(|i| **column == negative(i));
    if let Some(column) = payload.iter().find(taken) {
        let message =
            format!("gives explicit negatives the name of the column `{column}`; leave it out of source.columns");
        return Err(fault("walk.negatives", message));
    }
    let (payload, negative) = (payload.to_vec(), positive.cloned());
    Ok(Selection { payload, negative, guards: guards.clone(), content, distinct })
}

/// Refuses columns with fewer values than a mini-batch has samples, since none could ever be full, and the measure of
/// pairs where there is none.
pub(super) fn together(snapshot: &Snapshot, walk: &WalkConfig, guards: &GuardsConfig) -> Result<()> {
    if guards.max_relative_to_positive.is_some() && snapshot.embeddings.pair_similarity(SampleId(0)).is_none() {
        let message =
            "the encoder does not tell how similar pairs are; make a PairEncoder of it, or take the bound out";
        return Err(fault("guards.max_relative_to_positive", message.into()));
    }
    let groups = snapshot.guards.groups();
    let first = groups.keys() - guards.distinct.len();
    for (i, column) in guards.distinct.iter().enumerate() {
        let (most, size) = (groups.most_together(first + i), walk.batch_size);
        if most < size {
            let why = format!("`{column}` has {most} values, so no mini-batch of {size} has distinct ones");
            let message = format!("{why}; lower walk.batch_size to {most}, or take the column out");
            return Err(fault("guards.distinct", message));
        }
    }
    Ok(())
}

pub(super) fn fault(key: &str, message: String) -> Error {
    let fault = Fault { key: key.to_owned(), line: None, message };
    Faults { origin: "the settings".into(), faults: vec![fault] }.into()
}

pub(super) fn enough(uri: &str, found: usize, walk: &WalkConfig) -> Result<()> {
    let needed = match found {
        0 => 1,
        1 => 2,
        _ => walk.batch_size,
    };
    let reason = match found {
        0 => "are needed at least; it is empty: check the path, or what wrote it",
        1 => "are needed at least, or there is no negative; give more data",
        _ => "make a mini-batch (walk.batch_size); lower it or give more data",
    };
    if found >= needed.max(2) {
        return Ok(());
    }
    Err(Error::TooFewSamples { uri: uri.to_owned(), found, needed: needed.max(2), reason: reason.to_owned() })
}

/// Refuses embeddings of which too few are left after those that were skipped.
pub(super) fn enough_left(uri: &str, table: &EmbeddingTable, batch_size: usize) -> Result<()> {
    let needed = batch_size.max(2);
    if table.present() >= needed {
        return Ok(());
    }
    Err(table.too_few(uri, needed))
}
