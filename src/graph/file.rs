//! Saves graphs to Arrow files, and opens these.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, FixedSizeListArray, Float32Array, RecordBatch, UInt32Array};
use arrow::buffer::ScalarBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Float32Type, Schema, UInt32Type};

use crate::arrow_file;
use crate::error::{ArgumentError, Error, Result};
use crate::graph::ProximityGraph;
use crate::graph::proximity_graph::EMPTY;
use crate::sample::GraphVersion;

impl ProximityGraph {
    /// Saves the graph as an uncompressed Arrow IPC file of one record batch, which any reader of Arrow opens.
    ///
    /// Its columns are `neighbors` and `similarities`, lists of K numbers for each sample, and for a kNN graph
    /// `spares`, its reserve (2³² − 1 stands for none).
    ///
    /// Writes 8 K bytes a sample under a temporary name in the folder of `path`, which it makes if necessary, and
    /// renames the file once it is complete on disk. It blocks, so do not call it on threads of an async runtime.
    ///
    /// # Errors
    /// [`Error::Io`]; `path` is then as it was before.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        arrow_file::save(path.as_ref(), &self.to_record_batch()?)
    }

    /// Saves the graph for processes that run at the same time: it need not be on disk.
    pub(crate) fn save_for_now(&self, path: &Path) -> Result<()> {
        arrow_file::save_for_now(path, &self.to_record_batch()?)
    }

    fn to_record_batch(&self) -> Result<RecordBatch> {
        let width = i32::try_from(self.degree);
        let width = width.map_err(|_| ArgumentError::Shape { found: self.neighbors.len(), dimension: self.degree })?;
        let metadata =
            [(arrow_file::FORMAT_VERSION, GRAPH_FILE_FORMAT.to_owned()), (GRAPH_VERSION, self.version.to_string())];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value));
        let list = |item: DataType, width, values: ArrayRef| -> Result<ArrayRef, _> {
            FixedSizeListArray::try_new(numbers(item), width, values, None).map(|list| Arc::new(list) as _)
        };
        let ids = |ids: &ScalarBuffer<u32>| Arc::new(UInt32Array::new(ids.clone(), None));
        let similarities = Arc::new(Float32Array::new(self.similarities.clone(), None));
        // The reserve is max(14, K / 8 + 4) ids, so it fits as K does.
        let reserve = self.reserve_len() as i32;
        let batch = list(DataType::UInt32, width, ids(&self.neighbors)).and_then(|neighbors| {
            let mut columns = vec![neighbors, list(DataType::Float32, width, similarities)?];
            if reserve > 0 {
                columns.push(list(DataType::UInt32, reserve, ids(&self.reserve))?);
            }
            RecordBatch::try_new(Arc::new(Schema::new_with_metadata(fields(width, reserve), metadata)), columns)
        });
        batch.map_err(|cause| Error::Arrow { action: "save a graph", cause })
    }

    /// Opens a saved graph, memory-mapped: nothing is copied, and the operating system decides what stays in memory.
    ///
    /// Reads the file once, to check that it is as it was written, that all neighbors are samples and all similarities
    /// finite. It blocks, so do not call it on threads of an async runtime. The file may be replaced while it is open,
    /// but must not be changed in place.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Damaged`] if the file is not as it was written; [`Error::Corrupt`] if it is no graph.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        arrow_file::open_one(path.as_ref(), GRAPH_FILE_FORMAT, "a proximity graph that this version reads", decode)
    }
}

