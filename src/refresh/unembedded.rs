//! What a run draws from before it has a snapshot.

use std::sync::Arc;

use super::facts::RowFacts;
use super::rules::RowRules;
use super::snapshot::Snapshot;
use crate::config::WalkConfig;
use crate::embeddings::all_bits;
use crate::sample::GraphVersion;
use crate::store::Store;
use crate::walk::{EpochSampler, Guards, Mask};

/// The rows of a run that has no embeddings yet, and the guards that need none.
#[derive(Debug)]
pub(crate) struct UnembeddedRows {
    pub store: Store,
    pub guards: Guards,
    pub mask: Option<Mask>,
    /// What the rules look at in the rows.
    pub facts: RowFacts,
}

/// What a mini-batch is drawn from.
#[derive(Clone, Debug)]
pub(crate) enum DrawnFrom {
    /// Rows alone, uniformly.
    Rows(Arc<UnembeddedRows>),
    /// Rows, embeddings and graph.
    Snapshot(Arc<Snapshot>),
}

impl DrawnFrom {
    /// The graph's version; `None` without a graph.
    pub fn graph_version(&self) -> Option<GraphVersion> {
        self.snapshot().map(|snapshot| snapshot.graph_version())
    }

    pub fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        match self {
            Self::Rows(_) => None,
            Self::Snapshot(snapshot) => Some(snapshot),
        }
    }

    pub fn store(&self) -> &Store {
        match self {
            Self::Rows(rows) => &rows.store,
            Self::Snapshot(snapshot) => &snapshot.store,
        }
    }

    /// What marks pairs of a mini-batch that are no negatives; `None` without `[mask]`.
    pub fn mask(&self) -> Option<&Mask> {
        match self {
            Self::Rows(rows) => rows.mask.as_ref(),
            Self::Snapshot(snapshot) => snapshot.mask.as_ref(),
        }
    }

    /// What the rules look at in the rows.
    pub fn facts(&self) -> &RowFacts {
        match self {
            Self::Rows(rows) => &rows.facts,
            Self::Snapshot(snapshot) => &snapshot.facts,
        }
    }

    /// Epoch `epoch` over these samples, which begins at `step`, for so many ranks.
    pub fn epoch(&self, walk: &WalkConfig, seed: u64, epoch: u64, step: u64, ranks: usize) -> EpochSampler {
        let sampler = match self {
            Self::Rows(rows) => {
                let samples = rows.store.len();
                let left = rows.facts.beginning(samples, all_bits(samples), seed, epoch);
                EpochSampler::from_left(&left, walk, seed, epoch).began_at_step(step).keeping_skipped()
            }
            Self::Snapshot(snapshot) => snapshot.epoch(walk, seed, epoch, step),
        };
        sampler.divided(self.facts().strata.as_ref(), ranks)
    }
}

impl UnembeddedRows {
    /// `facts` are those of the same rows.
    pub fn new(store: Store, rules: &RowRules, facts: RowFacts) -> Self {
        let (guards, mask) = facts.apply(rules, None);
        Self { store, guards, mask, facts }
    }
}
