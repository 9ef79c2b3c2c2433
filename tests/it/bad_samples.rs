//! Samples that cannot be read stop a run by name, or are skipped and used in nothing that follows.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;

use futures::TryStreamExt;
use prosampler::arrow::array::{
    ArrayRef, AsArray, BinaryArray, Int64Array, ListArray, RecordBatch, StringArray, UInt32Array,
};
use prosampler::arrow::datatypes::Int64Type;
use prosampler::config::{
    CheckpointConfig, Coverage, EncodeConfig, GraphBuilder, GraphConfig, GraphInputConfig, ImageConfig, ImageSize,
    OnBadSample, SamplerKind, StreamConfig, TensorConfig, WalkConfig,
};
use prosampler::embeddings::EmbeddingTable;
use prosampler::encode::{Encoder, encode_all, open};
use prosampler::error::EmbeddingError;
use prosampler::source::MemorySource;
use prosampler::store::Store;
use prosampler::{Error, MiniBatchStream, ModelVersion, PipelineBuilder, SampleId, graph};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

use crate::support::{
    DIMENSION, TestEncoder, assert_says, graph_config, path, pipeline, read_parquet, walk_config, write_parquet,
};

const SAMPLES: usize = 500;

fn is_bad(n: u32) -> bool {
    n % 11 == 4
}

/// An encoder that cannot read every eleventh row.
fn skips_rows() -> TestEncoder {
    TestEncoder::new(2 * SAMPLES).skipping(is_bad)
}

fn skip() -> EncodeConfig {
    EncodeConfig { on_bad_sample: OnBadSample::Skip, ..EncodeConfig::default() }
}

fn skipping(len: usize, batch_size: usize) -> PipelineBuilder {
    pipeline(len, batch_size).encoder(skips_rows()).encode(skip())
}

async fn ids(stream: &mut MiniBatchStream) -> Vec<Vec<u32>> {
    stream.map_ok(|m| m.ids.iter().map(|id| id.0).collect()).try_collect().await.unwrap()
}

fn good(len: usize) -> Vec<u32> {
    (0..len as u32).filter(|&n| !is_bad(n)).collect()
}

#[tokio::test]
async fn a_bad_sample_stops_the_run_by_default() {
    let error = pipeline(SAMPLES, 20).encoder(skips_rows()).start().await.unwrap_err();
    assert!(matches!(error, Error::Embedding(EmbeddingError::BadSample { sample: SampleId(4), .. })));
    assert_eq!(
        error.to_string(),
        "sample 4 cannot be encoded: column `n` cannot be read; correct or remove that row, or set \
         encode.on_bad_sample = \"skip\""
    );
}

/// Of 500 samples 46 are bad. An epoch draws each of the others once, and its length is known beforehand.
#[tokio::test]
async fn skipped_samples_are_in_no_mini_batch() {
    let stream = StreamConfig { epochs: 2, ..StreamConfig::default() };
    let mut stream = skipping(SAMPLES, 20).stream(stream).start().await.unwrap();
    assert_eq!((stream.samples(), stream.skipped(), stream.mini_batches_per_epoch()), (500, 46, 23));
    let drawn = ids(&mut stream).await;
    assert_eq!(drawn.len(), 46);
    for epoch in drawn.chunks(23) {
        let mut epoch = epoch.concat();
        epoch.sort_unstable();
        assert_eq!(epoch, good(SAMPLES));
    }
}

/// Neither by any sampler, nor where mini-batches overlap, nor as explicit negatives when the near ones are used up.
#[tokio::test]
async fn skipped_samples_are_never_drawn_at_random() {
    use SamplerKind::{Clusters, Communities, Knn, RandomWalk, Uniform};
    for sampler in [RandomWalk, Knn, Uniform, Communities, Clusters] {
        for coverage in [Coverage::Exact, Coverage::Paper] {
            if coverage == Coverage::Paper && matches!(sampler, Communities | Clusters) {
                continue;
            }
            let walk = WalkConfig { sampler, coverage, negatives: 3, ..walk_config(20) };
            let mut stream = skipping(70, 20).walk(walk).start().await.unwrap();
            let (mut seen, mut topped_up) = (BTreeSet::new(), 0);
            while let Some(mini_batch) = stream.try_next().await.unwrap() {
                let negatives = mini_batch.negatives.iter().flatten();
                let bad: Vec<_> = mini_batch.ids.iter().chain(negatives).filter(|id| is_bad(id.0)).collect();
                assert!(bad.is_empty(), "{sampler:?}, {coverage:?}: {bad:?}");
                topped_up += mini_batch.counts.negatives_topped_up;
                seen.extend(mini_batch.ids.iter().map(|id| id.0));
            }
            assert!(topped_up > 0 && seen.len() + 1 >= good(70).len(), "{topped_up}, {seen:?}");
        }
    }
}

