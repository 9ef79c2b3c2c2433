//! "Here are rows, give me vectors."
//!
//! An [`Encoder`] turns record batches into embeddings; [`encode_all`] runs one over a whole [`Store`] and checks what
//! comes back. `OnnxEncoder` runs texts, images, tensors or graphs through ONNX Runtime, [`ColumnEncoder`] reads vectors
//! that are in the data already, [`CombinedEncoder`] makes one vector of several encoders', [`PairEncoder`] joins two for
//! rows that are pairs, and anything else that makes vectors is an `Encoder` of your own (see
//! `examples/custom_encoder.rs`). [`open`] gives the one that settings ask for.

mod ahead;
#[cfg(feature = "onnx")]
mod batching;
mod column;
mod combined;
#[cfg(feature = "onnx")]
pub mod cuda;
#[cfg(feature = "onnx")]
mod features;
#[cfg(feature = "onnx")]
mod inputs;
#[cfg(feature = "onnx")]
mod model;
#[cfg(feature = "onnx")]
mod onnx;
mod pairs;
mod pooling;
#[cfg(feature = "onnx")]
mod provider;
#[cfg(feature = "onnx")]
pub mod runtime;
#[cfg(feature = "onnx")]
mod transfer;
#[cfg(feature = "onnx")]
mod until_exit;

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Schema;

use self::ahead::in_order;
pub use self::column::ColumnEncoder;
pub use self::combined::CombinedEncoder;
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
use crate::config::{EncodeConfig, Fault, Faults, FeatureKind, OnBadSample, PairsConfig, Similarity, Storage};
use crate::error::{Error, Result};
use crate::sample::{ModelVersion, SampleId};
use crate::source::positions;
use crate::store::{EmbeddingTable, Store};
use crate::telemetry;

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

    /// All such files, of an encoder that is made of several; by default [`model_file`](Self::model_file) alone.
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

    /// Calls that may run side by side, each for other rows: 1, the default, or more where rows can be prepared while a
    /// device works on others. Vectors must not depend on it.
    fn calls_at_once(&self) -> usize {
        1
    }

    /// Writes the vectors of `rows` to `vectors` [rows × dimension], row-major, all zeros before. `rows` holds
    /// [`columns`](Self::columns) in that order, at most 8,192 rows. Runs inside the compute pool,
    /// [`calls_at_once`](Self::calls_at_once) side by side: parallel iterators of rayon use the pool, and blocking is
    /// fine. Vectors need not have unit length; they must be finite.
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
        let fault = |key: &str, message: &str| -> Error {
            let fault = Fault { key: format!("encode{key}"), line: None, message: message.into() };
            Faults { origin: "the settings".into(), faults: vec![fault] }.into()
        };
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

/// Embeds all samples of `store`. `progress` hears how many are done. Blocks, for minutes where the model is large:
/// run it in a [`ComputePool`](crate::ComputePool). Takes the memory of the table, and little beyond.
///
/// # Errors
/// [`Error::MissingColumn`]; [`Error::NullValue`], [`Error::BadSample`], [`Error::NotFinite`] and [`Error::BadLength`] with
/// the sample; the encoder's own.
pub fn encode_all(
    encoder: &dyn Encoder,
    store: &Store,
    storage: Storage,
    similarity: Similarity,
    model_version: ModelVersion,
    progress: &mut dyn FnMut(usize),
) -> Result<EmbeddingTable> {
    encode_present(encoder, store, BadSamples::default(), (storage, similarity, model_version), progress)
}

/// What becomes of samples that cannot be read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BadSamples {
    pub on_bad_sample: OnBadSample,
    /// So many were skipped before, of which nobody needs to hear again.
    pub known: usize,
}

/// [`encode_all`], which may skip samples.
pub(crate) fn encode_present(
    encoder: &dyn Encoder,
    store: &Store,
    bad: BadSamples,
    (storage, similarity, model_version): (Storage, Similarity, ModelVersion),
    progress: &mut dyn FnMut(usize),
) -> Result<EmbeddingTable> {
    let _span = telemetry::encode(encoder.name(), store.len(), model_version).entered();
    let dimension = encoder.dimension();
    let mut table = EmbeddingTable::with_capacity(store.len(), dimension, storage, similarity, model_version)?;
    encode_rest(encoder, store, bad, &mut table, progress)?;
    Ok(table)
}

