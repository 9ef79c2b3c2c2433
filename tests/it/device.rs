//! A graph that is built on a device of ONNX Runtime, here the CPU, is the one that our own kernels build.

use std::collections::HashSet;
use std::sync::Mutex;

use prosampler::config::{
    CudaConfig, EncodeConfig, GraphBuilder, GraphConfig, GraphDevice, Precision, Provider, Similarity,
};
use prosampler::device::OnnxDevice;
use prosampler::embeddings::EmbeddingTable;
use prosampler::encode::{cuda, runtime};
use prosampler::graph::device::{Device, DeviceBlocks, DeviceFormat, DeviceRows, DeviceVectors, LoadedVectors};
use prosampler::graph::{self, ProximityGraph};
use prosampler::{Error, GraphVersion, ModelVersion, Pipeline, Result, SampleId};

use crate::support::{TestEncoder, graph_config, source, table, vectors, walk_config};

fn on_processor(memory_limit: Option<usize>) -> OnnxDevice {
    let cuda = CudaConfig { memory_limit, ..CudaConfig::default() };
    OnnxDevice::new(Provider::Cpu, &EncodeConfig { cuda: Some(cuda), ..EncodeConfig::default() })
}

/// Asserts that two graphs are equal except for near ties within `tolerance`, and returns how many neighbors differ.
fn assert_alike(a: &ProximityGraph, b: &ProximityGraph, tolerance: f32) -> usize {
    assert_eq!((a.len(), a.degree(), a.version()), (b.len(), b.degree(), b.version()));
    let mut others = 0;
    for id in (0..a.len()).map(SampleId::new) {
        for (a, b) in a.similarities(id).iter().zip(b.similarities(id)) {
            assert!((a - b).abs() <= tolerance, "{id}: {a} and {b}");
        }
        let found: HashSet<_> = a.neighbors(id).iter().collect();
        assert_eq!(found.len(), a.degree(), "{id} has a neighbor twice");
        assert!(!found.contains(&id));
        others += b.neighbors(id).iter().filter(|neighbor| !found.contains(neighbor)).count();
    }
    others
}

/// Sizes are no multiples of a block, panel or launch; K = M keeps every candidate.
#[test]
fn sampled_graphs_are_those_of_the_kernels() {
    for (len, dimension, candidates, neighbors) in
        [(2000, 24, 1000, 100), (1037, 17, 333, 20), (500, 8, 70, 70), (90, 5, 9, 3), (60, 4, 1, 1)]
    {
        let table = table(len, dimension, 20, 3);
        let config = GraphConfig { precision: Precision::F32, ..graph_config(candidates, neighbors) };
        let expected = graph::build(&table, &config, 7, GraphVersion(2)).unwrap();
        let found = graph::build_on(&on_processor(None), &table, &config, 7, GraphVersion(2)).unwrap();
        let others = assert_alike(&expected, &found, 1e-5);
        assert!(others <= len / 100, "{others} other neighbors of {len} samples");
    }
}

/// Vectors do not have unit length here.
#[test]
fn exact_graphs_are_those_of_brute_force() {
    let vectors = vectors(700, 9, 7, 5);
    for similarity in [Similarity::Cosine, Similarity::Dot] {
        let table = EmbeddingTable::new(vectors.clone(), 9, similarity, ModelVersion(1)).unwrap();
        let expected = graph::exact(&table, 12, GraphVersion(1)).unwrap();
        let by_builder = GraphConfig { builder: GraphBuilder::Exact, ..graph_config(20, 12) };
        for config in [by_builder, graph_config(5000, 12)] {
            let found = graph::build_on(&on_processor(None), &table, &config, 1, GraphVersion(1)).unwrap();
            assert!(assert_alike(&expected, &found, 1e-3) <= 7);
        }
    }
}

/// Half-precision scores find nearly all neighbors, and similarities are in f32 in any case.
#[test]
fn half_precision_keeps_the_neighbors() {
    let table = table(1500, 64, 20, 3);
    for builder in [GraphBuilder::Sampled, GraphBuilder::Exact] {
        let config = GraphConfig { builder, ..graph_config(600, 30) };
        let (f32, f16) = [Precision::F32, Precision::Bf16]
            .map(|precision| {
                let config = GraphConfig { precision, ..config.clone() };
                graph::build_on(&on_processor(None), &table, &config, 7, GraphVersion(1)).unwrap()
            })
            .into();
        let others = assert_alike(&f32, &f16, 1e-3);
        assert!(others < 1500 * 30 / 1000, "{others} of {} neighbors are others", 1500 * 30);
    }
}

