//! All spans and events of the crate, by `tracing`; no other module names any.
//!
//! Their target begins with `prosampler::telemetry`, so a filter such as `prosampler=info` finds them. An event with a
//! counted or measured quantity has it as a field, which a `tracing` layer can turn into a metric.
//!
//! | span | level | fields | lasts |
//! |---|---|---|---|
//! | `store` | INFO | `uri` | while a source is read into the store |
//! | `encode` | INFO | `encoder`, `samples`, `model_version` | while all samples are embedded |
//! | `graph` | INFO | `samples`, `candidates`, `neighbors`, `graph_version` | while a graph is built |
//! | `refresh` | INFO | `step` | from the trigger to the publication |
//! | `mini_batch` | DEBUG | `epoch`, `step` | while a mini-batch is drawn and gathered |
//!
//! Events at INFO are the milestones of a run: a cache that was opened, a model that was opened and how its samples are
//! grouped, a device that builds a graph, a snapshot that was published (`graph_version`, `model_version`, `step`,
//! `seconds`) and how its refresh spent the time (`store`, `model`, `encode`, `graph`, `checkpoint`), drift
//! (`cosine_shift`, `overlap`), a refresh that was skipped or cancelled (`step`), samples that were added, the end of
//! the stream, and who has embedded how many samples (`here`, `before`, `elsewhere`).
//!
//! Events at WARN are fallbacks, and failures that the run survives: damaged rows and files, samples that were skipped,
//! providers and devices that cannot be used, refreshes that failed, checkpoints that could not be written,
//! mini-batches that guards left short. Most have a `reason`.
//!
//! Events at DEBUG come with every mini-batch: its delivery (`step`, `waited`, `staleness`, `similarity`), uniform
//! top-ups, and all short ones after the first.

mod encode;
mod graph;
#[cfg(feature = "metrics")]
mod metrics;
mod refresh;
#[cfg(feature = "serve")]
mod serve;
mod store;
mod stream;

use tracing::{Span, debug_span, info_span};

pub(crate) use self::encode::*;
pub(crate) use self::graph::*;
#[cfg(feature = "metrics")]
pub(crate) use self::metrics::*;
pub(crate) use self::refresh::*;
#[cfg(feature = "serve")]
pub(crate) use self::serve::*;
pub(crate) use self::store::*;
pub(crate) use self::stream::*;
use crate::sample::{GraphVersion, ModelVersion};

pub(crate) fn store(uri: &str) -> Span {
    info_span!("store", uri)
}

pub(crate) fn encode(encoder: &str, samples: usize, model_version: ModelVersion) -> Span {
    info_span!("encode", encoder, samples, %model_version)
}

pub(crate) fn graph(samples: usize, candidates: usize, neighbors: usize, graph_version: GraphVersion) -> Span {
    info_span!("graph", samples, candidates, neighbors, %graph_version)
}

pub(crate) fn refresh(step: u64) -> Span {
    info_span!("refresh", step)
}

pub(crate) fn mini_batch(epoch: u64, step: u64) -> Span {
    debug_span!("mini_batch", epoch, step)
}
