use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use ort::session::{Session, SessionInputValue};
use ort::value::{Tensor, TensorElementType, ValueType};
use rayon::prelude::*;

use super::Encoder;
use super::batching::length_sorted;
use super::features::text::{TextFeature, Tokens};
use super::runtime::Runtime;
use crate::config::{EncodeConfig, Pooling};
use crate::error::{Cause, Error, Result, quoted};
use crate::telemetry;

/// Runs a text column through an ONNX model on ONNX Runtime's CPU execution provider.
///
/// As many copies of the model as there are threads, each on one thread, over small batches of like lengths: on a CPU
/// that beats one copy on all threads. Nearly all the time is spent in the model. The vectors do not depend on the
/// number of threads.
pub struct OnnxEncoder {
    name: String,
    path: PathBuf,
    text: TextFeature,
    sessions: Vec<Mutex<Session>>,
    inputs: Vec<Input>,
    output: String,
    pooling: Pooling,
    dimension: usize,
    batch_rows: usize,
    batch_tokens: usize,
    config: EncodeConfig,
    /// Of the file, when it was opened.
    version: (u64, Option<SystemTime>),
}

/// An input that the model declares.
#[derive(Clone, Copy, Debug)]
struct Input {
    content: Content,
    narrow: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Content {
    InputIds,
    AttentionMask,
    TokenTypeIds,
}

impl Content {
    const ALL: [(&'static str, Self); 3] = [
        ("input_ids", Self::InputIds),
        ("attention_mask", Self::AttentionMask),
        ("token_type_ids", Self::TokenTypeIds),
    ];

    fn name(self) -> &'static str {
        Self::ALL[self as usize].0
    }
}

impl OnnxEncoder {
    /// Loads ONNX Runtime if need be, opens model and tokenizer, and tries them on a text. Blocks for as long as the
    /// model takes to load (a second or so for 100 MB).
    ///
    /// # Errors
    /// [`Error::Config`] without model or column; [`Error::RuntimeMissing`] and [`Error::RuntimeLoad`];
    /// [`Error::NotFound`]; [`Error::Model`] for what is no ONNX, needs other inputs than text gives, or gives no
    /// finite vector; [`Error::Tokenizer`].
    pub fn open(config: &EncodeConfig) -> Result<Self> {
        let (path, column) = required(config)?;
        if !path.is_file() {
            let hint = "; give an ONNX model as `encode.model` (--model)".into();
            return Err(Error::NotFound { uri: path.display().to_string(), hint });
        }
        let version = version(&path)?;
        let beside = || path.with_file_name("tokenizer.json");
        let tokenizer = config.tokenizer.clone().unwrap_or_else(beside);
        let text = TextFeature::open(&tokenizer, column, config.max_tokens)?;
        let runtime = Runtime::load(config.runtime.as_deref())?;
        let first = open_session(&runtime, &path)?;
        let inputs = text_inputs(&path, &first)?;
        let output = choose_output(&path, &first, config.output.as_deref())?;
        let count = match config.sessions {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            given => given,
        };
        let more = (1..count).into_par_iter().map(|_| open_session(&runtime, &path)).collect::<Result<Vec<_>>>()?;
        let mut encoder = Self {
            name: path.display().to_string(),
            path,
            text,
            sessions: std::iter::once(first).chain(more).map(Mutex::new).collect(),
            inputs,
            output,
            pooling: config.pooling,
            dimension: 0,
            batch_rows: config.batch_rows,
            batch_tokens: config.batch_tokens,
            config: config.clone(),
            version,
        };
        encoder.dimension = encoder.probe()?;
        telemetry::model_opened(&encoder.path, encoder.dimension, "cpu", encoder.sessions.len());
        Ok(encoder)
    }

    /// Embeds one text; its length is the dimension.
    fn probe(&self) -> Result<usize> {
        let probe = arrow::array::StringArray::from(vec!["a short text to try the model on"]);
        let tokens = self.text.tokens(&probe)?;
        let vector = self.run(&tokens, &[0])?;
        if vector.is_empty() || vector.iter().any(|x| !x.is_finite()) {
            let reason = "gives no finite vector for a short text; export it again, in f32".to_owned();
            return Err(self.fault(reason, None));
        }
        Ok(vector.len())
    }

