//! Warns where hard mini-batches are known to hurt, as far as a first snapshot shows it.
//!
//! It looks at what a walk would bring together: samples, and neighbors that no guard keeps apart from them. The bounds
//! rest on docs/evidence.md.

use crate::config::{GuardsConfig, Similarity};
use crate::embeddings::COPY;
use crate::refresh::Snapshot;
use crate::sample::SampleId;
use crate::telemetry;

/// Warns if many neighbors are likely to be false negatives. Costs a few thousand dot products.
pub(super) fn warn_of_harm(snapshot: &Snapshot, guards: &GuardsConfig) {
    let neighbors = Neighbors { snapshot, skip: guards.skip_nearest };
    let is_bounded = guards.max_similarity.is_some();
    if guards.duplicate_similarity.is_none() && !is_bounded && snapshot.embeddings.similarity() == Similarity::Cosine {
        let share = neighbors.near_copies();
        if share >= MANY_COPIES {
            telemetry::near_copies(share);
        }
    }
    if guards.max_relative_to_positive.is_none() && !is_bounded {
        let share = neighbors.above_positive();
        if share >= MANY_ABOVE {
            telemetry::above_positive(share);
        }
    }
}

/// The neighbors of some samples.
struct Neighbors<'a> {
    snapshot: &'a Snapshot,
    skip: usize,
}

impl Neighbors<'_> {
    /// Samples spread over all, and how similar those of their neighbors are that guards let come together with them.
    fn of_some(&self) -> impl Iterator<Item = (SampleId, Vec<f32>)> {
        let Self { snapshot, skip } = *self;
        let groups = snapshot.guards.groups();
        let step = (snapshot.graph.len() / LOOKED_AT).max(1);
        let some = (0..snapshot.graph.len()).step_by(step).map(SampleId::new);
        some.filter(|&id| !snapshot.facts.is_in_corpus(id)).map(move |id| {
            let own = groups.groups_of(id);
            let all = snapshot.graph.neighbors(id).iter().zip(snapshot.graph.similarities(id)).skip(skip);
            let may_come = |other: SampleId| !groups.groups_of(other).iter().any(|group| own.contains(group));
            (id, all.filter(|&(&other, _)| may_come(other)).map(|(_, &similarity)| similarity).collect())
        })
    }

    /// The share of samples with a neighbor that is nearly the same; 0 if samples at random are as similar, as they are
    /// to an encoder that knows nothing yet.
    fn near_copies(&self) -> f64 {
        let embeddings = &self.snapshot.embeddings;
        let len = embeddings.len();
        // Far from any whole part of the data, so that halves that are alike do not meet.
        let far = (0.382 * len as f64) as usize;
        let (mut samples, mut near, mut near_at_random) = (0, 0, 0);
        for (id, similarities) in self.of_some() {
            let other = SampleId(((id.index() + far) % len) as u32);
            samples += 1;
            near += usize::from(similarities.iter().any(|&similarity| similarity >= COPY));
            near_at_random += usize::from(embeddings.similarity_of(id, other) >= COPY);
        }
        if near_at_random > samples / 100 { 0.0 } else { share(near, samples) }
    }

    /// The share of neighbors that are more similar to a sample than its positive is; 0 if rows are no pairs.
    fn above_positive(&self) -> f64 {
        let (mut neighbors, mut above) = (0, 0);
        for (id, similarities) in self.of_some() {
            let Some(positive) = self.snapshot.embeddings.pair_similarity(id) else { return 0.0 };
            neighbors += similarities.len();
            above += similarities.iter().filter(|&&similarity| similarity > positive).count();
        }
        share(above, neighbors)
    }
}

fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// How many samples are looked at, about.
const LOOKED_AT: usize = 2000;

/// The share of samples with a near copy, and of neighbors above the positive, from which on a run warns.
const MANY_COPIES: f64 = 0.1;
const MANY_ABOVE: f64 = 0.8;
