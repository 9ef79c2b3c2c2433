//! "Here are rows, give me vectors."
//!
//! An [`Encoder`] turns record batches into embeddings, and [`encode_all`] runs one over a whole
//! [`Store`](crate::store::Store) and checks the vectors. [`open`] opens the encoder that settings ask for:
//!
//! - `OnnxEncoder` runs texts, images, tensors or graphs through ONNX Runtime.
//! - [`ColumnEncoder`] reads vectors that are already in the data.
//! - [`CombinedEncoder`] joins the vectors of several encoders to one.
//! - [`PairEncoder`] joins two encoders for rows that are an anchor and its positive.
//!
//! Anything else that makes vectors is an `Encoder` of your own; see `examples/custom_encoder.rs`.

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
mod help;
#[cfg(feature = "onnx")]
mod identity;
#[cfg(feature = "onnx")]
mod inputs;
mod listed;
#[cfg(feature = "onnx")]
mod model;
mod nulls;
#[cfg(feature = "onnx")]
mod onnx;
#[cfg(feature = "onnx")]
mod outputs;
mod pairs;
#[cfg(feature = "onnx")]
mod pooling;
#[cfg(feature = "onnx")]
mod provider;
mod queue;
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
pub(crate) use self::all::{BadSamples, TableSettings, encode_for_others, encode_present, encode_rest, encode_some};
pub(crate) use self::cache::{EmbeddingCache, cache_dir};
pub use self::column::ColumnEncoder;
pub use self::combined::CombinedEncoder;
#[cfg(feature = "cli")]
pub(crate) use self::features::thumbnail;
pub(crate) use self::file_state::FileState;
use self::listed::ListEncoder;
#[cfg(feature = "cli")]
pub(crate) use self::model::{declared_inputs, tokenizer_of};
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
use crate::source::column_indices;

/// Makes one vector of every row.
///
/// ```
/// use prosampler::Result;
/// use prosampler::arrow::array::{AsArray, RecordBatch, StringArray};
/// use prosampler::encode::Encoder;
///
/// /// Counts of the letters a to z.
/// struct Letters([String; 1]);
///
/// impl Encoder for Letters {
///     fn name(&self) -> &str {
///         "letters"
///     }
///
///     fn columns(&self) -> &[String] {
///         &self.0
///     }
///
///     fn dimension(&self) -> usize {
///         26
///     }
///
///     fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()> {
///         let texts = rows.column(0).as_string::<i32>().iter().flatten();
///         for (text, vector) in texts.zip(vectors.chunks_exact_mut(self.dimension())) {
///             for letter in text.bytes().filter(u8::is_ascii_lowercase) {
///                 vector[usize::from(letter - b'a')] += 1.0;
///             }
///         }
///         Ok(())
///     }
/// }
///
/// let texts = std::sync::Arc::new(StringArray::from(vec!["abba"]));
/// let rows = RecordBatch::try_from_iter([("text", texts as _)])?;
/// let mut vectors = [0.0; 26];
/// Letters(["text".to_owned()]).encode(&rows, &mut vectors)?;
/// assert_eq!(vectors[..3], [2.0, 2.0, 0.0]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Encoder: Send + Sync + 'static {
    /// Returns the name that messages use.
    fn name(&self) -> &str;

    /// Returns the columns that it reads.
    ///
    /// It never gets rows with a null in one of them: these are an error of [`encode_all`], or are skipped.
    fn columns(&self) -> &[String];

    /// Returns the field of a struct column that it reads, if it reads nothing else of that column.
    ///
    /// An example is `bytes` of images as Hugging Face stores them. Rows in which all that it reads is equal are
    /// duplicates. Default: `None`, which is the whole column.
    fn field(&self, column: &str) -> Option<&str> {
        let _ = column;
        None
    }

    /// Returns d, the numbers of a vector: 1 to 65,536, and always the same.
    fn dimension(&self) -> usize;

    /// Checks, before any rows are read, that it can read rows with this schema.
    ///
    /// `uri` names the source in errors. Default: only columns that are missing are refused.
    ///
    /// # Errors
    /// [`ColumnError::Missing`](crate::error::ColumnError::Missing) or
    /// [`ColumnError::Type`](crate::error::ColumnError::Type), as a rule.
    fn accepts(&self, uri: &str, schema: &Schema) -> Result<()> {
        column_indices(uri, schema, self.columns()).map(drop)
    }

    /// Returns the file that the run watches for a newer model. Default: `None`.
    fn model_file(&self) -> Option<&Path> {
        None
    }

    /// Returns all files of its models, including those with external data.
    ///
    /// Default: [`model_file`](Self::model_file) alone.
    fn model_files(&self) -> Vec<&Path> {
        self.model_file().into_iter().collect()
    }

    /// Opens and tries the model that has replaced the one of this encoder; `None` if none has.
    ///
    /// Each refresh calls it in the compute pool; it may block. Default: `None`.
    ///
    /// # Errors
    /// An error if there is a newer model that cannot be used. The refresh then fails, and this encoder remains in use.
    fn newer(&self) -> Result<Option<Arc<dyn Encoder>>> {
        Ok(None)
    }

    /// Returns a text that identifies its vectors.
    ///
    /// With equal texts, vectors are equal to the bit for the same rows in the same record batch. Embeddings are then
    /// kept from run to run, under the settings `encode.cache_dir` and `cache_limit`. Called once before each pass over
    /// the samples; may block. Default: `None`, with which nothing is kept, and every rank of a job encodes all rows.
    fn identity(&self) -> Option<String> {
        None
    }

    /// Returns how many calls may run side by side, each for other rows. Vectors must not depend on it.
    ///
    /// Default: 1. More are of use if rows can be prepared while a device works on others.
    fn calls_at_once(&self) -> usize {
        1
    }

    /// Encodes rows, all of which must be readable: a row that is not is an error.
    ///
    /// - `rows` holds [`columns`](Self::columns) in that order, and at most 8,192 rows.
    /// - `vectors` [rows × dimension], row-major, holds zeros, to be replaced by the vectors. They need not have unit
    ///   length; one that is not finite, or has no usable length, makes its sample bad.
    /// - It runs inside the compute pool, up to [`calls_at_once`](Self::calls_at_once) calls side by side. Parallel
    ///   iterators of rayon use that pool, and it may block.
    ///
    /// # Errors
    /// Errors of its own, best as [`Error::Encode`].
    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()>;

    /// Encodes rows like [`encode`](Self::encode), but reports rows that cannot be read instead of failing.
    ///
    /// The vectors of such rows remain zeros. For rows that are pairs, it also returns how similar the two are.
    /// Default: [`encode`](Self::encode), with neither.
    ///
    /// # Errors
    /// The errors of [`encode`](Self::encode) that are not the fault of single rows.
    fn encode_readable(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<Encoded> {
        self.encode(rows, vectors).map(|()| Encoded::default())
    }
}