/// Makes a graph over the same buffers, or says what is wrong.
fn decode(schema: &Schema, batch: &RecordBatch) -> Result<ProximityGraph, String> {
    let width = match schema.fields().first().map(|field| field.data_type()) {
        Some(&DataType::FixedSizeList(_, width)) if width > 0 => width,
        _ => return Err("the first column has no lists of neighbors".into()),
    };
    let reserve = match schema.fields().get(2).map(|field| field.data_type()) {
        Some(&DataType::FixedSizeList(_, reserve)) => reserve.max(0),
        _ => 0,
    };
    if *schema.fields() != fields(width, reserve) {
        return Err("its columns are not `neighbors` and `similarities` of equal width, and `spares`".into());
    }
    let version = schema.metadata().get(GRAPH_VERSION).and_then(|version| version.parse().ok());
    let version = version.map(GraphVersion).ok_or("it has no graph version")?;
    let values = |column: usize| batch.column(column).as_fixed_size_list().values();
    let neighbors = values(0).as_primitive::<UInt32Type>().values().clone();
    let similarities = values(1).as_primitive::<Float32Type>().values().clone();
    let (len, degree) = (batch.num_rows(), width as usize);
    if let Some(id) = neighbors.iter().find(|&&id| id as usize >= len) {
        return Err(format!("it has {len} samples, and {id} among their neighbors"));
    }
    if let Some(index) = similarities.iter().position(|similarity| !similarity.is_finite()) {
        return Err(format!("a similarity of sample {} is {}", index / degree, similarities[index]));
    }
    let graph = ProximityGraph::of_buffers(neighbors, similarities, degree, version);
    if reserve == 0 {
        return Ok(graph);
    }
    let reserve = values(2).as_primitive::<UInt32Type>().values().clone();
    match reserve.iter().find(|&&id| id as usize >= len && id != EMPTY.0) {
        Some(id) => Err(format!("it has {len} samples, and {id} among their spares")),
        None => Ok(graph.with_reserve(reserve)),
    }
}

/// The columns of a file; without a reserve there are two.
fn fields(width: i32, reserve: i32) -> Fields {
    let list = |name, item, width| Field::new_fixed_size_list(name, numbers(item), width, false);
    let mut fields = vec![list("neighbors", DataType::UInt32, width), list("similarities", DataType::Float32, width)];
    if reserve > 0 {
        fields.push(list(RESERVE_COLUMN, DataType::UInt32, reserve));
    }
    fields.into()
}

fn numbers(item: DataType) -> FieldRef {
    Arc::new(Field::new_list_field(item, false))
}

/// The column of the reserve.
const RESERVE_COLUMN: &str = "spares";

/// The key of the graph's version in the schema's metadata.
const GRAPH_VERSION: &str = "graph_version";

/// The format of files; raised when older readers would misread a file.
const GRAPH_FILE_FORMAT: &str = "2";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::SampleId;

    /// Three samples with one neighbor each.
    fn handmade(ids: [u32; 3], similarity: f32) -> RecordBatch {
        let list = |item: DataType, values: ArrayRef| {
            Arc::new(FixedSizeListArray::new(numbers(item), 1, values, None)) as ArrayRef
        };
        let ids = list(DataType::UInt32, Arc::new(UInt32Array::from(ids.to_vec())));
        let similarities = list(DataType::Float32, Arc::new(Float32Array::from(vec![similarity; 3])));
        let metadata = [(GRAPH_VERSION.to_owned(), "3".to_owned())];
        let schema = Schema::new_with_metadata(fields(1, 0), metadata);
        RecordBatch::try_new(Arc::new(schema), vec![ids, similarities]).expect("columns of the schema")
    }

    #[test]
    fn what_is_no_graph_is_refused_with_a_reason() {
        let decoded = |batch: &RecordBatch| decode(&batch.schema(), batch);
        let good = handmade([1, 2, 0], 0.5);
        assert_eq!(decoded(&good).expect("a graph").neighbors(SampleId(1)), [SampleId(2)]);
        for (batch, reason) in [
            (good.project(&[0]).expect("a column"), "not `neighbors` and `similarities`"),
            (good.project(&[1, 0]).expect("columns"), "not `neighbors` and `similarities`"),
            (handmade([1, 3, 0], 0.5), "it has 3 samples, and 3 among their neighbors"),
            (handmade([1, 2, 0], f32::NAN), "a similarity of sample 0 is NaN"),
        ] {
            let error = decoded(&batch).expect_err("no graph");
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn an_opened_graph_lies_in_the_mapped_file() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("graph.arrow");
        let ids = (0..30).map(|i| SampleId((i + 1) % 10)).collect();
        ProximityGraph::from_parts(ids, vec![0.5; 30], 3, GraphVersion(4)).save(&path).expect("saved");
        let graph = ProximityGraph::open(&path).expect("opened");
        // A copied array would have an allocation of its own.
        let (ids, similarities) = (graph.neighbors.inner(), graph.similarities.inner());
        assert_eq!(ids.data_ptr(), similarities.data_ptr());
        assert_ne!(ids.ptr_offset(), similarities.ptr_offset());
    }
}
