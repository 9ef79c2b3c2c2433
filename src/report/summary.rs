use std::collections::BTreeMap;
use std::fmt;

use super::sparkline::sparkline;
use crate::config::SamplerKind;
use crate::embeddings::SkipReason;
use crate::sample::GraphVersion;
use crate::walk::WalkCounts;

/// What a series of mini-batches was like, one number a mini-batch.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Measure {
    /// Mean similarity over the pairs of each.
    pub similarity: Vec<f32>,
    /// Share of its pairs with the same label, 0 to 1; empty without labels.
    pub shared: Vec<f64>,
}

impl Measure {
    /// Mean in-batch similarity over all mini-batches.
    #[must_use]
    pub fn mean_similarity(&self) -> f64 {
        mean(self.similarity.iter().map(|&s| f64::from(s)))
    }

    /// Mean share of pairs with the same label, 0 to 1.
    #[must_use]
    pub fn mean_shared(&self) -> f64 {
        mean(self.shared.iter().copied())
    }
}

/// A stream's mini-batches beside a uniform sampler's. Its `Display` is what `prosampler run` ends with.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// How the stream's mini-batches were chosen.
    pub sampler: SamplerKind,
    /// The label's column.
    pub label: Option<String>,
    /// The stream's.
    pub walked: Measure,
    /// The uniform sampler's: as many, over the same data.
    pub uniform: Measure,
    /// Samples delivered.
    pub samples: usize,
    /// Samples of the data set that could not be encoded and are in none.
    pub skipped: usize,
    /// Why, by column and kind of reason.
    pub skip_reasons: Vec<SkipReason>,
    /// What happened on the walks, in all.
    pub counts: WalkCounts,
    /// The most steps between embedding and use.
    pub staleness: u64,
    /// Mini-batches by the graph they were drawn from.
    pub graph_versions: BTreeMap<GraphVersion, u64>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sampler = match self.sampler {
            SamplerKind::RandomWalk => "random walk",
            SamplerKind::Knn => "knn",
            SamplerKind::Uniform => "uniform",
        };
        writeln!(f, "{:<34}{sampler:>12}{:>12}{:>9}", "", "uniform", "ratio")?;
        let (walked, uniform) = (self.walked.mean_similarity(), self.uniform.mean_similarity());
        writeln!(f, "{:<34}{walked:>12.3}{uniform:>12.3}{}", "mean in-batch similarity", ratio(walked, uniform))?;
        if let Some(label) = &self.label {
            let (walked, uniform) = (100.0 * self.walked.mean_shared(), 100.0 * self.uniform.mean_shared());
            let name = format!("pairs that share `{label}`");
            writeln!(f, "{name:<34}{:>12}{:>12}{}", percent(walked), percent(uniform), ratio(walked, uniform))?;
        }
        let both = || self.walked.similarity.iter().chain(&self.uniform.similarity).copied();
        let (low, high) = (both().fold(f32::INFINITY, f32::min), both().fold(f32::NEG_INFINITY, f32::max));
        writeln!(f, "\nin-batch similarity from the first mini-batch to the last, {low:.3} to {high:.3}")?;
        for (name, measure) in [(sampler, &self.walked), ("uniform", &self.uniform)] {
            writeln!(f, "{name:<12} {}", sparkline(&measure.similarity, WIDTH, low, high))?;
        }
        let counts = &self.counts;
        let graphs: Vec<_> =
            self.graph_versions.iter().map(|(version, n)| format!("version {version} for {n}")).collect();
        writeln!(f, "\n{:<12} {} mini-batches", "graphs", graphs.join(", "))?;
        writeln!(f, "{:<12} at most {} steps", "staleness", self.staleness)?;
        if self.skipped > 0 {
            writeln!(f, "{:<12} {} samples that cannot be encoded", "skipped", self.skipped)?;
            for why in &self.skip_reasons {
                writeln!(f, "{:<12} {}: {why}", "", why.samples)?;
            }
        }
        write!(
            f,
            "{:<12} {} moves, {} restarts, {} new starts, {} uniform top-ups",
            "walks", counts.moves, counts.restarts, counts.new_starts, counts.uniform_top_ups
        )?;
        if counts.refused() == 0 && counts.short == 0 {
            return Ok(());
        }
        write!(
            f,
            "\n{:<12} refused {} duplicates, {} with the same value, {} nearest, {} similar, {} relative to pairs; {} places left empty",
            "guards",
            counts.refused_duplicates,
            counts.refused_distinct,
            counts.refused_nearest,
            counts.refused_similar,
            counts.refused_relative,
            counts.short
        )
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0usize), |(sum, n), value| (sum + value, n + 1));
    sum / n.max(1) as f64
}

fn percent(value: f64) -> String {
    format!("{value:.1} %")
}

/// Nothing where there is no meaning in one: around or below zero.
fn ratio(walked: f64, uniform: f64) -> String {
    if uniform > 1e-3 { format!("{:>8.1}×", walked / uniform) } else { format!("{:>9}", "–") }
}

const WIDTH: usize = 60;