/// What an encoder returns for rows beside their vectors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encoded {
    /// Rows that cannot be read, in order.
    pub bad: Vec<BadRow>,
    /// How similar anchor and positive are, a number a row, if rows are pairs; else empty. Bad rows may have any
    /// number.
    pub pair_similarities: Vec<f32>,
}

/// A row that an encoder cannot read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// Its index in the record batch.
    pub row: usize,
    /// The column at fault.
    pub column: String,
    /// What is wrong with the value, as in "is no UTF-8 from byte 3 on".
    pub reason: String,
}

/// Returns an error for the first of these rows, if there are any.
fn refuse(encoder: &str, bad: Vec<BadRow>) -> Result<()> {
    let Some(BadRow { row, column, reason }) = bad.into_iter().next() else { return Ok(()) };
    Err(Error::Encode { encoder: encoder.to_owned(), cause: format!("column `{column}` at row {row} {reason}").into() })
}

/// Encodes rows with one of several encoders that are joined, and scales the vectors to unit length.
///
/// Rows without a usable vector are added to `bad`, and have zeros.
fn unit_vectors(encoder: &dyn Encoder, rows: &RecordBatch, bad: &mut Vec<BadRow>) -> Result<Vec<f32>> {
    let column_indices = column_indices("the rows", &rows.schema(), encoder.columns())?;
    let rows = rows.project(&column_indices).map_err(|cause| Error::Arrow { action: "select columns", cause })?;
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

/// Sorts the bad rows of several encoders, keeps one reason for each row, and sets their vectors to zeros.
fn once_a_row(bad: &mut Vec<BadRow>, vectors: &mut [f32], dimension: usize) {
    bad.sort_by_key(|bad| bad.row);
    bad.dedup_by_key(|bad| bad.row);
    bad.iter().for_each(|bad| vectors[bad.row * dimension..][..dimension].fill(0.0));
}

/// Opens the encoder that `config` asks for, for rows with this schema. Blocks while a model is loaded.
///
/// # Errors
/// The errors of the encoder; [`Error::Config`] if this build has none for the feature.
pub fn open(config: &EncodeConfig, schema: &Schema) -> Result<Arc<dyn Encoder>> {
    open_of(config, &PairsConfig::default(), schema)
}

/// Opens an encoder like [`open`], for rows that may be pairs.
///
/// For pairs, the columns of anchor and positive replace `column`, also in views that name no column.
pub(crate) fn open_of(config: &EncodeConfig, pairs: &PairsConfig, schema: &Schema) -> Result<Arc<dyn Encoder>> {
    #[cfg(feature = "onnx")]
    let models = model::Models::default();
    #[cfg(not(feature = "onnx"))]
    let models = ();
    let Some(columns) = pairs.columns() else { return open_views(config, schema, &models) };
    let [anchor, positive] = columns.map(|column| {
        let config = EncodeConfig { column: Some(column.clone()), ..config.clone() };
        let is_positive = Some(column) == pairs.positive.as_ref();
        // Vectors are lists themselves.
        let items = if config.kind() == FeatureKind::Vector { None } else { listed::items_of(schema, column) };
        match items.filter(|_| is_positive) {
            Some(items) => {
                Ok(Arc::new(ListEncoder::new(open_views(&config, &items, &models)?, column)) as Arc<dyn Encoder>)
            }
            None => open_views(&config, schema, &models),
        }
    });
    let encoder = PairEncoder::new(anchor?, positive?, pairs.graph_over)?;
    Ok(Arc::new(if pairs.corpus.is_empty() { encoder } else { encoder.with_corpus() }))
}

#[cfg(feature = "onnx")]
type Models = model::Models;
#[cfg(not(feature = "onnx"))]
type Models = ();

/// Opens the encoder of the settings, or one for each of their views.
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

// A wrapper decides about every method, also about those with a default.
#[deny(clippy::missing_trait_methods)]
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
