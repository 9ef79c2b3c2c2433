//! An encoder that runs ONNX models.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use rayon::prelude::*;

use super::batching::Grouping;
use super::features::{self, Batch, Feature, Samples};
use super::inputs;
use super::model::{Model, Models};
use super::outputs::Output;
use super::pooling::normalize;
use super::{BadRow, Encoded, Encoder, refuse};
use crate::config::{EncodeConfig, FeatureKind, Provider};
use crate::error::{Error, Fault, Faults, ModelError, Result};
use crate::source::column_indices;
use crate::telemetry;

/// Encodes texts, images, tensors or graphs with an ONNX model, on CPU or GPU.
///
/// [`EncodeConfig`] has the settings. On a CPU there is a copy of the model for each thread, which runs small batches
/// of similar lengths; that is faster than one copy on all threads. Nearly all the time is spent in the model. The
/// vectors do not depend on the number of threads.
pub struct OnnxEncoder {
    name: String,
    pub(super) model: Arc<Model>,
    models: Models,
    pub(super) feature: Box<dyn Feature>,
    pub(super) output: Output,
    pub(super) grouping: Grouping,
    /// The batch size, if the model fixes it.
    pub(super) exact_rows: Option<usize>,
    /// The most rows of a batch; lowered if the model runs out of memory.
    batch_rows: AtomicUsize,
    /// The most tokens of a batch, with padding.
    batch_tokens: usize,
    halvings: AtomicU64,
    config: EncodeConfig,
}

impl OnnxEncoder {
    /// Opens the model and what else the feature needs, and tries them on samples of its own.
    ///
    /// Loads ONNX Runtime if it is not loaded yet. Blocks while the model is loaded. For settings with views, see
    /// [`open`](super::open()).
    ///
    /// # Errors
    /// - [`Error::Config`] if model or column is missing.
    /// - [`OnnxRuntimeError::Missing`](crate::error::OnnxRuntimeError::Missing) and
    ///   [`OnnxRuntimeError::Load`](crate::error::OnnxRuntimeError::Load).
    /// - [`Error::NotFound`] if a file is missing.
    /// - [`ModelError::Unusable`] if the model is not ONNX, needs other inputs than the feature gives, or gives no
    ///   finite vector.
    /// - [`ModelError::Tokenizer`] if the tokenizer cannot be read.
    pub fn open(config: &EncodeConfig) -> Result<Self> {
        Self::open_among(config, &Models::default())
    }

    /// Opens an encoder like [`open`](Self::open), which shares the models that are open already.
    pub(super) fn open_among(config: &EncodeConfig, models: &Models) -> Result<Self> {
        let path = required(config)?;
        if !path.is_file() {
            let hint = Some("give an ONNX model as `encode.model` (--model)".into());
            return Err(Error::NotFound { uri: path.display().to_string(), hint });
        }
        let model = models.open(&path, config)?;
        let feature = features::open(config, &model)?;
        inputs::check(feature.kind(), &model.inputs, &feature.given()).map_err(|reason| model.fault(reason, None))?;
        let output = Output::choose(&model, config)?;
        let exact_rows = exact_rows(config.kind(), &model, feature.as_ref());
        let automatic = if model.provider == Provider::Cpu { CPU_BATCH } else { GPU_BATCH };
        let or = |given: usize, automatic: usize| if given == 0 { automatic } else { given };
        let batch_rows = or(config.batch_rows, automatic.0);
        let batch_tokens = or(config.batch_tokens, automatic.1);
        let mut encoder = Self {
            name: path.display().to_string(),
            grouping: feature.grouping(),
            models: models.clone(),
            model,
            feature,
            output,
            exact_rows,
            batch_rows: AtomicUsize::new(exact_rows.unwrap_or(batch_rows)),
            batch_tokens: if exact_rows.is_some() { usize::MAX } else { batch_tokens },
            halvings: AtomicU64::new(0),
            config: config.clone(),
        };
        encoder.try_out()?;
        let provider = encoder.model.provider.name();
        telemetry::model_opened(&encoder.model.path, encoder.dimension(), provider, encoder.model.sessions());
        Ok(encoder)
    }

