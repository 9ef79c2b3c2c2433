use std::path::PathBuf;

use serde::Deserialize;

use super::check::{Check, Checker};

/// `[checkpoint]`: what a run leaves on disk, so that another can go on where it ended, however it ended.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct CheckpointConfig {
    /// Folder for snapshots, made if missing, one a run. Each takes 8 K bytes a sample, and where its embeddings are
    /// others than the last one's, theirs: `keep` of them, two more for states that the trainer has saved, and those that
    /// mini-batches on their way were drawn from. Every file has a checksum. Of several ranks, rank 0 writes it and all
    /// read it on resume: it must lie where all can see it. A folder of a run that saved no state is taken over by the
    /// next one. Default: none, and no run can be resumed.
    pub dir: Option<PathBuf>,
    /// Snapshots that are kept, the newest ones; at least 2, default 4. A state that the trainer has
    /// [kept](crate::refresh::RefreshHandle::keep) can be resumed whatever this is, another one while its graph is among
    /// these.
    pub keep: usize,
    /// How a run goes on from a state. Default `exact`.
    pub resume: Resume,
}

/// How a run goes on from a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resume {
    /// With the mini-batches that would have come, from the graph that was in use. What refreshes do after that is as
    /// it would have been with [`swap_after_steps`](super::RefreshConfig::swap_after_steps).
    #[default]
    Exact,
    /// With the newest graph that is there and sound, and the state's epoch from its beginning.
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
