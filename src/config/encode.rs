use std::path::PathBuf;

use serde::Deserialize;

use super::faults::{Check, Checker};
use super::read::layer;

/// `[encode]`: how rows become embeddings, here text through an ONNX model.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct EncodeConfig {
    /// The ONNX model. It takes `input_ids` and, if it declares them, `attention_mask` and `token_type_ids`, all
    /// [batch, sequence]. Required for [`OnnxEncoder`](crate::encode::OnnxEncoder).
    pub model: Option<PathBuf>,
    /// The tokenizer that belongs to it. Default: `tokenizer.json` beside the model.
    pub tokenizer: Option<PathBuf>,
    /// The column that is embedded; a string column without nulls. Required likewise.
    pub column: Option<String>,
    /// Tokens of a text that are looked at, 2 to 1,000,000, special ones included; the rest is cut off. Default 128.
    /// At most what the model was trained for (often 256 or 512).
    pub max_tokens: usize,
    /// How token states [batch, sequence, dimension] become one vector; a model that gives [batch, dimension] is
    /// taken as it is. Default `mean`.
    pub pooling: Pooling,
    /// The model's output to take. Default: `sentence_embedding`, else `last_hidden_state`, else `token_embeddings`,
    /// else its only one.
    pub output: Option<String>,
    /// Texts that go through the model at once, 1 to 65,536; default 32. Fewer for large models: small batches of
    /// like lengths stay in the processor's caches.
    pub batch_rows: usize,
    /// Tokens, padding included, that go through the model at once, 1 to 2²⁴; default 512. Long texts go in smaller
    /// batches, at least one at a time.
    pub batch_tokens: usize,
    /// Copies of the model that run side by side, each on one thread; 0, the default, means one for each thread of the
    /// compute pool. Each takes the model's size in memory.
    pub sessions: usize,
    /// How the embeddings are kept in memory, whatever the encoder. Default `f32`.
    pub storage: Storage,
    /// ONNX Runtime's shared library. Default: searched, see [`encode::runtime`](crate::encode::runtime).
    pub runtime: Option<PathBuf>,
}

/// How the states of a text's tokens become one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The mean over the tokens that are not padding.
    #[default]
    Mean,
    /// The first token's state.
    Cls,
}

/// How an [`EmbeddingTable`](crate::store::EmbeddingTable) keeps its numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Storage {
    /// 4 bytes a number.
    #[default]
    F32,
    /// 2 bytes a number, 11 bits of precision: similarities of unit vectors are off by less than 0.001.
    F16,
    /// 1 byte a number and 4 a vector, whole numbers from −127 to 127 scaled for each vector: similarities of unit
    /// vectors are off by about 0.001, near neighbors may swap.
    I8,
}

impl Default for EncodeConfig {
    fn default() -> Self {
        Self {
            model: None,
            tokenizer: None,
            column: None,
            max_tokens: 128,
            pooling: Pooling::Mean,
            output: None,
            batch_rows: 32,
            batch_tokens: 512,
            sessions: 0,
            storage: Storage::F32,
            runtime: None,
        }
    }
}

layer!(EncodeConfig: model, tokenizer, column, max_tokens, pooling, output, batch_rows, batch_tokens, sessions, storage, runtime);

impl Check for EncodeConfig {
    const SECTION: &'static str = "encode";

    fn check(&self, check: &mut Checker<'_>) {
        let range = |low: usize, high: usize, value: usize| (low..=high).contains(&value);
        check.require(range(2, 1_000_000, self.max_tokens), "max_tokens", "must lie between 2 and 1,000,000");
        check.require(range(1, 65_536, self.batch_rows), "batch_rows", "must lie between 1 and 65,536");
        check.require(range(1, 1 << 24, self.batch_tokens), "batch_tokens", "must lie between 1 and 16,777,216");
        check.require(range(0, 1024, self.sessions), "sessions", "must lie between 0 (one a thread) and 1,024");
    }
}