    /// The vectors of `rows`, [rows × dimension].
    fn run(&self, tokens: &[Tokens], rows: &[usize]) -> Result<Vec<f32>> {
        let longest = rows.iter().map(|&row| tokens[row].ids.len()).max().unwrap_or(0).max(1);
        let failed = |e: ort::Error| self.fault("cannot be run".into(), Some(e.message().to_owned().into()));
        let mut values = Vec::with_capacity(self.inputs.len());
        for input in &self.inputs {
            let value = self.input(input, tokens, rows, longest).map_err(failed)?;
            values.push((input.content.name(), value));
        }
        let worker = rayon::current_thread_index().unwrap_or(0) % self.sessions.len();
        let mut session = self.sessions[worker].lock().unwrap_or_else(PoisonError::into_inner);
        let outputs = session.run(values).map_err(failed)?;
        let (shape, states) = outputs[self.output.as_str()].try_extract_tensor::<f32>().map_err(failed)?;
        match shape[..] {
            [n, d] if n == rows.len() as i64 && d > 0 => Ok(states.to_vec()),
            [n, l, d] if n == rows.len() as i64 && l == longest as i64 && d > 0 => {
                let lengths = rows.iter().map(|&row| tokens[row].ids.len());
                Ok(pool(states, lengths, longest, d as usize, self.pooling))
            }
            _ => {
                let reason = format!(
                    "gives output `{}` the shape {:?} for {} texts of {longest} tokens; expected [batch, dimension] \
                     or [batch, sequence, dimension]: name another as `encode.output`",
                    self.output,
                    &shape[..],
                    rows.len(),
                );
                Err(self.fault(reason, None))
            }
        }
    }

    fn input(
        &self,
        input: &Input,
        tokens: &[Tokens],
        rows: &[usize],
        longest: usize,
    ) -> ort::Result<SessionInputValue<'static>> {
        let mut values = Vec::with_capacity(rows.len() * longest);
        for &row in rows {
            let Tokens { ids, type_ids } = &tokens[row];
            let end = values.len() + longest;
            let padding = match input.content {
                Content::InputIds => {
                    values.extend_from_slice(ids);
                    self.text.padding()
                }
                Content::TokenTypeIds => {
                    values.extend_from_slice(type_ids);
                    0
                }
                Content::AttentionMask => {
                    values.resize(values.len() + ids.len(), 1);
                    0
                }
            };
            values.resize(end, padding);
        }
        let shape = [rows.len(), longest];
        if input.narrow {
            // Token ids fit 32 bits: they were u32 in the tokenizer.
            let values: Vec<_> = values.into_iter().map(|v| v as i32).collect();
            return Ok(Tensor::from_array((shape, values))?.into());
        }
        Ok(Tensor::from_array((shape, values))?.into())
    }

    fn fault(&self, reason: String, cause: Option<Cause>) -> Error {
        fault(&self.path, reason, cause)
    }
}

impl Encoder for OnnxEncoder {
    fn name(&self) -> &str {
        &self.name
    }

