//! `search_exact` finds what brute force in f64 finds.

use prosampler::config::{Similarity, Storage};
use prosampler::embeddings::EmbeddingTable;
use prosampler::graph::{Nearest, search_exact};
use prosampler::{ComputePool, Error, ModelVersion, SampleId};

use crate::support::{assert_says, table, vectors};

fn table_of(vectors: Vec<f32>, dimension: usize, similarity: Similarity, storage: Storage) -> EmbeddingTable {
    let samples = vectors.len() / dimension;
    let version = ModelVersion(1);
    let mut table = EmbeddingTable::with_capacity(samples, dimension, storage, similarity, version).unwrap();
    let mut vectors = vectors;
    table.push(&mut vectors).unwrap();
    table
}

/// The similarity of a query and each of the corpus, in f64.
fn similarities(queries: &EmbeddingTable, corpus: &EmbeddingTable, query: usize) -> Vec<f64> {
    let own = queries.get(SampleId::new(query));
    let with = |other: usize| {
        let other = corpus.get(SampleId::new(other));
        own.iter().zip(other.iter()).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    };
    (0..corpus.len()).map(with).collect()
}

#[test]
fn the_nearest_are_those_of_brute_force() {
    for (queries, corpus, dimension, clusters, k) in [
        (300, 2000, 5, 10, 7),
        (300, 2000, 16, 1, 40),
        // Long vectors are scored in i8 first. Without clusters, others lie close behind the nearest.
        (500, 6000, 96, 20, 10),
        (500, 6000, 96, 6000, 10),
        (200, 3000, 384, 5, 60),
        (50, 40, 96, 5, 60),
        (1, 1, 3, 1, 1),
    ] {
        for similarity in [Similarity::Cosine, Similarity::Dot] {
            for storage in [Storage::F32, Storage::F16, Storage::I8] {
                let of = |len, seed| table_of(vectors(len, dimension, clusters, seed), dimension, similarity, storage);
                let (queries, corpus) = (of(queries, 1), of(corpus, 2));
                let found = search_exact(&queries, &corpus, k).unwrap();
                let k = k.min(corpus.len());
                assert_eq!(
                    (found.k, found.ids.len(), found.similarities.len()),
                    (k, queries.len() * k, queries.len() * k)
                );
                for query in 0..queries.len() {
                    let all = similarities(&queries, &corpus, query);
                    let mut best = all.clone();
                    best.sort_by(|a, b| b.total_cmp(a));
                    let scale = best.iter().fold(1.0, |scale: f64, x| scale.max(x.abs()));
                    let of_query = query * k..(query + 1) * k;
                    let found = found.ids[of_query.clone()].iter().zip(&found.similarities[of_query]);
                    for ((id, &similarity), best) in found.zip(best) {
                        // Equally similar ones may change places by the rounding of f32.
                        let what = format!("query {query} of {dimension} numbers, {similarity:?} {storage:?}");
                        assert!((f64::from(similarity) - best).abs() < 1e-6 * scale, "{what}: {similarity}, {best}");
                        assert!((all[id.index()] - best).abs() < 1e-6 * scale, "{what}: {id}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_result_does_not_depend_on_threads() {
    let (queries, corpus) = (table(700, 96, 30, 1), table(5000, 96, 30, 2));
    let with = |threads| ComputePool::new(threads).unwrap().install(|| search_exact(&queries, &corpus, 9).unwrap());
    let found: Nearest = with(1);
    assert_eq!(found, with(3));
    // No two of these are equally similar, so ids are distinct and in order.
    for query in 0..700 {
        let similarities = &found.similarities[query * 9..(query + 1) * 9];
        assert!(similarities.is_sorted_by(|a, b| a >= b));
    }
}

#[test]
fn nothing_is_found_where_nothing_is() {
    let (queries, corpus) = (table(5, 8, 2, 1), table(20, 8, 2, 2));
    let empty = EmbeddingTable::new(Vec::new(), 8, Similarity::Cosine, ModelVersion(1)).unwrap();
    for (queries, corpus, k, expected) in [(&queries, &empty, 3, 0), (&empty, &corpus, 3, 3), (&queries, &corpus, 0, 0)]
    {
        let found = search_exact(queries, corpus, k).unwrap();
        assert_eq!((found.k, found.ids.len(), found.similarities.len()), (expected, 0, 0));
    }
}

#[test]
fn tables_that_cannot_be_compared_are_refused() {
    let message = |queries: &EmbeddingTable| match search_exact(queries, &table(20, 8, 2, 2), 3) {
        Err(error @ Error::Argument(_)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert_says(&message(&table(5, 9, 2, 1)), &["9 numbers", "corpus have 8"]);
    let dots = EmbeddingTable::new(vectors(5, 8, 2, 1), 8, Similarity::Dot, ModelVersion(1)).unwrap();
    assert_says(&message(&dots), &["dot similarity", "for cosine"]);
}
