//! HNSW finds nearly all neighbors that brute force finds, and answers queries with vectors from outside.

use std::sync::Arc;

use prosampler::config::{GraphBuilder, GraphConfig, Similarity};
use prosampler::embeddings::EmbeddingTable;
use prosampler::error::ArgumentError;
use prosampler::graph::{self, HnswIndex, ProximityGraph};
use prosampler::{ComputePool, Error, GraphVersion, ModelVersion, SampleId};

use crate::support::{DIMENSION, graph_config, pipeline, table, vectors};

fn hnsw(neighbors: usize) -> GraphConfig {
    GraphConfig { builder: GraphBuilder::Hnsw, ..graph_config(1000, neighbors) }
}

/// Vectors of very different lengths, for which nearest and most similar are not the same.
fn dot_table(len: usize, dimension: usize) -> EmbeddingTable {
    let mut vectors = vectors(len, dimension, 30, 6);
    for (i, vector) in vectors.chunks_exact_mut(dimension).enumerate() {
        vector.iter_mut().for_each(|x| *x *= 1.0 + (i % 7) as f32 / 4.0);
    }
    EmbeddingTable::new(vectors, dimension, Similarity::Dot, ModelVersion(1)).unwrap()
}

/// K distinct others with their true similarities, best first; the share of the K nearest ones among them.
fn recall(graph: &ProximityGraph, table: &EmbeddingTable, k: usize) -> f64 {
    assert_eq!((graph.len(), graph.degree()), (table.len(), k));
    let exact = graph::exact(table, k, GraphVersion(1)).unwrap();
    let mut found = 0;
    for id in (0..table.len()).map(SampleId::new) {
        let mut neighbors = graph.neighbors(id).to_vec();
        for (&neighbor, &similarity) in neighbors.iter().zip(graph.similarities(id)) {
            assert!((similarity - table.similarity_of(id, neighbor)).abs() < 1e-4);
        }
        assert!(graph.similarities(id).is_sorted_by(|a, b| a >= b), "{id} is out of order");
        neighbors.sort_unstable();
        neighbors.dedup();
        assert!(neighbors.len() == k && !neighbors.contains(&id), "{id} neighbors itself or one of them twice");
        found += exact.neighbors(id).iter().filter(|neighbor| neighbors.contains(neighbor)).count();
    }
    found as f64 / (k * table.len()) as f64
}

#[test]
fn nearly_all_nearest_neighbors_are_found() {
    for (name, table, k) in [("cosine", table(3000, 16, 30, 6), 100), ("dot", dot_table(1500, 16), 10)] {
        let recall = recall(&graph::build(&table, &hnsw(k), 1, GraphVersion(1)).unwrap(), &table, k);
        println!("{name}, K = {k}: recall {recall:.4}");
        assert!(recall >= 0.95, "{name}, K = {k}: recall {recall}");
    }
}

#[test]
fn small_and_degenerate_data_keep_the_degree() {
    for len in 2..40 {
        let table = table(len, 6, 3, 4);
        let k = (len - 1).min(7);
        assert!(
            recall(&graph::build(&table, &hnsw(7), 1, GraphVersion(1)).unwrap(), &table, k) > 0.95,
            "{len} samples"
        );
    }
    // All samples are equal, and more than a search keeps; whichever are found, they are K others.
    let alike = EmbeddingTable::new([1.0, 2.0].repeat(700), 2, Similarity::Cosine, ModelVersion(1)).unwrap();
    recall(&graph::build(&alike, &hnsw(9), 1, GraphVersion(1)).unwrap(), &alike, 9);
    // As many neighbors as there are others.
    let table = table(60, 6, 3, 4);
    recall(&graph::build(&table, &hnsw(100), 1, GraphVersion(1)).unwrap(), &table, 59);
}

#[test]
fn one_thread_makes_the_same_graph_again() {
    let table = table(500, 8, 20, 2);
    let pool = ComputePool::new(1).unwrap();
    let build = |seed, version| pool.install(|| graph::build(&table, &hnsw(10), seed, GraphVersion(version)).unwrap());
    assert_eq!(build(3, 1), build(3, 1));
    let index = |seed| pool.install(|| HnswIndex::build(&Arc::new(table.clone()), seed));
    let query = vectors(1, 8, 1, 8);
    assert_eq!(index(3).search(&query, 50).unwrap(), index(3).search(&query, 50).unwrap());
}

