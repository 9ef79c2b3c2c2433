//! "Here are rows, give me vectors."
//!
//! An [`Encoder`] turns record batches into embeddings; [`encode_all`] runs one over a whole
//! [`Store`](crate::store::Store) and checks what comes back. `OnnxEncoder` runs texts, images, tensors or graphs
//! through ONNX Runtime, [`ColumnEncoder`] reads vectors that are in the data already, [`CombinedEncoder`] makes one
//! vector of several encoders', [`PairEncoder`] joins two for rows that are pairs, and anything else that makes vectors
//! is an `Encoder` of your own (see `examples/custom_encoder.rs`). [`open`] gives the one that settings ask for.

mod ahead;
mod all;
#[cfg(feature = "onnx")]
mod batching;
pub(crate) mod cache;
mod column;
mod combined;
pub mod contract;
#[cfg(feature = "onnx")]
pub mod cuda;
pub(crate) mod external_data;
#[cfg(feature = "onnx")]
mod features;
mod file_state;
#[cfg(feature = "onnx")]
mod identity;
#[cfg(feature = "onnx")]
mod inputs;
#[cfg(feature = "onnx")]
mod model;
#[cfg(feature = "onnx")]
mod onnx;
#[cfg(feature = "onnx")]
mod outputs;
mod pairs;
#[cfg(feature = "onnx")]
mod pooling;
#[cfg(feature = "onnx")]
mod provider;
#[cfg(feature = "onnx")]
pub mod runtime;
#[cfg(feature = "onnx")]
mod transfer;
#[cfg(feature = "onnx")]
mod trial;
#[cfg(feature = "onnx")]
mod until_exit;

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

pub use self::all::encode_all;
use self::all::flawed;
pub(crate) use self::all::{BadSamples, encode_present, encode_rest, encode_some};
pub(crate) use self::cache::EmbeddingCache;
pub use self::column::ColumnEncoder;
pub use self::combined::CombinedEncoder;
pub(crate) use self::file_state::FileState;
#[cfg(feature = "cli")]
pub(crate) use self::model::tokenizer_of;
#[cfg(feature = "onnx")]
pub use self::onnx::OnnxEncoder;
pub use self::pairs::PairEncoder;
#[cfg(feature = "onnx")]
pub use self::provider::probe_provider;
#[cfg(feature = "onnx")]
pub(crate) use self::provider::{is_out_of_memory, session_builder};
#[cfg(feature = "onnx")]
pub(crate) use self::transfer::pinned;
#[cfg(feature = "onnx")]
pub(crate) use self::until_exit::UntilExit;
use crate::config::{EncodeConfig, FeatureKind, PairsConfig, Similarity};
use crate::embeddings::prepare;
use crate::error::{Error, Result};
use crate::source::positions;

