use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use rayon::prelude::*;

use super::features::{self, Batch, Feature, Samples};
use super::inputs;
use super::model::{Model, Models};
use super::pooling::{normalize, pool};
use super::{BadRow, Encoded, Encoder, refuse};
use crate::config::{EncodeConfig, Fault, Faults, FeatureKind, Pooling, Provider};
use crate::error::{Error, Result, quoted};
use crate::source::positions;
use crate::telemetry;

/// Runs rows through an ONNX model on ONNX Runtime: texts, images, tensors or graphs, on CPU or GPU, as [`EncodeConfig`]
/// says.
///
/// As many copies of the model as there are threads, each on one thread, over small batches of like lengths: on a CPU
/// that beats one copy on all threads. Nearly all the time is spent in the model. The vectors do not depend on the
/// number of threads.
pub struct OnnxEncoder {
    name: String,
    model: Arc<Model>,
    models: Models,
    feature: Box<dyn Feature>,
    output: String,
    dimension: usize,
    /// Lowered where the model ran out of memory.
    batch_rows: AtomicUsize,
    batch_tokens: usize,
    halvings: AtomicU64,
    config: EncodeConfig,
}

impl OnnxEncoder {
    /// Loads ONNX Runtime if need be, opens the model and what else the feature needs, and tries them. Blocks for as long
    /// as the model takes to load (a second or so for 100 MB). For settings with views, see [`open`](super::open()).
    ///
    /// # Errors
    /// [`Error::Config`] without model or column; [`Error::RuntimeMissing`] and [`Error::RuntimeLoad`];
    /// [`Error::NotFound`]; [`Error::Model`] for what is no ONNX, needs other inputs than the feature gives, or gives no
    /// finite vector; [`Error::Tokenizer`].
    pub fn open(config: &EncodeConfig) -> Result<Self> {
        Self::open_among(config, &Models::default())
    }

    /// The same; the model may be among those that others have open.
    pub(super) fn open_among(config: &EncodeConfig, models: &Models) -> Result<Self> {
        let path = required(config)?;
        if !path.is_file() {
            let hint = "; give an ONNX model as `encode.model` (--model)".into();
            return Err(Error::NotFound { uri: path.display().to_string(), hint });
        }
        let model = models.open(&path, config)?;
        let feature = features::open(config, &model)?;
        inputs::check(feature.kind(), &model.inputs, &feature.given()).map_err(|reason| model.fault(reason, None))?;
        let output = choose_output(&model, config.output.as_deref())?;
        // A model for one sample at a time, as some exports are.
        let single = config.kind() != FeatureKind::Graph && model.inputs.iter().any(|i| i.dimension(0) == Some(1));
        let automatic = if model.provider == Provider::Cpu { CPU_BATCH } else { GPU_BATCH };
        let or = |given: usize, automatic: usize| if given == 0 { automatic } else { given };
        let (batch_rows, batch_tokens) = (or(config.batch_rows, automatic.0), or(config.batch_tokens, automatic.1));
        let mut encoder = Self {
            name: path.display().to_string(),
            model,
            models: models.clone(),
            feature,
            output,
            dimension: 0,
            batch_rows: AtomicUsize::new(if single { 1 } else { batch_rows }),
            batch_tokens,
            halvings: AtomicU64::new(0),
            config: config.clone(),
        };
        encoder.dimension = encoder.probe()?;
        let (provider, sessions) = (encoder.model.provider, encoder.model.sessions());
        telemetry::model_opened(&encoder.model.path, encoder.dimension, provider.name(), sessions);
        Ok(encoder)
    }

    /// Embeds one sample; the length of its vector is the dimension.
    fn probe(&self) -> Result<usize> {
        let vector = self.run(&mut self.feature.probe()?)?;
        if vector.is_empty() || vector.iter().any(|x| !x.is_finite()) {
            let kind = self.feature.kind();
            let reason = format!("gives no finite vector for a sample of {kind}; export it again, in f32");
            return Err(self.model.fault(reason, None));
        }
        Ok(vector.len())
    }

    /// The vectors of a batch, [rows × dimension].
    fn run(&self, batch: &mut Batch) -> Result<Vec<f32>> {
        let (rows, pooling) = (batch.rows.len(), self.config.pooling);
        let lengths = batch.lengths.take();
        self.model.run(std::mem::take(&mut batch.inputs), &self.output, |shape, states| {
            let longest = |l: i64| lengths.as_ref().is_none_or(|(_, longest)| l == *longest as i64);
            let mut vectors = match *shape {
                [n, d] if n == rows as i64 && d > 0 => states.to_vec(),
                [n, l, d] if n == rows as i64 && longest(l) && d > 0 && pooling != Pooling::None => {
                    let all = || (vec![l as usize; rows], l as usize);
                    let (lengths, longest) = lengths.clone().unwrap_or_else(all);
                    pool(states, lengths.into_iter(), longest, d as usize, pooling)
                }
                _ => return Err(self.model.fault(self.unfit(shape, rows, lengths.map(|(_, longest)| longest)), None)),
            };
            if self.config.normalize {
                let dimension = vectors.len() / rows;
                normalize(&mut vectors, dimension);
            }
            Ok(vectors)
        })
    }

    /// What it runs on.
    #[must_use]
    pub fn provider(&self) -> Provider {
        self.model.provider
    }

    /// How often a batch was halved since the model had run out of memory.
    #[must_use]
    pub fn halvings(&self) -> u64 {
        self.halvings.load(Relaxed)
    }

