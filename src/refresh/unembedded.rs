//! What a run draws from before it has a snapshot.

use std::sync::Arc;

use super::rules::{RowFacts, RowRules};
use super::snapshot::Snapshot;
use crate::config::WalkConfig;
use crate::error::Result;
use crate::sample::GraphVersion;
use crate::store::Store;
use crate::walk::{EpochSampler, Guards, Lengths, Mask, Strata};

/// The rows of a run that has no embeddings yet, and the guards that need none.
#[derive(Debug)]
pub(crate) struct UnembeddedRows {
    pub store: Store,
    pub guards: Guards,
    pub mask: Option<Mask>,
    pub strata: Option<Arc<Strata>>,
    pub lengths: Option<Arc<Lengths>>,
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

    /// What samples are divided into; `None` if mini-batches take all alike.
    pub fn strata(&self) -> Option<&Arc<Strata>> {
        match self {
            Self::Rows(rows) => rows.strata.as_ref(),
            Self::Snapshot(snapshot) => snapshot.strata.as_ref(),
        }
    }

    /// How long samples are; `None` without `walk.length_column`.
    pub fn lengths(&self) -> Option<&Lengths> {
        match self {
            Self::Rows(rows) => rows.lengths.as_deref(),
            Self::Snapshot(snapshot) => snapshot.lengths.as_deref(),
        }
    }

    /// Epoch `epoch` over these samples, which begins at `step`, for so many ranks.
    pub fn epoch(&self, walk: &WalkConfig, seed: u64, epoch: u64, step: u64, ranks: usize) -> EpochSampler {
        let sampler = match self {
            Self::Rows(rows) => {
                EpochSampler::new(rows.store.len(), walk, seed, epoch).began_at_step(step).keeping_skipped()
            }
            Self::Snapshot(snapshot) => snapshot.epoch(walk, seed, epoch, step),
        };
        sampler.divided(self.strata(), ranks)
    }
}

impl UnembeddedRows {
    /// Reads the rows for what the rules look at. Blocks.
    pub fn new(store: Store, rules: &RowRules) -> Result<Self> {
        let facts = RowFacts::of(&store, rules)?;
        let (strata, lengths) = (facts.strata.clone(), facts.lengths.clone());
        let (guards, mask) = facts.apply(rules, None);
        Ok(Self { store, guards, mask, strata, lengths })
    }

    /// What the rules look at in the rows.
    pub(super) fn row_facts(&self) -> RowFacts {
        RowFacts::of_made(&self.guards, self.mask.as_ref(), self.strata.as_ref(), self.lengths.as_ref())
    }
}
