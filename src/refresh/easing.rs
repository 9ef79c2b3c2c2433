//! Notices that mini-batches have become easier: the trigger `refresh.when_easier`.
//!
//! What walks found hard by a graph's embeddings, the model learns to tell apart while that graph is in use. How far it
//! has come shows in the vectors that the trainer pushes. They are compared as follows.
//!
//! 1. A push belongs to the delivered mini-batch that has its first sample.
//! 2. The mean similarity among the pushed vectors is divided by that of the mini-batch by the graph's embeddings. So
//!    it does not count that walks find harder samples early in an epoch than late.
//! 3. That ratio over the last [`SMOOTHED`] mini-batches is compared with the ratio over the first ones that came of
//!    the same graph. So it does not count that stored vectors are older, or made without dropout: the ratio need not
//!    begin at 1.
//!
//! It is the rule by which Conan-Embedding (arXiv 2408.15710) replaces a hard negative, for mini-batches instead of
//! single negatives.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::embeddings::EmbeddingTable;
use crate::sample::{GraphVersion, SampleId};
use crate::telemetry;

/// Compares how similar samples of mini-batches are to the trainer with how similar they are to the graph.
#[derive(Debug)]
struct Easing {
    /// By which share the ratio must have fallen.
    share: f64,
    /// The last mini-batches that were delivered, newest last.
    delivered: VecDeque<Delivered>,
    /// The graph that pushes are observed of.
    graph: GraphVersion,
    first: Window,
    last: Window,
    /// How many mini-batches were delivered since a push belonged to one.
    unobserved: u64,
}

/// A mini-batch of a graph.
#[derive(Debug)]
struct Delivered {
    ids: Vec<SampleId>,
    graph: GraphVersion,
    /// The mean similarity by the graph's embeddings.
    similarity: f64,
}

/// The similarities of up to [`SMOOTHED`] mini-batches: by pushed vectors, and by the graph's.
#[derive(Debug, Default)]
struct Window(VecDeque<(f64, f64)>);

impl Window {
    fn is_full(&self) -> bool {
        self.0.len() >= SMOOTHED
    }

    fn push(&mut self, observed: (f64, f64)) {
        if self.is_full() {
            self.0.pop_front();
        }
        self.0.push_back(observed);
    }

    /// The ratio of the sums; `None` before the window is full, and where a sum is not above 0.
    fn ratio(&self) -> Option<f64> {
        let (pushed, graph) = self.0.iter().fold((0.0, 0.0), |sums, of| (sums.0 + of.0, sums.1 + of.1));
        (self.is_full() && pushed > 0.0 && graph > 0.0).then(|| pushed / graph)
    }
}

impl Easing {
    /// Fires when the ratio has fallen by `share`, above 0 and below 1.
    pub fn new(share: f64) -> Self {
        Self {
            share,
            delivered: VecDeque::new(),
            graph: GraphVersion(0),
            first: Window::default(),
            last: Window::default(),
            unobserved: 0,
        }
    }

    /// Notes a delivered mini-batch that was walked on a graph, and its mean similarity by the graph's embeddings.
    pub fn deliver(&mut self, ids: &[SampleId], graph: GraphVersion, similarity: f32) {
        if self.delivered.len() == REMEMBERED {
            self.delivered.pop_front();
        }
        self.delivered.push_back(Delivered { ids: ids.to_vec(), graph, similarity: f64::from(similarity) });
        self.unobserved += 1;
        if self.unobserved == UNOBSERVED {
            telemetry::easing_unobserved(UNOBSERVED);
        }
    }

    /// Notes a push of vectors with this mean similarity, the first of which is of sample `id`.
    ///
    /// Returns the graph whose mini-batches have become easier, if they have. It may fire again for the same graph
    /// after [`SMOOTHED`] more pushes.
    pub fn push(&mut self, id: SampleId, similarity: f32) -> Option<GraphVersion> {
        let of = self.delivered.iter().rev().find(|of| of.ids.contains(&id))?;
        let (graph, observed) = (of.graph, (f64::from(similarity), of.similarity));
        self.unobserved = 0;
        if graph > self.graph {
            self.graph = graph;
            (self.first, self.last) = Default::default();
        } else if graph < self.graph {
            return None;
        }
        let window = if self.first.is_full() { &mut self.last } else { &mut self.first };
        window.push(observed);
        let (first, last) = (self.first.ratio()?, self.last.ratio()?);
        if last > first * (1.0 - self.share) {
            return None;
        }
        telemetry::easier(graph, first, last);
        self.last = Window::default();
        Some(graph)
    }
}

