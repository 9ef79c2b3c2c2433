use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::check::{Check, Checker};
use super::features::{GraphInputConfig, ImageConfig, TensorConfig};
use super::providers::{CudaConfig, Provider};
use super::views::{Combine, ViewConfig};
use crate::error::Fault;

/// `[encode]`: how rows become embeddings, as a rule through an ONNX model.
///
/// What a model is given depends on the kind of [`feature`](Self::feature). Texts:
///
/// ```toml
/// [encode]
/// model = "model.onnx"              # takes input_ids, attention_mask, token_type_ids
/// column = "definition"
/// prefix = "passage: "
/// ```
///
/// Pairs of texts: `pair_column = "answer"` in addition. Images, encoded or raw:
///
/// ```toml
/// [encode]
/// model = "model.onnx"              # takes pixel_values [batch, 3, 224, 224]
/// column = "jpeg"
/// [encode.image]
/// size = 256                        # the shorter side
/// crop = 224
/// mean = [0.485, 0.456, 0.406]
/// std = [0.229, 0.224, 0.225]
/// ```
///
/// Numbers, whatever they mean:
///
/// ```toml
/// [encode]
/// model = "model.onnx"              # takes signal [batch, length] and signal_mask [batch, length]
/// [encode.tensor]
/// inputs = { signal = "samples" }
/// ```
///
/// Graphs, molecules for example:
///
/// ```toml
/// [encode]
/// model = "model.onnx"              # takes x, edge_index, batch
/// batch_tokens = 4096               # nodes and edges
/// [encode.graph]
/// node_features = "atoms"
/// edge_sources = "bond_from"
/// edge_targets = "bond_to"
/// ```
///
/// Vectors that are in the data already, without a model:
///
/// ```toml
/// [encode]
/// feature = "vector"
/// column = "embedding"
/// ```
///
/// Several columns, or several models, for one embedding:
///
/// ```toml
/// [encode]
/// model = "model.onnx"
/// combine = "concat"
/// views = [{ column = "title" }, { column = "body", max_tokens = 512 }]
/// ```
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct EncodeConfig {
    /// What the model reads. Default: the kind whose table, `[encode.image]`, `[encode.tensor]` or `[encode.graph]`, is
    /// there; `text` without any.
    pub feature: Option<FeatureKind>,
    /// The ONNX model. Its inputs are matched by name with what the feature gives: text `input_ids` and, if declared,
    /// `attention_mask`, `token_type_ids` and `position_ids`, all [batch, sequence], and empty caches; an image
    /// `pixel_values` (or the only input, whatever its name); for the others see their tables. Required for
    /// [`OnnxEncoder`](crate::encode::OnnxEncoder).
    pub model: Option<PathBuf>,
    /// Numbers in each vector of `column`, 1 to 65,536: for vectors in plain lists, which do not say. Default: the size
    /// of fixed-size lists.
    pub dimension: Option<usize>,
    /// The tokenizer that belongs to it. Default: `tokenizer.json` beside the model, or one folder up if the model lies
    /// in a folder `onnx`. Text only.
    pub tokenizer: Option<PathBuf>,
    /// The column that is embedded: for text strings, or UTF-8 as binary values; for images see [`ImageConfig`]; for
    /// vectors lists of numbers. Required for these.
    pub column: Option<String>,
    /// A second text for the tokenizer's pair input, as cross-encoders take it. Default: none. Text only.
    pub pair_column: Option<String>,
    /// Put before each text of `column`, as some models want it: `"query: "`. Default: nothing. Text only.
    pub prefix: String,
    /// Tokens of a text that are looked at, 2 to 1,000,000, special ones included; the rest is cut off, where
    /// `tokenizer.json` says, or at the end and of a pair from the longer one. 0, the default, means what
    /// `tokenizer.json` says, up to 512, or 128 if it says nothing, and never more than the model takes. A number that
    /// the model does not take is an error, found when it is opened (by a text of up to 8,192 tokens). Text only.
    pub max_tokens: usize,
    /// How states [batch, sequence, dimension] become one vector; a model that gives [batch, dimension] is taken as it
    /// is. Default `mean`.
    pub pooling: Pooling,
    /// Whether vectors are brought to unit length. With cosine similarity they are in any case. Default false.
    pub normalize: bool,
    /// The model's output to take. Default: a vector of the whole sample by its usual name, `sentence_embedding`,
    /// `text_embeds` for text or `image_embeds` for images; else states to be pooled, `last_hidden_state` or
    /// `token_embeddings`; else its only one. The log says which, and docs/models.md has all names in their order.
    pub output: Option<String>,
    /// What the model runs on: the first of these that works, which the log names. Default `["cpu"]`. `["cuda"]` alone
    /// fails if CUDA cannot be used, and says why; `["cuda", "cpu"]` goes on without, with a warning.
    pub providers: Vec<Provider>,
    /// Settings of the GPU.
    pub cuda: Option<CudaConfig>,
    /// Samples that go through the model at once, up to 65,536; 0, the default, means 32 on the CPU and 1,024 on a GPU.
    /// A model that fixes the number is always given that many. Fewer for large models: small batches of like lengths
    /// stay in the processor's caches. If a model runs out of memory, batches are halved, with a warning. Batches of
    /// images take `batch_rows` × channels × height × width × 4 bytes for each thread, 19 MB by default for 224 × 224
    /// pixels in color, and one image is decoded at a time.
    pub batch_rows: usize,
    /// Tokens, padding included, that go through the model at once, up to 2²⁴; 0, the default, means 512 on the CPU and
    /// 65,536 on a GPU. Long texts go in smaller batches, at least one at a time. For tensors the numbers of the
    /// longest input count, for graphs nodes and edges; images and inputs of a fixed size are limited by `batch_rows`
    /// alone.
    pub batch_tokens: usize,
    /// Copies of the model that run side by side, on a CPU each on one thread; 0, the default, means one for each
    /// thread of the compute pool, and two on each GPU, or one if `cuda.memory_limit` is set or the second has no room.
    /// Each takes the model's size in memory. Work with a `refresh.gpu_share` below 1 uses one on each GPU. Views with
    /// the same model share them.
    pub sessions: usize,
    /// What to do with a sample that cannot be encoded: a broken image, a null, a text without a token, an edge to a
    /// node that is not there, or a vector, of the column or out of the model, that is not finite or has no usable
    /// length. Default `fail`.
    pub on_bad_sample: OnBadSample,
    /// How the embeddings are kept in memory, whatever the encoder. Default `f32`.
    pub storage: Storage,
    /// Folder for embeddings, made if missing, from which later runs take those of the same model, settings and rows: a
    /// start that was killed goes on, and rows that were embedded before are not embedded again. Processes that use it
    /// at the same time, such as the ranks of a job, share the work; docs/ranks.md says which folders are fit for that.
    /// Default: `embeddings` in `store.cache_dir`, and none without that. Takes 4 d bytes a sample for each model
    /// version that is used.
    pub cache_dir: Option<PathBuf>,
    /// The most that `cache_dir` may take, in bytes; 0 keeps nothing, default 64 GiB. The least recently used models
    /// make room for others.
    pub cache_limit: u64,
    /// ONNX Runtime's shared library. Default: searched, see [`encode::runtime`](crate::encode::runtime).
    pub runtime: Option<PathBuf>,
    /// Settings of images.
    pub image: Option<ImageConfig>,
    /// Settings of tensors.
    pub tensor: Option<TensorConfig>,
    /// Settings of graphs.
    pub graph: Option<GraphInputConfig>,
    /// Several vectors of each sample, made into one: each view is these settings with some of its own. Default: none,
    /// the settings are the only view.
    pub views: Vec<ViewConfig>,
    /// How the vectors of views become one. Default `mean`.
    pub combine: Combine,
}

