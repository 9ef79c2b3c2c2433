//! What mini-batches were like, beside those of a uniform sampler.

use std::collections::BTreeMap;
use std::fmt;

use super::labels::is_much;
use super::sparkline::sparkline;
use crate::config::SamplerKind;
use crate::embeddings::SkipReason;
use crate::sample::GraphVersion;
use crate::walk::WalkCounts;

/// What a series of mini-batches was like, as one number a mini-batch.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Measure {
    /// The mean similarity over the pairs of each mini-batch.
    pub similarity: Vec<f32>,
    /// The share of its pairs with the same label, 0 to 1; empty without labels.
    pub shared: Vec<f64>,
}

impl Measure {
    /// The mean in-batch similarity over all mini-batches.
    #[must_use]
    pub fn mean_similarity(&self) -> f64 {
        mean(self.similarity.iter().map(|&s| f64::from(s)))
    }

    /// The mean share of pairs with the same label, 0 to 1; 0 without labels.
    #[must_use]
    pub fn mean_shared(&self) -> f64 {
        mean(self.shared.iter().copied())
    }
}

/// A stream's mini-batches beside a uniform sampler's.
///
/// Its `Display` is what `prosampler run` prints at the end.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// How the stream's mini-batches were chosen.
    pub sampler: SamplerKind,
    /// The column of labels, if there is one.
    pub label: Option<String>,
    /// The stream's mini-batches; those of a warm-up without embeddings have no similarity.
    pub walked: Measure,
    /// As many mini-batches of a uniform sampler over the same data.
    pub uniform: Measure,
    /// The number of samples delivered.
    pub samples: usize,
    /// The number of samples that could not be encoded and are in no mini-batch.
    pub skipped: usize,
    /// Why they could not be encoded, by column and kind of reason.
    pub skip_reasons: Vec<SkipReason>,
    /// The number of pairs that `pairs.within` leaves out, by the newest embeddings.
    pub inconsistent: usize,
    /// The number of samples of `pairs.corpus`, which are explicit negatives alone.
    pub in_corpus: usize,
    /// What happened on the walks, in all.
    pub counts: WalkCounts,
    /// The number of mini-batches of the warm-up.
    pub warm_up: u64,
    /// The most steps between embedding and use.
    pub staleness: u64,
    /// The number of mini-batches drawn from each graph.
    pub graph_versions: BTreeMap<GraphVersion, u64>,
    /// The number of samples of each source, if rows have a column `source`.
    pub sources: BTreeMap<String, u64>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sampler = match self.sampler {
            SamplerKind::RandomWalk => "random walk",
            SamplerKind::Knn => "knn",
            SamplerKind::Communities => "communities",
            SamplerKind::Clusters => "clusters",
            SamplerKind::Uniform => "uniform",
        };
        if self.walked.similarity.is_empty() {
            writeln!(f, "how hard the mini-batches are is not known: the run had no embeddings yet")?;
        } else {
            self.write_means(f, sampler)?;
            self.write_sparklines(f, sampler)?;
        }
        self.write_data(f)?;
        self.write_walks(f)
    }
}

impl Summary {
    fn write_means(&self, f: &mut fmt::Formatter<'_>, sampler: &str) -> fmt::Result {
        writeln!(f, "{:<34}{sampler:>12}{:>12}{:>9}", "", "uniform", "ratio")?;
        let walked = self.walked.mean_similarity();
        let uniform = self.uniform.mean_similarity();
        writeln!(f, "{:<34}{walked:>12.3}{uniform:>12.3}{}", "mean in-batch similarity", ratio(walked, uniform))?;
        let Some(label) = &self.label else { return Ok(()) };
        let walked = 100.0 * self.walked.mean_shared();
        let uniform = 100.0 * self.uniform.mean_shared();
        let name = format!("pairs that share `{label}`");
        writeln!(f, "{name:<34}{:>12}{:>12}{}", percent(walked), percent(uniform), ratio(walked, uniform))?;
        if !is_much(walked / 100.0, uniform / 100.0) {
            return Ok(());
        }
        writeln!(
            f,
            "\nmany pairs share `{label}`: if it is a class, they are false negatives, and training may lose by them;\n\
             lower graph.candidates, or name the column in guards.distinct"
        )
    }