/// Every builder leaves them out, and the exact ones agree with brute force over the others.
#[tokio::test]
async fn skipped_samples_are_in_no_neighbor_list() {
    use GraphBuilder::{Exact, Hnsw, NnDescent, Sampled};
    for (builder, candidates) in [(Sampled, 40), (Sampled, 10_000), (Exact, 40), (NnDescent, 40), (Hnsw, 40)] {
        let config = GraphConfig { builder, ..graph_config(candidates, 10) };
        let snapshot = skipping(SAMPLES, 20).graph(config.clone()).start().await.unwrap().snapshot().unwrap();
        let exact = graph::exact(&snapshot.embeddings, 10, Default::default()).unwrap();
        for id in (0..SAMPLES as u32).map(SampleId) {
            let neighbors = snapshot.graph.neighbors(id);
            assert_eq!(
                (snapshot.graph.is_skipped(id), snapshot.embeddings.is_skipped(id)),
                (is_bad(id.0), is_bad(id.0))
            );
            if is_bad(id.0) {
                assert!(neighbors.iter().all(|other| *other == id) && exact.is_skipped(id));
                continue;
            }
            let others: BTreeSet<_> =
                neighbors.iter().copied().filter(|other| *other != id && !is_bad(other.0)).collect();
            assert_eq!(others.len(), 10, "{builder:?}");
            let best: BTreeSet<_> = exact.neighbors(id).iter().copied().collect();
            let by_hand = {
                let mut all: Vec<_> = good(SAMPLES).into_iter().map(SampleId).filter(|other| *other != id).collect();
                let near = |other: &SampleId| snapshot.embeddings.similarity_of(id, *other);
                all.sort_by(|a, b| near(b).total_cmp(&near(a)));
                all[..10].iter().copied().collect::<BTreeSet<_>>()
            };
            assert_eq!(best, by_hand);
            if builder == Exact || candidates > SAMPLES {
                assert_eq!(others, best, "{builder:?}");
            }
        }
        let per_row = graph::build_per_row(&snapshot.embeddings, &config, 7, Default::default()).unwrap();
        let refined = graph::refine(&snapshot.graph, &snapshot.embeddings, &config, 7, Default::default()).unwrap();
        for graph in [&per_row, &refined.graph] {
            assert!(
                (0..SAMPLES as u32).all(|n| graph.neighbors(SampleId(n)).iter().all(|id| id.0 == n || !is_bad(id.0)))
            );
        }
        let statistics = snapshot.graph.statistics();
        assert_eq!((statistics.samples, statistics.neighbors), (454, 10));
        let found = snapshot.search(&snapshot.embeddings.get(SampleId(0)), SAMPLES).unwrap();
        assert_eq!(found.len(), 454, "a search over all finds all but them");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn skipped_samples_stay_out_over_refreshes_and_pushes() {
    let encoder = skips_rows();
    let stream = StreamConfig { epochs: 4, prefetch: 1, ..StreamConfig::default() };
    let mut stream = skipping(SAMPLES, 20).encoder(encoder.clone()).stream(stream).start().await.unwrap();
    let handle = stream.handle();
    let mut drawn = Vec::new();
    let mut versions = BTreeSet::new();
    while let Some(m) = stream.try_next().await.unwrap() {
        drawn.push(m.ids.clone());
        versions.insert(m.graph_version);
        if drawn.len() == 30 {
            encoder.train();
            let refreshed = handle.refresh_now().await.unwrap();
            assert!(!refreshed.skipped && refreshed.drift.is_some());
            assert_eq!(handle.snapshot().unwrap().embeddings.skipped(), 46);
        }
        if drawn.len() == 50 {
            let vector = [1.0; DIMENSION];
            let error = handle.push_embeddings(&[SampleId(15)], &vector).unwrap_err();
            assert_eq!(
                error.to_string(),
                "sample 15 was skipped, since it could not be read; no vector stands for it: leave it out"
            );
            handle.push_embeddings(&[SampleId(16)], &vector).unwrap();
            assert_eq!(handle.refresh_now().await.unwrap().pushed, 1);
        }
    }
    assert!(versions.len() >= 3);
    for epoch in drawn.chunks(23) {
        let mut epoch: Vec<_> = epoch.concat().iter().map(|id| id.0).collect();
        epoch.sort_unstable();
        assert_eq!(epoch, good(SAMPLES));
    }
}

#[tokio::test]
async fn skipped_samples_stay_out_over_a_resume() {
    let dir = TempDir::new().unwrap();
    let builder = |name: &str| {
        let checkpoint = CheckpointConfig { dir: Some(dir.path().join(name)), ..CheckpointConfig::default() };
        skipping(SAMPLES, 20).stream(StreamConfig { epochs: 2, ..StreamConfig::default() }).checkpoint(checkpoint)
    };
    let whole = ids(&mut builder("whole").start().await.unwrap()).await;
    let mut stream = builder("half").start().await.unwrap();
    for expected in &whole[..30] {
        let ids: Vec<_> = stream.try_next().await.unwrap().unwrap().ids.iter().map(|id| id.0).collect();
        assert_eq!(&ids, expected);
    }
    let state = stream.state();
    drop(stream);
    let mut stream = builder("half").resume(state.clone()).start().await.unwrap();
    assert_eq!(stream.skipped(), 46);
    assert_eq!(ids(&mut stream).await, whole[30..]);
    drop(stream);
    let error = builder("half").encode(EncodeConfig::default()).resume(state).start().await.unwrap_err();
    assert_says(&error.to_string(), &["encode.on_bad_sample"]);

    let table = builder("more").start().await.unwrap().snapshot().unwrap().embeddings.clone();
    let file = dir.path().join("table.arrow");
    table.save(&file).unwrap();
    let opened = EmbeddingTable::open(&file).unwrap();
    assert_eq!(opened, *table);
    let [why] = opened.skip_reasons() else { panic!("{:?}", opened.skip_reasons()) };
    assert_eq!((why.samples, why.to_string().as_str()), (46, "column `n` cannot be read, sample 4 first"));
}

#[tokio::test]
async fn nulls_are_skipped_before_the_encoder() {
    let numbers: UInt32Array = (0..SAMPLES as u32).map(|n| (n % 100 != 7).then_some(n)).collect();
    let batch = || RecordBatch::try_from_iter([("n", Arc::new(numbers.clone()) as ArrayRef)]).unwrap();
    let start = |encode| {
        let source = MemorySource::new(vec![batch()]).unwrap();
        pipeline(SAMPLES, 20).source(source).encoder(TestEncoder::new(SAMPLES)).encode(encode).start()
    };
    let mut stream = start(skip()).await.unwrap();
    let mut drawn = ids(&mut stream).await.concat();
    drawn.sort_unstable();
    assert_eq!(drawn, (0..500).filter(|n| n % 100 != 7).collect::<Vec<_>>());
    assert_eq!(stream.skipped(), 5);
    assert_says(
        &start(EncodeConfig::default()).await.unwrap_err().to_string(),
        &["column `n` is null at sample 7 (5 of"],
    );
}

#[tokio::test]
async fn a_run_needs_a_mini_batch_of_samples_that_can_be_read() {
    let error = skipping(21, 20).start().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "2 of the 21 samples of `memory` were skipped, since they cannot be encoded (column `n` cannot be read, \
         sample 4 first), but at least 20 must be left for a mini-batch; correct these rows, check \
         encode.column, or lower walk.batch_size"
    );
}

/// The error for these rows, and the samples that a run goes on with.
async fn judged(config: EncodeConfig, columns: Vec<(&str, ArrayRef)>) -> (String, Vec<u32>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let source = MemorySource::new(vec![batch.clone()]).unwrap();
    let names: Vec<_> = batch.schema().fields().iter().map(|f| f.name().clone()).collect();
    let store = Store::build(&source, &names, &Default::default(), &mut |_| {}).await.unwrap();
    let config = EncodeConfig { sessions: 1, ..config };
    let encoder = open(&config, &batch.schema()).unwrap();
    encoder.accepts("rows", &batch.schema()).unwrap();
    let error = encode_all(&encoder, &store, Default::default(), Default::default(), ModelVersion(1), &mut |_| {});
    let mut vectors = vec![0f32; batch.num_rows() * encoder.dimension()];
    let places: Vec<_> = encoder.columns().iter().map(|c| batch.schema().index_of(c).unwrap()).collect();
    let bad = encoder.encode_readable(&batch.project(&places).unwrap(), &mut vectors).unwrap().bad;
    let bad: Vec<_> = bad.iter().map(|bad| bad.row as u32).collect();
    for (row, vector) in (0..).zip(vectors.chunks(encoder.dimension())) {
        assert_eq!(bad.contains(&row), vector.iter().all(|x| *x == 0.0), "row {row}");
    }
    (error.unwrap_err().to_string(), bad)
}

fn model(name: &str) -> EncodeConfig {
    EncodeConfig { model: Some(path(&format!("tests/data/features/{name}.onnx"))), ..EncodeConfig::default() }
}

fn whole(rows: &[&[i64]]) -> ArrayRef {
    Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(
        rows.iter().map(|row| Some(row.iter().map(|&n| Some(n)))),
    ))
}

