use super::{NO_BLOCK, Partition};
use crate::embeddings::EmbeddingTable;
use crate::graph::k_means;

/// Divides samples into the clusters of k-means, as many as mini-batches of an epoch but at most 2 √N.
///
/// Mini-batches of one cluster are those of TAS (arXiv 2104.06967) and Arctic-Embed (arXiv 2407.18887). Takes at most
/// 18 N √N d multiplications.
pub(super) fn clusters(embeddings: &EmbeddingTable, batch_size: usize, seed: u64) -> Partition {
    let samples = embeddings.present();
    let bound = (CLUSTERS_PER_ROOT * (samples as f64).sqrt()) as usize;
    let count = (samples / batch_size.max(1)).min(bound).max(1);
    let mut cluster_of = vec![NO_BLOCK; embeddings.len()];
    for (id, cluster) in k_means(embeddings, count, seed) {
        cluster_of[id.index()] = cluster;
    }
    Partition::new(cluster_of, count)
}

/// The largest number of clusters, divided by √N.
const CLUSTERS_PER_ROOT: f64 = 2.0;