/// What a model reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FeatureKind {
    /// A string column, and perhaps another one, through a tokenizer.
    #[default]
    Text,
    /// A column of images: [`ImageConfig`].
    Image,
    /// Columns of numbers: [`TensorConfig`].
    Tensor,
    /// Columns that describe a graph: [`GraphInputConfig`].
    Graph,
    /// No model: the column holds the vectors, as [`ColumnEncoder`](crate::encode::ColumnEncoder) reads them.
    Vector,
}

/// How states [batch, sequence, dimension] become one vector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The mean over the tokens that are not padding.
    #[default]
    Mean,
    /// The first token's state.
    Cls,
    /// The last state that is not padding, as usual for decoders.
    Last,
    /// The model pools itself: anything but [batch, dimension] is an error.
    None,
}

/// What to do with a sample that cannot be encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OnBadSample {
    /// Stop with an error that names the sample, the column and the reason.
    #[default]
    Fail,
    /// Go on without it: it is in no mini-batch, and no sample's neighbor. Skipped samples are counted by column and
    /// reason, and the first of each is logged. If no sample of the first record batch but nulls can be encoded, the
    /// fault is the model's or the settings', and stops the run all the same.
    Skip,
}

/// How an [`EmbeddingTable`](crate::embeddings::EmbeddingTable) keeps its numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
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
            feature: None,
            model: None,
            dimension: None,
            tokenizer: None,
            column: None,
            pair_column: None,
            prefix: String::new(),
            max_tokens: 0,
            pooling: Pooling::Mean,
            normalize: false,
            output: None,
            providers: vec![Provider::Cpu],
            cuda: None,
            batch_rows: 0,
            batch_tokens: 0,
            sessions: 0,
            on_bad_sample: OnBadSample::Fail,
            storage: Storage::F32,
            cache_dir: None,
            cache_limit: 64 << 30,
            runtime: None,
            image: None,
            tensor: None,
            graph: None,
            views: Vec::new(),
            combine: Combine::Mean,
        }
    }
}