#[tokio::test]
async fn texts_that_are_not_utf8_are_bad() {
    let texts: ArrayRef = Arc::new(BinaryArray::from(vec!["a dog".as_bytes(), b"bad\xff", "a cat".as_bytes()]));
    let config = EncodeConfig {
        model: Some(path("tests/data/states.onnx")),
        tokenizer: Some(path("data/models/gloss-encoder/tokenizer.json")),
        column: Some("t".into()),
        ..EncodeConfig::default()
    };
    let (error, bad) = judged(config, vec![("t", texts)]).await;
    assert_says(&error, &["sample 1 cannot be encoded: column `t` is no UTF-8 from byte 3 on; correct or remove"]);
    assert_eq!(bad, [1]);
}

#[tokio::test]
async fn images_that_cannot_be_decoded_are_bad() {
    let images = read_parquet("tests/data/features/images.parquet");
    let of = |name: &str| {
        let row = images["name"].as_string::<i32>().iter().position(|found| found == Some(name)).unwrap();
        images["image"].as_binary::<i32>().value(row)
    };
    let (png, jpeg) = (of("png"), of("jpeg"));
    let mut damaged = png.to_vec();
    damaged[60..90].fill(0x55);
    let cases: [(&[u8], &str); 6] = [
        (&jpeg[..jpeg.len() / 2], "is an image that cannot be decoded (it is cut short)"),
        (b"", "is no JPEG, PNG or WebP image"),
        (b"GIF89a, perhaps", "holds GIF, but only JPEG, PNG and WebP images are read: convert it"),
        (&png[..png.len() / 2], "is an image that cannot be decoded ("),
        (&jpeg[..20], "is an image that cannot be decoded ("),
        (&damaged, "is an image that cannot be decoded ("),
    ];
    let image = ImageConfig { size: Some(ImageSize::Exact([8, 6])), ..ImageConfig::default() };
    let config = || EncodeConfig { column: Some("image".into()), image: Some(image.clone()), ..model("image_any") };
    for (bytes, expected) in cases {
        let column: ArrayRef = Arc::new(BinaryArray::from(vec![png, jpeg, bytes, png]));
        let (error, bad) = judged(config(), vec![("image", column)]).await;
        assert_says(&error, &["sample 2 cannot be encoded: column `image` ", expected, "set encode.on_bad_sample"]);
        assert_eq!(bad, [2]);
    }
    let raw = ListArray::from_iter_primitive::<prosampler::arrow::datatypes::UInt8Type, _, _>([
        Some(vec![Some(9); 12]),
        Some(vec![Some(9); 11]),
        Some(vec![Some(9), None, Some(9), Some(9)]),
    ]);
    let image = ImageConfig { height: Some(2), width: Some(2), ..image.clone() };
    let config = EncodeConfig { column: Some("raw".into()), image: Some(image), ..model("image_any") };
    let (error, bad) = judged(config, vec![("raw", Arc::new(raw))]).await;
    assert_says(
        &error,
        &["sample 1 cannot be encoded: column `raw` has 11 numbers in lists of [11], which are no 2 × 2 pixels"],
    );
    assert_eq!(bad, [1, 2]);
}

