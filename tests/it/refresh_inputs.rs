//! A refresh takes in vectors that the trainer has pushed, and files that are new.

use std::collections::HashSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures::{StreamExt, TryStreamExt};
use prosampler::arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use prosampler::arrow::datatypes::UInt32Type;
use prosampler::config::{OnCorrupt, RefreshConfig, SourceConfig, StreamConfig};
use prosampler::source::FileSource;
use prosampler::{MiniBatchStream, ModelVersion, Pipeline, SampleId};
use tempfile::TempDir;

use crate::support::refresh::{SAMPLES, embeddings_of, in_training, start, table_of};
use crate::support::{DIMENSION, graph_config, rows, trained_vectors, vectors, walk_config, write_parquet};

#[tokio::test(flavor = "multi_thread")]
async fn pushed_vectors_take_the_place_of_embeddings() {
    let encoder = in_training();
    let mut stream = start(&encoder, RefreshConfig::default()).await;
    let handle = stream.handle();
    let passes = encoder.calls.load(Relaxed);
    let take = async |stream: &mut MiniBatchStream, n| stream.take(n).try_collect::<Vec<_>>().await.unwrap();
    take(&mut stream, 10).await;
    let new = vectors(SAMPLES, DIMENSION, 5, 9);
    let ids: Vec<_> = (100..500).map(SampleId).collect();
    handle.push_embeddings(&ids, &new[100 * DIMENSION..500 * DIMENSION]).unwrap();
    take(&mut stream, 20).await;
    // Of two pushes for a sample, the later one counts.
    handle
        .push_embeddings(
            &[SampleId(499), SampleId(0)],
            &[new[499 * DIMENSION..500 * DIMENSION].to_vec(), new[..DIMENSION].to_vec()].concat(),
        )
        .unwrap();

    for (ids, vectors, expected) in [
        (vec![SampleId(0)], vec![1.0; DIMENSION + 1], "9 numbers do not make whole rows of 8"),
        (vec![SampleId(SAMPLES as u32)], vec![1.0; DIMENSION], "sample 600 does not exist"),
        (vec![SampleId(5)], vec![f32::NAN; DIMENSION], "the embedding of sample 5 is not finite"),
        (vec![SampleId(6)], vec![0.0; DIMENSION], "the embedding of sample 6 has length 0"),
    ] {
        let error = handle.push_embeddings(&ids, &vectors).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    let refreshed = handle.refresh_now().await.unwrap();
    assert_eq!((refreshed.pushed, refreshed.model_version), (401, ModelVersion(2)));
    assert_eq!(encoder.calls.load(Relaxed), passes, "no inference");
    let mut expected = trained_vectors(0, SAMPLES);
    for i in (100..500).chain([0]) {
        expected[i * DIMENSION..(i + 1) * DIMENSION].copy_from_slice(&new[i * DIMENSION..(i + 1) * DIMENSION]);
    }
    let expected = table_of(expected, ModelVersion(2));
    let snapshot = stream.snapshot().unwrap();
    assert_eq!(*snapshot.embeddings, expected);
    // Ages at step 50: 199 vectors were made at the start, 399 pushed at step 10, and two at step 30.
    let age = snapshot.age(50);
    assert!((age.mean - (199.0 * 50.0 + 399.0 * 40.0 + 2.0 * 20.0) / 600.0).abs() < 1e-9, "{age:?}");
    assert_eq!((age.p95, age.never_pushed), (50, 199));
    // A mini-batch made after the refresh has the mean age of its own samples as its staleness.
    let later = take(&mut stream, 20).await.pop().unwrap();
    let made = |id: &SampleId| match id.0 {
        0 | 499 => 30,
        100..499 => 10,
        _ => 0,
    };
    let ages: u64 = later.ids.iter().map(|id| later.step - made(id)).sum();
    assert_eq!(later.staleness.unwrap(), ages / later.ids.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_files_join_at_a_refresh_and_the_next_epoch() {
    let dir = TempDir::new().unwrap();
    write_parquet(&dir.path().join("b.parquet"), &rows(SAMPLES), 100);
    let builder = Pipeline::builder()
        .source(FileSource::open(dir.path().display().to_string()).await.unwrap())
        .encoder(in_training())
        .graph(graph_config(40, 10))
        .walk(walk_config(20))
        .stream(StreamConfig { epochs: 2, ..StreamConfig::default() });
    let mut stream = builder.start().await.unwrap();
    stream.next().await.unwrap().unwrap();
    write_parquet(&dir.path().join("a.parquet"), &rows(SAMPLES + 250).slice(SAMPLES, 250), 100);
    let refreshed = stream.handle().refresh_now().await.unwrap();
    assert_eq!((refreshed.added, stream.samples(), refreshed.model_version), (250, 850, ModelVersion(1)));
    let expected = embeddings_of(0, 850);
    assert_eq!(stream.snapshot().unwrap().embeddings.get(SampleId(849)), expected.get(SampleId(849)));

    let mut epochs = [HashSet::new(), HashSet::new()];
    let (mut drawn, mut versions) = ([20, 0], HashSet::new());
    while let Some(mini_batch) = stream.try_next().await.unwrap() {
        let epoch = mini_batch.epoch as usize;
        let numbers = mini_batch.rows["n"].as_primitive::<UInt32Type>().values();
        assert!(mini_batch.ids.iter().zip(numbers).all(|(id, n)| id.0 == *n));
        drawn[epoch] += mini_batch.ids.len();
        epochs[epoch].extend(mini_batch.ids);
        versions.insert(mini_batch.graph_version);
    }
    assert_eq!((drawn, epochs[1].len(), versions.len()), ([SAMPLES, 850], 850, 2));
    assert_eq!(stream.delivered(), 30 + 43);

    fs::remove_file(dir.path().join("b.parquet")).unwrap();
}

/// The first files cannot have nulls, so those who read them rely on that. It is no damage, which could be skipped.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_with_nulls_in_a_column_that_had_none_is_refused_by_name() {
    let dir = TempDir::new().unwrap();
    write_parquet(&dir.path().join("a.parquet"), &rows(SAMPLES), 100);
    let source = SourceConfig {
        uri: vec![dir.path().display().to_string()],
        on_corrupt: OnCorrupt::Skip,
        ..SourceConfig::default()
    };
    let builder = Pipeline::builder()
        .source(FileSource::open_all(&source).await.unwrap())
        .encoder(in_training())
        .graph(graph_config(40, 10))
        .walk(walk_config(20));
    let stream = builder.start().await.unwrap();
    let more = rows(SAMPLES + 50).slice(SAMPLES, 50);
    let texts: StringArray = more["text"].as_string::<i32>().iter().skip(1).chain([None]).collect();
    let columns = [("n", more["n"].clone()), ("text", Arc::new(texts) as ArrayRef)];
    write_parquet(&dir.path().join("b.parquet"), &RecordBatch::try_from_iter(columns).unwrap(), 100);
    let error = stream.handle().refresh_now().await.unwrap_err().to_string();
    assert!(error.contains("column `text` is Utf8 with nulls in") && error.contains("but Utf8 without"), "{error}");
    assert!(error.contains("b.parquet"), "{error}");
}