impl EncodeConfig {
    /// What the model reads, as far as these settings alone tell; views may read something else.
    #[must_use]
    pub fn kind(&self) -> FeatureKind {
        let kinds = [
            (self.image.is_some(), FeatureKind::Image),
            (self.tensor.is_some(), FeatureKind::Tensor),
            (self.graph.is_some(), FeatureKind::Graph),
        ];
        let table = kinds.into_iter().find_map(|(present, kind)| present.then_some(kind));
        self.feature.or(table).unwrap_or_default()
    }

    fn tables(&self) -> Vec<(&'static str, FeatureKind)> {
        let kinds = [
            (self.image.is_some(), "image", FeatureKind::Image),
            (self.tensor.is_some(), "tensor", FeatureKind::Tensor),
            (self.graph.is_some(), "graph", FeatureKind::Graph),
        ];
        kinds.into_iter().filter(|(present, ..)| *present).map(|(_, name, kind)| (name, kind)).collect()
    }
}

impl Check for EncodeConfig {
    const SECTION: &'static str = "encode";

    fn check(&self, check: &mut Checker<'_>) {
        let range = |low: usize, high: usize, value: usize| (low..=high).contains(&value);
        check.require(range(0, 65_536, self.batch_rows), "batch_rows", "must lie between 0 (automatic) and 65,536");
        let message = "must lie between 0 (automatic) and 16,777,216";
        check.require(range(0, 1 << 24, self.batch_tokens), "batch_tokens", message);
        let message = "is empty; list what the model may run on, \"cpu\" at least";
        check.require(!self.providers.is_empty(), "providers", message);
        if let Some(cuda) = &self.cuda {
            cuda.check(&mut Checker { section: CudaConfig::SECTION, faults: check.faults });
        }
        check.require(range(0, 1024, self.sessions), "sessions", "must lie between 0 (as many as suit) and 1,024");
        self.check_feature(check);
        for (place, view) in self.views.iter().enumerate() {
            let (section, before) = (format!("encode.views[{place}]"), check.faults.len());
            view.over(self).check_feature(&mut Checker { section: &section, faults: check.faults });
            // What is wrong in the settings of all is said once.
            let own = check.faults.split_off(before);
            let is_new = |fault: &Fault| !check.faults.iter().any(|f| same_setting(&f.key, &fault.key));
            let own: Vec<_> = own.into_iter().filter(is_new).collect();
            check.faults.extend(own);
        }
    }
}

/// Whether a key of a view is that of all views.
fn same_setting(of_all: &str, of_view: &str) -> bool {
    let rest = of_view.split_once("].").map_or(of_view, |(_, rest)| rest);
    of_all.strip_prefix("encode.") == Some(rest)
}

impl EncodeConfig {
    /// What a view may set too.
    pub(super) fn check_feature(&self, check: &mut Checker<'_>) {
        let fits = self.max_tokens == 0 || (2..=1_000_000).contains(&self.max_tokens);
        check.require(fits, "max_tokens", "must lie between 2 and 1,000,000, or be 0 (automatic)");
        let tables = self.tables();
        if let (None, [_, (second, _), ..]) = (self.feature, &tables[..]) {
            check.require(false, second, "is a second kind of feature; say which as encode.feature, or remove a table");
        }
        for (name, kind) in &tables {
            let fits = self.feature.is_none_or(|feature| feature == *kind);
            check.require(fits, name, "belongs to another kind than encode.feature; change one of the two");
        }
        let sound = self.dimension.is_none_or(|d| (1..=65_536).contains(&d));
        check.require(sound, "dimension", "must lie between 1 and 65,536");
        let is_vector = self.kind() == FeatureKind::Vector || !self.views.is_empty();
        let message = "is for encode.feature = \"vector\"; a model's is its own: remove it";
        check.require(is_vector || self.dimension.is_none(), "dimension", message);
        let is_text = self.kind() == FeatureKind::Text || !self.views.is_empty();
        let for_text = |given: bool| is_text || !given;
        let remedy = "is for text, but encode.feature is another kind; remove it";
        check.require(for_text(self.tokenizer.is_some()), "tokenizer", remedy);
        check.require(for_text(self.pair_column.is_some()), "pair_column", remedy);
        check.require(for_text(!self.prefix.is_empty()), "prefix", remedy);
        let mut nested = |section: &str, check_table: &dyn Fn(&mut Checker<'_>)| {
            let section = format!("{}.{section}", check.section);
            check_table(&mut Checker { section: &section, faults: check.faults });
        };
        if let Some(image) = &self.image {
            nested("image", &|check| image.check(check));
        }
        if let Some(tensor) = &self.tensor {
            nested("tensor", &|check| tensor.check(check));
        }
        if let Some(graph) = &self.graph {
            nested("graph", &|check| graph.check(check));
        }
    }
}