/// However an image file is damaged, it is a bad sample or an image, and never a panic. One that is cut short is bad.
#[test]
fn damaged_images_never_panic() {
    let images = read_parquet("tests/data/features/images.parquet");
    let names = images["name"].as_string::<i32>();
    let image = ImageConfig { size: Some(ImageSize::Exact([8, 6])), ..ImageConfig::default() };
    let config = EncodeConfig { column: Some("image".into()), image: Some(image), sessions: 1, ..model("image_any") };
    let encoder = open(&config, &images.schema()).unwrap();
    let mut generator = ChaCha8Rng::seed_from_u64(3);
    for (name, whole) in names.iter().zip(images["image"].as_binary::<i32>()) {
        let (name, whole) = (name.unwrap(), whole.unwrap());
        let damaged: Vec<_> = (0..200)
            .map(|round| {
                let mut bytes = whole.to_vec();
                if round % 2 == 0 {
                    bytes.truncate(generator.random_range(0..whole.len() * 9 / 10));
                } else {
                    (0..=round % 5).for_each(|_| bytes[generator.random_range(0..whole.len())] ^= 1 << (round % 8));
                }
                bytes
            })
            .collect();
        let column: ArrayRef = Arc::new(BinaryArray::from_iter_values(&damaged));
        let rows = RecordBatch::try_from_iter([("image", column)]).unwrap();
        let mut vectors = vec![0.0; damaged.len() * encoder.dimension()];
        let bad = encoder.encode_readable(&rows, &mut vectors).unwrap().bad;
        assert!(vectors.iter().all(|x| (0.0..=1.0).contains(x)), "{name}");
        let bad: BTreeSet<_> = bad.iter().map(|bad| bad.row).collect();
        let missed = (0..damaged.len()).step_by(2).find(|row| !bad.contains(row));
        assert_eq!(missed.map(|row| damaged[row].len()), None, "{name} of {} bytes was cut to", whole.len());
    }
}

