//! Refuses settings, columns and rows that do not fit each other.

use arrow::datatypes::{DataType, Schema};

use crate::config::{PipelineConfig, WalkConfig};
use crate::encode::Encoder;
use crate::error::{Error, Fault, Faults, Result, TooFewError};
use crate::refresh::{GuardRules, NegativeRules, Snapshot};
use crate::sample::SampleId;
use crate::source::Source;
use crate::store::{ColumnPath, Key};
use crate::stream::{MASK_COLUMN, RowColumns, negative_column};

/// Checks settings that are made in code as those of a file are checked, for a run of so many processes.
pub(super) fn check_settings(config: &PipelineConfig, has_source: bool, ranks: usize) -> Result<(), Faults> {
    let mut faults = config.faults();
    if ranks > 1 && config.refresh.is_by_clock() && config.checkpoint.dir.is_none() {
        let key = if config.refresh.watch_model { "refresh.watch_model" } else { "refresh.every_seconds" };
        let message = "needs a checkpoint.dir that all ranks reach, in which rank 0 says at which step each refresh \
                       begins; set that, or let refresh.every_steps alone trigger refreshes";
        faults.push(Fault::new(key, message));
    }
    faults.retain(|fault| !(has_source && fault.key == "source.uri"));
    Faults::none_or(Faults::SETTINGS, faults)
}

/// The columns that mini-batches carry: `payload`, the one that explicit negatives are taken from, and the mask.
pub(super) fn row_columns(config: &PipelineConfig, payload: Vec<String>, encoder: &dyn Encoder) -> Result<RowColumns> {
    let count = config.walk.negatives;
    let positive = config.pairs.positive.as_ref().or(encoder.columns().first());
    let negative = positive.filter(|_| count > 0).cloned();
    let is_taken = |column: &&String| (1..=count).any(|number| **column == negative_column(number));
    if let Some(column) = payload.iter().find(is_taken) {
        let message =
            format!("gives explicit negatives the name of the column `{column}`; leave it out of source.columns");
        return Err(Error::setting("walk.negatives", message));
    }
    let mask = config.mask.is_on();
    if mask && payload.iter().any(|column| column == MASK_COLUMN) {
        let message = format!("adds a column `{MASK_COLUMN}`, which the rows have; leave it out of source.columns");
        return Err(Error::setting("mask", message));
    }
    Ok(RowColumns { payload, negative, mask })
}

/// What decides which samples are negatives of each other. What `[mask]` marks, guards do not keep apart.
pub(super) fn negative_rules(config: &PipelineConfig, encoder: &dyn Encoder, schema: &Schema) -> NegativeRules {
    let PipelineConfig { guards, mask, .. } = config;
    let keys = KeysOf { config, encoder, schema };
    let of_guards = GuardRules {
        config: guards.clone(),
        keys: keys.of(guards.duplicates && !mask.duplicates, !mask.positives, &guards.distinct),
    };
    let of_mask =
        || GuardRules { config: mask.as_guards(), keys: keys.of(mask.duplicates, mask.positives, &mask.same) };
    NegativeRules { guards: of_guards, mask: mask.is_on().then(of_mask) }
}

/// What two samples may have in common.
struct KeysOf<'a> {
    config: &'a PipelineConfig,
    encoder: &'a dyn Encoder,
    schema: &'a Schema,
}

impl KeysOf<'_> {
    /// The content of samples if `content`, a text of their pairs if `pairs`, and values of `columns`, in this order.
    fn of(&self, content: bool, pairs: bool, columns: &[String]) -> Vec<Key> {
        let Self { config, encoder, schema } = *self;
        let path = |column: &String| ColumnPath { column: column.clone(), field: field(encoder, schema, column) };
        let content = if content { encoder.columns().iter().map(path).collect() } else { Vec::new() };
        let mut keys = vec![Key::Content(content)];
        if let Some(columns) = config.pairs.columns().filter(|_| pairs) {
            let paths = columns.map(path);
            let types = paths.each_ref().map(|path| type_of(schema, path));
            match types {
                [Some(anchor), Some(positive)] if Key::are_alike(anchor, positive) => {
                    keys.push(Key::Either(paths.into()));
                }
                _ => keys.extend(paths.map(|path| Key::Either(vec![path]))),
            }
        }
        keys.extend(columns.iter().cloned().map(Key::Value));
        keys
    }
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