    /// Runs the model on a batch, and returns the vectors [rows × dimension].
    pub(super) fn run(&self, batch: &mut Batch) -> Result<Vec<f32>> {
        let rows = batch.rows.len();
        let mut inputs = std::mem::take(&mut batch.inputs);
        let given = self.exact_rows.unwrap_or(rows);
        inputs::pad_rows(&mut inputs, &self.model.inputs, rows, given);
        self.model.run(inputs, &self.output.declared.name, |shape, numbers| {
            let vectors = self.output.vectors(shape, numbers, (rows, given), &batch.counted);
            let mut vectors = vectors.ok_or_else(|| {
                let longest = batch.counted.first().map(|counted| counted.longest);
                self.model.fault(self.output.unfit(shape, given, longest), None)
            })?;
            if self.config.normalize {
                let dimension = vectors.len() / rows;
                normalize(&mut vectors, dimension);
            }
            Ok(vectors)
        })
    }

    /// Returns the execution provider that the model runs on.
    #[must_use]
    pub fn provider(&self) -> Provider {
        self.model.provider
    }

    /// Returns how often a batch was halved since the model ran out of memory.
    #[must_use]
    pub fn halvings(&self) -> u64 {
        self.halvings.load(Relaxed)
    }

    /// Runs a group of rows through the model, and returns the batches with their vectors.
    ///
    /// If the model runs out of memory, or refuses the batch, the group is halved. A single row that is refused is bad.
    fn encode_group(&self, samples: &dyn Samples, group: &[usize]) -> Result<Vec<(Batch, Vec<f32>)>> {
        let mut batch = samples.batch(group)?;
        if batch.rows.is_empty() {
            return Ok(vec![(batch, Vec::new())]);
        }
        match self.run(&mut batch) {
            Err(Error::Model(
                error @ (ModelError::OutOfMemory { .. } | ModelError::Unusable { cause: Some(_), .. }),
            )) if group.len() > 1
                && !(self.exact_rows.is_some() && matches!(error, ModelError::OutOfMemory { .. })) =>
            {
                let (first, second) = group.split_at(group.len().div_ceil(2));
                if matches!(error, ModelError::OutOfMemory { .. }) {
                    self.halvings.fetch_add(1, Relaxed);
                    if self.batch_rows.fetch_min(first.len(), Relaxed) > first.len() {
                        telemetry::halved(first.len());
                    }
                }
                let mut encoded = self.encode_group(samples, first)?;
                encoded.extend(self.encode_group(samples, second)?);
                Ok(encoded)
            }
            // The row is at fault only if the model still runs with other samples.
            Err(Error::Model(ModelError::Unusable { cause: Some(cause), .. })) if self.runs() => {
                let reason = format!("is refused by the model (ONNX Runtime says: {cause})");
                let bad = BadRow { row: group[0], column: self.columns()[0].clone(), reason };
                Ok(vec![(Batch { bad: vec![bad], ..Batch::default() }, Vec::new())])
            }
            vectors => Ok(vec![(batch, vectors?)]),
        }
    }
}

impl Encoder for OnnxEncoder {
    fn name(&self) -> &str {
        &self.name
    }

    fn columns(&self) -> &[String] {
        self.feature.columns()
    }

    fn field(&self, column: &str) -> Option<&str> {
        self.feature.field(column)
    }

    fn dimension(&self) -> usize {
        self.output.dimension
    }

    fn accepts(&self, uri: &str, schema: &Schema) -> Result<()> {
        column_indices(uri, schema, self.feature.columns())?;
        self.feature.accepts(schema)
    }

    fn model_file(&self) -> Option<&Path> {
        Some(&self.model.path)
    }

    fn model_files(&self) -> Vec<&Path> {
        self.model.files().collect()
    }

    fn newer(&self) -> Result<Option<Arc<dyn Encoder>>> {
        if !self.model.is_outdated()? {
            return Ok(None);
        }
        Ok(Some(Arc::new(Self::open_among(&self.config, &self.models)?)))
    }

