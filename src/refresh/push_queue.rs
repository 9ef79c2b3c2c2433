//! What becomes of pushes: they are queued, a refresh takes them, and its graph holds them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::pushed_vectors::{Push, PushedVectors, Pushes};
use crate::checkpoint::{SavedPushes, Waiting};
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
    queued: BTreeMap<Taker, Pushes>,
    /// By the version of the graph that holds them or that is being made with them, oldest first.
    taken: VecDeque<(u64, Arc<Pushes>)>,
}

impl PushQueue {
    pub fn new(dimension: usize, steps: RefreshSteps) -> Self {
        Self { dimension, steps, queued: BTreeMap::new(), taken: VecDeque::new() }
    }

    /// Takes up what a checkpoint kept.
    pub fn resume(&mut self, saved: &Waiting) {
        for (&id, (&step, vector)) in saved.vectors.iter(self.dimension) {
            self.add(&[id], vector, step);
        }
        for (&id, (&step, loss)) in saved.losses.iter(1) {
            self.add_losses(&[id], loss, step);
        }
    }

    /// A push at `step`; `vectors` is [ids × dimension], row-major.
    pub fn add(&mut self, ids: &[SampleId], vectors: &[f32], step: u64) {
        let dimension = self.dimension;
        let queued = self.queued_at(step);
        for (&id, vector) in ids.iter().zip(vectors.chunks_exact(dimension)) {
            queued.vectors.insert(&Push { id, vector, step });
        }
    }

    /// A push of losses at `step`.
    pub fn add_losses(&mut self, ids: &[SampleId], losses: &[f32], step: u64) {
        let queued = self.queued_at(step);
        for (&id, vector) in ids.iter().zip(losses.chunks_exact(1)) {
            queued.losses.insert(&Push { id, vector, step });
        }
    }

    /// What is queued for the refresh that takes pushes at `step`.
    fn queued_at(&mut self, step: u64) -> &mut Pushes {
        let (taker, dimension) = (self.taker(step), self.dimension);
        self.queued.entry(taker).or_insert_with(|| Pushes::new(dimension))
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
            pushed.vectors.iter().for_each(|push| self.add(&[push.id], push.vector, push.step));
            pushed.losses.iter().for_each(|push| self.add_losses(&[push.id], push.vector, push.step));
        }
    }

    /// The components of each vector.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// What the refresh takes that makes graph `version`; with fixed steps only what was pushed before `due_step`.
    pub fn take(&mut self, due_step: Option<u64>, version: u64) -> Arc<Pushes> {
        let mut pushed = Pushes::new(self.dimension);
        while let Some(first) = self.queued.first_entry()
            && first.key().is_due(due_step)
        {
            match first.remove() {
                first if pushed.is_empty() => pushed = first,
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
        let older = index.and_then(|index| self.taken.remove(index)).filter(|(_, older)| !older.is_empty());
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
    pub fn missing_from(&self, version: u64, step: u64) -> Waiting {
        let taken = self.taken.iter().filter(|(taken, _)| *taken > version).map(|(_, pushed)| &**pushed);
        // Oldest first. A sample appears once for each refresh that takes it.
        let missing: Vec<_> = taken.chain(self.queued.values()).collect();
        let up_to_step = |dimension: usize, of: fn(&Pushes) -> &PushedVectors| {
            let mut saved = SavedPushes { dimension, ..SavedPushes::default() };
            let pushes = missing.iter().flat_map(|pushed| of(pushed).iter()).filter(|push| push.step <= step);
            pushes.for_each(|push| saved.push(push.id, push.step, push.vector));
            saved
        };
        Waiting {
            vectors: up_to_step(self.dimension, |pushes| &pushes.vectors),
            losses: up_to_step(1, |pushes| &pushes.losses),
        }
    }
}
