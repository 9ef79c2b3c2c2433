//! What becomes of pushed vectors: they are queued, a refresh takes them, and its graph holds them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::pushed_vectors::{Push, PushedVectors};
use crate::checkpoint::SavedPushes;
use crate::sample::SampleId;

/// The steps at which refreshes begin, if `swap_after_steps` fixes them: `first`, and every `every` steps after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct FixedSteps {
    pub first: u64,
    pub every: u64,
}

/// When refreshes begin.
#[derive(Clone, Copy, Debug)]
pub(super) enum RefreshSteps {
    /// At any step: the next refresh takes what was pushed before it.
    Open,
    /// At fixed steps, which are not known before the first snapshot is made.
    Unknown,
    Fixed(FixedSteps),
}

/// The refresh that takes a push. In this order, what is taken by the smaller one was pushed earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Taker {
    /// The next refresh, since the one that had taken the push has failed.
    Retry,
    /// With fixed steps, the refresh that begins at this step.
    BeginsAt(u64),
    /// Without fixed steps, the next refresh.
    Next,
}

impl Taker {
    /// Whether the refresh that is due at `due_step` takes the push. One that is not due at a step takes all.
    fn is_due(self, due_step: Option<u64>) -> bool {
        match self {
            Self::Retry | Self::Next => true,
            Self::BeginsAt(step) => due_step.is_none_or(|due_step| step <= due_step),
        }
    }
}

/// The pushes that are missing from a graph that a state may still refer to.
///
/// 1. A push is queued until a refresh takes it.
/// 2. If that refresh fails, the push is queued again.
/// 3. Otherwise it stays among those that were taken, until no state can refer to a graph without it.
#[derive(Debug)]
pub(super) struct PushQueue {
    dimension: usize,
    steps: RefreshSteps,
    queued: BTreeMap<Taker, PushedVectors>,
    /// By the version of the graph that holds them or that is being made with them, oldest first.
    taken: VecDeque<(u64, Arc<PushedVectors>)>,
}

impl PushQueue {
    pub fn new(dimension: usize, steps: RefreshSteps) -> Self {
        Self { dimension, steps, queued: BTreeMap::new(), taken: VecDeque::new() }
    }

    /// Takes up what a checkpoint kept.
    pub fn resume(&mut self, saved: &SavedPushes) {
        let vectors = saved.vectors.chunks_exact(self.dimension);
        for ((&id, &step), vector) in saved.ids.iter().zip(&saved.steps).zip(vectors) {
            self.add(&[id], vector, step);
        }
    }

    /// A push at `step`; `vectors` is [ids × dimension], row-major.
    pub fn add(&mut self, ids: &[SampleId], vectors: &[f32], step: u64) {
        let taker = self.taker(step);
        let queued = self.queued.entry(taker).or_insert_with(|| PushedVectors::new(self.dimension));
        for (&id, vector) in ids.iter().zip(vectors.chunks_exact(self.dimension)) {
            queued.insert(&Push { id, vector, step });
        }
    }

    /// The refresh that takes a push at `step`.
    ///
    /// With fixed steps, a worker that is late must not take what the refresh after it should.
    fn taker(&self, step: u64) -> Taker {
        match self.steps {
            RefreshSteps::Open => Taker::Next,
            // Each step by itself, so that none of its pushes replaces one that an earlier refresh will take.
            RefreshSteps::Unknown => Taker::BeginsAt(step.saturating_add(1)),
            RefreshSteps::Fixed(FixedSteps { first, .. }) if step <= first => Taker::BeginsAt(first),
            RefreshSteps::Fixed(FixedSteps { first, every }) => {
                Taker::BeginsAt(first.saturating_add(((step - first) / every + 1).saturating_mul(every)))
            }
        }
    }

    /// Sets the steps at which refreshes begin, once they are known.
    pub fn fix(&mut self, steps: FixedSteps) {
        self.steps = RefreshSteps::Fixed(steps);
        for pushed in std::mem::take(&mut self.queued).into_values() {
            for Push { id, vector, step } in pushed.iter() {
                self.add(&[id], vector, step);
            }
        }
    }

    /// The components of each vector.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// What the refresh takes that makes graph `version`; with fixed steps only what was pushed before `due_step`.
    pub fn take(&mut self, due_step: Option<u64>, version: u64) -> Arc<PushedVectors> {
        let mut pushed = PushedVectors::new(self.dimension);
        while let Some(first) = self.queued.first_entry()
            && first.key().is_due(due_step)
        {
            match first.remove() {
                first if pushed.len() == 0 => pushed = first,
                next => pushed.extend(&next),
            }
        }
        let pushed = Arc::new(pushed);
        self.taken.push_back((version, pushed.clone()));
        pushed
    }

    /// Queues again what a refresh that failed had taken. The next refresh takes it, whichever that is.
    pub fn take_back(&mut self, version: u64) {
        let index = self.taken.iter().position(|(taken, _)| *taken == version);
        let older = index.and_then(|index| self.taken.remove(index)).filter(|(_, older)| older.len() > 0);
        if let Some((_, older)) = older {
            self.queued.insert(Taker::Retry, Arc::unwrap_or_clone(older));
        }
    }

    /// Forgets what is in graph `version` and in all before it.
    pub fn forget(&mut self, version: u64) {
        while self.taken.front().is_some_and(|(taken, _)| *taken <= version) {
            self.taken.pop_front();
        }
    }

    /// What was pushed up to `step` and is not in graph `version`.
    pub fn missing_from(&self, version: u64, step: u64) -> SavedPushes {
        let taken = self.taken.iter().filter(|(taken, _)| *taken > version).map(|(_, pushed)| &**pushed);
        let mut saved = SavedPushes { dimension: self.dimension, ..SavedPushes::default() };
        // Oldest first. A sample appears once for each refresh that takes it.
        for push in taken.chain(self.queued.values()).flat_map(PushedVectors::iter) {
            if push.step <= step {
                saved.ids.push(push.id);
                saved.steps.push(push.step);
                saved.vectors.extend_from_slice(push.vector);
            }
        }
        saved
    }
}