/// Refuses guards that the data do not allow.
///
/// These are columns with fewer values than a mini-batch has samples, which could never be full with distinct ones; a
/// bound on pairs if there are none; a graph of which all neighbors are skipped; and ranks that it does not have.
pub(super) fn check_values(snapshot: &Snapshot, config: &PipelineConfig) -> Result<()> {
    let PipelineConfig { guards, mask, pairs, walk, .. } = config;
    let bounds = [
        ("guards.max_relative_to_positive", guards.max_relative_to_positive),
        ("mask.max_relative_to_positive", mask.max_relative_to_positive),
        ("walk.negative_absolute_margin", walk.negative_absolute_margin),
        ("walk.negative_relative_margin", walk.negative_relative_margin),
    ];
    if let Some((key, _)) = bounds.into_iter().find(|(_, bound)| bound.is_some())
        && snapshot.embeddings.pair_similarity(SampleId(0)).is_none()
    {
        let message =
            "the encoder does not tell how similar pairs are; make a PairEncoder of it, or take the bound out";
        return Err(Error::setting(key, message));
    }
    if let Some(message) = guards.skips_all(snapshot.graph.degree()) {
        return Err(Error::setting("guards.skip_nearest", message));
    }
    if let Some(message) = walk.ranks_beyond(snapshot.graph.degree(), guards.skip_nearest) {
        return Err(Error::setting("walk.negative_ranks", message));
    }

    let groups = snapshot.guards.groups();
    let batch_size = walk.batch_size;
    let first_distinct = groups.keys() - guards.distinct.len();
    for key in 1..groups.keys() {
        let values = groups.most_together(key);
        if values >= batch_size {
            continue;
        }
        let (setting, column, remedy) = match (key.checked_sub(first_distinct), pairs.columns()) {
            (Some(index), _) => ("guards.distinct", &guards.distinct[index], "take the column out"),
            (None, Some(columns)) => {
                // There is one key for both sides, or one for each.
                let side = key - 1 + groups.scarcest(key);
                (["pairs.anchor", "pairs.positive"][side], columns[side], "name one with more values")
            }
            (None, None) => continue,
        };
        let why = format!("`{column}` has {values} values, so no mini-batch of {batch_size} has distinct ones");
        let message = format!("{why}; lower walk.batch_size to {values}, or {remedy}");
        return Err(Error::setting(setting, message));
    }
    Ok(())
}

/// Refuses a source with fewer rows than a mini-batch has samples.
pub(super) fn check_sample_count(source: &dyn Source, found: usize, walk: &WalkConfig) -> Result<()> {
    let needed = match found {
        0 | 1 => 2,
        _ => walk.batch_size.max(2),
    };
    if found >= needed {
        return Ok(());
    }

    let uri = source.uri().to_owned();
    let filter = source.filter().map(str::to_owned);
    let reason = match (found, &filter) {
        (0, None) => "are needed at least; it is empty: check the path, or what wrote it",
        (0, Some(_)) => "are needed at least; change the filter (`prosampler inspect` shows what is in the columns)",
        (1, None) => "are needed at least, or there is no negative; give more data",
        (1, Some(_)) => "are needed at least, or there is no negative; widen the filter, or give more data",
        (_, None) => "make a mini-batch (walk.batch_size); lower it or give more data",
        (_, Some(_)) => "make a mini-batch (walk.batch_size); lower it, widen the filter, or give more data",
    };
    Err(TooFewError::Samples { uri, filter, found, needed, reason: reason.to_owned() }.into())
}