/// Something that makes one vector of every row.
pub trait Encoder: Send + Sync + 'static {
    /// What to call it in messages.
    fn name(&self) -> &str;

    /// The columns it reads. Rows with a null in one of them never come to it: [`encode_all`] refuses them, naming the
    /// sample, or they are skipped.
    fn columns(&self) -> &[String];

    /// The field that it reads of a column, where that is a struct and it reads nothing else of it: `bytes` of images
    /// as Hugging Face stores them. Rows are copies of each other where all that it reads is the same. `None`, the
    /// default, for the whole column.
    fn field(&self, column: &str) -> Option<&str> {
        let _ = column;
        None
    }

    /// d: numbers in a vector; 1 to 65,536, and always the same.
    fn dimension(&self) -> usize;

    /// Refuses rows that it cannot read, before any are read: missing columns, wrong types. By default only the former.
    ///
    /// # Errors
    /// [`Error::MissingColumn`] or [`Error::ColumnType`], as a rule.
    fn accepts(&self, uri: &str, schema: &Schema) -> Result<()> {
        positions(uri, schema, self.columns()).map(drop)
    }

    /// The file that a newer model would be in, for the run to watch; `None`, the default, where there is none.
    fn model_file(&self) -> Option<&Path> {
        None
    }

    /// All files that the model consists of, those with its external data too, or the models of an encoder that is made
    /// of several; by default [`model_file`](Self::model_file) alone.
    fn model_files(&self) -> Vec<&Path> {
        self.model_file().into_iter().collect()
    }

    /// An encoder of the model that has come since this one was opened, tried and ready; `None`, the default, where
    /// none has. Called by each refresh, in the compute pool; it may block.
    ///
    /// # Errors
    /// Where one has come and cannot be used: the refresh then fails, and this encoder stays.
    fn newer(&self) -> Result<Option<Arc<dyn Encoder>>> {
        Ok(None)
    }

    /// A text that stands for its vectors: where it is the same, so are they, to the bit, for the same rows in the same
    /// record batch. Embeddings are then kept from run to run, under the settings `encode.cache_dir` and `cache_limit`.
    /// `None`, the default, where nothing is to be kept. Asked for once before each pass over the samples; may block.
    fn identity(&self) -> Option<String> {
        None
    }

    /// Calls that may run side by side, each for other rows: 1, the default, or more where rows can be prepared while a
    /// device works on others. Vectors must not depend on it.
    fn calls_at_once(&self) -> usize {
        1
    }

    /// Writes the vectors of `rows` to `vectors` [rows × dimension], row-major, all zeros before. `rows` holds
    /// [`columns`](Self::columns) in that order, at most 8,192 rows. Runs inside the compute pool,
    /// [`calls_at_once`](Self::calls_at_once) side by side: parallel iterators of rayon use the pool, and blocking is
    /// fine. Vectors need not have unit length; one that is not finite, or has no usable length, makes its sample bad.
    ///
    /// # Errors
    /// Its own, best as [`Error::Encode`].
    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()>;

    /// [`encode`](Self::encode), but rows that cannot be read are no error: their vectors stay zeros, and they are given
    /// with the reason; and of rows that are pairs, how similar the two are. By default there is neither.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), for all that is not the fault of single rows.
    fn encode_readable(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<Encoded> {
        self.encode(rows, vectors).map(|()| Encoded::default())
    }
}

/// What comes of rows beside their vectors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encoded {
    /// Rows that cannot be read, in order.
    pub bad: Vec<BadRow>,
    /// Where rows are an anchor and its positive: how similar the two are, a number a row, whatever for bad ones.
    /// Empty where they are not.
    pub pair_similarities: Vec<f32>,
}

/// A row that an encoder cannot read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// Its place in the record batch.
    pub row: usize,
    /// The column at fault.
    pub column: String,
    /// What is wrong with its value, as in "is no UTF-8 from byte 3 on".
    pub reason: String,
}

/// An error for the first of these rows, if there are any.
fn refuse(encoder: &str, bad: Vec<BadRow>) -> Result<()> {
    let Some(BadRow { row, column, reason }) = bad.into_iter().next() else { return Ok(()) };
    Err(Error::Encode { encoder: encoder.to_owned(), cause: format!("column `{column}` at row {row} {reason}").into() })
}

/// The vectors of one of several encoders whose vectors become one, each of unit length; rows that it makes none of are
/// added to `bad`, their vectors are zeros.
fn unit_vectors(encoder: &dyn Encoder, rows: &RecordBatch, bad: &mut Vec<BadRow>) -> Result<Vec<f32>> {
    let places = positions("the rows", &rows.schema(), encoder.columns())?;
    let rows = rows.project(&places).map_err(|cause| Error::Arrow { action: "select columns", cause })?;
    let d = encoder.dimension();
    let mut vectors = vec![0f32; rows.num_rows() * d];
    let unread = encoder.encode_readable(&rows, &mut vectors)?.bad;
    let mut rest = unread.iter().map(|bad| bad.row).peekable();
    for (row, vector) in vectors.chunks_exact_mut(d).enumerate() {
        if rest.next_if_eq(&row).is_some() {
            vector.fill(0.0);
        } else if let Err(flaw) = prepare(vector, Similarity::Cosine) {
            vector.fill(0.0);
            bad.push(flawed(encoder, row, flaw));
        }
    }
    bad.extend(unread);
    Ok(vectors)
}

