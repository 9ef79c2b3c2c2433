use std::fmt;

use rayon::prelude::*;
use serde::Serialize;

use crate::graph::ProximityGraph;
use crate::sample::SampleId;

/// Statistics of a graph; its `Display` is a few aligned lines.
///
/// The in-degree of a sample is the number of samples that it is a neighbor of. Skipped samples do not count. All
/// numbers are 0 for a graph without samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct GraphStatistics {
    /// N: how many samples there are.
    pub samples: usize,
    /// K: how many neighbors each has, which is also the mean in-degree.
    pub neighbors: usize,
    /// The variance of in-degrees; about K if neighbors are random.
    pub in_degree_variance: f64,
    /// The smallest in-degree that at least 99 % of the samples do not exceed.
    pub in_degree_p99: usize,
    /// The largest in-degree: the greatest hub.
    pub in_degree_max: usize,
    /// How many samples are nobody's neighbor, so that a walk reaches them only by starting there.
    pub without_in_edges: usize,
    /// The share of edges that lead to the 1 % of samples with the largest in-degrees (at least one), 0 to 1.
    ///
    /// It is 0.01 if all in-degrees are equal.
    pub hub_share: f64,
    /// How many weakly connected components there are: parts that no edge leaves or enters.
    pub components: usize,
    /// How many samples the largest component has.
    pub largest_component: usize,
    /// The share of edges whose reverse is an edge too, 0 to 1.
    pub reciprocity: f64,
    /// The mean similarity over all edges.
    pub mean_similarity: f64,
}

impl ProximityGraph {
    /// Computes the statistics of the graph.
    ///
    /// Costs N K² comparisons for the reciprocity, on the current rayon pool, and N K steps on one thread for the rest;
    /// takes 8 bytes a sample while it runs.
    #[must_use]
    pub fn statistics(&self) -> GraphStatistics {
        let present: Vec<SampleId> = (0..self.len()).map(SampleId::new).filter(|id| !self.is_skipped(*id)).collect();
        let (samples, edges) = (present.len(), present.len() * self.degree);
        if samples == 0 {
            return GraphStatistics { neighbors: self.degree, ..GraphStatistics::default() };
        }
        let degrees = self.in_degrees();
        let mut degrees: Vec<u32> = present.iter().map(|id| degrees[id.index()]).collect();
        degrees.sort_unstable();
        let mean = self.degree as f64;
        let squares: f64 = degrees.iter().map(|&degree| (f64::from(degree) - mean).powi(2)).sum();
        let hubs: usize = degrees.iter().rev().take(samples.div_ceil(100)).map(|&degree| degree as usize).sum();
        let (components, largest_component) = self.components(self.len() - samples);
        GraphStatistics {
            samples,
            neighbors: self.degree,
            in_degree_variance: squares / samples as f64,
            in_degree_p99: degrees[(samples * 99).div_ceil(100) - 1] as usize,
            in_degree_max: degrees[samples - 1] as usize,
            without_in_edges: degrees.partition_point(|&degree| degree == 0),
            hub_share: hubs as f64 / edges as f64,
            components,
            largest_component,
            reciprocity: self.reciprocal(&present) as f64 / edges as f64,
            mean_similarity: self.similarities.iter().map(|&s| f64::from(s)).sum::<f64>() / edges as f64,
        }
    }

    /// Counts the edges whose reverse is an edge.
    fn reciprocal(&self, present: &[SampleId]) -> usize {
        present
            .par_iter()
            .map(|&id| self.neighbors(id).iter().filter(|&&other| self.neighbors(other).contains(&id)).count())
            .sum()
    }

    /// How many weakly connected components there are without the `skipped` samples, and the size of the largest.
    ///
    /// By union-find.
    fn components(&self, skipped: usize) -> (usize, usize) {
        let mut parents: Vec<u32> = (0..self.len() as u32).collect();
        for (row, neighbors) in self.neighbors.chunks_exact(self.degree).enumerate() {
            for &neighbor in neighbors {
                let (a, b) = (root(&mut parents, row as u32), root(&mut parents, neighbor));
                // The larger root goes under the smaller one, so that parents have smaller ids.
                parents[a.max(b) as usize] = a.min(b);
            }
        }
        let mut sizes = vec![0u32; parents.len()];
        for id in 0..parents.len() as u32 {
            sizes[root(&mut parents, id) as usize] += 1;
        }
        (sizes.iter().filter(|&&size| size > 0).count() - skipped, sizes.into_iter().max().unwrap_or_default() as usize)
    }
}

/// The root of the tree that holds `id`; halves the path to it.
fn root(parents: &mut [u32], mut id: u32) -> u32 {
    while parents[id as usize] != id {
        parents[id as usize] = parents[parents[id as usize] as usize];
        id = parents[id as usize];
    }
    id
}

impl fmt::Display for GraphStatistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| 100.0 * share;
        writeln!(f, "{:<12} {} samples, {} neighbors each", "graph", self.samples, self.neighbors)?;
        writeln!(
            f,
            "{:<12} variance {:.1}, 99 % up to {}, largest {}, {} samples without",
            "in-degrees", self.in_degree_variance, self.in_degree_p99, self.in_degree_max, self.without_in_edges
        )?;
        writeln!(f, "{:<12} {:.1} % of the edges go to 1 % of the samples", "hubs", percent(self.hub_share))?;
        writeln!(f, "{:<12} {}, the largest of {} samples", "components", self.components, self.largest_component)?;
        writeln!(f, "{:<12} {:.1} % of the edges", "reciprocity", percent(self.reciprocity))?;
        write!(f, "{:<12} {:.3} on average", "similarity", self.mean_similarity)
    }
}
