//! What `prosampler export` writes is the data, its vectors, and its neighbors as brute force finds them.

use std::fs;

use futures::TryStreamExt;
use prosampler::arrow::array::{AsArray, RecordBatch};
use prosampler::arrow::compute::concat_batches;
use prosampler::arrow::datatypes::{Float32Type, Int64Type, UInt32Type};
use prosampler::source::{FileSource, Source};
use tempfile::TempDir;

use crate::{dot, ends_with, prosampler, rows, vectors, write_arrow};

const LEN: usize = 400;

fn folder() -> TempDir {
    let dir = TempDir::new().unwrap();
    write_arrow(&dir, &rows(&vectors(LEN, 16, 8, 0.3), 8));
    let text = "source.uri = 'rows.arrow'\n[encode]\nfeature = 'vector'\ncolumn = 'vector'\n\
         [graph]\ncandidates = 399\nneighbors = 5\n[walk]\nbatch_size = 20\n";
    fs::write(dir.path().join("p.toml"), text).unwrap();
    dir
}

async fn read(dir: &TempDir) -> RecordBatch {
    let source = FileSource::open(dir.path().join("out.parquet").to_str().unwrap()).await.unwrap();
    let schema = source.schema();
    let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let batches: Vec<RecordBatch> = source.read(&names).unwrap().try_collect().await.unwrap();
    concat_batches(&schema, &batches).unwrap()
}

#[tokio::test]
async fn rows_embeddings_and_neighbors() {
    let dir = folder();
    let (_, said) = ends_with(&prosampler(dir.path(), &["export", "p.toml", "--atlas", "out.parquet"]), 0);
    assert!(said.contains("out.parquet: 400 rows"), "{said}");
    let found = read(&dir).await;
    let vectors = vectors(LEN, 16, 8, 0.3);
    let original = rows(&vectors, 8);
    for column in ["text", "label", "vector"] {
        assert_eq!(&found[column], &original[column], "{column}");
    }
    let ids: Vec<u32> = found["sample_id"].as_primitive::<UInt32Type>().values().to_vec();
    assert_eq!(ids, (0..LEN as u32).collect::<Vec<_>>());

    let neighbors = found["neighbors"].as_struct();
    let (lists, distances) = (neighbors["ids"].as_list::<i32>(), neighbors["distances"].as_list::<i32>());
    let embeddings = found["embedding"].as_fixed_size_list();
    for a in 0..LEN {
        let list = lists.value(a);
        let list = list.as_primitive::<Int64Type>().values();
        let mut others: Vec<usize> = (0..LEN).filter(|&b| b != a).collect();
        others.sort_by(|&b, &c| dot(&vectors[a], &vectors[c]).total_cmp(&dot(&vectors[a], &vectors[b])));
        // Rounding may swap two that are equally near.
        let worst = dot(&vectors[a], &vectors[others[4]]);
        assert_eq!(list.len(), 5);
        for (place, &b) in list.iter().enumerate() {
            let similarity = dot(&vectors[a], &vectors[b as usize]);
            assert!(similarity >= worst - 1e-5);
            let distance = distances.value(a).as_primitive::<Float32Type>().value(place);
            assert!((f64::from(distance) - (1.0 - similarity)).abs() < 1e-5);
        }
        let embedding = embeddings.value(a);
        let embedding = embedding.as_primitive::<Float32Type>().values();
        assert!(embedding.iter().zip(&vectors[a]).all(|(x, y)| (x - y).abs() < 1e-6));
    }
}

#[test]
fn a_column_of_the_data_is_not_hidden() {
    let dir = folder();
    let rows = rows(&vectors(LEN, 16, 8, 0.3), 8);
    let schema = rows.schema();
    let renamed = schema.fields().iter().map(|field| {
        let name = if field.name() == "label" { "embedding" } else { field.name() };
        field.as_ref().clone().with_name(name)
    });
    let schema = prosampler::arrow::datatypes::Schema::new(renamed.collect::<Vec<_>>());
    write_arrow(&dir, &RecordBatch::try_new(schema.into(), rows.columns().to_vec()).unwrap());
    let (_, said) = ends_with(&prosampler(dir.path(), &["export", "p.toml", "--atlas", "out.parquet"]), 4);
    assert!(said.contains("`embedding`") && said.contains("source.columns"), "{said}");
    assert!(!dir.path().join("out.parquet").exists());
}
