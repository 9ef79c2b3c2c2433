//! The settings that are tried.

use crate::config::{Candidates, GraphBuilder, PipelineConfig, SamplerKind, Schedule, Similarity};

/// Settings to try: those of the pipeline file with some others in their place.
#[derive(Clone, Debug)]
pub(super) struct Trial {
    /// The others, as a pipeline file has them.
    pub changes: Vec<(&'static str, String)>,
    pub config: PipelineConfig,
}

/// The present settings first; then M and α together, from mild to hard; then K, starts, a random share and guards,
/// each at the hardest of these; and nearest first.
pub(super) fn trials(present: &PipelineConfig, samples: usize) -> Vec<Trial> {
    let mut trials = vec![Trial { changes: Vec::new(), config: present.clone() }];
    for share in SHARES {
        for alpha in ALPHAS {
            trials.push(walk(present, share, alpha, samples));
        }
    }
    let hardest = || walk(present, 1.0, ALPHAS[ALPHAS.len() - 1], samples);
    let number = |value: f64| Schedule::Constant(value);
    trials.push(hardest().with("graph.neighbors", "8", |config| config.graph.neighbors = Some(8)));
    trials.push(hardest().with("walk.starts", "4", |config| config.walk.starts = number(4.0)));
    trials.push(hardest().with("walk.random_share", "0.25", |config| config.walk.random_share = number(0.25)));
    if present.pairs.columns().is_some() {
        trials.push(hardest().with("guards.max_relative_to_positive", "0.95", |config| {
            config.guards.max_relative_to_positive = Some(0.95);
        }));
    }
    trials.push(hardest().with("guards.skip_nearest", "3", |config| config.guards.skip_nearest = 3));
    if present.similarity() != Similarity::Cross {
        trials.push(hardest().with("guards.duplicate_similarity", "0.95", |config| {
            config.guards.duplicate_similarity = Some(0.95);
        }));
    }
    trials.push(walk(present, 1.0, 0.0, samples).nearest_first());
    trials
}

/// A random walk with these M / N and α.
fn walk(present: &PipelineConfig, share: f64, alpha: f64, samples: usize) -> Trial {
    let mut config = present.clone();
    config.graph.builder = GraphBuilder::Sampled;
    config.graph.candidates = Candidates::Share(share);
    let neighbors = ((share * samples as f64) as usize / 8).clamp(4, 32);
    config.graph.neighbors = Some(neighbors);
    config.walk.sampler = SamplerKind::RandomWalk;
    config.walk.restart_probability = Some(alpha.into());
    config.walk.starts = Schedule::Constant(1.0);
    config.walk.random_share = Schedule::Constant(0.0);
    config.walk.target_similarity = None;
    let changes = vec![
        ("graph.candidates", format!("\"{}\"", Candidates::Share(share))),
        ("graph.neighbors", neighbors.to_string()),
        ("walk.restart_probability", alpha.to_string()),
    ];
    Trial { changes, config }
}

impl Trial {
    /// A plain shuffle, to compare with.
    pub fn uniform(present: &PipelineConfig) -> Self {
        let mut config = present.clone();
        config.walk.sampler = SamplerKind::Uniform;
        Self { changes: Vec::new(), config }
    }

    fn with(mut self, key: &'static str, value: &str, change: impl FnOnce(&mut PipelineConfig)) -> Self {
        change(&mut self.config);
        match self.changes.iter_mut().find(|(other, _)| *other == key) {
            Some((_, old)) => value.clone_into(old),
            None => self.changes.push((key, value.to_owned())),
        }
        self
    }

    fn nearest_first(mut self) -> Self {
        self.changes.retain(|(key, _)| *key != "walk.restart_probability");
        self.with("walk.sampler", "\"knn\"", |config| config.walk.sampler = SamplerKind::Knn)
    }
}

/// M / N.
const SHARES: [f64; 4] = [0.01, 0.04, 0.2, 1.0];

/// α.
const ALPHAS: [f64; 3] = [0.1, 0.2, 0.5];
