use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Serialize, de};

use super::check::{Check, Checker};

/// `[walk]`: how mini-batches are drawn from the graph.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct WalkConfig {
    /// B in the paper: samples in a mini-batch, 2 to the data set's size; default 256.
    pub batch_size: usize,
    /// How mini-batches are chosen. Default `random_walk`.
    pub sampler: SamplerKind,
    /// α in the paper: the probability of going back to the start instead of on to a neighbor; 0 up to but not
    /// including 1, default 0.1. Larger values keep a mini-batch nearer to its start, at 1 / (1 − α) times the steps. A
    /// number, or a schedule over epochs: `{ start = 0.2, end = 0.05, per_epoch = 0.02 }`.
    pub restart_probability: RestartProbability,
    /// How often each sample is drawn in an epoch. Default `exact`: once.
    pub coverage: Coverage,
    /// Explicit hard negatives of each sample beside those that the mini-batch has anyway, 0 to 1,000; default 0. They
    /// are columns `negative_1`, `negative_2`, …; see [`MiniBatch::negatives`](crate::MiniBatch::negatives).
    pub negatives: usize,
    /// Leaves out an epoch's last mini-batch if it would be short. Default false: every sample exactly once.
    pub drop_last: bool,
}

/// How mini-batches are chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SamplerKind {
    /// Random walk with restart on the proximity graph.
    #[default]
    RandomWalk,
    /// Nearest first: a sample, its neighbors from the most similar on, then theirs. For comparison.
    Knn,
    /// A plain shuffle. For comparison.
    Uniform,
}

/// How often each sample is drawn in an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Coverage {
    /// Every sample exactly once, as far as guards allow; an epoch has N / B mini-batches.
    #[default]
    Exact,
    /// As in the paper's reference code: each mini-batch starts at an unseen sample, and may include samples that the
    /// epoch has seen already. An epoch ends when fewer than B samples are unseen, with these as a small mini-batch if
    /// there are at least two. It has several times N / B mini-batches; their number is not known in advance. For
    /// comparison only.
    Paper,
}

/// α, constant or changing from epoch to epoch: epoch e has `start` − e · `per_epoch`, bounded by `end`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RestartProbability {
    /// α in epoch 0.
    pub start: f64,
    /// The value at which it stops falling, or, with a negative `per_epoch`, rising.
    pub end: f64,
    /// How much smaller α is in each epoch than in the one before.
    pub per_epoch: f64,
}

impl RestartProbability {
    /// The same in every epoch.
    #[must_use]
    pub const fn constant(alpha: f64) -> Self {
        Self { start: alpha, end: alpha, per_epoch: 0.0 }
    }

    /// In `epoch`, from 0.
    #[must_use]
    pub fn at(self, epoch: u64) -> f64 {
        let alpha = self.start - self.per_epoch * epoch as f64;
        alpha.clamp(self.start.min(self.end), self.start.max(self.end))
    }
}

impl From<f64> for RestartProbability {
    fn from(alpha: f64) -> Self {
        Self::constant(alpha)
    }
}

impl<'de> Deserialize<'de> for RestartProbability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrSchedule;

        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Schedule {
            start: f64,
            end: f64,
            per_epoch: f64,
        }

        impl<'de> Visitor<'de> for NumberOrSchedule {
            type Value = RestartProbability;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a schedule `{ start, end, per_epoch }`")
            }

            fn visit_f64<E: de::Error>(self, alpha: f64) -> Result<Self::Value, E> {
                Ok(alpha.into())
            }

            fn visit_i64<E: de::Error>(self, alpha: i64) -> Result<Self::Value, E> {
                Ok((alpha as f64).into())
            }

            fn visit_u64<E: de::Error>(self, alpha: u64) -> Result<Self::Value, E> {
                Ok((alpha as f64).into())
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let Schedule { start, end, per_epoch } = Schedule::deserialize(MapAccessDeserializer::new(map))?;
                Ok(RestartProbability { start, end, per_epoch })
            }
        }

        deserializer.deserialize_any(NumberOrSchedule)
    }
}

impl Default for WalkConfig {
    fn default() -> Self {
        Self {
            batch_size: 256,
            sampler: SamplerKind::RandomWalk,
            restart_probability: RestartProbability::constant(0.1),
            coverage: Coverage::Exact,
            negatives: 0,
            drop_last: false,
        }
    }
}

impl Check for WalkConfig {
    const SECTION: &'static str = "walk";

    fn check(&self, check: &mut Checker<'_>) {
        let size = self.batch_size;
        let message = format!("is {size}, but a mini-batch needs at least 2 samples, or there is no negative");
        check.require(size >= 2, "batch_size", message);
        let RestartProbability { start, end, per_epoch } = self.restart_probability;
        let outside = [start, end].into_iter().find(|alpha| !(0.0..1.0).contains(alpha));
        let alpha = outside.unwrap_or(start);
        let message =
            format!("is {alpha}; it must be at least 0 and below 1, or the walk never leaves its start (0.1 is usual)");
        check.require(outside.is_none(), "restart_probability", message);
        let towards = per_epoch.is_finite() && (start - end) * per_epoch >= 0.0 && (start == end || per_epoch != 0.0);
        let message = format!("goes from {start} by {per_epoch} an epoch and never comes to {end}; give another step");
        check.require(outside.is_some() || towards, "restart_probability", message);
        check.require(self.negatives <= 1000, "negatives", "must lie between 0 and 1,000");
    }
}