#[test]
fn queries_find_what_brute_force_finds() {
    for table in [table(1000, 16, 10, 6), dot_table(1000, 16)] {
        let table = Arc::new(table);
        let index = HnswIndex::build(&table, 1);
        let mut found = 0;
        for query in vectors(100, 16, 10, 77).chunks_exact(16) {
            let single = EmbeddingTable::new(query.to_vec(), 16, table.similarity(), ModelVersion(1)).unwrap();
            let dot = |id| single.get(SampleId(0)).iter().zip(table.get(id).iter()).map(|(x, y)| x * y).sum::<f32>();
            let mut exact: Vec<_> = (0..1000).map(SampleId::new).map(|id| (id, dot(id))).collect();
            exact.sort_by(|a, b| b.1.total_cmp(&a.1));
            let nearest = index.search(query, 20).unwrap();
            assert_eq!(nearest.len(), 20);
            for &(id, similarity) in &nearest {
                assert!((similarity - dot(id)).abs() < 1e-4);
            }
            found += exact[..20].iter().filter(|(id, _)| nearest.iter().any(|(other, _)| other == id)).count();
            // If more are asked for than the index keeps, all samples are compared one by one.
            let all = index.search(query, 5000).unwrap();
            assert_eq!(all.len(), 1000);
            for ((_, a), (_, b)) in all.iter().zip(&exact) {
                assert!((a - b).abs() < 1e-4);
            }
            assert_eq!(index.search(query, 250).unwrap(), all[..250]);
        }
        println!("{:?}: recall {:.4}", table.similarity(), f64::from(found as u32) / 2000.0);
        assert!(found >= 1900, "{found} of 2000");
    }
}

#[test]
fn a_stored_vector_is_its_own_nearest() {
    let table = Arc::new(table(700, 16, 20, 2));
    let index = HnswIndex::build(&table, 1);
    for id in (0..700).step_by(17).map(SampleId) {
        // The query is scaled as the table is.
        let vector: Vec<_> = table.get(id).iter().map(|x| 3.0 * x).collect();
        let nearest = index.search(&vector, 3).unwrap();
        assert_eq!((nearest.len(), nearest[0].0), (3, id));
        assert!((nearest[0].1 - 1.0).abs() < 1e-5);
    }
    assert_eq!(index.search(&table.get(SampleId(0)), 0).unwrap(), []);
}

#[test]
fn vectors_without_a_similarity_are_refused_with_a_reason() {
    let index = HnswIndex::build(&Arc::new(table(50, 4, 3, 1)), 1);
    for (vector, reason) in [
        (&[1.0, 2.0, 3.0][..], "it has 3 numbers where the embeddings have 4"),
        (&[1.0; 8], "it has 8 numbers"),
        (&[], "it has 0 numbers"),
        (&[1.0, f32::NAN, 0.0, 0.0], "component 1 is NaN"),
        (&[1.0, 0.0, f32::INFINITY, 0.0], "component 2 is inf"),
        (&[0.0; 4], "its length 0 has no usable cosine similarity"),
    ] {
        let error = index.search(vector, 5).unwrap_err();
        assert!(matches!(error, Error::Argument(ArgumentError::Query { .. })), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
    let empty = EmbeddingTable::new(Vec::new(), 4, Similarity::Dot, ModelVersion(1)).unwrap();
    assert_eq!(HnswIndex::build(&Arc::new(empty), 1).search(&[1.0; 4], 5).unwrap(), []);
}

#[tokio::test]
async fn a_published_snapshot_answers_queries() {
    let stream = pipeline(500, 20).graph(hnsw(10)).start().await.unwrap();
    let snapshot = stream.snapshot().unwrap();
    let vector = snapshot.embeddings.get(SampleId(7)).to_vec();
    let search = {
        let snapshot = snapshot.clone();
        move || snapshot.search(&vector, 5)
    };
    let nearest = tokio::task::spawn_blocking(search).await.unwrap().unwrap();
    assert_eq!((nearest.len(), nearest[0].0), (5, SampleId(7)));
    assert!(std::ptr::eq(snapshot.index(), snapshot.index()), "the index is built once");
    assert!(matches!(snapshot.search(&[0.0; DIMENSION], 5), Err(Error::Argument(ArgumentError::Query { .. }))));
}