#[tokio::test]
async fn tensors_that_do_not_fit_the_model_are_bad() {
    let config = EncodeConfig { tensor: Some(TensorConfig::default()), ..model("tensor") };
    let columns = |signal: ArrayRef, codes: ArrayRef| -> Vec<(&str, ArrayRef)> {
        let gain = Arc::new(Int64Array::from(vec![1; signal.len()]));
        vec![("signal", signal), ("codes", codes), ("gain", gain)]
    };
    let good = || whole(&[&[1, 2], &[3], &[4]]);
    let (error, bad) = judged(config.clone(), columns(good(), whole(&[&[0, 1], &[0, 1, 2], &[1, 1]]))).await;
    assert_says(&error, &["sample 1 cannot be encoded: column `codes` has 3 numbers where the model takes 2"]);
    assert_eq!(bad, [1]);
    let (error, bad) =
        judged(config.clone(), columns(whole(&[&[1, 2], &[3], &[]]), whole(&[&[0, 1], &[0, 1], &[0, 1]]))).await;
    assert_says(&error, &["sample 2 cannot be encoded: column `signal` has no numbers"]);
    assert_eq!(bad, [2]);
    let nulls = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1)]), Some(vec![Some(2), None])]);
    let (error, _) = judged(config.clone(), columns(Arc::new(nulls), whole(&[&[0, 1], &[0, 1]]))).await;
    assert_says(&error, &["sample 1 cannot be encoded: column `signal` has a null within"]);
    let floats = ListArray::from_iter_primitive::<prosampler::arrow::datatypes::Float64Type, _, _>([
        Some(vec![Some(1.0)]),
        Some(vec![Some(f64::NAN)]),
    ]);
    let (error, _) = judged(config, columns(Arc::new(floats), whole(&[&[0, 1], &[0, 1]]))).await;
    assert_says(&error, &["sample 1 cannot be encoded: column `signal` has a value of NaN"]);
}

