use rand::{RngExt, seq::index};

use super::clusters::{Clustering, centroid_table};
use crate::config::GraphConfig;
use crate::embeddings::EmbeddingTable;
use crate::graph::params::generator;
use crate::sample::{GraphVersion, SampleId};

/// Divides the samples that were not skipped into `count` clusters, at most 65,536, by k-means (Lloyd's algorithm).
///
/// A sample is in the cluster whose centroid scores best, by cosine or dot product. Centroids are moved
/// `MOVES_OF_CENTROIDS` times, by at most `SAMPLES_PER_CENTROID` samples each. Clusters differ in size, and one may be
/// empty. N `count` d multiplications, and about as many to train. The result is the same on any number of threads.
pub(crate) fn k_means(table: &EmbeddingTable, count: usize, seed: u64) -> Vec<(SampleId, u32)> {
    let ids = table.present_ids();
    if ids.is_empty() {
        return Vec::new();
    }
    let count = count.clamp(1, ids.len().min(1 << 16));
    let clustering = Clustering::new(table, &GraphConfig::default(), seed, GraphVersion(0));
    let mut generator = generator(seed, GraphVersion(0), u64::MAX);
    let amount = ids.len().min(count * SAMPLES_PER_CENTROID);
    let trained: Vec<u32> = index::sample(&mut generator, ids.len(), amount).iter().map(|index| ids[index]).collect();

    let dimension = table.dimension();
    let mut centroids = clustering.centroids(&ids, count, u64::MAX - 1);
    for _ in 0..MOVES_OF_CENTROIDS {
        let nearest = clustering.nearest(&trained, &centroids, 1).numbers;
        let mut sums = vec![0f32; count * dimension];
        let mut members = vec![0f32; count];
        for (&id, cluster) in trained.iter().zip(nearest) {
            let sum = &mut sums[usize::from(cluster) * dimension..][..dimension];
            sum.iter_mut().zip(&*table.get(SampleId(id))).for_each(|(sum, x)| *sum += x);
            members[usize::from(cluster)] += 1.0;
        }
        for (sum, members) in sums.chunks_exact_mut(dimension).zip(members) {
            // The centroid of an empty cluster begins anew at a random sample.
            let instead = trained[generator.random_range(0..trained.len())];
            clustering.mean(sum, members, instead);
        }
        centroids = centroid_table(sums, dimension);
    }
    let nearest = clustering.nearest(&ids, &centroids, 1).numbers;
    ids.into_iter().map(SampleId).zip(nearest.into_iter().map(u32::from)).collect()
}

/// How often centroids are moved.
const MOVES_OF_CENTROIDS: usize = 8;

/// How many samples move a centroid, on average.
const SAMPLES_PER_CENTROID: usize = 64;
