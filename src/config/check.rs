//! What settings can say about themselves beyond their types.

use super::PipelineConfig;
use super::graph::Similarity;
use super::schedule::Schedule;
use super::sources;
use super::walk::Coverage;
use crate::error::Fault;

/// Collects the faults of one stage's settings.
pub(crate) struct Checker<'a> {
    pub section: &'a str,
    pub faults: &'a mut Vec<Fault>,
}

impl Checker<'_> {
    /// Adds a fault of `key` unless `fine`.
    pub fn require(&mut self, fine: bool, key: &str, message: impl Into<String>) {
        if !fine {
            self.faults.push(Fault::new(format!("{}.{key}", self.section), message));
        }
    }

    /// Requires of a schedule that it takes some time; its numbers are the caller's to check.
    pub fn schedule(&mut self, schedule: Schedule, key: &str) {
        if let Some(fault) = schedule.fault() {
            self.require(false, key, fault);
        }
    }
}

/// Settings that can say what is wrong with them beyond the types.
pub(crate) trait Check {
    /// The section's name in a pipeline file.
    const SECTION: &'static str;

    /// Requires of every setting what it must be.
    fn check(&self, check: &mut Checker<'_>);
}

impl PipelineConfig {
    /// What is wrong with the values, stage by stage.
    pub(crate) fn faults(&self) -> Vec<Fault> {
        fn check<T: Check>(section: &T, faults: &mut Vec<Fault>) {
            section.check(&mut Checker { section: T::SECTION, faults });
        }
        let mut faults = Vec::new();
        check(&self.source, &mut faults);
        if !self.sources.is_empty() {
            faults.retain(|fault| fault.key != "source.uri");
            let message = "is given beside [[sources]]; make it one of them, or leave one of both out";
            let is_one = self.source.uri.is_empty();
            Checker { section: "source", faults: &mut faults }.require(is_one, "uri", message);
        }
        faults.extend(sources::faults(&self.sources, &self.mixture));
        check(&self.mixture, &mut faults);
        faults.extend(self.strata_faults());
        check(&self.shard, &mut faults);
        let has_shards = (self.shard.count > 1).then_some("shard.count");
        let has_part_epochs = self.walk.epoch_samples.map(|_| "walk.epoch_samples");
        for key in has_shards.into_iter().chain(has_part_epochs) {
            if self.strata_column().is_some() {
                let message = "makes epochs of which each source or group has another share; leave it out, or the \
                               weights of sources and walk.same";
                faults.push(Fault::new(key, message));
            }
            if self.walk.coverage == Coverage::Paper {
                faults.push(Fault::new(key, "needs epochs of a known length; set walk.coverage to `exact`"));
            }
        }
        check(&self.store, &mut faults);
        check(&self.encode, &mut faults);
        check(&self.pairs, &mut faults);
        check(&self.graph, &mut faults);
        check(&self.walk, &mut faults);
        check(&self.guards, &mut faults);
        check(&self.mask, &mut faults);
        check(&self.refresh, &mut faults);
        check(&self.stream, &mut faults);
        check(&self.checkpoint, &mut faults);
        check(&self.compute, &mut faults);
        check(&self.report, &mut faults);
        check(&self.metrics, &mut faults);
        if let (Some(label), Some(columns)) = (&self.report.label, &self.source.columns)
            && !columns.contains(label)
        {
            let message = format!("`{label}` is not among source.columns; add it there");
            faults.push(Fault::new("report.label", message));
        }
        if let Some(neighbors) = self.graph.neighbors
            && let Some(message) = self.guards.skips_all(neighbors)
        {
            faults.push(Fault::new("guards.skip_nearest", message));
        }
        if let Some(neighbors) = self.graph.neighbors
            && let Some(message) = self.walk.ranks_beyond(neighbors, self.guards.skip_nearest)
        {
            faults.push(Fault::new("walk.negative_ranks", message));
        }
        if self.pairs.columns().is_none() {
            let needs = |other| format!("needs pairs; name pairs.anchor and pairs.positive, or use {other}");
            let need_pairs = [
                (
                    "guards.max_relative_to_positive",
                    self.guards.max_relative_to_positive.is_some(),
                    "guards.max_similarity",
                ),
                ("mask.max_relative_to_positive", self.mask.max_relative_to_positive.is_some(), "mask.max_similarity"),
                ("mask.positives", self.mask.positives, "mask.same"),
                (
                    "walk.negative_absolute_margin",
                    self.walk.negative_absolute_margin.is_some(),
                    "guards.max_similarity",
                ),
                (
                    "walk.negative_relative_margin",
                    self.walk.negative_relative_margin.is_some(),
                    "guards.max_similarity",
                ),
            ];
            let in_vain = need_pairs.into_iter().filter(|(_, is_set, _)| *is_set);
            faults.extend(in_vain.map(|(key, _, other)| Fault::new(key, needs(other))));
        }
        if self.similarity() == Similarity::Cross {
            if self.graph.similarity != Similarity::Cosine {
                let message = "is `dot`, but pairs.graph_over = \"cross\" compares by cosines; leave it out";
                faults.push(Fault::new("graph.similarity", message));
            }
            if self.guards.duplicate_similarity.is_some() {
                let message = "finds no copies with pairs.graph_over = \"cross\", where a copy is as similar as the \
                               own pair; use guards.max_relative_to_positive";
                faults.push(Fault::new("guards.duplicate_similarity", message));
            }
        }
        if self.pairs.within.is_some() && self.walk.coverage == Coverage::Paper {
            let message = "leaves pairs out of epochs that have each sample once; set walk.coverage to `exact`";
            faults.push(Fault::new("pairs.within", message));
        }
        if !self.pairs.corpus.is_empty() {
            let mut check = Checker { section: "pairs", faults: &mut faults };
            let message = "has explicit negatives alone; set walk.negatives to 1 or more, or leave it out";
            check.require(self.walk.negatives > 0, "corpus", message);
            let message = "is left out of epochs that have each sample once; set walk.coverage to `exact`";
            check.require(self.walk.coverage == Coverage::Exact, "corpus", message);
            let message = "is of no source and no group; leave it out, or the weights of sources and walk.same";
            check.require(self.strata_column().is_none(), "corpus", message);
        }
        let (size, ranks) = (self.walk.batch_size, self.stream.world_size);
        let marks = (size / ranks.max(1)).saturating_mul(size).saturating_mul(1 + self.walk.negatives);
        if self.mask.is_on() && i32::try_from(marks).is_err() {
            let message =
                format!("makes a mask of {marks} pairs, and 2^31 - 1 are possible; lower it, or leave [mask] out");
            faults.push(Fault::new("walk.batch_size", message));
        }
        faults.extend(self.guide_faults());
        if let Some((key, message)) = self.mask.contradiction(&self.guards) {
            faults.push(Fault::new(format!("mask.{key}"), message));
        }
        let target = self.walk.target_similarity.filter(|target| target.is_finite());
        if let Some(target) = target
            && self.graph.similarity == Similarity::Cosine
            && !(-1.0..=1.0).contains(&target)
        {
            let message = format!("is {target}, but a cosine lies between -1 and 1; give one, or use graph.similarity");
            faults.push(Fault::new("walk.target_similarity", message));
        }
        let highest = self.metrics.address.map_or(0, |address| usize::from(address.port()));
        if highest > 0 && highest + self.stream.rank > usize::from(u16::MAX) {
            let message = format!("leaves rank {} without a port; choose a lower one", self.stream.rank);
            faults.push(Fault::new("metrics.address", message));
        }
        if ranks > 1 && !size.is_multiple_of(ranks) {
            let message = format!("does not divide walk.batch_size ({size}) into equal shares; choose one that does");
            faults.push(Fault::new("stream.world_size", message));
        }
        faults
    }
}
