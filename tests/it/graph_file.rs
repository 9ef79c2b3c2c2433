//! A saved graph is read back bit for bit, and other files are refused.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proptest::prelude::*;
use prosampler::arrow::array::RecordBatch;
use prosampler::arrow::ipc::writer::FileWriter;
use prosampler::graph::{self, ProximityGraph};
use prosampler::{Error, GraphVersion, SampleId};
use tempfile::TempDir;

use crate::support::{graph_config, rows, table};

fn bits(graph: &ProximityGraph) -> (usize, usize, GraphVersion, Vec<(SampleId, u32)>) {
    let ids = (0..graph.len()).map(SampleId::new);
    let edges = ids.flat_map(|id| graph.neighbors(id).iter().zip(graph.similarities(id)));
    (graph.len(), graph.degree(), graph.version(), edges.map(|(&id, s)| (id, s.to_bits())).collect())
}

/// A graph's file in a folder of its own.
fn saved() -> (TempDir, PathBuf, ProximityGraph) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("new folder/graph.arrow");
    let graph = graph::build(&table(40, 5, 3, 1), &graph_config(20, 4), 1, GraphVersion(7)).unwrap();
    graph.save(&path).unwrap();
    (dir, path, graph)
}

static SAVED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let (_dir, path, _) = saved();
    fs::read(path).unwrap()
});

fn assert_sound(graph: &ProximityGraph) {
    for id in (0..graph.len()).map(SampleId::new) {
        assert!(graph.neighbors(id).iter().all(|neighbor| neighbor.index() < graph.len()));
        assert!(graph.similarities(id).iter().all(|similarity| similarity.is_finite()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn what_is_saved_is_opened_bit_for_bit(len in 0usize..60, degree in 1usize..9, version: u64, seed: u64) {
        use rand::{RngExt, SeedableRng};
        let mut generator = rand::rngs::ChaCha8Rng::seed_from_u64(seed);
        let ids = (0..len * degree).map(|_| SampleId(generator.random_range(0..len as u32))).collect();
        let finite = |bits| Some(f32::from_bits(bits)).filter(|x| x.is_finite()).unwrap_or(-0.0);
        let similarities = (0..len * degree).map(|_| finite(generator.random())).collect();
        let graph = ProximityGraph::new(ids, similarities, degree, GraphVersion(version)).unwrap();
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("graph.arrow");
        graph.save(&path).unwrap();
        let opened = ProximityGraph::open(&path).unwrap();
        prop_assert_eq!(bits(&opened), bits(&graph));
        prop_assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a temporary file is left");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Damage anywhere is an error, unless no reader depends on those bytes.
    #[test]
    fn damage_is_an_error_and_never_a_panic(place: proptest::sample::Index, value: u8, cut: bool) {
        let dir = TempDir::new().unwrap();
        let (path, mut bytes) = (dir.path().join("graph.arrow"), SAVED.clone());
        let place = place.index(bytes.len());
        if cut { bytes.truncate(place) } else { bytes[place] = value }
        fs::write(&path, &bytes).unwrap();
        match ProximityGraph::open(&path) {
            Ok(graph) => {
                assert_sound(&graph);
                fs::write(&path, SAVED.as_slice()).unwrap();
                prop_assert_eq!(graph, ProximityGraph::open(&path).unwrap());
            }
            Err(error) => prop_assert!(matches!(error, Error::Corrupt { .. } | Error::Damaged { .. }), "{error}"),
        }
        fs::write(&path, &bytes).unwrap();
        prop_assert!(!cut || ProximityGraph::open(&path).is_err());
    }
}

#[test]
fn a_graph_is_replaced_under_its_readers() {
    let (_dir, path, graph) = saved();
    let opened = ProximityGraph::open(&path).unwrap();
    graph::build(&table(40, 5, 3, 2), &graph_config(20, 4), 2, GraphVersion(8)).unwrap().save(&path).unwrap();
    assert_eq!(opened, graph);
    assert_eq!(ProximityGraph::open(&path).unwrap().version(), GraphVersion(8));
}

fn write(path: &Path, batches: &[RecordBatch]) {
    let mut writer = FileWriter::try_new(fs::File::create(path).unwrap(), &batches[0].schema()).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
}

#[test]
fn foreign_files_are_refused_with_a_reason() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("graph.arrow");
    write(&path, &[rows(3)]);
    let error = ProximityGraph::open(&path).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }));
    assert!(error.to_string().contains("graph.arrow`: ") && error.to_string().contains("has no checksum"), "{error}");
    table(20, 5, 3, 1).save(&path).unwrap();
    let error = ProximityGraph::open(&path).unwrap_err().to_string();
    assert!(error.contains("not a proximity graph that this version reads"), "{error}");
    fs::write(&path, "not Arrow at all, but long enough").unwrap();
    assert!(matches!(ProximityGraph::open(&path).unwrap_err(), Error::Corrupt { .. }));
    let missing = ProximityGraph::open(dir.path().join("none.arrow")).unwrap_err().to_string();
    assert!(missing.starts_with("cannot open `"), "{missing}");
}
