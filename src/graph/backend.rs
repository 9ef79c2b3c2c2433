//! Chooses what a run builds its graphs on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::build::{build, build_on, is_for_device, renew, takes_all};
use super::merged::Merged;
use super::params::Size;
use super::{Device, ProximityGraph};
use crate::config::{Candidates, GraphBuilder, GraphConfig, GraphDevice, GraphSize};
use crate::embeddings::EmbeddingTable;
use crate::error::Result;
use crate::sample::{GraphVersion, SampleId};
use crate::telemetry;

/// Builds the graphs of a run: on the processor, or on a device if the settings ask for it or if it pays.
pub(crate) struct Backend {
    config: GraphConfig,
    device: Option<Arc<dyn Device>>,
    /// How often the device failed, so that the processor did its work.
    failures: AtomicU64,
}

impl Backend {
    /// A backend that uses `device` as `config` says.
    pub fn new(config: GraphConfig, device: Option<Arc<dyn Device>>) -> Self {
        Self { config, device, failures: AtomicU64::new(0) }
    }

    /// The settings of the graphs.
    pub fn config(&self) -> &GraphConfig {
        &self.config
    }

    /// Builds the first graph of a run, as [`build`](build()) does.
    pub fn build(&self, table: &EmbeddingTable, seed: u64, version: GraphVersion) -> Result<ProximityGraph> {
        self.report_size(table.present());
        let on_processor = || build(table, &self.config, seed, version);
        self.on_device(table, &self.config, seed, version).unwrap_or_else(on_processor)
    }

    /// Builds a graph within each of these `parts`, which are ids in ascending order: neighbors are of the same part.
    ///
    /// Every part is a data set of its own for `graph.candidates`; K is that of all samples. In a part of fewer than
    /// K + 1 samples neighbors repeat, all equally often but for one.
    pub fn build_within<'a>(
        &self,
        parts: impl Iterator<Item = &'a [u32]>,
        table: &EmbeddingTable,
        seed: u64,
        version: GraphVersion,
    ) -> Result<ProximityGraph> {
        let degree = Size::new(table.present(), &self.config)?.neighbors;
        let mut merged = Merged::new(table.len(), degree);
        for part in parts {
            let ids: Vec<u32> = part.iter().copied().filter(|&id| !table.is_skipped(SampleId(id))).collect();
            if ids.len() < 2 {
                continue;
            }
            let neighbors = Some(degree.min(ids.len() - 1));
            let config = GraphConfig { neighbors, ..self.config.clone() };
            let of_part = table.select(&ids);
            let on_processor = || build(&of_part, &config, seed, version);
            let graph = self.on_device(&of_part, &config, seed, version).unwrap_or_else(on_processor)?;
            merged.add(&ids, &graph);
        }
        Ok(merged.into_graph(version))
    }

    /// Logs what the settings leave open, and what they may not mean.
    fn report_size(&self, samples: usize) {
        if self.config.builder != GraphBuilder::Sampled {
            return;
        }
        let GraphSize { candidates, neighbors, asked, .. } = self.config.size(samples);
        telemetry::graph_size(samples, candidates, neighbors, &self.config.candidates);
        if candidates > asked {
            telemetry::candidates_raised(asked, candidates, neighbors);
        }
        if takes_all(&self.config, samples) && self.config.candidates != Candidates::AutoNearest {
            telemetry::all_are_candidates(candidates, samples);
        }
    }

    /// Builds the graph of a refresh, as [`renew`] does.
    pub fn renew(
        &self,
        old: &ProximityGraph,
        table: &EmbeddingTable,
        seed: u64,
        version: GraphVersion,
    ) -> Result<ProximityGraph> {
        let on_processor = || renew(old, table, &self.config, seed, version);
        self.on_device(table, &self.config, seed, version).unwrap_or_else(on_processor)
    }

    /// Whether the same embeddings give the same neighbors for every graph version.
    pub fn is_settled(&self, samples: usize) -> bool {
        self.config.builder != GraphBuilder::Sampled || takes_all(&self.config, samples)
    }

    /// Builds the graph on the device; `None` if the processor is to build it.
    fn on_device(
        &self,
        table: &EmbeddingTable,
        config: &GraphConfig,
        seed: u64,
        version: GraphVersion,
    ) -> Option<Result<ProximityGraph>> {
        let device = self.device.as_ref().filter(|_| is_for_device(table, config))?;
        let required = config.device == GraphDevice::Cuda;
        if !required && multiplications(table, config) < MIN_DEVICE_MULTIPLICATIONS {
            return None;
        }
        match build_on(device.as_ref(), table, config, seed, version) {
            Err(error) if !required => {
                let failures = self.failures.fetch_add(1, Relaxed) + 1;
                telemetry::device_failed(device.name(), &error, failures);
                None
            }
            built => Some(built),
        }
    }
}

/// How many multiplications a graph takes.
fn multiplications(table: &EmbeddingTable, config: &GraphConfig) -> f64 {
    let samples = table.present();
    let candidates = config.size(samples).candidates.min(samples.saturating_sub(1));
    let scored = if config.builder == GraphBuilder::Exact { samples } else { candidates };
    samples as f64 * scored as f64 * table.dimension() as f64
}

/// A graph of fewer multiplications is not worth the second that opening a device may take.
const MIN_DEVICE_MULTIPLICATIONS: f64 = 1e11;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Similarity;
    use crate::error::{Error, OnnxRuntimeError};
    use crate::graph::device::{DeviceVectors, LoadedVectors};
    use crate::sample::ModelVersion;

    /// A device that fails, and counts how often it was used.
    #[derive(Default)]
    struct Broken(AtomicU64);

    impl Device for Broken {
        fn name(&self) -> &str {
            "broken"
        }

        fn is_exact(&self) -> bool {
            true
        }

        fn memory(&self) -> Option<usize> {
            None
        }

        fn load(&self, _: &DeviceVectors<'_>) -> Result<Box<dyn LoadedVectors>> {
            self.0.fetch_add(1, Relaxed);
            Err(OnnxRuntimeError::Device { device: "broken".into(), reason: "it is broken".into() }.into())
        }
    }

    #[test]
    fn the_processor_steps_in_where_it_may_and_is_preferred_where_the_graph_is_small() {
        let build = |device: GraphDevice, samples: usize| {
            let vectors = (0..samples * 64).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
            let table = EmbeddingTable::new(vectors, 64, Similarity::Cosine, ModelVersion(1)).unwrap();
            let broken = Arc::new(Broken::default());
            let config =
                GraphConfig { neighbors: Some(4), candidates: (1 << 20).into(), device, ..GraphConfig::default() };
            let backend = Backend::new(config, Some(broken.clone()));
            let built = backend.build(&table, 1, GraphVersion(1)).map(|graph| graph.len());
            (built, broken.0.load(Relaxed), backend.failures.load(Relaxed))
        };
        let (built, asked, failures) = build(GraphDevice::Auto, 100);
        assert_eq!((built.unwrap(), asked, failures), (100, 0, 0));
        let (built, asked, failures) = build(GraphDevice::Cuda, 100);
        assert!(matches!(built.unwrap_err(), Error::OnnxRuntime(OnnxRuntimeError::Device { .. })));
        assert_eq!((asked, failures), (1, 0));
        let (built, asked, failures) = build(GraphDevice::Auto, 40_000);
        assert_eq!((built.unwrap(), asked, failures), (40_000, 1, 1));
    }
}
