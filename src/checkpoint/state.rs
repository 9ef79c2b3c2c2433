//! What a trainer keeps of a run.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::settings::{FORMER_DEFAULTS, RENAMED, difference};
use crate::arrow_file::{checksum, to_text};
use crate::error::{Error, Result};
use crate::sample::GraphVersion;

/// Where a run stands. The trainer keeps it, in any format that serde writes; it is the same on all ranks.
///
/// ```
/// use futures::TryStreamExt;
/// use prosampler::State;
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use std::sync::Arc;
/// # use prosampler::arrow::{array::{ArrayRef, FixedSizeListArray, RecordBatch}, datatypes::Float32Type};
/// # use prosampler::{Pipeline, config::*, encode::ColumnEncoder, source::MemorySource};
/// # let vector = |i: i32| Some([Some((i as f32).sin()), Some((i as f32).cos())]);
/// # let vectors = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>((0..100).map(vector), 2);
/// # let rows = RecordBatch::try_from_iter([("vector", Arc::new(vectors) as ArrayRef)])?;
/// # let pipeline = Pipeline::builder()
/// #     .encoder(ColumnEncoder::new(&rows.schema(), "vector")?)
/// #     .source(MemorySource::new(vec![rows])?)
/// #     .graph(GraphConfig { candidates: 20.into(), neighbors: Some(5), ..GraphConfig::default() })
/// #     .walk(WalkConfig { batch_size: 32, ..WalkConfig::default() });
/// # let folder = tempfile::TempDir::new()?;
/// # let dir = Some(folder.path().to_owned());
/// let mut stream = pipeline.checkpoint(CheckpointConfig { dir, ..CheckpointConfig::default() }).start().await?;
/// stream.try_next().await?;
/// let state = stream.state();
/// stream.handle().keep(&state).await?;
/// let saved = serde_json::to_string(&state)?;
///
/// let state: State = serde_json::from_str(&saved)?;
/// assert_eq!(state.step, 1);
/// // `PipelineBuilder::resume` takes it, with the same rows, settings and folder.
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct State {
    /// The format of these fields; raised if older releases could not read a state.
    pub format: u32,
    /// The seed of the run.
    pub seed: u64,
    /// The number of mini-batches delivered, over all epochs.
    pub step: u64,
    /// The epoch of the last one delivered, from 0.
    pub epoch: u64,
    /// The step at which that epoch began.
    pub epoch_began_at_step: u64,
    /// The version of the graph that the last one was drawn from; 0 in a warm-up without one.
    pub graph_version: u64,
    /// The step from which that graph was used in this epoch.
    pub graph_used_from_step: u64,
    /// What `walk.target_similarity` had learnt at that step; `None` without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feedback: Option<[u64; 6]>,
    /// How many mini-batches after `step` a resumed run leaves out; see [`skip`](Self::skip).
    #[serde(default, skip_serializing_if = "is_none")]
    pub skips: u64,
    /// Checksum of what identifies the vectors of `guards.guide`; `None` without one, or if nothing identifies them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guide: Option<String>,
    /// Fingerprint of the data set. If it differs, sample ids refer to other rows.
    pub rows: String,
    /// The settings that mini-batches depend on, by their keys in a pipeline file. Values are JSON.
    pub settings: BTreeMap<String, String>,
    /// Checksum of all fields above, so that a damaged state is not mistaken for another run's.
    pub checksum: String,
}

impl State {
    /// The state before the first mini-batch.
    pub(crate) fn first(seed: u64, rows: String, settings: BTreeMap<String, String>, graph_version: u64) -> Self {
        Self {
            format: FORMAT,
            seed,
            step: 0,
            epoch: 0,
            epoch_began_at_step: 0,
            graph_version,
            graph_used_from_step: 0,
            feedback: None,
            skips: 0,
            guide: None,
            rows,
            settings,
            checksum: String::new(),
        }
    }

    /// The state from which a resumed run leaves out the next `mini_batches`, as after a spike of the loss.
    ///
    /// They count as delivered, for triggers of refreshes, too: what follows is what would have followed them, on all
    /// ranks alike if all resume from this state. They are drawn and gathered, and nobody gets them.
    #[must_use]
    pub fn skip(&self, mini_batches: u64) -> Self {
        Self { skips: self.skips.saturating_add(mini_batches), ..self.clone() }.sealed()
    }

    /// The step of the mini-batch that comes next.
    #[cfg(feature = "serve")]
    pub(crate) fn next_step(&self) -> u64 {
        self.step.saturating_add(self.skips)
    }

    /// The same state with its checksum, as trainers get it.
    pub(crate) fn sealed(&self) -> Self {
        Self { format: FORMAT, checksum: self.sum(), ..self.clone() }
    }

    fn sum(&self) -> String {
        let Self { format, seed, step, epoch, epoch_began_at_step, graph_version, graph_used_from_step, .. } = self;
        let numbers = [seed, step, epoch, epoch_began_at_step, graph_version, graph_used_from_step];
        let mut text = format!("{format} {numbers:?} {}\n", self.rows);
        if let Some(feedback) = &self.feedback {
            // This never fails: `text` is a String.
            let _ = writeln!(text, "feedback {feedback:?}");
        }
        if self.skips > 0 {
            // This never fails: `text` is a String.
            let _ = writeln!(text, "skips {}", self.skips);
        }
        if let Some(guide) = &self.guide {
            // This never fails: `text` is a String.
            let _ = writeln!(text, "guide {guide}");
        }
        for (key, value) in &self.settings {
            // This never fails: `text` is a String.
            let _ = writeln!(text, "{key} = {value}");
        }
        to_text(checksum(text.as_bytes()))
    }

    /// Refuses a state that is damaged, of another run, or of a newer release.
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

    /// Whether its guide is known to have other vectors than that of now.
    pub(crate) fn has_other_guide(&self, now: Option<&String>) -> bool {
        self.guide.as_ref().zip(now).is_some_and(|(then, now)| then != now)
    }

    /// Whether the graph came into use within the epoch, so that what was left of the epoch then must be known.
    pub(crate) fn needs_left(&self) -> bool {
        self.graph_used_from_step > self.epoch_began_at_step
    }

    /// Moves on to the state after the mini-batch of `step`.
    ///
    /// `feedback` is what was learnt before that mini-batch.
    pub(crate) fn advance(
        &mut self,
        epoch: u64,
        step: u64,
        graph_version: Option<GraphVersion>,
        feedback: Option<[u64; 6]>,
    ) {
        let graph_version = graph_version.map_or(0, |version| version.0);
        if epoch != self.epoch {
            self.epoch = epoch;
            self.epoch_began_at_step = step;
            self.graph_used_from_step = step;
            self.feedback = feedback;
        } else if graph_version != self.graph_version {
            self.graph_used_from_step = step;
            self.feedback = feedback;
        }
        self.step = step + 1;
        self.graph_version = graph_version;
    }
}

fn is_none(skips: &u64) -> bool {
    *skips == 0
}

/// The newest format of a state.
const FORMAT: u32 = 1;
