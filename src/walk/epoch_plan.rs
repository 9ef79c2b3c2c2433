//! What the next mini-batch of an epoch is to be, before its samples are drawn.

use rand::rngs::ChaCha8Rng;

use super::dials::Dials;
use super::draw::mini_batches_per_epoch;
use super::epoch_sampler::EpochSampler;
use super::guards::Guards;
use super::must_draw::MustDraw;
use super::plan::Plan;
use super::reverse::ReverseEdges;
use super::skipped::SkippedSamples;
use super::strata::Share;
use crate::config::{Coverage, SamplerKind};
use crate::embeddings::EmbeddingTable;
use crate::graph::ProximityGraph;
use crate::sample::SampleId;

impl EpochSampler {
    /// What the next mini-batch is to be.
    pub(super) fn plan(
        &mut self,
        size: usize,
        shares: Vec<Share>,
        graph: Option<&ProximityGraph>,
        guards: Option<&Guards>,
        generator: &mut ChaCha8Rng,
    ) -> Plan {
        let dials = Dials::at(&self.config, self.step(), self.epoch, self.random_share);
        let skip = guards.map_or(0, Guards::skip);
        if let Some(graph) = graph.filter(|_| dials.sampler == SamplerKind::RandomWalk) {
            self.update_reverse_edges(graph, skip);
        }
        // Those of another stratum could not join.
        let guards = guards.filter(|_| shares.is_empty());
        let must_draw = guards.map_or_else(Vec::new, |guards| self.must_draw(guards, generator));
        let skipped = guards.map_or_else(Vec::new, |guards| self.skipped(guards, size, generator));
        Plan { size, dials, skip, must_draw, keeps_skipped: self.keeps_skipped, skipped, shares }
    }

    /// What the next mini-batch takes of each stratum: nothing if samples are not divided, `None` at the end of the
    /// epoch. Strata of which less is left begin anew.
    pub(super) fn shares(
        &mut self,
        embeddings: Option<&EmbeddingTable>,
        generator: &mut ChaCha8Rng,
    ) -> Option<Vec<Share>> {
        let at = self.moment();
        let Some(strata) = &mut self.strata else { return Some(Vec::new()) };
        if self.ended {
            return None;
        }
        let (shares, began_anew) = strata.next(at, &mut self.remaining, embeddings, generator)?;
        if began_anew {
            // Its samples have no reverse edges any more. To make them costs as much as many mini-batches.
            let pause = (self.id_end / FORWARD_ONLY_AFTER_REFILL_DIVISOR).div_ceil(self.config.batch_size);
            (self.reverse, self.reverse_from) = (None, self.drawn + pause.max(1) as u64);
        }
        Some(shares)
    }

    /// The size of the next mini-batch, and the least size that is accepted; `None` at the end of the epoch.
    pub(super) fn size(&self, shares: &[Share], guarded: bool) -> Option<(usize, usize)> {
        if let Some(strata) = &self.strata {
            let size = shares.iter().map(|share| share.places).sum();
            return Some((size, strata.shares.least(size)));
        }
        let full = self.config.batch_size.min(self.samples);
        let left = self.remaining.len();
        let over = self.drawn >= mini_batches_per_epoch(self.samples, &self.config);
        let size = match self.config.coverage {
            Coverage::Exact if over => 0,
            Coverage::Exact => full.min(left),
            // The N mod B last samples make a smaller mini-batch, if they are at least two.
            Coverage::Paper if left > self.samples % self.config.batch_size => full,
            Coverage::Paper if left < 2 => 0,
            Coverage::Paper => left,
        };
        if self.ended || size == 0 || (self.config.drop_last && size < self.config.batch_size) {
            return None;
        }
        let least = if !guarded || self.config.drop_last { size } else { size.min(2) };
        Some((size, least))
    }

    /// Makes reverse edges, except early in an epoch, and keeps them up to date, so that walks find what remains.
    fn update_reverse_edges(&mut self, graph: &ProximityGraph, skip: usize) {
        let late = self.remaining.len() < self.samples - self.samples / FORWARD_ONLY_DIVISOR;
        let late = late && self.drawn >= self.reverse_from;
        let walks = self.config.coverage == Coverage::Exact;
        match &mut self.reverse {
            Some(reverse) if reverse.are_of(graph) => reverse.keep_remaining(&self.remaining),
            reverse if late && walks => *reverse = Some(ReverseEdges::new(graph, self.id_end, &self.remaining, skip)),
            _ => {}
        }
    }

    /// The samples that must be in the next mini-batch, or the epoch cannot place them all.
    fn must_draw(&mut self, guards: &Guards, generator: &mut ChaCha8Rng) -> Vec<SampleId> {
        if self.config.coverage == Coverage::Paper {
            return Vec::new();
        }
        let must_draw = match self.must_draw.take().filter(|must_draw| must_draw.are_of(guards.groups())) {
            Some(must_draw) => must_draw,
            None => MustDraw::new(guards.groups(), &self.remaining),
        };
        let left = self.mini_batches_left();
        self.must_draw.insert(must_draw).samples(&self.remaining, left, generator)
    }

    /// The samples without an embedding that the next mini-batch takes.
    fn skipped(&mut self, guards: &Guards, size: usize, generator: &mut ChaCha8Rng) -> Vec<SampleId> {
        let Some(embeddings) = guards.skipping().filter(|_| self.keeps_skipped) else { return Vec::new() };
        let skipped = match self.skipped.take().filter(|skipped| skipped.are_of(embeddings)) {
            Some(skipped) => skipped,
            None => SkippedSamples::new(embeddings, &self.remaining),
        };
        let left = self.mini_batches_left();
        self.skipped.insert(skipped).choose(&self.remaining, size, left, generator)
    }

    /// How many mini-batches are to come, this one included; with the paper's coverage, at least how many.
    fn mini_batches_left(&self) -> u64 {
        mini_batches_per_epoch(self.samples, &self.config).saturating_sub(self.drawn)
    }
}

/// Walks follow no reverse edges in the first 1 / 64 of an epoch.
const FORWARD_ONLY_DIVISOR: usize = 64;

/// Nor in so large a part of the samples after a stratum has begun anew.
const FORWARD_ONLY_AFTER_REFILL_DIVISOR: usize = 16;