/// Embeds those samples of `store` that `table` does not have yet: the last ones.
///
/// # Errors
/// As [`encode_all`].
pub(crate) fn encode_rest(
    encoder: &dyn Encoder,
    store: &Store,
    bad: BadSamples,
    table: &mut EmbeddingTable,
    progress: &mut dyn FnMut(usize),
) -> Result<()> {
    let store = store.select(encoder.columns())?;
    let (d, known) = (encoder.dimension(), table.len());
    let missing = store.record_batches().filter_map(|(first, rows)| {
        let known = known.saturating_sub(first.index());
        let left = rows.num_rows().checked_sub(known).filter(|left| *left > 0)?;
        Some((SampleId::new(first.index() + known), rows.slice(known, left)))
    });
    let encode = |(first, rows): (SampleId, RecordBatch)| {
        if bad.on_bad_sample == OnBadSample::Fail {
            refuse_nulls(first, &rows)?;
        }
        let mut vectors = vec![0f32; rows.num_rows() * d];
        let encoded = encode_without_nulls(encoder, &rows, &mut vectors)?;
        Ok((first, vectors, encoded))
    };
    let mut example = None;
    let take = |(first, mut vectors, encoded): (SampleId, Vec<f32>, Encoded)| {
        let Encoded { bad: unread, pair_similarities } = encoded;
        if let (None, Some(BadRow { row, column, reason })) = (&example, unread.first().cloned()) {
            let sample = SampleId::new(first.index() + row);
            if bad.on_bad_sample == OnBadSample::Fail {
                return Err(Error::BadSample { sample, column, reason });
            }
            example = Some((sample, column, reason));
        }
        let skipped: Vec<_> = unread.iter().map(|bad| bad.row).collect();
        table.push_except(&mut vectors, &skipped)?;
        table.push_pair_similarities(&pair_similarities);
        progress(first.index() + vectors.len() / d);
        Ok(())
    };
    in_order(missing, encoder.calls_at_once(), encode, take)?;
    match (table.skipped(), example) {
        (skipped, Some((sample, column, reason))) if skipped > bad.known => {
            telemetry::samples_skipped(skipped, sample, &column, &reason);
        }
        _ => {}
    }
    Ok(())
}

/// Encodes the rows without nulls, which encoders need not know; the others are as bad as those that cannot be read.
fn encode_without_nulls(encoder: &dyn Encoder, rows: &RecordBatch, vectors: &mut [f32]) -> Result<Encoded> {
    let nulls: Vec<_> = rows.columns().iter().map(Array::logical_nulls).collect();
    if nulls.iter().flatten().all(|nulls| nulls.null_count() == 0) {
        return encoder.encode_readable(rows, vectors);
    }
    let is_null = |row: usize| nulls.iter().position(|nulls| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)));
    let (mut kept, mut bad) = (Vec::new(), Vec::new());
    for row in 0..rows.num_rows() {
        match is_null(row) {
            None => kept.push(row),
            Some(column) => {
                let column = rows.schema().field(column).name().clone();
                bad.push(BadRow { row, column, reason: "is null".into() });
            }
        }
    }
    let mask: BooleanArray = (0..rows.num_rows()).map(|row| Some(is_null(row).is_none())).collect();
    let rows = filter_record_batch(rows, &mask).map_err(|cause| Error::Arrow { action: "leave nulls out", cause })?;
    let d = encoder.dimension();
    let mut part = vec![0f32; kept.len() * d];
    let empty = kept.is_empty();
    let encoded = if empty { Encoded::default() } else { encoder.encode_readable(&rows, &mut part)? };
    for (&row, vector) in kept.iter().zip(part.chunks_exact(d)) {
        vectors[row * d..][..d].copy_from_slice(vector);
    }
    bad.extend(encoded.bad.into_iter().map(|bad| BadRow { row: kept[bad.row], ..bad }));
    bad.sort_by_key(|bad| bad.row);
    let pairs = !encoded.pair_similarities.is_empty();
    let mut pair_similarities = vec![0.0; if pairs { mask.len() } else { 0 }];
    for (&row, similarity) in kept.iter().zip(encoded.pair_similarities) {
        pair_similarities[row] = similarity;
    }
    Ok(Encoded { bad, pair_similarities })
}

fn refuse_nulls(first: SampleId, rows: &RecordBatch) -> Result<()> {
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        let Some(nulls) = column.logical_nulls() else { continue };
        let Some(row) = (0..column.len()).find(|&row| nulls.is_null(row)) else { continue };
        return Err(Error::NullValue {
            column: field.name().clone(),
            sample: SampleId::new(first.index() + row),
            count: nulls.null_count(),
            rows: rows.num_rows(),
        });
    }
    Ok(())
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
