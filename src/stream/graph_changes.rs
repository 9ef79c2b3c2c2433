//! Changes of the graph within an epoch, which a resumed run must repeat at the same steps.

use std::sync::Arc;

use super::counts::Shared;
use crate::checkpoint::{CheckpointFolder, State};
use crate::error::Result;
use crate::sample::GraphVersion;
use crate::telemetry;
use crate::walk::Left;

/// Records in the checkpoint folder what was left of an epoch when another graph came into use.
#[derive(Debug)]
pub(super) struct GraphChanges {
    /// `None` if there is no `checkpoint.dir`.
    folder: Option<CheckpointFolder>,
    shared: Arc<Shared>,
}

impl GraphChanges {
    pub fn new(folder: Option<CheckpointFolder>, shared: Arc<Shared>) -> Self {
        Self { folder, shared }
    }

    /// Records that from `step` on the epoch draws from another graph. A failure is logged and counted.
    pub fn record(&self, step: u64, graph_version: GraphVersion, left: &Left) {
        let Some(folder) = &self.folder else { return };
        if let Err(error) = folder.save_left(step, graph_version.0, left) {
            // A training run is worth more than a point to resume it from.
            self.shared.add_unsaved();
            telemetry::unsaved(step, &error);
        }
    }

    /// What was left of the epoch when the state's graph came into use; `None` if it was the epoch's first graph.
    ///
    /// `samples` is the size of the data set. Blocks.
    pub fn left(&self, state: &State, samples: usize) -> Result<Option<Left>> {
        let Some(folder) = self.folder.as_ref().filter(|_| state.needs_left()) else { return Ok(None) };
        folder.open_left(state.graph_used_from_step, samples).map(Some)
    }
}
