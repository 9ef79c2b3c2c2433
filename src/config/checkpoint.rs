use std::path::PathBuf;

use serde::Deserialize;

use super::check::{Check, Checker};

/// `[checkpoint]`: what a run leaves on disk, so that another can go on where it ended, however it ended.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct CheckpointConfig {
    /// Folder for snapshots, made if missing, one a run. Default: none, and no run can be resumed.
    ///
    /// It holds `keep` snapshots, two more for states that the trainer has saved, and those that mini-batches on their
    /// way were drawn from. Each takes 8 K bytes a sample, and the size of its embeddings if these differ from those of
    /// the snapshot before. Every file has a checksum. If there are several ranks, rank 0 writes the folder and all
    /// read it on resume, so it must lie where all can see it. The folder of a run that saved no state is taken over by
    /// the next run.
    pub dir: Option<PathBuf>,
    /// How many of the newest snapshots are kept; at least 2, default 4. A state can be resumed while its graph is
    /// among them, and in any case if the trainer has [kept](crate::refresh::RefreshHandle::keep) it.
    pub keep: usize,
    /// How a run goes on from a state. Default `exact`.
    pub resume: Resume,
}

/// How a run goes on from a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resume {
    /// With the mini-batches that would have come, from the graph that was in use. What refreshes do after that is the
    /// same only with [`swap_after_steps`](super::RefreshConfig::swap_after_steps).
    #[default]
    Exact,
    /// With the newest graph that is undamaged, from the beginning of the state's epoch.
    Latest,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self { dir: None, keep: 4, resume: Resume::Exact }
    }
}

impl Check for CheckpointConfig {
    const SECTION: &'static str = "checkpoint";

    fn check(&self, check: &mut Checker<'_>) {
        let given = self.dir.as_ref().is_none_or(|d| !d.as_os_str().is_empty());
        check.require(given, "dir", "is empty; name a folder, or leave the key out");
        check.require(self.keep >= 2, "keep", "must be at least 2");
    }
}
