use super::ProximityGraph;
use crate::sample::{GraphVersion, SampleId};

/// One graph of the graphs of several parts of a data set.
pub(super) struct Merged {
    neighbors: Vec<SampleId>,
    similarities: Vec<f32>,
    degree: usize,
}

impl Merged {
    /// A graph in which each sample neighbors itself alone, as skipped samples do.
    pub fn new(samples: usize, degree: usize) -> Self {
        let neighbors = (0..samples).flat_map(|id| std::iter::repeat_n(SampleId::new(id), degree)).collect();
        Self { neighbors, similarities: vec![0.0; samples * degree], degree }
    }

    /// Adds the graph of the samples `ids`. If it has fewer neighbors, they repeat.
    pub fn add(&mut self, ids: &[u32], graph: &ProximityGraph) {
        for (row, &id) in ids.iter().enumerate() {
            let (row, first) = (SampleId::new(row), id as usize * self.degree);
            let neighbors = graph.neighbors(row).iter().map(|neighbor| SampleId(ids[neighbor.index()]));
            let of_row = neighbors.zip(graph.similarities(row).iter().copied()).cycle();
            let places = self.neighbors[first..].iter_mut().zip(&mut self.similarities[first..]);
            for (place, (neighbor, similarity)) in places.take(self.degree).zip(of_row) {
                (*place.0, *place.1) = (neighbor, similarity);
            }
        }
    }

    pub fn into_graph(self, version: GraphVersion) -> ProximityGraph {
        ProximityGraph::from_parts(self.neighbors, self.similarities, self.degree, version)
    }
}
