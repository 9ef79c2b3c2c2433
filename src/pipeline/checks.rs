//! Refuses settings, columns and rows that do not fit each other.

use arrow::datatypes::{DataType, Field, Schema};

use crate::config::{PipelineConfig, Several, Similarity, WalkConfig};
use crate::embeddings::EmbeddingTable;
use crate::encode::Encoder;
use crate::error::{ColumnError, Error, Fault, Faults, Result, TooFewError};
use crate::refresh::{GuardRules, RowRules, Snapshot, SourceWeights, StrataRule};
use crate::sample::SampleId;
use crate::simd::dot;
use crate::source::Source;
use crate::store::{ColumnPath, Key};
use crate::stream::{MASK_COLUMN, OneOf, RowColumns, negative_column};

/// Checks settings that are made in code as those of a file are checked, for a run of so many processes.
pub(super) fn check_settings(config: &PipelineConfig, has_source: bool, ranks: usize) -> Result<(), Faults> {
    let mut faults = config.faults();
    if ranks > 1 && config.refresh.is_by_clock() && config.checkpoint.dir.is_none() {
        let key = match &config.refresh {
            refresh if refresh.watch_model => "refresh.watch_model",
            refresh if refresh.every_seconds.is_some() => "refresh.every_seconds",
            _ => "refresh.when_easier",
        };
        let message = "needs a checkpoint.dir that all ranks reach, in which rank 0 says at which step each refresh \
                       begins; set that, or let refresh.every_steps alone trigger refreshes";
        faults.push(Fault::new(key, message));
    }
    let is_uri = |key: &str| key == "source.uri" || key.starts_with("sources[") && key.ends_with(".uri");
    faults.retain(|fault| !(has_source && is_uri(&fault.key)));
    Faults::none_or(Faults::SETTINGS, faults)
}

/// The columns that mini-batches carry: `payload`, the one that explicit negatives are taken from, and the mask.
pub(super) fn row_columns(
    config: &PipelineConfig,
    payload: Vec<String>,
    encoder: &dyn Encoder,
    schema: &Schema,
) -> Result<RowColumns> {
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
    Ok(RowColumns { payload, negative, one_of: one_of(config, schema)?, mask })
}

/// The column of several positives, of which mini-batches carry one.
fn one_of(config: &PipelineConfig, schema: &Schema) -> Result<Option<OneOf>> {
    let PipelineConfig { pairs, seed, .. } = config;
    let Some(column) = &pairs.positive else { return Ok(None) };
    let is_list = |data_type: &DataType| {
        let is_list = matches!(data_type, DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..));
        // A list of numbers is a vector, and one positive.
        is_list && Key::are_alike(data_type, &DataType::Utf8)
    };
    let are_several = schema.field_with_name(column).is_ok_and(|field| is_list(field.data_type()));
    match pairs.several {
        Several::One => Ok(are_several.then(|| OneOf { column: column.clone(), seed: *seed })),
        Several::All if are_several => Ok(None),
        Several::All => {
            let message = format!("is `all`, but `{column}` has one positive in each row; leave it out");
            Err(Error::setting("pairs.several", message))
        }
    }
}

/// What decides which samples share a mini-batch, and how long they are. What `[mask]` marks, guards do not keep apart.
pub(super) fn row_rules(config: &PipelineConfig, encoder: &dyn Encoder, schema: &Schema) -> RowRules {
    let PipelineConfig { guards, mask, .. } = config;
    let keys = KeysOf { config, encoder, schema };
    let of_guards = GuardRules {
        config: guards.clone(),
        keys: keys.of(guards.duplicates && !mask.duplicates, !mask.positives, &guards.distinct),
    };
    let of_mask =
        || GuardRules { config: mask.as_guards(), keys: keys.of(mask.duplicates, mask.positives, &mask.same) };
    let strata = config.strata_column().map(|column| StrataRule {
        column: column.to_owned(),
        weights: source_weights(config),
        stop: config.mixture.stop,
        batch_size: config.walk.batch_size,
        is_single: config.walk.same.is_some(),
    });
    RowRules {
        guards: of_guards,
        mask: mask.is_on().then(of_mask),
        strata,
        length: config.walk.length_column.clone(),
        weight: config.walk.weight_column.clone(),
        has_corpus: !config.pairs.corpus.is_empty(),
        epoch_samples: config.walk.epoch_samples,
    }
}

/// What gives sources their weights, if they have some.
fn source_weights(config: &PipelineConfig) -> Option<SourceWeights> {
    let given = config.sources.iter().filter_map(|source| Some((source.name.clone(), source.weight?)));
    let given = || SourceWeights::Given(given.collect());
    config.is_weighted().then(|| config.mixture.temperature.map_or_else(given, SourceWeights::OfSize))
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
    if config.similarity() == Similarity::Cross && !has_halves(&snapshot.embeddings) {
        let message = "is `cross`, but the encoder's vectors are not those of anchor and positive, one behind the \
                       other; make it with PairEncoder::new(anchor, positive, GraphOver::Cross)";
        return Err(Error::setting("pairs.graph_over", message));
    }
    if config.similarity() != Similarity::Cross && pairs.columns().is_some() && has_halves(&snapshot.embeddings) {
        let message = "is not `cross`, but the encoder's vectors are those of anchor and positive, one behind the other; \
                       set it to that, or make the encoder for the one that is set";
        return Err(Error::setting("pairs.graph_over", message));
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

/// Refuses a column of weights that holds no numbers.
pub(super) fn check_weights(schema: &Schema, column: &str) -> Result<()> {
    match schema.field_with_name(column).map(Field::data_type) {
        Ok(found) if !found.is_numeric() => Err(ColumnError::Type {
            column: column.to_owned(),
            found: found.to_string(),
            expected: "walk.weight_column needs numbers; name another column, or write them as such".to_owned(),
        }
        .into()),
        _ => Ok(()),
    }
}

/// Whether the halves of some samples' vectors are as similar as their pairs: those of anchor and positive.
fn has_halves(table: &EmbeddingTable) -> bool {
    let some = (0..table.len()).map(SampleId::new).filter(|&id| !table.is_skipped(id)).take(16);
    let is_own = |id| {
        let vector = table.get(id);
        let (anchor, positive) = vector.split_at(vector.len() / 2);
        let cosine = dot(anchor, positive) / (dot(anchor, anchor) * dot(positive, positive)).sqrt();
        table.pair_similarity(id).is_some_and(|pair| (pair - cosine).abs() < 0.02)
    };
    // Halves of one number are alike or opposite.
    table.dimension().is_multiple_of(2) && table.dimension() >= 4 && some.into_iter().all(is_own)
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