    fn columns(&self) -> &[String] {
        &self.text.column
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn accepts(&self, uri: &str, schema: &Schema) -> Result<()> {
        self.text.accepts(uri, schema)
    }

    fn model_file(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn newer(&self) -> Result<Option<Arc<dyn Encoder>>> {
        if version(&self.path)? == self.version {
            return Ok(None);
        }
        Ok(Some(Arc::new(Self::open(&self.config)?)))
    }

    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()> {
        let tokens = self.text.tokens(rows.column(0))?;
        let lengths: Vec<_> = tokens.iter().map(|t| t.ids.len()).collect();
        let groups = length_sorted(&lengths, self.batch_rows, self.batch_tokens);
        let encoded =
            groups.par_iter().with_max_len(1).map(|group| self.run(&tokens, group)).collect::<Result<Vec<_>>>()?;
        for (group, encoded) in groups.iter().zip(&encoded) {
            if encoded.len() != group.len() * self.dimension {
                let reason = format!(
                    "gave vectors of {} numbers after vectors of {}; its output dimension must be fixed",
                    encoded.len() / group.len(),
                    self.dimension
                );
                return Err(self.fault(reason, None));
            }
            for (&row, vector) in group.iter().zip(encoded.chunks_exact(self.dimension)) {
                vectors[row * self.dimension..][..self.dimension].copy_from_slice(vector);
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for OnnxEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnnxEncoder")
            .field("model", &self.path)
            .field("columns", &self.text.column)
            .field("dimension", &self.dimension)
            .field("sessions", &self.sessions.len())
            .finish_non_exhaustive()
    }
}

fn required(config: &EncodeConfig) -> Result<(PathBuf, String)> {
    use crate::config::{Fault, Faults};
    let missing = |key: &str, what: &str| Fault {
        key: format!("encode.{key}"),
        line: None,
        message: format!("is required; {what}"),
    };
    let mut faults = Vec::new();
    if config.model.is_none() {
        faults.push(missing("model", "give the path of an ONNX model"));
    }
    if config.column.is_none() {
        faults.push(missing("column", "name the string column to embed"));
    }
    match (&config.model, &config.column) {
        (Some(model), Some(column)) => Ok((model.clone(), column.clone())),
        _ => Err(Faults { origin: "the settings".into(), faults }.into()),
    }
}

fn open_session(runtime: &Runtime, path: &Path) -> Result<Session> {
    let open = || {
        Session::builder(runtime.environment())?
            .with_intra_threads(1)?
            .with_inter_threads(1)?
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            // Every batch has another shape, so remembered layouts would only pile up.
            .with_memory_pattern(false)?
            .commit_from_file(path)
    };
    open().map_err(|e: ort::Error| {
        let reason = "cannot be opened as an ONNX model; export it again, and see whether its opset is one that this \
                      ONNX Runtime knows";
        fault(path, reason.into(), Some(e.message().to_owned().into()))
    })
}

/// Matches the model's inputs by name with what a text gives.
fn text_inputs(path: &Path, session: &Session) -> Result<Vec<Input>> {
    let mut inputs = Vec::new();
    let mut strangers = Vec::new();
    for declared in session.inputs() {
        let content = Content::ALL.iter().find(|(name, _)| *name == declared.name()).map(|(_, content)| *content);
        let narrow = match declared.dtype() {
            ValueType::Tensor { ty: TensorElementType::Int64, .. } => Some(false),
            ValueType::Tensor { ty: TensorElementType::Int32, .. } => Some(true),
            _ => None,
        };
        match content.zip(narrow) {
            Some((content, narrow)) => inputs.push(Input { content, narrow }),
            None => strangers.push(format!("{}: {}", declared.name(), declared.dtype())),
        }
    }
    let reads_text = inputs.iter().any(|i| i.content == Content::InputIds);
    if strangers.is_empty() && reads_text {
        return Ok(inputs);
    }
    let complaint = if strangers.is_empty() {
        "declares no input `input_ids`".to_owned()
    } else {
        format!("declares {}, which text does not give", quoted(&strangers))
    };
    let reason = format!(
        "{complaint}; a text encoder takes `input_ids` and, if it likes, `attention_mask` and `token_type_ids`, each \
         int64 or int32 [batch, sequence]: export it with these names"
    );
    Err(fault(path, reason, None))
}

fn choose_output(path: &Path, session: &Session, wanted: Option<&str>) -> Result<String> {
    let names: Vec<_> = session.outputs().iter().map(|o| o.name().to_owned()).collect();
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
        let reason = format!("has no output `{wanted}`; it has {}: name one as `encode.output`", quoted(&names));
        fault(path, reason, None)
    })
}

/// Token states [rows × longest × dimension] to vectors [rows × dimension]. A text without tokens gives zeros, which
/// are refused later with the sample's name.
fn pool(
    states: &[f32],
    lengths: impl Iterator<Item = usize>,
    longest: usize,
    dimension: usize,
    pooling: Pooling,
) -> Vec<f32> {
    let mut vectors = Vec::new();
    for (states, length) in states.chunks_exact(longest * dimension).zip(lengths) {
        let taken = match pooling {
            Pooling::Mean => length,
            Pooling::Cls => length.min(1),
        };
        let start = vectors.len();
        vectors.resize(start + dimension, 0.0);
        for state in states.chunks_exact(dimension).take(taken) {
            for (sum, x) in vectors[start..].iter_mut().zip(state) {
                *sum += x / taken as f32;
            }
        }
    }
    vectors
}

fn fault(path: &Path, reason: String, cause: Option<Cause>) -> Error {
    Error::Model { path: path.to_owned(), reason, cause }
}

const PREFERRED_OUTPUTS: [&str; 3] = ["sentence_embedding", "last_hidden_state", "token_embeddings"];

/// Size and time of the last change.
fn version(path: &Path) -> Result<(u64, Option<SystemTime>)> {
    let about = path.metadata().map_err(|cause| Error::Io { action: "look at", path: path.into(), cause })?;
    Ok((about.len(), about.modified().ok()))
}
