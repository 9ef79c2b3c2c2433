use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use crate::checkpoint::SavedPushes;
use crate::sample::SampleId;

/// Vectors from the trainer: the last one of each sample, with the step of its push.
#[derive(Clone, Debug)]
pub(super) struct Pushed {
    dimension: usize,
    /// Where in `vectors`, and at which step.
    places: HashMap<SampleId, (usize, u64)>,
    vectors: Vec<f32>,
}

impl Pushed {
    fn new(dimension: usize) -> Self {
        Self { dimension, places: HashMap::new(), vectors: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Takes the place of what was pushed for the sample before.
    fn insert(&mut self, id: SampleId, vector: &[f32], step: u64) {
        let place = self.places.entry(id).or_insert((self.vectors.len(), step));
        place.1 = step;
        if place.0 == self.vectors.len() {
            self.vectors.extend_from_slice(vector);
        } else {
            self.vectors[place.0..][..self.dimension].copy_from_slice(vector);
        }
    }

    fn extend(&mut self, newer: &Self) {
        newer.iter().for_each(|(id, vector, step)| self.insert(id, vector, step));
    }

    /// Each sample with its vector and the step of its push, in the order of ids.
    pub fn iter(&self) -> impl Iterator<Item = (SampleId, &[f32], u64)> {
        let mut places: Vec<_> = self.places.iter().map(|(&id, &(place, step))| (id, place, step)).collect();
        places.sort_unstable();
        places.into_iter().map(move |(id, place, step)| (id, &self.vectors[place..][..self.dimension], step))
    }
}

/// What was pushed and is not in every graph that a state may yet be of.
#[derive(Debug)]
pub(super) struct Pushes {
    dimension: usize,
    /// The step of the first graph, and in how many more each refresh begins, where these steps are fixed.
    fixed: Option<(u64, u64)>,
    /// By the step at which the refresh begins that takes them.
    waiting: BTreeMap<u64, Pushed>,
    /// Taken by a refresh, with the version of the graph that it makes or has made.
    taken: VecDeque<(u64, Arc<Pushed>)>,
}

impl Pushes {
    pub fn new(dimension: usize, fixed: Option<(u64, u64)>) -> Self {
        Self { dimension, fixed, waiting: BTreeMap::new(), taken: VecDeque::new() }
    }

    /// Takes up what a checkpoint has.
    pub fn resume(&mut self, saved: &SavedPushes) {
        let vectors = saved.vectors.chunks_exact(self.dimension);
        for ((&id, &step), vector) in saved.ids.iter().zip(&saved.steps).zip(vectors) {
            self.add(&[id], vector, step);
        }
    }

    /// A push at `step`.
    pub fn add(&mut self, ids: &[SampleId], vectors: &[f32], step: u64) {
        let due = self.due(step);
        let waiting = self.waiting.entry(due).or_insert_with(|| Pushed::new(self.dimension));
        for (&id, vector) in ids.iter().zip(vectors.chunks_exact(self.dimension)) {
            waiting.insert(id, vector, step);
        }
    }

    /// The step at which the refresh begins that takes a push at `step`: whichever comes next, where steps are not fixed.
    /// Else a worker that is late would take what the next one should.
    fn due(&self, step: u64) -> u64 {
        let Some((first, every)) = self.fixed else { return u64::MAX };
        first.saturating_add((step.saturating_sub(first) / every + 1).saturating_mul(every))
    }

    /// What the refresh that makes graph `version` takes; with fixed steps, of what was pushed before step `due`.
    pub fn take(&mut self, due: Option<u64>, version: u64) -> Arc<Pushed> {
        let mut pushed = Pushed::new(self.dimension);
        while let Some(first) = self.waiting.first_entry()
            && due.is_none_or(|due| self.fixed.is_none() || *first.key() <= due)
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

    /// Takes back what a refresh that failed had taken: the next one takes it, whichever that is.
    pub fn restore(&mut self, version: u64) {
        let place = self.taken.iter().position(|(taken, _)| *taken == version);
        let older = place.and_then(|place| self.taken.remove(place)).filter(|(_, older)| older.len() > 0);
        if let Some((_, older)) = older {
            // What was pushed since is newer, and comes behind.
            self.waiting.insert(0, Arc::unwrap_or_clone(older));
        }
    }

    /// Forgets what is in graph `version` and all before.
    pub fn forget(&mut self, version: u64) {
        while self.taken.front().is_some_and(|(taken, _)| *taken <= version) {
            self.taken.pop_front();
        }
    }

    /// What was pushed up to `step` and is not in graph `version`.
    pub fn beyond(&self, version: u64, step: u64) -> SavedPushes {
        let taken = self.taken.iter().filter(|(taken, _)| *taken > version).map(|(_, pushed)| &**pushed);
        let mut saved = SavedPushes { dimension: self.dimension, ..SavedPushes::default() };
        // Oldest first: a sample comes once for each refresh that takes it.
        for (id, vector, at) in taken.chain(self.waiting.values()).flat_map(Pushed::iter) {
            if at <= step {
                saved.ids.push(id);
                saved.steps.push(at);
                saved.vectors.extend_from_slice(vector);
            }
        }
        saved
    }
}
