//! Chooses an output of a model, and reads vectors from it.

use std::borrow::Cow;
use std::ops::Range;

use half::{bf16, f16};
use ort::value::{DynValue, TensorElementType as Element, ValueType};

use super::inputs::Declared;
use super::model::Model;
use super::pooling::pool;
use crate::config::{EncodeConfig, FeatureKind, Pooling};
use crate::error::{Result, quoted};

/// The output of a model that vectors are read from.
#[derive(Clone, Debug)]
pub(super) struct Output {
    pub declared: Declared,
    /// Why it was chosen, for the log.
    pub reason: &'static str,
    /// The numbers of a vector; 0 until the model has been tried.
    pub dimension: usize,
    pooling: Pooling,
}

/// The states of a batch that count for pooling: those that are not padding.
#[derive(Clone, Debug)]
pub(super) struct Counted {
    /// The range of states that count, for each row.
    pub rows: Vec<Range<usize>>,
    /// The length of all rows with padding.
    pub longest: usize,
}

/// The usual names of outputs that are vectors, or states that are pooled to vectors, the best first.
const VECTORS: [&str; 4] = ["sentence_embedding", "embeddings", "embedding", "dense_vecs"];
const TEXT_VECTORS: [&str; 2] = ["text_embeds", "text_embeddings"];
const IMAGE_VECTORS: [&str; 3] = ["image_embeds", "image_embeddings", "pooler_output"];
const STATES: [&str; 2] = ["last_hidden_state", "token_embeddings"];
/// The last choice: beside states, that of a BERT is trained for another task, or not at all.
const LAST_CHOICE: &str = "pooler_output";

impl Output {
    /// Chooses the output that the settings name, or else the most likely one.
    pub fn choose(model: &Model, config: &EncodeConfig) -> Result<Self> {
        let chosen = |declared: &Declared, reason| {
            if !declared.is_numeric() {
                let reason = format!(
                    "gives `{}`, which is no tensor of numbers; name another as `encode.output`",
                    declared.text
                );
                return Err(model.fault(reason, None));
            }
            Ok(Self { declared: declared.clone(), reason, dimension: 0, pooling: config.pooling })
        };
        let named = |name: &str| model.outputs.iter().find(|output| output.is(name));
        let names = || quoted(&model.outputs.iter().map(|output| &output.name).collect::<Vec<_>>());
        if let Some(wanted) = &config.output {
            return match named(wanted) {
                Some(output) => chosen(output, "encode.output names it"),
                None => {
                    let reason = format!("has no output `{wanted}`; it has {}: name one as `encode.output`", names());
                    Err(model.fault(reason, None))
                }
            };
        }
        let vectors: &[&str] = match config.kind() {
            FeatureKind::Text => &TEXT_VECTORS,
            FeatureKind::Image => &IMAGE_VECTORS,
            FeatureKind::Tensor | FeatureKind::Graph | FeatureKind::Vector => &[],
        };
        let known = [VECTORS[0]].iter().chain(vectors).chain(&VECTORS[1..]).chain(&STATES).chain([&LAST_CHOICE]);
        // Without pooling here, the output must not have an axis for tokens.
        let fits =
            |output: &&Declared| config.pooling != Pooling::None || output.shape.len() != 3 || output.shape[1] == 1;
        if let Some(output) = known.filter_map(|name| named(name)).find(fits) {
            return chosen(output, "it comes first among the usual names");
        }
        // Decoders also return their caches.
        let is_cache = |output: &&Declared| CACHES.iter().any(|cache| output.name.starts_with(cache));
        match model.outputs.iter().filter(|output| !is_cache(output)).collect::<Vec<_>>()[..] {
            [only] => chosen(only, "it is the only one"),
            _ => {
                let reason = format!("has no output `{}`; it has {}: name one as `encode.output`", VECTORS[0], names());
                Err(model.fault(reason, None))
            }
        }
    }