/// With a limit of 16 MiB only 1,024 vectors fit, so rows are copied with each launch.
#[test]
fn vectors_that_do_not_fit_are_taken_in_parts() {
    let table = table(1500, 2048, 20, 3);
    let config = GraphConfig { builder: GraphBuilder::Exact, precision: Precision::F32, ..graph_config(300, 10) };
    let expected = graph::build(&table, &config, 7, GraphVersion(1)).unwrap();
    let found = graph::build_on(&on_processor(Some(16 << 20)), &table, &config, 7, GraphVersion(1)).unwrap();
    assert!(assert_alike(&expected, &found, 1e-5) < 15);
}

/// With M = K every candidate is kept, so neighbors show that candidates are uniform, also if they are drawn in parts.
#[test]
fn candidates_are_uniform_in_parts() {
    let (len, candidates, builds) = (150usize, 70usize, 150u64);
    let (table, device) = (table(len, 4, 3, 2), Small { room: 96, launch: usize::MAX, loads: Mutex::default() });
    let config = GraphConfig { precision: Precision::F32, ..graph_config(candidates, candidates) };
    let mut counts = vec![0f64; len * len];
    for seed in 0..builds {
        let graph = graph::build_on(&device, &table, &config, seed, GraphVersion(1)).unwrap();
        for id in (0..len).map(SampleId::new) {
            let distinct: HashSet<_> = graph.neighbors(id).iter().collect();
            assert!(distinct.len() == candidates && !distinct.contains(&id), "{id}");
            distinct.into_iter().for_each(|other| counts[id.index() * len + other.index()] += 1.0);
        }
    }
    assert!(device.loads.lock().unwrap().iter().any(|count| *count <= 96));
    let p = candidates as f64 / (len - 1) as f64;
    let (mean, variance) = (builds as f64 * p, builds as f64 * p * (1.0 - p));
    let others = (0..len * len).filter(|at| at / len != at % len);
    let deviations: Vec<f64> = others.map(|at| (counts[at] - mean).powi(2) / variance).collect();
    let spread = deviations.iter().sum::<f64>() / deviations.len() as f64;
    assert!((0.9..1.1).contains(&spread), "{spread}");
    assert!(deviations.iter().all(|d| *d < 36.0), "a sample is preferred");
}

/// A device with memory for this many vectors, and launches of this size.
struct Small {
    room: usize,
    launch: usize,
    loads: Mutex<Vec<usize>>,
}

struct Limited {
    inner: Box<dyn LoadedVectors>,
    launch: usize,
}

fn out_of_memory() -> Error {
    Error::device_out_of_memory("small", "out of memory")
}

impl Device for Small {
    fn name(&self) -> &str {
        "small"
    }

    fn is_exact(&self) -> bool {
        true
    }

    fn memory(&self) -> Option<usize> {
        None
    }

    fn load(&self, vectors: &DeviceVectors<'_>) -> Result<Box<dyn LoadedVectors>> {
        self.loads.lock().unwrap().push(vectors.count);
        if vectors.count > self.room {
            return Err(out_of_memory());
        }
        Ok(Box::new(Limited { inner: on_processor(None).load(vectors)?, launch: self.launch }))
    }
}

impl LoadedVectors for Limited {
    fn best(&self, blocks: &DeviceBlocks<'_>, take: &mut dyn FnMut(&[f32], &[i32])) -> Result<()> {
        if blocks.columns.len() * blocks.block_rows > self.launch {
            return Err(out_of_memory());
        }
        self.inner.best(blocks, take)
    }
}

#[test]
fn memory_that_runs_out_is_met_by_smaller_parts() {
    let table = table(2000, 16, 20, 3);
    let small = |room, launch| Small { room, launch, loads: Mutex::default() };
    let config = GraphConfig { precision: Precision::F32, ..graph_config(400, 20) };
    let expected = graph::build_on(&on_processor(None), &table, &config, 7, GraphVersion(1)).unwrap();

    // Smaller launches have the same candidates.
    let device = small(2000, 2000 * 401 / 8);
    assert_eq!(graph::build_on(&device, &table, &config, 7, GraphVersion(1)).unwrap().degree(), 20);

    let device = small(600, usize::MAX);
    let graph = graph::build_on(&device, &table, &config, 7, GraphVersion(1)).unwrap();
    let loads = device.loads.into_inner().unwrap();
    assert_eq!(loads[0], 2000, "{loads:?}");
    assert!(loads.iter().filter(|&&count| count <= 600).sum::<usize>() == 2000, "{loads:?}");
    let mean = |graph: &ProximityGraph| {
        let ids = (0..2000).map(SampleId::new);
        ids.flat_map(|id| graph.similarities(id).to_vec()).sum::<f32>() / (2000.0 * 20.0)
    };
    assert!((mean(&graph) - mean(&expected)).abs() < 0.01, "as hard as before");

    let device = small(10, usize::MAX);
    let error = graph::build_on(&device, &table, &config, 7, GraphVersion(1)).unwrap_err().to_string();
    assert!(error.contains("small runs out of memory while it builds the graph; free some"), "{error}");
}

