use crate::config::{SamplerKind, WalkConfig};

/// The settings of one mini-batch, which schedules and the warm-up change from step to step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dials {
    /// How the mini-batch is chosen; uniformly during the warm-up.
    pub sampler: SamplerKind,
    /// Whether uniform draws are counted: not if `walk.sampler` asks for nothing else.
    pub counts_uniform_draws: bool,
    /// α.
    pub restart_probability: f64,
    /// How many walks there are, at least 1.
    pub starts: usize,
    /// The share of uniform draws, 0 to 1.
    pub random_share: f64,
}

impl Dials {
    /// The dials at `step` of the run, which lies in `epoch`; a `random_share` that is given takes precedence.
    pub fn at(config: &WalkConfig, step: u64, epoch: u64, random_share: Option<f64>) -> Self {
        let is_uniform = config.is_warm_up(step, epoch);
        Self {
            sampler: if is_uniform { SamplerKind::Uniform } else { config.sampler },
            counts_uniform_draws: config.sampler != SamplerKind::Uniform,
            restart_probability: config.alpha().at(step, epoch),
            starts: config.starts.at(step, epoch).round().max(1.0) as usize,
            random_share: random_share.unwrap_or_else(|| config.random_share.at(step, epoch)).clamp(0.0, 1.0),
        }
    }

    /// How many of `size` places are for uniform draws.
    pub fn random_places(&self, size: usize) -> usize {
        (self.random_share * size as f64).round() as usize
    }
}
