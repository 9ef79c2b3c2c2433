//! Every builder of the kNN graph finds the neighbors that brute force finds.

use prosampler::config::{GraphBuilder, GraphConfig, Precision, Similarity, Storage};
use prosampler::embeddings::EmbeddingTable;
use prosampler::graph::{self, ProximityGraph, refine};
use prosampler::{ComputePool, GraphVersion, ModelVersion, SampleId};

use crate::support::{table, vectors};

const K: usize = 10;

fn config(builder: GraphBuilder, precision: Precision) -> GraphConfig {
    GraphConfig { builder, precision, candidates: K.into(), neighbors: Some(K), ..GraphConfig::default() }
}

fn build(table: &EmbeddingTable, builder: GraphBuilder, precision: Precision) -> ProximityGraph {
    graph::build(table, &config(builder, precision), 1, GraphVersion(1)).unwrap()
}

/// The share of `exact`'s neighbors that `graph` has.
fn share(graph: &ProximityGraph, exact: &ProximityGraph) -> f64 {
    let found = |id: SampleId| exact.neighbors(id).iter().filter(|n| graph.neighbors(id).contains(n)).count();
    (0..graph.len()).map(|i| found(SampleId::new(i))).sum::<usize>() as f64 / (graph.len() * K) as f64
}

