//! Vectors from the trainer, until a refresh has put them into a graph.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use crate::checkpoint::SavedPushes;
use crate::sample::SampleId;

/// Vectors from the trainer: the last one of each sample, with the step of its push.
#[derive(Clone, Debug)]
pub(super) struct Pushed {
    dimension: usize,
    slots: HashMap<SampleId, Slot>,
    vectors: Vec<f32>,
}

/// The position of a sample's vector, and the step of its push.
#[derive(Clone, Copy, Debug)]
struct Slot {
    start: usize,
    step: u64,
}

/// A sample's vector, and the step of its push.
pub(super) struct Push<'a> {
    pub id: SampleId,
    pub vector: &'a [f32],
    pub step: u64,
}

impl Pushed {
    fn new(dimension: usize) -> Self {
        Self { dimension, slots: HashMap::new(), vectors: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Replaces what was pushed for the sample before.
    fn insert(&mut self, push: &Push<'_>) {
        let slot = self.slots.entry(push.id).or_insert(Slot { start: self.vectors.len(), step: push.step });
        slot.step = push.step;
        if slot.start == self.vectors.len() {
            self.vectors.extend_from_slice(push.vector);
        } else {
            self.vectors[slot.start..][..self.dimension].copy_from_slice(push.vector);
        }
    }

    fn extend(&mut self, newer: &Self) {
        for push in newer.iter() {
            self.insert(&push);
        }
    }

    /// All pushes in the order of ids.
    pub fn iter(&self) -> impl Iterator<Item = Push<'_>> {
        let mut ids: Vec<_> = self.slots.keys().copied().collect();
        ids.sort_unstable();
        ids.into_iter().map(|id| {
            let Slot { start, step } = self.slots[&id];
            Push { id, vector: &self.vectors[start..][..self.dimension], step }
        })
    }
}

/// The steps at which refreshes begin, if `swap_after_steps` fixes them: `first`, and every `every` steps after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct FixedSteps {
    pub first: u64,
    pub every: u64,
}

/// What was pushed and is missing from a graph that a state may still refer to.
#[derive(Debug)]
pub(super) struct Pushes {
    dimension: usize,
    fixed_steps: Option<FixedSteps>,
    /// By the step at which the refresh begins that takes them.
    waiting: BTreeMap<u64, Pushed>,
    /// By the version of the graph that took them or is taking them, oldest first.
    taken: VecDeque<(u64, Arc<Pushed>)>,
}

impl Pushes {
    pub fn new(dimension: usize, fixed_steps: Option<FixedSteps>) -> Self {
        Self { dimension, fixed_steps, waiting: BTreeMap::new(), taken: VecDeque::new() }
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
        let taken_at = self.taken_at(step);
        let waiting = self.waiting.entry(taken_at).or_insert_with(|| Pushed::new(self.dimension));
        for (&id, vector) in ids.iter().zip(vectors.chunks_exact(self.dimension)) {
            waiting.insert(&Push { id, vector, step });
        }
    }

    /// The step at which the refresh begins that takes a push at `step`; without fixed steps the next one takes it.
    ///
    /// With fixed steps, a worker that is late must not take what the refresh after it should.
    fn taken_at(&self, step: u64) -> u64 {
        let Some(FixedSteps { first, every }) = self.fixed_steps else { return u64::MAX };
        first.saturating_add((step.saturating_sub(first) / every + 1).saturating_mul(every))
    }

    /// What the refresh takes that makes graph `version`; with fixed steps only what was pushed before `due_step`.
    pub fn take(&mut self, due_step: Option<u64>, version: u64) -> Arc<Pushed> {
        let mut pushed = Pushed::new(self.dimension);
        while let Some(first) = self.waiting.first_entry()
            && due_step.is_none_or(|due_step| self.fixed_steps.is_none() || *first.key() <= due_step)
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

    /// Takes back what a refresh that failed had taken. The next refresh takes it, whichever that is.
    pub fn restore(&mut self, version: u64) {
        let index = self.taken.iter().position(|(taken, _)| *taken == version);
        let older = index.and_then(|index| self.taken.remove(index)).filter(|(_, older)| older.len() > 0);
        if let Some((_, older)) = older {
            // What was pushed since is newer, so the older pushes go first.
            self.waiting.insert(0, Arc::unwrap_or_clone(older));
        }
    }

    /// Forgets what is in graph `version` and in all before it.
    pub fn forget(&mut self, version: u64) {
        while self.taken.front().is_some_and(|(taken, _)| *taken <= version) {
            self.taken.pop_front();
        }
    }

    /// What was pushed up to `step` and is not in graph `version`.
    pub fn beyond(&self, version: u64, step: u64) -> SavedPushes {
        let taken = self.taken.iter().filter(|(taken, _)| *taken > version).map(|(_, pushed)| &**pushed);
        let mut saved = SavedPushes { dimension: self.dimension, ..SavedPushes::default() };
        // Oldest first. A sample appears once for each refresh that takes it.
        for push in taken.chain(self.waiting.values()).flat_map(Pushed::iter) {
            if push.step <= step {
                saved.ids.push(push.id);
                saved.steps.push(push.step);
                saved.vectors.extend_from_slice(push.vector);
            }
        }
        saved
    }
}
