//! Saves embedding tables to files, and reads them.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, Float16Array, Float32Array, Int8Array, PrimitiveArray,
    RecordBatch,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Field, Float16Type, Float32Type, Int8Type, Schema};

use super::EmbeddingTable;
use super::skipped::Skipped;
use super::stored::StoredVectors;
use crate::arrow_file;
use crate::config::Similarity;
use crate::error::{Error, Result};
use crate::memory::LargeArray;
use crate::sample::{ModelVersion, SampleId};

impl EmbeddingTable {
    /// Saves the table as an uncompressed Arrow IPC file of one record batch.
    ///
    /// Its columns are
    ///
    /// - `embedding`: a list of d numbers a sample, in the type that the table keeps; null for a skipped sample.
    /// - `factor`, for i8: what the numbers of the sample are to be multiplied by.
    /// - `pair_similarity`, if rows are pairs.
    /// - `is_inconsistent`, if [`pairs.within`](crate::config::PairsConfig::within) leaves some of these out.
    ///
    /// The file is written under a temporary name in the folder of `path`, which is created if it is missing, and
    /// renamed when it is complete on disk. Copies the numbers once, if they are in memory, and blocks meanwhile.
    ///
    /// # Errors
    /// [`Error::Io`]; `path` is then unchanged.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        arrow_file::save(path.as_ref(), &self.to_record_batch()?)
    }

    /// Saves the table for processes that run at the same time: it need not be on disk.
    pub(crate) fn save_for_now(&self, path: &Path) -> Result<()> {
        arrow_file::save_for_now(path, &self.to_record_batch()?)
    }

    fn to_record_batch(&self) -> Result<RecordBatch> {
        let (numbers, factors): (ArrayRef, _) = match &self.vectors {
            StoredVectors::F32(vectors) => (Arc::new(Float32Array::new(vectors.to_buffer(), None)), None),
            StoredVectors::F16(vectors) => (Arc::new(Float16Array::new(vectors.to_buffer(), None)), None),
            StoredVectors::I8 { numbers, factors } => {
                (Arc::new(Int8Array::new(numbers.to_buffer(), None)), Some(factors.to_vec()))
            }
        };
        let item = Arc::new(Field::new_list_field(numbers.data_type().clone(), false));
        let width = i32::try_from(self.dimension).unwrap_or(i32::MAX);
        let present = |_| (0..self.len()).map(|i| !self.is_skipped(SampleId::new(i))).collect::<NullBuffer>();
        let nulls = Some(()).filter(|()| self.skipped() > 0).map(present);
        let batch = FixedSizeListArray::try_new(item, width, numbers, nulls).and_then(|embeddings| {
            let mut columns = vec![Arc::new(embeddings) as ArrayRef];
            let mut names = vec!["embedding"];
            let pairs = Some(&self.pair_similarities).filter(|pairs| !pairs.is_empty());
            for (name, numbers) in [("factor", factors), ("pair_similarity", pairs.cloned())] {
                if let Some(numbers) = numbers {
                    names.push(name);
                    columns.push(Arc::new(Float32Array::from(numbers)));
                }
            }
            if !self.inconsistent.is_empty() {
                let flags = (0..self.len()).map(|i| Some(self.is_inconsistent(SampleId::new(i))));
                names.push("is_inconsistent");
                columns.push(Arc::new(flags.collect::<BooleanArray>()));
            }
            let fields =
                columns.iter().zip(names).map(|(c, name)| Field::new(name, c.data_type().clone(), c.is_nullable()));
            let metadata = [
                (arrow_file::FORMAT_VERSION, FORMAT.to_owned()),
                (MODEL_VERSION, self.model_version.to_string()),
                (SIMILARITY, self.similarity.name().to_owned()),
                (SKIP_REASONS, self.skipped.lines()),
            ];
            let metadata = metadata.map(|(key, value)| (key.to_owned(), value));
            RecordBatch::try_new(Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), metadata)), columns)
        });
        batch.map_err(|cause| Error::Arrow { action: "save embeddings", cause })
    }

    /// Reads a saved table into memory, and checks it against its checksum. Blocks meanwhile.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Damaged`] for a file that has changed since it was written; [`Error::Corrupt`] for a
    /// file of another kind.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let mut table = Self::map(path.as_ref())?;
        table.vectors = table.vectors.copy_with_capacity(table.len(), table.dimension);
        Ok(table)
    }

    /// Maps a saved table, so that processes that map the same file share the memory that it takes.
    ///
    /// Reads the file once, to check it against its checksum, and blocks meanwhile. The file may be replaced while it
    /// is mapped, but must not be changed in place.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn map(path: impl AsRef<Path>) -> Result<Self> {
        arrow_file::open_one(path.as_ref(), FORMAT, "embeddings that this version reads", decode)
    }
}

