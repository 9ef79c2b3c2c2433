use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::settings::{FORMER_DEFAULTS, RENAMED, difference};
use crate::arrow_file::{checksum, to_text};
use crate::error::{Error, Result};
use crate::sample::GraphVersion;

/// Where a run stands: what the trainer keeps, in any format that serde writes. The same for all ranks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct State {
    /// Of these fields; raised where an older release could not read a state.
    pub format: u32,
    /// Of the run.
    pub seed: u64,
    /// Mini-batches delivered, over all epochs.
    pub step: u64,
    /// The epoch of the last of them, from 0.
    pub epoch: u64,
    /// The step at which that epoch began.
    pub epoch_began_at_step: u64,
    /// The graph that the last one was drawn from.
    pub graph_version: u64,
    /// The step from which on it was used in this epoch.
    pub graph_used_from_step: u64,
    /// Of the rows, as far as they were known: another one, and ids name other rows.
    pub rows: String,
    /// The settings that mini-batches depend on, by their keys in a pipeline file; values as JSON.
    pub settings: BTreeMap<String, String>,
    /// Of all fields above, so that a damaged state is not taken for another run's.
    pub checksum: String,
}

impl State {
    /// Before the first mini-batch.
    pub(crate) fn first(seed: u64, rows: String, settings: BTreeMap<String, String>) -> Self {
        Self {
            format: FORMAT,
            seed,
            step: 0,
            epoch: 0,
            epoch_began_at_step: 0,
            graph_version: 1,
            graph_used_from_step: 0,
            rows,
            settings,
            checksum: String::new(),
        }
    }

    /// The same, with its checksum: as it is given out.
    pub(crate) fn sealed(&self) -> Self {
        Self { format: FORMAT, checksum: self.sum(), ..self.clone() }
    }

    fn sum(&self) -> String {
        let Self { format, seed, step, epoch, epoch_began_at_step, graph_version, graph_used_from_step, .. } = self;
        let numbers = [seed, step, epoch, epoch_began_at_step, graph_version, graph_used_from_step];
        let mut text = format!("{format} {numbers:?} {}\n", self.rows);
        for (key, value) in &self.settings {
            // Never fails: it is a String.
            let _ = writeln!(text, "{key} = {value}");
        }
        to_text(checksum(text.as_bytes()))
    }

    /// Refuses a state that is damaged, of another run, or of a release that came later.
    pub(crate) fn check(&self, seed: u64, settings: &BTreeMap<String, String>) -> Result<()> {
        let refused = |reason: String| Err(Error::State { reason });
        if self.format > FORMAT {
            let format = self.format;
            return refused(format!(
                "a newer release made the state (format {format}, this one reads up to {FORMAT}); update"
            ));
        }
        if self.checksum != self.sum() {
            return refused(
                "the state is damaged: it does not have its checksum; give a copy of it, or an older one".into(),
            );
        }
        if self.seed != seed {
            return refused(format!("it was made with seed {}, and the settings say {seed}; give the same", self.seed));
        }
        match difference(&self.settings, settings, RENAMED, FORMER_DEFAULTS) {
            None => Ok(()),
            Some(difference) => refused(difference),
        }
    }

    /// Whether its graph came into use within the epoch, so that what was left then must be known.
    pub(crate) fn needs_left(&self) -> bool {
        self.graph_used_from_step > self.epoch_began_at_step
    }

    /// One more mini-batch was delivered: that of `step`.
    pub(crate) fn advance(&mut self, epoch: u64, step: u64, graph_version: GraphVersion) {
        if epoch != self.epoch {
            (self.epoch, self.epoch_began_at_step, self.graph_used_from_step) = (epoch, step, step);
        } else if graph_version.0 != self.graph_version {
            self.graph_used_from_step = step;
        }
        (self.step, self.graph_version) = (step + 1, graph_version.0);
    }
}

/// The newest format.
const FORMAT: u32 = 1;