    /// Reads the vectors [rows × dimension] of the first `rows` rows from an output of this shape.
    ///
    /// The result is `None` if the shape is not that of `given` rows.
    pub fn vectors(
        &self,
        shape: &[i64],
        numbers: &[f32],
        (rows, given): (usize, usize),
        counted: &[Counted],
    ) -> Option<Vec<f32>> {
        let shape: Vec<_> = shape.iter().map(|&d| usize::try_from(d).unwrap_or(0)).collect();
        let of_row = shape.get(1..).unwrap_or_default();
        let (steps, width) = match (&shape[..], of_row.iter().product()) {
            // Some models squeeze a batch of one.
            (&[d], _) if given == 1 => (1, d),
            (&[n, ..], _) if n != given => return None,
            (&[_, d], _) => (1, d),
            (&[_, d, 1], _) if self.is_vector(d, counted) => (1, d),
            (&[_, steps, width], _) => (steps, width),
            (_, numbers) if of_row.contains(&numbers) => (1, numbers),
            (&[_, steps, width, ref rest @ ..], _) if rest.iter().all(|d| *d == 1) => (steps, width),
            _ => return None,
        };
        if width == 0 || numbers.len() != given * steps * width {
            return None;
        }
        // If inputs have length 1, the only state of a row may be padding, which pooling leaves out.
        let is_state = counted.iter().any(|counted| counted.longest == 1) && shape.len() > 2;
        if steps == 1 && (self.pooling == Pooling::None || !is_state) {
            return Some(numbers[..rows * width].to_vec());
        }
        let pool = |counted: &mut dyn Iterator<Item = Range<usize>>| pool(numbers, counted, steps, width, self.pooling);
        match counted.iter().find(|counted| counted.longest == steps) {
            _ if self.pooling == Pooling::None => None,
            Some(counted) => Some(pool(&mut counted.rows.iter().cloned())),
            None if counted.is_empty() => Some(pool(&mut std::iter::repeat_n(0..steps, rows))),
            None => None,
        }
    }

    /// Whether the shape [rows, d, 1] means vectors of d numbers, not d states of one number.
    fn is_vector(&self, d: usize, counted: &[Counted]) -> bool {
        let is_fixed = self.declared.dimension(1) == Some(d);
        match self.dimension {
            0 => is_fixed || counted.iter().all(|counted| counted.longest != d),
            dimension => dimension == d && (d > 1 || is_fixed),
        }
    }

    /// Returns the reason why vectors cannot be read from an output of this shape.
    pub fn unfit(&self, shape: &[i64], rows: usize, longest: Option<usize>) -> String {
        let length = longest.map(|longest| format!(" of length {longest}")).unwrap_or_default();
        let (expected, remedy) = match self.pooling {
            Pooling::None => ("[batch, dimension], since encode.pooling is \"none\"", "set encode.pooling, or"),
            _ => ("[batch, dimension] or [batch, sequence, dimension]", "export it so, or"),
        };
        format!(
            "gives output `{}` the shape {shape:?} for {rows} samples{length}; expected {expected}: {remedy} name another \
             output as `encode.output`",
            self.declared.name
        )
    }
}

/// What the names of a decoder's caches start with, as inputs and as outputs.
pub(super) const CACHES: [&str; 2] = ["past_key_values", "present"];

/// Returns shape and numbers of an output of any type. Integers of quantized embeddings are taken as they are.
pub(super) fn numbers(output: &DynValue) -> ort::Result<(Vec<i64>, Cow<'_, [f32]>)> {
    macro_rules! read {
        ($number:ty, $to_f32:expr) => {{
            let (shape, numbers) = output.try_extract_tensor::<$number>()?;
            (shape.to_vec(), Cow::Owned(numbers.iter().map($to_f32).collect()))
        }};
    }
    Ok(match output.dtype() {
        ValueType::Tensor { ty: Element::Float16, .. } => read!(f16, |x| x.to_f32()),
        ValueType::Tensor { ty: Element::Bfloat16, .. } => read!(bf16, |x| x.to_f32()),
        ValueType::Tensor { ty: Element::Float64, .. } => read!(f64, |&x| x as f32),
        ValueType::Tensor { ty: Element::Int64, .. } => read!(i64, |&x| x as f32),
        ValueType::Tensor { ty: Element::Int32, .. } => read!(i32, |&x| x as f32),
        ValueType::Tensor { ty: Element::Int16, .. } => read!(i16, |&x| f32::from(x)),
        ValueType::Tensor { ty: Element::Int8, .. } => read!(i8, |&x| f32::from(x)),
        ValueType::Tensor { ty: Element::Uint8, .. } => read!(u8, |&x| f32::from(x)),
        _ => {
            let (shape, numbers) = output.try_extract_tensor::<f32>()?;
            (shape.to_vec(), Cow::Borrowed(numbers))
        }
    })
}