/// What the stream and those who push tell the worker; nothing without `refresh.when_easier`.
#[derive(Clone, Debug)]
pub(super) struct SharedEasing {
    easing: Option<Arc<Mutex<Easing>>>,
    fired: watch::Sender<GraphVersion>,
}

impl SharedEasing {
    /// The receiver gets the graph each time that its mini-batches have become easier.
    pub fn new(share: Option<f64>) -> (Self, watch::Receiver<GraphVersion>) {
        let (fired, receiver) = watch::channel(GraphVersion(0));
        (Self { easing: share.map(|share| Arc::new(Mutex::new(Easing::new(share)))), fired }, receiver)
    }

    /// Notes a delivered mini-batch.
    pub fn deliver(&self, ids: &[SampleId], graph: GraphVersion, similarity: f32) {
        if let Some(easing) = &self.easing {
            lock(easing).deliver(ids, graph, similarity);
        }
    }

    /// Notes pushed vectors of `ids`, which `pushed` holds in their order.
    pub fn push(&self, ids: &[SampleId], pushed: &EmbeddingTable) {
        let (Some(easing), [first, _, ..]) = (&self.easing, ids) else { return };
        let all: Vec<_> = (0..pushed.len()).map(SampleId::new).collect();
        if let Some(graph) = lock(easing).push(*first, pushed.mean_similarity(&all)) {
            self.fired.send_replace(graph);
        }
    }
}

fn lock(easing: &Mutex<Easing>) -> MutexGuard<'_, Easing> {
    easing.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Over how many mini-batches a ratio is taken.
const SMOOTHED: usize = 16;

/// How many delivered mini-batches a push may belong to: a loader may be so far ahead of the training step.
const REMEMBERED: usize = 64;

/// After so many mini-batches without a push that belongs to one, a warning is logged.
const UNOBSERVED: u64 = 256;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// One mini-batch: its graph is newer by this, its two similarities, and how late its push comes, if it does.
    type Step = (u64, f32, f32, Option<usize>);

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let newer = prop_oneof![40 => Just(0u64), 1 => Just(1)];
        let pushed = prop_oneof![30 => 0.2f32..0.6, 1 => -0.2f32..0.0];
        let late = prop_oneof![10 => Just(Some(0)), 3 => (0usize..4).prop_map(Some), 1 => Just(None)];
        prop::collection::vec((newer, pushed, 0.3f32..0.6, late), 1..250)
    }

    proptest! {
        /// From all that was observed of a graph since its first mini-batch, or since it fired.
        #[test]
        fn it_fires_as_the_whole_history_says(steps in steps(), share in 0.01f64..0.4) {
            let mut easing = Easing::new(share);
            let mut graph = 1;
            let mut pushes: Vec<(usize, usize)> = Vec::new();
            let mut graphs = Vec::new();
            for (step, (newer, .., late)) in steps.iter().enumerate() {
                graph += newer;
                graphs.push(graph);
                pushes.extend(late.map(|late| (step + late, step)));
            }
            pushes.sort_unstable();
            let (mut newest, mut seen, mut fired_at) = (0, Vec::new(), 0);
            for now in 0..steps.len() {
                // Each mini-batch has three samples of its own.
                let ids = [0, 1, 2].map(|n| SampleId::new(3 * now + n));
                easing.deliver(&ids, GraphVersion(graphs[now]), steps[now].2);
                for &(_, step) in pushes.iter().filter(|(at, _)| *at == now) {
                    let found = easing.push(SampleId::new(3 * step + step % 3), steps[step].1);
                    if graphs[step] > newest {
                        (newest, fired_at) = (graphs[step], SMOOTHED);
                        seen.clear();
                    }
                    if graphs[step] < newest {
                        prop_assert_eq!(found, None);
                        continue;
                    }
                    seen.push((f64::from(steps[step].1), f64::from(steps[step].2)));
                    let ratio = |of: &[(f64, f64)]| {
                        let sum = |part: fn(&(f64, f64)) -> f64| of.iter().map(part).sum::<f64>();
                        (sum(|of| of.0), sum(|of| of.1))
                    };
                    let mut fires = false;
                    if seen.len() >= fired_at + SMOOTHED {
                        let (first, last) = (ratio(&seen[..SMOOTHED]), ratio(&seen[seen.len() - SMOOTHED..]));
                        let bound = first.0 / first.1 * (1.0 - share);
                        prop_assume!((last.0 / last.1 - bound).abs() > 1e-9);
                        fires = first.0 > 0.0 && last.0 > 0.0 && last.0 / last.1 < bound;
                    }
                    prop_assert_eq!(found, fires.then_some(GraphVersion(newest)));
                    if fires {
                        fired_at = seen.len();
                    }
                }
            }
        }
    }
}
