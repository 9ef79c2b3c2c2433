//! "Here is a pipeline, tell me how hard its mini-batches should be."
//!
//! [`tune`] embeds a sample of the data, draws mini-batches from it by several settings, and says how hard each makes
//! them and how many false negatives they likely have. [`Tuning::recommended`] is the hardest of those that stay below
//! a bound.

mod grid;
mod rows;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use self::grid::{Trial, trials};
use self::rows::SampledRows;
use crate::compute::ComputePool;
use crate::config::{
    Candidates, CheckpointConfig, FeatureKind, GraphConfig, MixtureConfig, PipelineConfig, StoreConfig,
};
use crate::error::{Error, Result};
use crate::graph::{self, ProximityGraph};
use crate::pipeline::{Pipeline, open_source};
use crate::progress::{Progress, Stage};
use crate::refresh::Snapshot;
use crate::report::{Bound, Hardness, Judge, Labels, Measurement};
use crate::sample::GraphVersion;
use crate::source::MemorySource;
use crate::walk::Guards;

/// How [`tune`] goes about it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TuneOptions {
    /// The most samples that are embedded. Default 20,000. M keeps its share of them.
    pub samples: usize,
    /// The largest share of pairs that may likely be false negatives, 0 to 1. Default 0.05.
    pub max_false: f64,
    /// An ONNX model that judges which pairs are likely false negatives. Default: the pipeline's own.
    pub guide: Option<PathBuf>,
    /// How many mini-batches are drawn for each setting. Default 64.
    pub mini_batches: usize,
}

impl Default for TuneOptions {
    fn default() -> Self {
        Self { samples: 20_000, max_false: 0.05, guide: None, mini_batches: 64 }
    }
}

/// What [`tune`] has found.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Tuning {
    /// How many samples were embedded.
    pub samples: usize,
    /// How many the data have.
    pub total: usize,
    /// What a pair must be more similar than, to count as a likely false negative.
    pub estimate: String,
    /// The settings that were tried; the present ones first.
    pub tried: Vec<Tried>,
    /// Uniform mini-batches of the same samples.
    pub uniform: Hardness,
    /// Which of `tried` is recommended; `null` if all have too many likely false negatives or pairs of one label.
    pub recommended: Option<usize>,
    /// Those of `tried` than which no other is harder with as few likely false negatives, the mildest first. None of
    /// them has many pairs of one label.
    pub frontier: Vec<usize>,
    /// Spearman's rank correlation, over all settings, of the share of likely false negatives with the share of pairs
    /// of the same label; `null` without labels.
    pub rank_correlation: Option<f64>,
}

/// A setting that was tried, and what it makes of the mini-batches.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Tried {
    /// What differs from the pipeline file: key and value, as the file would have them.
    pub changes: Vec<(&'static str, String)>,
    /// What its mini-batches are like.
    pub hardness: Hardness,
    /// Whether it has many pairs of one label, beside those that are by chance; false without labels.
    pub shares_labels: bool,
    /// Whether it has few enough likely false negatives, and no more pairs of one label than it may have.
    pub is_eligible: bool,
}

/// Tries settings of how hard mini-batches are on a sample of the data.
///
/// Reads all rows once, embeds at most `options.samples`, and builds a graph for each M. `progress` hears of the
/// embedding as it does for a pipeline.
///
/// # Errors
/// As [`Pipeline`]'s start; also if the sample has fewer rows than a mini-batch.
pub async fn tune(
    config: &PipelineConfig,
    options: &TuneOptions,
    mut progress: impl FnMut(Progress) + Send + Clone + 'static,
) -> Result<Tuning> {
    if options.guide.is_some() && config.encode.kind() == FeatureKind::Vector {
        let message = "is \"vector\", so rows have nothing that a guide model could embed; tune without a guide";
        return Err(Error::setting("encode.feature", message));
    }
    let pool = ComputePool::new(config.compute.threads)?;
    let (source, mut columns) = open_source(config, &pool).await?;
    let label = config.report.label.as_ref();
    columns.extend(label.filter(|label| !columns.contains(label)).cloned());
    let total = source.rows();
    let mut reading = |done| progress(Progress { stage: Stage::Store, done, total });
    let rows = SampledRows::draw(source.as_ref(), &columns, options.samples, config.seed, &mut reading).await?;
    let sampled = MemorySource::new(rows.batches)?;

    let snapshot = embed(on_sample(config, rows.total), &sampled, progress.clone()).await?;
    let guide = match &options.guide {
        None => None,
        Some(model) => {
            let mut config = config.clone();
            config.encode.model = Some(model.clone());
            config.encode.tokenizer = None;
            Some(embed(on_sample(&config, rows.total), &sampled, progress).await?)
        }
    };
    let (config, options, total) = (on_sample(config, rows.total), options.clone(), rows.total);
    pool.run("tune", move || sweep(&config, &options, total, &snapshot, guide.as_deref())).await
}

