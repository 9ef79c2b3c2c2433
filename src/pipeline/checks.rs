//! What settings, columns and rows must be, each together with the others.

use arrow::datatypes::{DataType, Schema};

use crate::config::{GuardsConfig, PairsConfig, PipelineConfig, WalkConfig};
use crate::embeddings::EmbeddingTable;
use crate::encode::Encoder;
use crate::error::{Error, Faults, Result};
use crate::refresh::{Selection, Snapshot, negative};
use crate::sample::SampleId;
use crate::source::Source;
use crate::store::{ColumnPath, Key};

/// Settings made in code pass the same checks as those of a file.
pub(super) fn check(config: &PipelineConfig, has_source: bool) -> Result<(), Faults> {
    let mut faults = config.faults();
    faults.retain(|f| !(has_source && f.key == "source.uri"));
    Faults::none_or(Faults::SETTINGS, faults)
}

/// Which columns mini-batches carry, and what no two samples of one may share.
pub(super) fn selection(
    config: &PipelineConfig,
    payload: &[String],
    encoder: &dyn Encoder,
    schema: &Schema,
) -> Result<Selection> {
    let PipelineConfig { guards, pairs, walk, .. } = config;
    let encoded = encoder.columns();
    let read = |column: &String| ColumnPath { column: column.clone(), field: field(encoder, schema, column) };
    let content = if guards.duplicates { encoded.iter().map(read).collect() } else { Vec::new() };
    let mut keys = vec![Key::Content(content)];
    keys.extend(pairs.columns().into_iter().flat_map(|columns| {
        let types = columns.map(|column| type_of(schema, &read(column)));
        match types {
            [Some(anchor), Some(positive)] if Key::are_alike(anchor, positive) => {
                vec![Key::Either(columns.map(read).to_vec())]
            }
            _ => columns.map(|column| Key::Either(vec![read(column)])).to_vec(),
        }
    }));
    keys.extend(guards.distinct.iter().cloned().map(Key::Value));
    let positive = pairs.positive.as_ref().or(encoded.first()).filter(|_| walk.negatives > 0);
    let taken = |column: &&String| (1..=walk.negatives).any(|i| **column == negative(i));
    if let Some(column) = payload.iter().find(taken) {
        let message =
            format!("gives explicit negatives the name of the column `{column}`; leave it out of source.columns");
        return Err(Error::setting("walk.negatives", message));
    }
    let (payload, negative) = (payload.to_vec(), positive.cloned());
    Ok(Selection { payload, negative, guards: guards.clone(), keys })
}

/// The field of a struct column that is all that the encoder reads of it.
fn field(encoder: &dyn Encoder, schema: &Schema, column: &str) -> Option<String> {
    let field = encoder.field(column)?;
    let DataType::Struct(fields) = schema.field_with_name(column).ok()?.data_type() else { return None };
    fields.find(field).map(|_| field.to_owned())
}

fn type_of<'a>(schema: &'a Schema, path: &ColumnPath) -> Option<&'a DataType> {
    let whole = schema.field_with_name(&path.column).ok()?.data_type();
    match (whole, &path.field) {
        (DataType::Struct(fields), Some(field)) => fields.find(field).map(|(_, field)| field.data_type()),
        _ => Some(whole),
    }
}

/// Refuses columns with fewer values than a mini-batch has samples, since none could ever be full, and the measure of
/// pairs where there is none.
pub(super) fn together(
    snapshot: &Snapshot,
    walk: &WalkConfig,
    guards: &GuardsConfig,
    pairs: &PairsConfig,
) -> Result<()> {
    if guards.max_relative_to_positive.is_some() && snapshot.embeddings.pair_similarity(SampleId(0)).is_none() {
        let message =
            "the encoder does not tell how similar pairs are; make a PairEncoder of it, or take the bound out";
        return Err(Error::setting("guards.max_relative_to_positive", message));
    }
    let groups = snapshot.guards.groups();
    let size = walk.batch_size;
    let first = groups.keys() - guards.distinct.len();
    for key in 1..groups.keys() {
        let most = groups.most_together(key);
        if most >= size {
            continue;
        }
        let (setting, column, remedy) = match (key.checked_sub(first), pairs.columns()) {
            (Some(at), _) => ("guards.distinct", &guards.distinct[at], "take the column out"),
            (None, Some(columns)) => {
                // One key for both sides, or one for each.
                let side = key - 1 + groups.scarcest(key);
                (["pairs.anchor", "pairs.positive"][side], columns[side], "name one with more values")
            }
            (None, None) => continue,
        };
        let why = format!("`{column}` has {most} values, so no mini-batch of {size} has distinct ones");
        let message = format!("{why}; lower walk.batch_size to {most}, or {remedy}");
        return Err(Error::setting(setting, message));
    }
    Ok(())
}

/// Refuses a source with fewer rows than a mini-batch has samples.
pub(super) fn enough(source: &dyn Source, found: usize, walk: &WalkConfig) -> Result<()> {
    let (uri, filter) = (source.uri().to_owned(), source.filter().map(str::to_owned));
    let needed = match found {
        0 => 1,
        1 => 2,
        _ => walk.batch_size,
    };
    let reason = match (found, &filter) {
        (0, None) => "are needed at least; it is empty: check the path, or what wrote it",
        (0, Some(_)) => "are needed at least; change the filter (`prosampler inspect` shows what is in the columns)",
        (1, None) => "are needed at least, or there is no negative; give more data",
        (1, Some(_)) => "are needed at least, or there is no negative; widen the filter, or give more data",
        (_, None) => "make a mini-batch (walk.batch_size); lower it or give more data",
        (_, Some(_)) => "make a mini-batch (walk.batch_size); lower it, widen the filter, or give more data",
    };
    if found >= needed.max(2) {
        return Ok(());
    }
    Err(Error::TooFewSamples { uri, filter, found, needed: needed.max(2), reason: reason.to_owned() })
}

/// Refuses embeddings of which too few are left after those that were skipped.
pub(super) fn enough_left(uri: &str, table: &EmbeddingTable, batch_size: usize) -> Result<()> {
    let needed = batch_size.max(2);
    if table.present() >= needed {
        return Ok(());
    }
    Err(table.too_few(uri, needed))
}