#[test]
fn other_builders_stay_with_the_processor() {
    let (table, device) = (table(300, 8, 5, 1), Small { room: 0, launch: 0, loads: Mutex::default() });
    for builder in [GraphBuilder::NnDescent, GraphBuilder::Hnsw] {
        let config = GraphConfig { builder, ..graph_config(50, 5) };
        assert_eq!(graph::build_on(&device, &table, &config, 1, GraphVersion(1)).unwrap().len(), 300);
    }
    assert!(device.loads.into_inner().unwrap().is_empty());
}

#[test]
fn a_product_gives_scores_and_places() {
    let numbers = [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [-1.0, 0.0]];
    let read = |place: usize, vector: &mut [f32]| vector.copy_from_slice(&numbers[place]);
    for format in [DeviceFormat::F32, DeviceFormat::F16] {
        for with_rows in [true, false] {
            let vectors = DeviceVectors { count: 4, read: &read, dimension: 2, format, with_rows };
            let loaded = on_processor(None).load(&vectors).unwrap();
            let rows = if with_rows { DeviceRows::Places(&[2, 3]) } else { DeviceRows::Given(&[0.6, 0.8, -1.0, 0.0]) };
            let mut best = Vec::new();
            // There are two blocks of one row each.
            let blocks = DeviceBlocks { rows, block_rows: 1, columns: &[0, 1, 1, 3], block_columns: 2, k: 1 };
            loaded
                .best(&blocks, &mut |scores, places| {
                    best.extend(scores.iter().map(|s| (s * 100.0).round()).zip(places.to_vec()));
                })
                .unwrap();
            assert_eq!(best, [(80.0, 1), (100.0, 1)], "{format:?}");
        }
    }
    on_processor(None).probe().unwrap();
}

/// The vectors fill several staging buffers, and each is still the nearest to itself.
#[test]
fn vectors_of_several_pieces_come_whole() {
    let (count, dimension) = (300usize, 65_536usize);
    for format in [DeviceFormat::F32, DeviceFormat::F16] {
        let read = |place: usize, vector: &mut [f32]| {
            vector.fill(0.0);
            vector[place * 200..][..2].copy_from_slice(&[1.0, place as f32]);
        };
        let loaded =
            on_processor(None).load(&DeviceVectors { count, read: &read, dimension, format, with_rows: true }).unwrap();
        let all: Vec<_> = (0..count as i32).collect();
        let blocks = DeviceBlocks {
            rows: DeviceRows::Places(&all),
            block_rows: count,
            columns: &all,
            block_columns: count,
            k: 1,
        };
        let take = &mut |scores: &[f32], places: &[i32]| {
            assert_eq!(places, all);
            for (place, score) in scores.iter().enumerate().take(100) {
                assert_eq!(*score, 1.0 + (place * place) as f32, "{format:?}");
            }
        };
        loaded.best(&blocks, take).unwrap();
    }
}

#[tokio::test]
async fn a_device_that_is_asked_for_must_be_there() {
    let is_cpu_build = cuda::provider_files(&runtime::find(None).unwrap().0).is_empty();
    if !is_cpu_build {
        return;
    }
    let start = |device| {
        let graph = GraphConfig { device, ..graph_config(50, 5) };
        let pipeline = Pipeline::builder().source(source(100)).encoder(TestEncoder::new(100));
        pipeline.graph(graph).walk(walk_config(10)).start()
    };
    let error = start(GraphDevice::Cuda).await.err().unwrap().to_string();
    assert!(error.starts_with("cannot build the graph on cuda: `"), "{error}");
    assert!(error.contains("install onnxruntime-gpu"), "{error}");
    assert!(error.ends_with("set graph.device = \"cpu\""), "{error}");
    start(GraphDevice::Auto).await.unwrap();
}
