//! Opens what a pipeline works with: its source, its encoder, and the device that builds its graphs.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};

use super::builder::GivenRows;
use super::checks::{check_sample_count, check_settings, check_weights, row_columns, row_rules};
use crate::arrow_file::{checksum, to_text};
use crate::compute::ComputePool;
use crate::config::{EncodeConfig, FeatureKind, NamedSource, PairsConfig, PipelineConfig, SourceConfig};
#[cfg(feature = "onnx")]
use crate::device::choose as choose_device;
use crate::encode::Encoder;
use crate::error::{ColumnError, Error, Result};
use crate::graph::Backend;
use crate::refresh::{ModelWatch, RowRules};
use crate::source::{self, FileSource, MixtureSource, ROLE_COLUMN, ShardSource, Source, column_indices};
use crate::store::decoded_schema;
use crate::stream::RowColumns;
use crate::walk::Lengths;

/// What a pipeline reads and embeds, with all columns looked up.
pub(super) struct Opened {
    pub source: Box<dyn Source>,
    /// The shard that the run takes, if it does not take all.
    pub shard: Option<ShardSource>,
    pub encoder: Arc<dyn Encoder>,
    /// The frozen encoder that judges which samples are too similar.
    pub guide: Option<Arc<dyn Encoder>>,
    /// Checksum of what identifies the guide's vectors, if the run can be resumed and anything does.
    pub guide_checksum: Option<String>,
    /// Watches the encoder's model from here on: a newer one may appear while the first embeddings are made.
    pub model_watch: Option<ModelWatch>,
    /// The columns that the store keeps.
    pub stored_columns: Vec<String>,
    /// The columns that mini-batches carry.
    pub row_columns: RowColumns,
    /// What decides which samples are negatives of each other.
    pub row_rules: RowRules,
    /// Names the columns of vectors that are read from rows, if no model makes any.
    pub reads_vectors: Option<String>,
}

/// What is given in code, in place of settings.
#[derive(Default)]
pub(super) struct Given {
    pub source: Option<GivenRows>,
    pub corpus: Option<Box<dyn Source>>,
    pub encoder: Option<Arc<dyn Encoder>>,
    pub guide: Option<Arc<dyn Encoder>>,
}

/// Opens the source and the encoder, unless they are given, and refuses columns that do not fit.
pub(super) async fn open(config: &PipelineConfig, given: Given, pool: &ComputePool) -> Result<Opened> {
    let Given { source, corpus, encoder, guide } = given;
    let source = match source {
        Some(GivenRows::One(source)) => source,
        Some(GivenRows::Several(sources)) => Box::new(mixture(config, sources)?),
        None => source::unfiltered(&config.source, &config.sources).await?,
    };
    let mut source = source::filtered(source, config.source.filter.as_deref())?;
    if let Some(rows) = source.rows() {
        check_sample_count(source.as_ref(), rows, &config.walk)?;
    }
    let mut shard = None;
    if config.shard.count > 1 {
        let own = ShardSource::new(source.into(), &config.shard)?;
        shard = Some(own.clone());
        source = Box::new(own);
    }
    if let Some(corpus) = open_corpus(config, corpus).await? {
        source = Box::new(MixtureSource::with_corpus(source, corpus, &config.pairs)?);
    }
    // The store decodes dictionaries, so later stages see the schema without them.
    let schema: SchemaRef = decoded_schema(&source.schema()).into();
    let payload = payload_columns(config, &schema);
    column_indices(source.uri(), &schema, &payload)?;
    if let Some(label) = &config.report.label {
        column_indices(source.uri(), &schema, std::slice::from_ref(label))?;
    }

    let is_own = encoder.is_some();
    // An encoder knows the columns, and not whose they are.
    let of_source = |error| match error {
        Error::Column(ColumnError::Missing { column, available, .. }) => {
            ColumnError::Missing { column, uri: source.uri().to_owned(), available }.into()
        }
        other => other,
    };
    let open_encoder = |encode: EncodeConfig| open_encoder(encode, config.pairs.clone(), schema.clone(), pool);
    let encoder = match encoder {
        Some(encoder) => encoder,
        None => open_encoder(config.encode.clone()).await.map_err(of_source)?,
    };
    let guide = match (guide, &config.guards.guide) {
        (Some(guide), _) => Some(guide),
        (None, Some(guide)) => Some(open_encoder(guide.over(&config.encode)).await.map_err(of_source)?),
        (None, None) => None,
    };
    let guide_checksum = match &guide {
        Some(guide) if config.checkpoint.dir.is_some() => guide_checksum(guide.clone(), config, pool).await?,
        _ => None,
    };
    let model_watch = if config.refresh.watch_model { ModelWatch::open(encoder.as_ref()).await } else { None };

    let encoders = [Some(&encoder), guide.as_ref()];
    let encoders: Vec<_> = encoders.into_iter().flatten().map(AsRef::as_ref).collect();
    let stored_columns = stored_columns(config, &payload, &encoders);
    column_indices(source.uri(), &schema, &stored_columns)?;
    encoders.iter().try_for_each(|encoder| encoder.accepts(source.uri(), &schema))?;
    if let Some(column) = &config.walk.length_column {
        Lengths::check_type(&schema, column)?;
    }
    if let Some(column) = &config.walk.weight_column {
        check_weights(&schema, column)?;
    }
    let row_rules = row_rules(config, encoder.as_ref(), &schema);
    let row_columns = row_columns(config, payload, encoder.as_ref(), &schema)?;
    let is_vector = !is_own && config.encode.kind() == FeatureKind::Vector && config.encode.views.is_empty();
    let reads_vectors = is_vector.then(|| format!("{:?} {:?}", config.encode, config.pairs));
    Ok(Opened {
        source,
        shard,
        encoder,
        guide,
        guide_checksum,
        model_watch,
        stored_columns,
        row_columns,
        row_rules,
        reads_vectors,
    })
}

