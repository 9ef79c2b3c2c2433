//! What client and server say to each other beside record batches, as JSON.

use serde::{Deserialize, Serialize};

use crate::checkpoint::State;
use crate::refresh::RefreshCounts;
use crate::walk::WalkCounts;

/// What a client wants: the ticket of `DoGet`, and the command in the first message of `DoExchange`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Ticket {
    /// Which share of every mini-batch, from 0.
    #[serde(default)]
    pub rank: usize,
    /// How many ranks share them; that of the server's `stream.world_size`.
    #[serde(default = "one")]
    pub world_size: usize,
    /// Where to go on; at the beginning without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
}

/// What a client sends while it takes mini-batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credits {
    /// How many more mini-batches may be sent.
    #[serde(default)]
    pub credits: u64,
    /// The step up to which the trainer has taken them all, which need not be held any more.
    #[serde(default)]
    pub taken: u64,
}

/// What is known of a mini-batch beside its columns; `app_metadata` of its message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Facts {
    /// [`MiniBatch::step`](crate::MiniBatch::step).
    pub step: u64,
    /// Whether it belongs to the warm-up.
    pub is_warm_up: bool,
    /// [`MiniBatch::digest`](crate::MiniBatch::digest).
    pub digest: u64,
    /// What happened on the walk.
    pub counts: WalkCounts,
    /// Ids of explicit negatives, [samples × n].
    pub negatives: Vec<Option<u32>>,
    /// The state of the run after it.
    pub state: State,
}

/// What is known of the run; `app_metadata` of the schema, which comes first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub samples: usize,
    pub mini_batches_per_epoch: u64,
    pub dimension: usize,
    pub has_checkpoints: bool,
    /// The state that the first mini-batch follows.
    pub state: State,
}

/// What the action `refresh` came to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RefreshResult {
    /// The version of the graph that is in use now.
    pub graph_version: u64,
    /// The version of the model that made its embeddings.
    pub model_version: u64,
    /// Whether there was nothing to do.
    pub skipped: bool,
    /// How far a newer model had drifted, 1 − cosine on average; `None` if there was none.
    pub drift: Option<f64>,
    /// The number of samples that the source has gained.
    pub added: usize,
    /// The number of samples whose vector was pushed.
    pub pushed: usize,
    /// How long it took.
    pub seconds: f64,
}

/// How the run stands; the answer of the action `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RunStatus {
    /// The number of samples in the data set.
    pub samples: usize,
    /// The number of samples in a mini-batch, over all ranks.
    pub batch_size: usize,
    /// Whether an epoch's last mini-batch is left out if it would be short.
    pub drop_last: bool,
    /// The number of mini-batches in an epoch.
    pub mini_batches_per_epoch: u64,
    /// The version of the newest graph; `None` in a warm-up without one.
    pub graph_version: Option<u64>,
    /// The version of the model that made its embeddings.
    pub model_version: Option<u64>,
    /// How refreshes have ended so far.
    pub refreshes: RefreshCounts,
}

/// The actions of `DoAction`, each with what it does.
pub(super) const ACTIONS: [(&str, &str); 6] = [
    ("refresh", "refreshes now, and answers with what came of it"),
    ("push_losses", "takes the losses of samples in the body, [ids, losses]"),
    ("keep", "keeps the state in the body resumable; see RefreshHandle::keep"),
    ("status", "answers with how the run stands"),
    ("neighbors", "answers with the neighbors of the sample in the body, and their similarities"),
    ("pair_similarity", "answers with the similarity of the two sides of the sample in the body"),
];

fn one() -> usize {
    1
}