#[test]
fn every_builder_finds_the_nearest() {
    let table = table(3000, 96, 30, 4);
    let exact = graph::exact(&table, K, GraphVersion(1)).unwrap();
    for (builder, precision, least) in [
        (GraphBuilder::Exact, Precision::F32, 0.9999),
        (GraphBuilder::Exact, Precision::I8, 0.999),
        (GraphBuilder::Exact, Precision::Bf16, 0.999),
        (GraphBuilder::NnDescent, Precision::Auto, 0.97),
    ] {
        let graph = build(&table, builder, precision);
        let found = share(&graph, &exact);
        println!("{builder:?} in {precision:?}: {found}");
        assert!(found >= least, "{builder:?} in {precision:?}: {found}");
        for id in (0..graph.len()).map(SampleId::new) {
            assert!(!graph.neighbors(id).contains(&id));
            for (&neighbor, similarity) in graph.neighbors(id).iter().zip(graph.similarities(id)) {
                assert!((similarity - table.similarity_of(id, neighbor)).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn as_many_are_found_as_are_asked_for() {
    // Without clusters in the data, neighbors are in different cells.
    let table = table(6000, 24, 6000, 4);
    let exact = graph::exact(&table, K, GraphVersion(1)).unwrap();
    let found = [0.6, 0.8, 0.95].map(|recall| {
        let config = GraphConfig { recall, ..config(GraphBuilder::NnDescent, Precision::F32) };
        let graph = graph::build(&table, &config, 1, GraphVersion(1)).unwrap();
        // However few meet a sample in its cells, it has K neighbors.
        for id in (0..graph.len()).map(SampleId::new) {
            let mut neighbors = graph.neighbors(id).to_vec();
            assert!(neighbors.iter().all(|&neighbor| neighbor.index() < 6000 && neighbor != id));
            neighbors.sort_unstable();
            neighbors.dedup();
            assert_eq!(neighbors.len(), K);
        }
        share(&graph, &exact)
    });
    println!("{found:?}");
    // A recall probe of 512 rows may be off by one or two hundredths, and few cells find more than was wanted.
    assert!((0.57..0.78).contains(&found[0]) && (0.77..0.93).contains(&found[1]) && found[2] > 0.92, "{found:?}");
}

/// Equal samples cannot be separated by centers, so their cells are cut to a size that keeps pairs few.
#[test]
fn many_samples_that_are_alike_are_neighbors() {
    let (len, d, alike) = (30_000, 8, 25_000);
    let mut numbers = vectors(len, d, len, 5);
    let first = numbers[..d].to_vec();
    numbers.chunks_exact_mut(d).take(alike).for_each(|vector| vector.copy_from_slice(&first));
    let table = EmbeddingTable::new(numbers, d, Similarity::Cosine, ModelVersion(1)).unwrap();
    let graph = build(&table, GraphBuilder::NnDescent, Precision::Auto);
    for id in (0..alike).map(SampleId::new) {
        assert!(graph.similarities(id).iter().all(|&similarity| similarity > 0.9999), "{id}");
    }
}

#[test]
fn recall_is_the_share_of_exact_neighbors() {
    let table = table(700, 12, 9, 2);
    let exact = graph::exact(&table, K, GraphVersion(1)).unwrap();
    assert!(graph::recall(&exact, &table, 700, 3) > 0.999);
    let sampled = graph::build(
        &table,
        &GraphConfig { candidates: 300.into(), ..config(GraphBuilder::Sampled, Precision::F32) },
        1,
        GraphVersion(1),
    )
    .unwrap();
    let expected = share(&sampled, &exact);
    assert!((graph::recall(&sampled, &table, 700, 3) - expected).abs() < 1e-3, "{expected}");
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let before = table(2500, 96, 20, 5);
    let after = moved(&before, 0.1, 0);
    let with = |threads: usize| {
        let pool = ComputePool::new(threads).unwrap();
        pool.install(|| {
            let exact = build(&before, GraphBuilder::Exact, Precision::Auto);
            let near = build(&before, GraphBuilder::NnDescent, Precision::Auto);
            let sampled = GraphConfig { candidates: 900.into(), ..config(GraphBuilder::Sampled, Precision::I8) };
            let sampled = graph::build(&before, &sampled, 1, GraphVersion(1)).unwrap();
            let refined =
                refine(&exact, &after, &config(GraphBuilder::Sampled, Precision::Auto), 1, GraphVersion(2)).unwrap();
            (exact, near, sampled, refined)
        })
    };
    let one = with(1);
    assert!(one == with(2));
    assert!(one == with(4));
}

/// The same samples after about one training step, and `more` new ones.
fn moved(table: &EmbeddingTable, by: f32, more: usize) -> EmbeddingTable {
    let (len, d) = (table.len(), table.dimension());
    let noise = vectors(len + more, d, 1, 77);
    let near = |i: usize| table.get(SampleId::new(i % len)).into_owned();
    let old = (0..len + more).flat_map(near).zip(noise);
    let moved = old.map(|(x, noise)| x + by * noise).collect();
    EmbeddingTable::new(moved, d, Similarity::Cosine, ModelVersion(2)).unwrap()
}

#[test]
fn refining_follows_the_embeddings_and_takes_new_samples_in() {
    let before = table(3000, 96, 30, 6);
    let old = build(&before, GraphBuilder::Exact, Precision::F32);
    let after = moved(&before, 0.015, 100);
    let exact = graph::exact(&after, K, GraphVersion(2)).unwrap();
    let refined = refine(&old, &after, &config(GraphBuilder::Sampled, Precision::Auto), 1, GraphVersion(2)).unwrap();
    let found = share(&refined.graph, &exact);
    println!("kept {}, recall {} by its gauge, {found} in truth", refined.kept, refined.recall);
    assert!(!refined.rebuilt && refined.kept < 0.99);
    assert!(found >= 0.96 && (found - refined.recall).abs() < 0.02);
    assert_eq!(refined.graph.len(), 3100);
    let of_new =
        |id: &SampleId| exact.neighbors(*id).iter().filter(|n| refined.graph.neighbors(*id).contains(n)).count();
    let new: usize = (3000..3100).map(SampleId::new).map(|id| of_new(&id)).sum();
    assert!(new >= 960, "the samples that have come have {new} of their 1,000 nearest");
}

#[test]
fn refining_follows_small_steps_one_after_another() {
    let config = config(GraphBuilder::Sampled, Precision::Auto);
    let (mut before, dir) = (table(3000, 96, 30, 6), tempfile::tempdir().unwrap());
    let mut graph = build(&before, GraphBuilder::NnDescent, Precision::Auto);
    for step in 2..8 {
        let after = moved(&before, 0.004, 0);
        let refined = refine(&graph, &after, &config, 1, GraphVersion(step)).unwrap();
        let found = share(&refined.graph, &graph::exact(&after, K, GraphVersion(step)).unwrap());
        println!("kept {}, recall {} by its gauge, {found} in truth", refined.kept, refined.recall);
        assert!(!refined.rebuilt && refined.kept < 0.99);
        assert!(found >= 0.97 && (found - refined.recall).abs() < 0.02);
        // A resumed run refines the saved graph to the same one.
        graph.save(dir.path().join("graph.arrow")).unwrap();
        let opened = ProximityGraph::open(dir.path().join("graph.arrow")).unwrap();
        assert!(refine(&opened, &after, &config, 1, GraphVersion(step)).unwrap() == refined);
        (before, graph) = (after, refined.graph);
    }
}

/// The old graph satisfies the recall, but has fewer neighbors than are wanted, and no reserve neighbors.
#[test]
fn refining_to_more_neighbors_fills_all_lists() {
    let table = table(3000, 96, 30, 6);
    let old = graph::exact(&table, K - 2, GraphVersion(1)).unwrap();
    let config = GraphConfig { recall: 0.6, ..config(GraphBuilder::Sampled, Precision::Auto) };
    let refined = refine(&old, &table, &config, 1, GraphVersion(2)).unwrap();
    assert!(share(&refined.graph, &graph::exact(&table, K, GraphVersion(2)).unwrap()) > 0.99);
}

#[test]
fn a_graph_that_kept_little_is_built_anew() {
    let before = table(2000, 96, 20, 6);
    let old = build(&before, GraphBuilder::Exact, Precision::F32);
    let refined =
        refine(&old, &table(2000, 96, 20, 99), &config(GraphBuilder::Sampled, Precision::Auto), 1, GraphVersion(2))
            .unwrap();
    assert!(refined.rebuilt && refined.kept < 0.5 && refined.recall > 0.95, "{} {}", refined.kept, refined.recall);
}

#[test]
fn smaller_storage_keeps_the_neighbors() {
    let all = vectors(2000, 96, 20, 8);
    let full = EmbeddingTable::new(all.clone(), 96, Similarity::Cosine, ModelVersion(1)).unwrap();
    let exact = graph::exact(&full, K, GraphVersion(1)).unwrap();
    for (storage, bytes, off, least) in [(Storage::F16, 192, 1e-3, 0.99), (Storage::I8, 100, 1e-2, 0.93)] {
        let mut table = EmbeddingTable::with_capacity(2000, 96, storage, Similarity::Cosine, ModelVersion(1)).unwrap();
        all.clone().chunks_mut(96 * 300).for_each(|part| table.push(part).unwrap());
        assert_eq!((table.len(), table.storage(), table.bytes_per_sample()), (2000, storage, bytes));
        for (a, b) in (0..2000).map(SampleId::new).zip((0..2000).rev().map(SampleId::new)) {
            assert!((table.similarity_of(a, b) - full.similarity_of(a, b)).abs() < off);
        }
        for builder in [GraphBuilder::Exact, GraphBuilder::NnDescent] {
            let found = share(&build(&table, builder, Precision::Auto), &exact);
            println!("{storage:?} by {builder:?}: {found}");
            assert!(found >= least, "{storage:?} by {builder:?}: {found}");
        }
    }
}

/// Low-precision scores choose the neighbors, and the graph has their similarities in f32, best first, for every
/// storage and however often candidates are scored again.
#[test]
fn sampled_graphs_hold_similarities() {
    let all = vectors(2010, 96, 20, 8);
    for (storage, precision) in [Storage::F32, Storage::F16, Storage::I8]
        .into_iter()
        .flat_map(|storage| [Precision::F32, Precision::Bf16, Precision::I8].map(|precision| (storage, precision)))
    {
        let mut table = EmbeddingTable::with_capacity(2010, 96, storage, Similarity::Cosine, ModelVersion(1)).unwrap();
        table.push(&mut all.clone()).unwrap();
        let config = GraphConfig { candidates: 1500.into(), neighbors: Some(100), precision, ..GraphConfig::default() };
        let graph = graph::build(&table, &config, 3, GraphVersion(1)).unwrap();
        for row in (0..2010).map(SampleId::new) {
            let (ids, similarities) = (graph.neighbors(row), graph.similarities(row));
            assert!(similarities.is_sorted_by(|a, b| a >= b), "{storage:?}, {precision:?}");
            assert!(!ids.contains(&row));
            for (&id, &similarity) in ids.iter().zip(similarities) {
                assert!((similarity - table.similarity_of(row, id)).abs() < 1e-6, "{storage:?}, {precision:?}");
            }
        }
        // Each of the nearest samples is a candidate with probability 3/4.
        let found = share(&graph, &graph::exact(&table, K, GraphVersion(1)).unwrap());
        println!("{storage:?}, {precision:?}: {found}");
        assert!((0.72..0.78).contains(&found), "{storage:?}, {precision:?}: {found}");
    }
}