/// Checksum of what identifies the vectors of a guide; `None` if nothing does.
async fn guide_checksum(
    guide: Arc<dyn Encoder>,
    config: &PipelineConfig,
    pool: &ComputePool,
) -> Result<Option<String>> {
    let of_settings = config.guards.guide.as_ref().map(|guide| guide.over(&config.encode));
    let column = of_settings.filter(|encode| encode.kind() == FeatureKind::Vector).map(|encode| encode.column);
    let identity = pool.run("guide", move || Ok(guide.identity().or_else(|| Some(format!("{:?}", column?))))).await?;
    Ok(identity.map(|identity| to_text(checksum(identity.as_bytes()))))
}

/// Joins sources that are given by name, with what the settings say about them.
fn mixture(config: &PipelineConfig, sources: Vec<(String, Box<dyn Source>)>) -> Result<MixtureSource> {
    if let Some(missing) = config.sources.iter().find(|of| sources.iter().all(|(name, _)| *name != of.name)) {
        let message = format!("name `{}`, of which no rows are given; give some, or take it out", missing.name);
        return Err(Error::setting("sources", message));
    }
    let with_settings = |(name, source): (String, Box<dyn Source>)| {
        let settings = config.sources.iter().find(|settings| settings.name == name).cloned();
        let settings = settings.unwrap_or(NamedSource { name, ..NamedSource::default() });
        let source = source::filtered(source, settings.filter.as_deref())?;
        Ok((settings, source))
    };
    MixtureSource::new(sources.into_iter().map(with_settings).collect::<Result<_>>()?)
}

/// Opens the texts that are beyond the pairs, if there are some.
async fn open_corpus(config: &PipelineConfig, given: Option<Box<dyn Source>>) -> Result<Option<Box<dyn Source>>> {
    if given.is_some() || config.pairs.corpus.is_empty() {
        return Ok(given);
    }
    let files = SourceConfig { uri: config.pairs.corpus.clone(), ..config.source.clone() };
    Ok(Some(Box::new(FileSource::open_all(&files).await?)))
}

/// Opens the source alone, with the columns that a run keeps of it.
///
/// # Errors
/// As a start of the pipeline: also those of its encoder, which says which columns it reads.
pub(crate) async fn open_source(config: &PipelineConfig, pool: &ComputePool) -> Result<(Box<dyn Source>, Vec<String>)> {
    check_settings(config, false, 1)?;
    let Opened { source, stored_columns, .. } = open(config, Given::default(), pool).await?;
    Ok((source, stored_columns))
}

/// The columns that mini-batches carry: those of the settings, or all.
fn payload_columns(config: &PipelineConfig, schema: &Schema) -> Vec<String> {
    match &config.source.columns {
        Some(columns) => columns.clone(),
        None => {
            let is_role = |name: &String| name == ROLE_COLUMN && !config.pairs.corpus.is_empty();
            schema.fields().iter().map(|field| field.name().clone()).filter(|name| !is_role(name)).collect()
        }
    }
}

/// The columns that mini-batches carry, then those that only the encoders, the guards, the mask or the ranks read.
fn stored_columns(config: &PipelineConfig, payload: &[String], encoders: &[&dyn Encoder]) -> Vec<String> {
    let pairs = config.pairs.columns().into_iter().flatten();
    let of_rules = config.guards.distinct.iter().chain(&config.mask.same);
    let of_rules = of_rules.chain(&config.walk.length_column).chain(&config.walk.weight_column);
    let read = encoders.iter().flat_map(|encoder| encoder.columns()).chain(pairs).chain(of_rules).map(String::as_str);
    let role = (!config.pairs.corpus.is_empty()).then_some(ROLE_COLUMN);
    let mut columns = payload.to_vec();
    for column in read.chain(config.strata_column()).chain(role) {
        if !columns.iter().any(|known| known == column) {
            columns.push(column.to_owned());
        }
    }
    columns
}

pub(super) async fn open_encoder(
    encode: EncodeConfig,
    pairs: PairsConfig,
    schema: SchemaRef,
    pool: &ComputePool,
) -> Result<Arc<dyn Encoder>> {
    pool.run("model", move || crate::encode::open_of(&encode, &pairs, &schema)).await
}

/// What graphs are built on: the processor, or the device that the settings ask for, which is tried first.
pub(super) async fn open_backend(config: &PipelineConfig, pool: &ComputePool) -> Result<Backend> {
    let wanted = config.graph.device;
    let encode = config.encode.clone();
    let device = pool.run("device", move || choose_device(wanted, &encode)).await?;
    Ok(Backend::new(config.graph.clone(), device))
}

#[cfg(not(feature = "onnx"))]
fn choose_device(
    wanted: crate::config::GraphDevice,
    _: &crate::config::EncodeConfig,
) -> Result<Option<Arc<dyn crate::graph::Device>>> {
    match wanted {
        crate::config::GraphDevice::Cuda => {
            let message = "is `cuda`, but this build runs no ONNX Runtime (cargo feature `onnx`); set it to `cpu`";
            Err(Error::setting("graph.device", message))
        }
        _ => Ok(None),
    }
}