    fn identity(&self) -> Option<String> {
        super::identity::of(&self.model, &self.config)
    }

    /// On a GPU, the next rows are tokenised or decoded while the model runs.
    fn calls_at_once(&self) -> usize {
        if self.model.provider == Provider::Cpu { 1 } else { 2 }
    }

    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()> {
        refuse(&self.name, self.encode_readable(rows, vectors)?.bad)
    }

    fn encode_readable(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<Encoded> {
        let samples = self.feature.prepare(rows)?;
        let rows = if self.grouping == Grouping::Alone { 1 } else { self.batch_rows.load(Relaxed) };
        let groups = samples.groups(self.grouping, rows, self.batch_tokens);
        let encode = |group: &Vec<usize>| self.encode_group(samples.as_ref(), group);
        let encoded = groups.par_iter().with_max_len(1).map(encode).collect::<Result<Vec<_>>>()?;
        let mut bad = Vec::new();
        let dimension = self.dimension();
        for (batch, encoded) in encoded.into_iter().flatten() {
            if encoded.len() != batch.rows.len() * dimension {
                let reason = format!(
                    "gave vectors of {} numbers after vectors of {dimension}; its output dimension must be fixed",
                    encoded.len() / batch.rows.len()
                );
                return Err(self.model.fault(reason, None));
            }
            for (row, vector) in batch.rows.into_iter().zip(encoded.chunks_exact(dimension)) {
                vectors[row * dimension..][..dimension].copy_from_slice(vector);
            }
            bad.extend(batch.bad);
        }
        bad.sort_by_key(|bad| bad.row);
        Ok(Encoded { bad, ..Encoded::default() })
    }
}

impl std::fmt::Debug for OnnxEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnnxEncoder")
            .field("model", &self.model.path)
            .field("columns", &self.feature.columns())
            .field("dimension", &self.dimension())
            .field("sessions", &self.model.sessions())
            .finish_non_exhaustive()
    }
}

/// Returns the path of the model, or an error that names all settings that are missing.
fn required(config: &EncodeConfig) -> Result<PathBuf> {
    let fault = |key: &str, message: &str| Fault::new(format!("encode.{key}"), message);
    let mut faults = Vec::new();
    if config.model.is_none() {
        faults.push(fault("model", "is required; give the path of an ONNX model"));
    }
    let what = match config.kind() {
        FeatureKind::Text => "is required; name the string column to embed",
        FeatureKind::Image => "is required; name the column of images to embed",
        FeatureKind::Tensor | FeatureKind::Graph | FeatureKind::Vector => "",
    };
    if config.column.is_none() && !what.is_empty() {
        faults.push(fault("column", what));
    }
    if config.kind() == FeatureKind::Vector {
        faults.push(fault("feature", "is `vector`, which needs no model; open a ColumnEncoder"));
    }
    if !config.views.is_empty() {
        faults.push(fault("views", "make a combined encoder; open it with prosampler::encode::open"));
    }
    match &config.model {
        Some(model) if faults.is_empty() => Ok(model.clone()),
        _ => Err(Faults { origin: Faults::SETTINGS.into(), faults }.into()),
    }
}

/// Returns the batch size that the model fixes, as some exports do.
fn exact_rows(kind: FeatureKind, model: &Model, feature: &dyn Feature) -> Option<usize> {
    // The inputs for graphs have no axis for samples.
    if kind == FeatureKind::Graph {
        return None;
    }
    let given = feature.given();
    let of_samples = |name: &str| given.iter().any(|given| given.is_required && given.name == name);
    let inputs = model.inputs.iter().filter(|input| of_samples(&input.name) || of_samples(input.base_name()));
    inputs.filter_map(|input| input.dimension(0)).max()
}

/// The most rows and tokens of a batch by default: what remains in a CPU's caches, and what keeps a GPU busy.
const CPU_BATCH: (usize, usize) = (32, 512);
const GPU_BATCH: (usize, usize) = (1024, 65_536);