/// One fault a row, in order, of what several encoders found; the vectors of these rows become zeros.
fn once_a_row(bad: &mut Vec<BadRow>, vectors: &mut [f32], dimension: usize) {
    bad.sort_by_key(|bad| bad.row);
    bad.dedup_by_key(|bad| bad.row);
    bad.iter().for_each(|bad| vectors[bad.row * dimension..][..dimension].fill(0.0));
}

/// The encoder that `config` asks for, of rows with this schema. Blocks as `OnnxEncoder::open` does.
///
/// # Errors
/// Those of the encoder; [`Error::Config`] where this build has none for the feature.
pub fn open(config: &EncodeConfig, schema: &Schema) -> Result<Arc<dyn Encoder>> {
    open_of(config, &PairsConfig::default(), schema)
}

/// The same, for rows that may be pairs: anchor and positive are then in the place of `column`, in views that name none
/// too.
pub(crate) fn open_of(config: &EncodeConfig, pairs: &PairsConfig, schema: &Schema) -> Result<Arc<dyn Encoder>> {
    #[cfg(feature = "onnx")]
    let models = model::Models::default();
    #[cfg(not(feature = "onnx"))]
    let models = ();
    let Some(columns) = pairs.columns() else { return open_views(config, schema, &models) };
    let [anchor, positive] = columns.map(|column| {
        let config = EncodeConfig { column: Some(column.clone()), ..config.clone() };
        open_views(&config, schema, &models)
    });
    Ok(Arc::new(PairEncoder::new(anchor?, positive?, pairs.graph_over)?))
}

#[cfg(feature = "onnx")]
type Models = model::Models;
#[cfg(not(feature = "onnx"))]
type Models = ();

#[cfg_attr(not(feature = "onnx"), expect(unused_variables, reason = "there are no models then"))]
fn open_views(config: &EncodeConfig, schema: &Schema, models: &Models) -> Result<Arc<dyn Encoder>> {
    let views: Vec<_> = config.views.iter().map(|view| view.over(config)).collect();
    let open = |config: &EncodeConfig| -> Result<Arc<dyn Encoder>> {
        let fault = |key: &str, message: &str| Error::setting(format!("encode{key}"), message);
        if config.kind() == FeatureKind::Vector {
            let column = config.column.as_ref();
            let column =
                column.ok_or_else(|| fault(".column", "is required; name the column that holds the vectors"))?;
            return Ok(Arc::new(match config.dimension {
                Some(dimension) => ColumnEncoder::of_dimension(schema, column, dimension)?,
                None => ColumnEncoder::new(schema, column)?,
            }));
        }
        #[cfg(feature = "onnx")]
        return Ok(Arc::new(OnnxEncoder::open_among(config, models)?));
        #[cfg(not(feature = "onnx"))]
        let message = "no encoder is given, and this build runs no models (cargo feature `onnx`); call `encoder`, or set \
                       encode.feature = \"vector\"";
        #[cfg(not(feature = "onnx"))]
        return Err(fault("", message));
    };
    if views.is_empty() {
        return open(config);
    }
    let encoders = views.iter().map(open).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(CombinedEncoder::new(encoders, config.combine)?))
}

impl<E: Encoder + ?Sized> Encoder for Arc<E> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn columns(&self) -> &[String] {
        (**self).columns()
    }

    fn field(&self, column: &str) -> Option<&str> {
        (**self).field(column)
    }

    fn dimension(&self) -> usize {
        (**self).dimension()
    }

    fn accepts(&self, uri: &str, schema: &Schema) -> Result<()> {
        (**self).accepts(uri, schema)
    }

    fn model_file(&self) -> Option<&Path> {
        (**self).model_file()
    }

    fn model_files(&self) -> Vec<&Path> {
        (**self).model_files()
    }

    fn newer(&self) -> Result<Option<Arc<dyn Encoder>>> {
        (**self).newer()
    }

    fn identity(&self) -> Option<String> {
        (**self).identity()
    }

    fn calls_at_once(&self) -> usize {
        (**self).calls_at_once()
    }

    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()> {
        (**self).encode(rows, vectors)
    }

    fn encode_readable(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<Encoded> {
        (**self).encode_readable(rows, vectors)
    }
}