#[tokio::test]
async fn graphs_that_contradict_themselves_are_bad() {
    let config = |num_nodes: Option<&str>| EncodeConfig {
        graph: Some(GraphInputConfig { num_nodes: num_nodes.map(Into::into), ..GraphInputConfig::default() }),
        ..model("graph_kinds")
    };
    let good: [&[i64]; 3] = [&[0, 1, 2], &[3, 4], &[5]];
    let judge = |nodes: [&'static [i64]; 3], from: [&'static [i64]; 3], to: [&'static [i64]; 3]| {
        let columns =
            vec![("node_features", whole(&nodes)), ("edge_sources", whole(&from)), ("edge_targets", whole(&to))];
        judged(config(None), columns)
    };
    let (error, bad) = judge(good, [&[0, 1], &[1], &[]], [&[1, 2], &[2], &[]]).await;
    assert_says(
        &error,
        &["sample 1 cannot be encoded: column `edge_targets` has node 2 at edge 0, but there are nodes 0 to 1"],
    );
    assert_eq!(bad, [1]);
    let (error, bad) = judge(good, [&[0, -1], &[1], &[]], [&[1, 2], &[0], &[]]).await;
    assert_says(&error, &["sample 0 cannot be encoded: column `edge_sources` has node -1 at edge 1"]);
    assert_eq!(bad, [0]);
    let (error, bad) = judge(good, [&[0], &[1, 0], &[]], [&[1], &[0], &[]]).await;
    assert_says(&error, &["sample 1 cannot be encoded: column `edge_targets` has 1 edges, but `edge_sources` has 2"]);
    assert_eq!(bad, [1]);
    let (error, bad) = judge([&[], &[1], &[2]], [&[], &[], &[]], [&[], &[], &[]]).await;
    assert_says(&error, &["sample 0 cannot be encoded: column `node_features` has no nodes"]);
    assert_eq!(bad, [0]);
    let columns = vec![
        ("node_features", whole(&good)),
        ("edge_sources", whole(&[&[], &[], &[]])),
        ("edge_targets", whole(&[&[], &[], &[]])),
        ("count", Arc::new(Int64Array::from(vec![3, 2, 4])) as ArrayRef),
    ];
    let (error, bad) = judged(config(Some("count")), columns).await;
    assert_says(
        &error,
        &["sample 2 cannot be encoded: column `node_features` has features of 1 nodes, but `count` says 4"],
    );
    assert_eq!(bad, [2]);
}

/// The command's warning names the first skipped sample, and its summary counts them.
#[test]
fn the_command_counts_skipped_samples() {
    let dir = TempDir::new().unwrap();
    let texts = StringArray::from_iter((0..300).map(|i| (i % 50 != 30).then(|| format!("a text about number {i}"))));
    let batch = RecordBatch::try_from_iter([("text", Arc::new(texts) as ArrayRef)]).unwrap();
    write_parquet(&dir.path().join("rows.parquet"), &batch, 300);
    let model = path("data/models/gloss-encoder/model.onnx");
    let text = format!(
        "source.uri = 'rows.parquet'\nencode = {{ model = '{}', column = 'body' }}\nwalk.batch_size = 21\n\
         graph = {{ candidates = 100, neighbors = 20 }}\n",
        model.display()
    );
    std::fs::write(dir.path().join("p.toml"), text).unwrap();
    let run = |more: &[&str]| {
        let arguments = ["run", "p.toml", "--column", "text"];
        let command = env!("CARGO_BIN_EXE_prosampler");
        Command::new(command).current_dir(dir.path()).args(arguments).args(more).output().unwrap()
    };
    let output = run(&["--set", "encode.on_bad_sample=skip"]);
    let (said, warned) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_says(&said, &["14 mini-batches of 21 out of 300 samples", "skipped      6 samples that cannot be encoded"]);
    assert_says(&said, &[" 6: column `text` is null, sample 30 first"]);
    assert_says(&warned, &["skipped samples that cannot be encoded", "sample 30", "is null"]);
    assert_eq!(warned.matches("cannot be encoded").count(), 1);
    let output = run(&[]);
    assert!(!output.status.success());
    assert_says(&String::from_utf8_lossy(&output.stderr), &["column `text` is null at sample 30"]);
}
