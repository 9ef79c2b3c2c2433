//! What several tests need.

pub mod command;
mod cosines;
mod encoder;
pub mod pairs;
pub mod refresh;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use prosampler::arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array};
use prosampler::config::{GraphConfig, Similarity, WalkConfig};
use prosampler::embeddings::EmbeddingTable;
use prosampler::encode::Encoder;
use prosampler::source::MemorySource;
use prosampler::{MiniBatch, MiniBatchStream, ModelVersion, Pipeline, PipelineBuilder, Result};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

pub use self::cosines::Cosines;
pub use self::encoder::{DIMENSION, ModelFault, TestEncoder, trained_vectors};

/// A path in the repository.
pub fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

/// Rows `n` = 0, 1, … with a `text` each.
pub fn rows(len: usize) -> RecordBatch {
    let numbers: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..len as u32));
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..len).map(|i| format!("text {i}"))));
    RecordBatch::try_from_iter([("n", numbers), ("text", texts)]).unwrap()
}

pub fn source(len: usize) -> MemorySource {
    MemorySource::new(vec![rows(len)]).unwrap()
}

/// The next `n` mini-batches, or fewer at the end.
pub async fn take(stream: &mut MiniBatchStream, n: usize) -> Vec<MiniBatch> {
    stream.take(n).try_collect().await.unwrap()
}

/// Vectors in `clusters` clusters, from a seed.
pub fn vectors(len: usize, dimension: usize, clusters: usize, seed: u64) -> Vec<f32> {
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let mut gaussian = move || (0..12).map(|_| generator.random_range(-0.5..0.5f32)).sum::<f32>();
    let centers: Vec<f32> = (0..clusters * dimension).map(|_| gaussian()).collect();
    let near = |i: usize| centers[i % (clusters * dimension)];
    (0..len * dimension).map(|i| near(i) + 0.6 * gaussian()).collect()
}

pub fn table(len: usize, dimension: usize, clusters: usize, seed: u64) -> EmbeddingTable {
    EmbeddingTable::new(vectors(len, dimension, clusters, seed), dimension, Similarity::Cosine, ModelVersion(1))
        .unwrap()
}

pub fn graph_config(candidates: usize, neighbors: usize) -> GraphConfig {
    GraphConfig { candidates: candidates.into(), neighbors: Some(neighbors), ..GraphConfig::default() }
}

pub fn walk_config(batch_size: usize) -> WalkConfig {
    WalkConfig { batch_size, ..WalkConfig::default() }
}

/// A small pipeline over `len` rows in memory.
pub fn pipeline(len: usize, batch_size: usize) -> PipelineBuilder {
    Pipeline::builder()
        .source(source(len))
        .encoder(TestEncoder::new(len))
        .graph(graph_config(40, 10))
        .walk(walk_config(batch_size))
        .seed(7)
}

/// Writes Parquet, in row groups of `row_group` rows.
pub fn write_parquet(path: &Path, batch: &RecordBatch, row_group: usize) {
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_max_row_group_row_count(Some(row_group))
        .set_dictionary_enabled(false)
        .build();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

/// All rows of a Parquet file of the repository.
pub fn read_parquet(relative: &str) -> RecordBatch {
    let file = std::fs::File::open(path(relative)).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let batches: Vec<_> = reader.map(Result::unwrap).collect();
    prosampler::arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap()
}

/// Lists of numbers, as f32.
pub fn lists(rows: &RecordBatch, column: &str) -> Vec<Vec<f32>> {
    use prosampler::arrow::datatypes::{DataType, Field, Float32Type};
    let to = DataType::List(Arc::new(Field::new_list_field(DataType::Float32, true)));
    let list = prosampler::arrow::compute::cast(rows.column_by_name(column).unwrap(), &to).unwrap();
    list.as_list::<i32>().iter().map(|row| row.unwrap().as_primitive::<Float32Type>().values().to_vec()).collect()
}

/// What an encoder makes of rows, which may have other columns too.
pub fn encode(encoder: &dyn Encoder, rows: &RecordBatch) -> Vec<Vec<f32>> {
    encoder.accepts("the rows", &rows.schema()).unwrap();
    let places: Vec<_> = encoder.columns().iter().map(|c| rows.schema().index_of(c).unwrap()).collect();
    let mut vectors = vec![0f32; rows.num_rows() * encoder.dimension()];
    encoder.encode(&rows.project(&places).unwrap(), &mut vectors).unwrap();
    vectors.chunks(encoder.dimension()).map(<[f32]>::to_vec).collect()
}

/// The largest difference of two lists of vectors.
pub fn difference(a: &[Vec<f32>], b: &[Vec<f32>]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b).flat_map(|(a, b)| {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b)
    });
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// What is wrong with a message: the parts that it lacks.
pub fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is missing in: {message}");
    }
}