/// The settings for a sample: one process without warm-up, refreshes and files of its own, and M as a share.
fn on_sample(config: &PipelineConfig, total: usize) -> PipelineConfig {
    let mut config = config.clone().resolved(1);
    if let Candidates::Number(number) = config.graph.candidates {
        config.graph.candidates = Candidates::Share((number as f64 / total.max(1) as f64).min(1.0));
    }
    config.source.filter = None;
    // The rows of all sources are in the sample, and it measures mini-batches of all alike.
    config.sources.clear();
    config.mixture = MixtureConfig::default();
    config.walk.same = None;
    config.walk.same_share = 1.0;
    config.store = StoreConfig::default();
    config.walk.warm_up = None;
    config.refresh.every_steps = None;
    config.refresh.every_seconds = None;
    config.refresh.watch_model = false;
    config.refresh.when_easier = None;
    config.stream.rank = 0;
    config.stream.world_size = 1;
    config.checkpoint = CheckpointConfig::default();
    config
}

/// Embeds the sample, as a pipeline does.
async fn embed(
    config: PipelineConfig,
    sampled: &MemorySource,
    progress: impl FnMut(Progress) + Send + 'static,
) -> Result<Arc<Snapshot>> {
    let builder = Pipeline::from_config(config).source(sampled.clone()).on_progress(progress);
    let stream = builder.start().await?;
    let handle = stream.handle();
    // A pipeline without a warm-up has a snapshot as soon as it has started.
    Ok(handle.snapshot().expect("a snapshot"))
}

/// Draws mini-batches by all settings.
fn sweep(
    config: &PipelineConfig,
    options: &TuneOptions,
    total: usize,
    snapshot: &Snapshot,
    guide: Option<&Snapshot>,
) -> Result<Tuning> {
    let table = snapshot.embeddings.as_ref();
    let guide = guide.map_or(table, |guide| guide.embeddings.as_ref());
    let labels = config.report.label.as_deref().map(|label| Labels::of(&snapshot.store, label)).transpose()?;
    let in_epochs = snapshot.in_epochs();
    let judge =
        Judge { table, guide, bound: Bound::of(guide, config.seed), labels: labels.as_ref(), in_epochs: &in_epochs };

    let mut graphs: HashMap<String, ProximityGraph> = HashMap::new();
    let mut measure = |trial: &Trial| -> Result<Hardness> {
        let PipelineConfig { graph, walk, guards, seed, .. } = &trial.config;
        let graph = graph_of(&mut graphs, snapshot, graph, *seed)?;
        let guards = Guards::new(guards, snapshot.guards.groups().clone(), snapshot.embeddings.clone())
            .guided_by(snapshot.guards.guide().cloned());
        let mut measurement = Measurement::new(judge);
        measurement.draw(graph, &guards, walk, *seed, options.mini_batches);
        Ok(measurement.finish(walk.sampler.name()).0)
    };
    let uniform = measure(&Trial::uniform(config))?;
    let mut tried = Vec::new();
    for trial in trials(config, table.present()) {
        let hardness = measure(&trial)?;
        let shares_labels = hardness.shares_labels(&uniform);
        let is_eligible = hardness.likely_false <= options.max_false && !shares_labels;
        tried.push(Tried { changes: trial.changes, hardness, shares_labels, is_eligible });
    }
    let eligible = (0..tried.len()).filter(|&index| tried[index].is_eligible);
    let recommended = eligible.max_by(|&a, &b| {
        let of = |index: usize| tried[index].hardness.mean_similarity;
        // Of equal ones the first is the simplest.
        of(a).total_cmp(&of(b)).then(b.cmp(&a))
    });
    let pairs = tried.iter().filter_map(|tried| Some((tried.hardness.likely_false, tried.hardness.same_label?)));
    let pairs: Vec<_> = pairs.chain(uniform.same_label.map(|same| (uniform.likely_false, same))).collect();
    Ok(Tuning {
        samples: table.present(),
        total,
        estimate: judge.bound.to_string(),
        rank_correlation: (!pairs.is_empty()).then(|| spearman(&pairs)),
        frontier: frontier(&tried),
        tried,
        uniform,
        recommended,
    })
}