    fn write_sparklines(&self, f: &mut fmt::Formatter<'_>, sampler: &str) -> fmt::Result {
        let both = || self.walked.similarity.iter().chain(&self.uniform.similarity).copied();
        let low = both().fold(f32::INFINITY, f32::min);
        let high = both().fold(f32::NEG_INFINITY, f32::max);
        writeln!(f, "\nin-batch similarity from the first mini-batch to the last, {low:.3} to {high:.3}")?;
        for (name, measure) in [(sampler, &self.walked), ("uniform", &self.uniform)] {
            writeln!(f, "{name:<12} {}", sparkline(&measure.similarity, SPARKLINE_WIDTH, low, high))?;
        }
        Ok(())
    }

    fn write_data(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        if self.warm_up > 0 {
            writeln!(f, "{:<12} {} uniform mini-batches", "warm-up", self.warm_up)?;
        }
        if !self.graph_versions.is_empty() {
            let graphs = self.graph_versions.iter().map(|(version, count)| format!("version {version} for {count}"));
            let graphs = graphs.collect::<Vec<_>>().join(", ");
            writeln!(f, "{:<12} {graphs} mini-batches", "graphs")?;
            writeln!(f, "{:<12} at most {} steps", "staleness", self.staleness)?;
        }
        if !self.sources.is_empty() {
            let most = self.sources.iter().take(MAX_SOURCES).map(|(name, count)| format!("{count} of {name}"));
            let more = self.sources.len().saturating_sub(MAX_SOURCES);
            let more = (more > 0).then(|| format!("and those of {more} more"));
            writeln!(f, "{:<12} {}", "sources", most.chain(more).collect::<Vec<_>>().join(", "))?;
        }
        if self.skipped > 0 {
            writeln!(f, "{:<12} {} samples that cannot be encoded", "skipped", self.skipped)?;
            for reason in &self.skip_reasons {
                writeln!(f, "{:<12} {}: {reason}", "", reason.samples)?;
            }
        }
        if self.inconsistent > 0 {
            let what = "pairs that are not within pairs.within";
            writeln!(f, "{:<12} {} {what}", "left out", self.inconsistent)?;
        }
        if self.in_corpus > 0 {
            writeln!(f, "{:<12} {} samples for explicit negatives alone", "corpus", self.in_corpus)?;
        }
        Ok(())
    }

    fn write_walks(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        write!(
            f,
            "{:<12} {} moves, {} restarts, {} new starts, {} uniform top-ups",
            "walks", counts.moves, counts.restarts, counts.new_starts, counts.uniform_top_ups
        )?;
        if counts.uniform_draws > 0 {
            write!(f, ", {} uniform draws", counts.uniform_draws)?;
        }
        if counts.refused() == 0 && counts.short == 0 {
            return Ok(());
        }
        write!(
            f,
            "\n{:<12} refused {} duplicates, {} with the same value, {} nearest, {} similar, {} relative to pairs; \
             {} places left empty",
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

/// The ratio of two means; a dash if the second is near or below zero, where a ratio means nothing.
fn ratio(walked: f64, uniform: f64) -> String {
    if uniform > LEAST_RATIO_BASE { format!("{:>8.1}×", walked / uniform) } else { format!("{:>9}", "–") }
}

/// The number of bars in a sparkline.
const SPARKLINE_WIDTH: usize = 60;

/// The most sources that are named.
const MAX_SOURCES: usize = 12;

const LEAST_RATIO_BASE: f64 = 1e-3;

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(walked: f64, uniform: f64) -> String {
        let measure = |shared| Measure { similarity: vec![0.5], shared: vec![shared] };
        let summary = Summary {
            sampler: SamplerKind::RandomWalk,
            label: Some("class".into()),
            walked: measure(walked),
            uniform: measure(uniform),
            samples: 10,
            skipped: 0,
            skip_reasons: Vec::new(),
            inconsistent: 0,
            in_corpus: 0,
            counts: WalkCounts::default(),
            warm_up: 0,
            staleness: 0,
            graph_versions: BTreeMap::new(),
            sources: BTreeMap::new(),
        };
        summary.to_string()
    }

    #[test]
    fn many_false_negatives_by_the_label_are_told_with_a_remedy() {
        let told = |walked, uniform| summary(walked, uniform).contains("lower graph.candidates");
        assert!(told(0.26, 0.1));
        // Few of them, or as many in uniform mini-batches: two classes have half of all pairs in common.
        assert!(!told(0.13, 0.05));
        assert!(!told(0.55, 0.54));
    }
}