/// Makes a table over the buffers of a file's record batch. The error is the reason why that fails.
fn decode(schema: &Schema, batch: &RecordBatch) -> Result<EmbeddingTable, String> {
    let key = |key| schema.metadata().get(key).map_or("", String::as_str);
    let model_version = key(MODEL_VERSION).parse().map(ModelVersion).map_err(|_| "it has no model version")?;
    let similarity =
        [Similarity::Cosine, Similarity::Dot, Similarity::Cross].into_iter().find(|s| s.name() == key(SIMILARITY));
    let similarity = similarity.ok_or("it has no similarity")?;
    let embeddings = batch.column_by_name("embedding").and_then(|c| c.as_fixed_size_list_opt());
    let embeddings = embeddings.ok_or("it has no `embedding`s")?;
    let values = embeddings.values();
    let floats = |name: &str| {
        let column = batch.column_by_name(name).and_then(|c| c.as_primitive_opt::<Float32Type>());
        column.map(|column| column.values().clone())
    };
    let vectors = match values.data_type() {
        DataType::Float32 => StoredVectors::F32(mapped(values.as_primitive::<Float32Type>())),
        DataType::Float16 => StoredVectors::F16(mapped(values.as_primitive::<Float16Type>())),
        DataType::Int8 => {
            let factors = LargeArray::Mapped(floats("factor").ok_or("its numbers have no `factor`")?);
            StoredVectors::I8 { numbers: mapped(values.as_primitive::<Int8Type>()), factors }
        }
        other => return Err(format!("its embeddings are {other}")),
    };
    let dimension = usize::try_from(embeddings.value_length()).unwrap_or(0).max(1);
    let mut skipped = Skipped::default();
    if embeddings.null_count() > 0 {
        let nulls = (0..embeddings.len()).filter(|&sample| embeddings.is_null(sample));
        nulls.for_each(|sample| skipped.add(SampleId::new(sample)));
        skipped.read_lines(key(SKIP_REASONS)).ok_or("its reasons for skipped samples cannot be read")?;
    }
    let pair_similarities = floats("pair_similarity").map(|floats| floats.to_vec()).unwrap_or_default();
    let inconsistent = batch.column_by_name("is_inconsistent").and_then(|c| c.as_boolean_opt());
    let inconsistent = inconsistent.map_or_else(Vec::new, |flags| {
        let mut bits = vec![0u64; flags.len().div_ceil(64)];
        flags.values().set_indices().for_each(|sample| bits[sample / 64] |= 1 << (sample % 64));
        bits
    });
    Ok(EmbeddingTable { vectors, dimension, similarity, model_version, skipped, pair_similarities, inconsistent })
}

fn mapped<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>) -> LargeArray<T::Native> {
    LargeArray::Mapped(array.values().clone())
}

/// Keys of the schema's metadata.
const MODEL_VERSION: &str = "model_version";
const SIMILARITY: &str = "similarity";
const SKIP_REASONS: &str = "skip_reasons";

/// The version of the format, raised if older readers would misread a file.
const FORMAT: &str = "3";