/// The settings that none of the others is harder than without having more likely false negatives, the mildest first,
/// all without many pairs of one label. Of equal ones the first is meant.
fn frontier(tried: &[Tried]) -> Vec<usize> {
    let of = |index: usize| (tried[index].hardness.mean_similarity, tried[index].hardness.likely_false);
    let is_beaten = |index: usize| {
        let (similarity, share) = of(index);
        (0..tried.len()).filter(|&other| !tried[other].shares_labels).any(|other| {
            let (others_similarity, others_share) = of(other);
            let is_as_good = others_similarity >= similarity && others_share <= share;
            is_as_good && (of(other) != of(index) || other < index)
        })
    };
    let is_in = |&index: &usize| !tried[index].shares_labels && !is_beaten(index);
    let mut frontier: Vec<usize> = (0..tried.len()).filter(is_in).collect();
    frontier.sort_by(|&a, &b| of(a).0.total_cmp(&of(b).0));
    frontier
}

/// The graph of these settings, built once.
fn graph_of<'a>(
    graphs: &'a mut HashMap<String, ProximityGraph>,
    snapshot: &Snapshot,
    config: &GraphConfig,
    seed: u64,
) -> Result<&'a ProximityGraph> {
    let key = format!("{config:?}");
    if !graphs.contains_key(&key) {
        let graph = graph::build(&snapshot.embeddings, config, seed, GraphVersion(1))?;
        graphs.insert(key.clone(), graph);
    }
    Ok(&graphs[&key])
}

/// Spearman's rank correlation of pairs of numbers, −1 to 1; equal numbers share the mean of their ranks. 0 if one of
/// both sides has a single value.
fn spearman(pairs: &[(f64, f64)]) -> f64 {
    let ranks = |of: fn(&(f64, f64)) -> f64| -> Vec<f64> {
        let values: Vec<f64> = pairs.iter().map(of).collect();
        let rank = |value: &f64| {
            let below = values.iter().filter(|other| *other < value).count();
            let equal = values.iter().filter(|other| *other == value).count();
            below as f64 + (equal as f64 - 1.0) / 2.0
        };
        values.iter().map(rank).collect()
    };
    let (a, b) = (ranks(|pair| pair.0), ranks(|pair| pair.1));
    let mean = (pairs.len() as f64 - 1.0) / 2.0;
    let sum = |of: &dyn Fn(usize) -> f64| (0..pairs.len()).map(of).sum::<f64>();
    let covariance = sum(&|i| (a[i] - mean) * (b[i] - mean));
    let scale = (sum(&|i| (a[i] - mean).powi(2)) * sum(&|i| (b[i] - mean).powi(2))).sqrt();
    if scale == 0.0 { 0.0 } else { covariance / scale }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spearman_of_ranks_and_ties() {
        assert_eq!(spearman(&[(1.0, 10.0), (2.0, 20.0), (3.0, 90.0)]), 1.0);
        assert_eq!(spearman(&[(1.0, 9.0), (2.0, 5.0), (3.0, 1.0)]), -1.0);
        // scipy.stats.spearmanr([1, 2, 2, 4], [1, 3, 2, 4])
        let tied = spearman(&[(1.0, 1.0), (2.0, 3.0), (2.0, 2.0), (4.0, 4.0)]);
        assert!((tied - 0.948_683_298).abs() < 1e-9, "{tied}");
        assert_eq!(spearman(&[(1.0, 1.0), (1.0, 2.0)]), 0.0);
    }
}