    /// Rows that go through the model together, or in halves where it has not enough memory for all, or refuses them:
    /// then a single one may be at fault.
    fn encode_group(&self, samples: &dyn Samples, group: &[usize]) -> Result<Vec<(Batch, Vec<f32>)>> {
        let mut batch = samples.batch(group)?;
        if batch.rows.is_empty() {
            return Ok(vec![(batch, Vec::new())]);
        }
        match self.run(&mut batch) {
            Err(error @ (Error::ModelMemory { .. } | Error::Model { cause: Some(_), .. })) if group.len() > 1 => {
                let (first, second) = group.split_at(group.len().div_ceil(2));
                if matches!(error, Error::ModelMemory { .. }) {
                    self.halvings.fetch_add(1, Relaxed);
                    if self.batch_rows.fetch_min(first.len(), Relaxed) > first.len() {
                        telemetry::halved(first.len());
                    }
                }
                let mut encoded = self.encode_group(samples, first)?;
                encoded.extend(self.encode_group(samples, second)?);
                Ok(encoded)
            }
            // Where it runs at all.
            Err(Error::Model { cause: Some(cause), .. }) if self.probe().is_ok() => {
                let reason = format!("is refused by the model (ONNX Runtime says: {cause})");
                let bad = BadRow { row: group[0], column: self.columns()[0].clone(), reason };
                Ok(vec![(Batch { bad: vec![bad], ..Batch::default() }, Vec::new())])
            }
            vectors => Ok(vec![(batch, vectors?)]),
        }
    }

    fn unfit(&self, shape: &[i64], rows: usize, longest: Option<usize>) -> String {
        let length = longest.map(|longest| format!(" of length {longest}")).unwrap_or_default();
        let (expected, remedy) = match self.config.pooling {
            Pooling::None => ("[batch, dimension], since encode.pooling is \"none\"", "set encode.pooling, or"),
            _ => ("[batch, dimension] or [batch, sequence, dimension]", "export it so, or"),
        };
        format!(
            "gives output `{}` the shape {shape:?} for {rows} samples{length}; expected {expected}: {remedy} name another \
             output as `encode.output`",
            self.output
        )
    }
}

impl Encoder for OnnxEncoder {
    fn name(&self) -> &str {
        &self.name
    }

    fn columns(&self) -> &[String] {
        self.feature.columns()
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn accepts(&self, uri: &str, schema: &Schema) -> Result<()> {
        positions(uri, schema, self.feature.columns())?;
        self.feature.accepts(schema)
    }

    fn model_file(&self) -> Option<&Path> {
        Some(&self.model.path)
    }

    fn newer(&self) -> Result<Option<Arc<dyn Encoder>>> {
        if !self.model.is_outdated()? {
            return Ok(None);
        }
        Ok(Some(Arc::new(Self::open_among(&self.config, &self.models)?)))
    }

    /// On a GPU the next rows are tokenised or decoded while it runs.
    fn calls_at_once(&self) -> usize {
        if self.model.provider == Provider::Cpu { 1 } else { 2 }
    }

    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()> {
        refuse(&self.name, self.encode_readable(rows, vectors)?.bad)
    }

    fn encode_readable(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<Encoded> {
        let samples = self.feature.prepare(rows)?;
        let groups = samples.groups(self.batch_rows.load(Relaxed), self.batch_tokens);
        let encode = |group: &Vec<usize>| self.encode_group(samples.as_ref(), group);
        let encoded = groups.par_iter().with_max_len(1).map(encode).collect::<Result<Vec<_>>>()?;
        let mut bad = Vec::new();
        for (batch, encoded) in encoded.into_iter().flatten() {
            if encoded.len() != batch.rows.len() * self.dimension {
                let reason = format!(
                    "gave vectors of {} numbers after vectors of {}; its output dimension must be fixed",
                    encoded.len() / batch.rows.len(),
                    self.dimension
                );
                return Err(self.model.fault(reason, None));
            }
            for (row, vector) in batch.rows.into_iter().zip(encoded.chunks_exact(self.dimension)) {
                vectors[row * self.dimension..][..self.dimension].copy_from_slice(vector);
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
            .field("dimension", &self.dimension)
            .field("sessions", &self.model.sessions())
            .finish_non_exhaustive()
    }
}

/// The model's path; all that is missing is named.
fn required(config: &EncodeConfig) -> Result<PathBuf> {
    let fault = |key: &str, message: &str| Fault { key: format!("encode.{key}"), line: None, message: message.into() };
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
        _ => Err(Faults { origin: "the settings".into(), faults }.into()),
    }
}

fn choose_output(model: &Model, wanted: Option<&str>) -> Result<String> {
    let names = &model.outputs;
    let has = |name: &str| names.iter().any(|n| n == name);
    let chosen = match wanted {
        Some(name) => has(name).then_some(name),
        None => PREFERRED_OUTPUTS.into_iter().find(|n| has(n)).or(match &names[..] {
            [only] => Some(only.as_str()),
            _ => None,
        }),
    };
    chosen.map(str::to_owned).ok_or_else(|| {
        let wanted = wanted.unwrap_or("sentence_embedding");
        let reason = format!("has no output `{wanted}`; it has {}: name one as `encode.output`", quoted(names));
        model.fault(reason, None)
    })
}

/// Rows and tokens that go through the model at once: what stays in a processor's caches, and what fills a GPU.
const CPU_BATCH: (usize, usize) = (32, 512);
const GPU_BATCH: (usize, usize) = (1024, 65_536);

const PREFERRED_OUTPUTS: [&str; 3] = ["sentence_embedding", "last_hidden_state", "token_embeddings"];
