//! A graph while it is built: the best candidates of every sample so far, offered from many threads.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::rank::best_first;
use crate::embeddings::EmbeddingTable;
use crate::graph::ProximityGraph;
use crate::graph::params::with_margin;
use crate::graph::proximity_graph::EMPTY;
use crate::memory::huge;
use crate::sample::{GraphVersion, SampleId};
use crate::simd::prefetch;

/// A list of `length` slots for each sample, in two flat arrays that become the graph's own.
///
/// Each list holds the best of the candidates that it was offered, whatever their order, so the result does not depend
/// on threads. It is a heap with the worst slot first; an empty slot scores −∞.
pub(in crate::graph) struct Lists {
    ids: Vec<SampleId>,
    scores: Vec<f32>,
    length: usize,
    /// The worst score of each list, to be read without its lock; it may lag behind and be too low.
    thresholds: Vec<AtomicU32>,
    /// The lists that took a candidate since the last [`take_changed`](Self::take_changed).
    changed: Vec<AtomicBool>,
}

/// The list of one sample.
pub(in crate::graph) struct List<'a> {
    ids: &'a mut [SampleId],
    scores: &'a mut [f32],
}

/// The lists as threads share them: in stripes of consecutive samples, each behind a lock.
pub(in crate::graph) struct Stripes<'a> {
    stripes: Vec<Mutex<List<'a>>>,
    length: usize,
    thresholds: &'a [AtomicU32],
    changed: &'a [AtomicBool],
}

impl Lists {
    /// Empty lists.
    pub fn new(samples: usize, length: usize) -> Self {
        let slots = samples * length;
        let (mut ids, mut scores) = (huge(slots), huge(slots));
        // In parallel, since the first touch of that much memory takes longer than writing it.
        ids.par_extend(rayon::iter::repeat_n(EMPTY, slots));
        scores.par_extend(rayon::iter::repeat_n(f32::NEG_INFINITY, slots));
        Self {
            ids,
            scores,
            length,
            thresholds: (0..samples).map(|_| AtomicU32::new(f32::NEG_INFINITY.to_bits())).collect(),
            changed: (0..samples).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    /// Lends the lists to threads.
    pub fn stripes(&mut self) -> Stripes<'_> {
        let slots = SAMPLES_PER_STRIPE * self.length;
        let stripes = self.ids.chunks_mut(slots).zip(self.scores.chunks_mut(slots));
        let stripes = stripes.map(|(ids, scores)| Mutex::new(List { ids, scores })).collect();
        Stripes { stripes, length: self.length, thresholds: &self.thresholds, changed: &self.changed }
    }

    /// How many slots a list has.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Whether all slots of a list are filled.
    pub fn is_full(&self, sample: u32) -> bool {
        // The worst slot comes first.
        self.ids[sample as usize * self.length] != EMPTY
    }

    /// Which lists took a candidate since the last call.
    ///
    /// A list does so if it is offered anything better than its worst, in whatever order, so this does not depend on
    /// threads.
    pub fn take_changed(&mut self) -> Vec<bool> {
        self.changed.iter_mut().map(|changed| std::mem::take(changed.get_mut())).collect()
    }

    /// The ids of the `count` best of each list [samples × count], best first.
    pub fn best(&self, count: usize) -> Vec<SampleId> {
        let mut best = vec![EMPTY; self.ids.len() / self.length * count];
        let lists = self.ids.par_chunks_exact(self.length).zip(self.scores.par_chunks_exact(self.length));
        best.par_chunks_exact_mut(count).zip(lists).for_each_init(
            || vec![0.0; count],
            |best_scores, (best, (ids, scores))| best_first(scores, ids, best_scores, best),
        );
        best
    }

    /// The ids of the `count` best of one list, best first and without empty slots.
    pub fn best_of(&self, sample: u32, count: usize) -> Vec<SampleId> {
        let slots = sample as usize * self.length..(sample as usize + 1) * self.length;
        let (mut scores, mut ids) = (vec![0.0; count], vec![EMPTY; count]);
        best_first(&self.scores[slots.clone()], &self.ids[slots], &mut scores, &mut ids);
        ids.retain(|id| *id != EMPTY);
        ids
    }

    /// Replaces the scores of the `count` best of each list by similarities. The others stay behind them, in their
    /// order.
    ///
    /// It goes through the samples in this `order`, and is fastest if near samples are near each other there.
    pub fn score_again(&mut self, table: &EmbeddingTable, order: &[u32], count: usize) {
        let stripes = self.stripes();
        let init = || (vec![EMPTY; stripes.length], Vec::new());
        order.par_chunks(SAMPLES_PER_TASK).for_each_init(init, |(ids, similarities), samples| {
            for &sample in samples {
                stripes.with(sample, |list| {
                    similarities.resize(stripes.length, 0.0);
                    best_first(list.scores, list.ids, similarities, ids);
                    list.ids.copy_from_slice(ids);
                    let filled = ids.iter().take(count).take_while(|id| **id != EMPTY).count();
                    similarities.clear();
                    table.similarities_with(&table.get(SampleId(sample)), &ids[..filled], similarities);
                    let mut lowest = similarities.iter().copied().fold(f32::INFINITY, f32::min);
                    list.scores[..filled].copy_from_slice(similarities);
                    for (score, &id) in list.scores.iter_mut().zip(&*ids).skip(filled) {
                        lowest = lowest.next_down();
                        *score = if id == EMPTY { f32::NEG_INFINITY } else { lowest };
                    }
                });
            }
        });
    }

    /// Makes a graph of the `degree` best of each list, with the others as its reserve.
    ///
    /// Each list must have that many candidates, except the empty lists of skipped samples.
    pub fn into_graph(mut self, degree: usize, version: GraphVersion) -> ProximityGraph {
        let length = self.length;
        let lists = self.ids.par_chunks_exact_mut(length).zip(self.scores.par_chunks_exact_mut(length));
        let init = || (vec![EMPTY; length], vec![0.0; length]);
        lists.enumerate().for_each_init(init, |(old_ids, old_scores), (row, (ids, scores))| {
            if ids.iter().all(|id| *id == EMPTY) {
                ids.fill(SampleId::new(row));
                scores.fill(0.0);
                return;
            }
            // Some builders leave the lists in order.
            if !scores.is_sorted_by(|better, score| better > score) {
                old_ids.copy_from_slice(ids);
                old_scores.copy_from_slice(scores);
                best_first(old_scores, old_ids, scores, ids);
            }
        });
        let mut reserve = Vec::new();
        if degree < length {
            // In this order, memory never exceeds that of the lists.
            cut(&mut self.scores, length, degree);
            reserve.extend(self.ids.chunks_exact(length).flat_map(|ids| &ids[degree..]).map(|id| id.0));
            cut(&mut self.ids, length, degree);
        }
        ProximityGraph::from_parts(self.ids, self.scores, degree, version).with_reserve(reserve.into())
    }
}

/// Keeps the first `degree` of each `length` slots.
fn cut<T: Copy>(slots: &mut Vec<T>, length: usize, degree: usize) {
    let lists = slots.len() / length;
    for list in 1..lists {
        slots.copy_within(list * length..list * length + degree, list * degree);
    }
    slots.truncate(lists * degree);
    slots.shrink_to_fit();
}

impl Stripes<'_> {
    /// A score that a candidate of `sample` must reach to be taken; it may be too low.
    #[inline]
    pub fn threshold(&self, sample: u32) -> f32 {
        f32::from_bits(self.thresholds[sample as usize].load(Relaxed))
    }

    /// Offers a candidate to `sample`, which may have it already, and returns the new threshold.
    pub fn offer(&self, sample: u32, score: f32, id: u32) -> f32 {
        self.offer_all(sample, std::iter::once((score, id)))
    }

    /// How many slots a list has.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Offers some candidates to `sample`, and returns the new threshold.
    pub fn offer_all(&self, sample: u32, candidates: impl Iterator<Item = (f32, u32)>) -> f32 {
        self.with(sample, |mut list| {
            if candidates.fold(false, |taken, (score, id)| list.offer(score, SampleId(id)) || taken) {
                self.thresholds[sample as usize].store(list.scores[0].to_bits(), Relaxed);
                self.changed[sample as usize].store(true, Relaxed);
            }
            list.scores[0]
        })
    }

    /// Fills an empty list with scored candidates, best first, and then with the `last` ids in their order.
    pub fn start_with(&self, sample: u32, best: impl Iterator<Item = (f32, SampleId)>, last: &[SampleId]) {
        self.with(sample, |list| {
            // The worst slot comes first.
            let mut slots = list.scores.iter_mut().zip(list.ids).rev();
            let mut lowest = f32::INFINITY;
            for ((score, id), slot) in best.zip(&mut slots) {
                lowest = score;
                (*slot.0, *slot.1) = (score, id);
            }
            for (&id, slot) in last.iter().zip(slots) {
                lowest = lowest.next_down();
                (*slot.0, *slot.1) = (lowest, id);
            }
            self.thresholds[sample as usize].store(list.scores[0].to_bits(), Relaxed);
        });
        self.changed[sample as usize].store(true, Relaxed);
    }

    /// Calls `work` with one sample's list, under its lock.
    pub fn with<T>(&self, sample: u32, work: impl FnOnce(List<'_>) -> T) -> T {
        let mut stripe =
            self.stripes[sample as usize / SAMPLES_PER_STRIPE].lock().unwrap_or_else(PoisonError::into_inner);
        let start = sample as usize % SAMPLES_PER_STRIPE * self.length;
        let List { ids, scores } = &mut *stripe;
        let slots = start..start + self.length;
        work(List { ids: &mut ids[slots.clone()], scores: &mut scores[slots] })
    }
}

impl List<'_> {
    /// Takes a candidate if it is better than the worst, and returns whether it did.
    ///
    /// A candidate that is there already keeps the better of its scores, which differ if it was scored in different
    /// ways.
    fn offer(&mut self, score: f32, id: SampleId) -> bool {
        if !worse((self.scores[0], self.ids[0]), (score, id)) {
            return false;
        }
        let slot = match self.ids.iter().fold(false, |found, &other| found | (other == id)) {
            false => 0,
            true => self.ids.iter().position(|&other| other == id).unwrap_or(0),
        };
        let takes = self.ids[slot] != id || worse((self.scores[slot], id), (score, id));
        if takes {
            self.replace(slot, score, id);
        }
        takes
    }

    /// Prefetches the list, which will be filled soon.
    pub fn prefetch(&self) {
        prefetch(self.ids);
        prefetch(self.scores);
    }

    /// The worst score; −∞ if there is an empty slot.
    pub fn worst(&self) -> f32 {
        self.scores.iter().fold(f32::INFINITY, |worst, &score| worst.min(score))
    }

    /// The candidates, in no order.
    pub fn candidates(&self) -> impl Iterator<Item = (f32, SampleId)> + '_ {
        self.scores.iter().copied().zip(self.ids.iter().copied()).filter(|(_, id)| *id != EMPTY)
    }

    /// Overwrites slots with these candidates, in any order. Such a list must not be offered any.
    pub fn fill(&mut self, candidates: impl Iterator<Item = (f32, u32)>) {
        for ((slot_score, slot_id), (score, id)) in self.scores.iter_mut().zip(&mut *self.ids).zip(candidates) {
            (*slot_score, *slot_id) = (score, SampleId(id));
        }
    }

    /// Overwrites the list with the best of these, best first. Such a list must not be offered any.
    pub fn fill_with_best(&mut self, scores: &[f32], ids: &[SampleId]) {
        best_first(scores, ids, self.scores, self.ids);
    }

    /// Replaces a candidate by a better one.
    fn replace(&mut self, mut slot: usize, score: f32, id: SampleId) {
        let len = self.ids.len();
        loop {
            let (left, right) = (2 * slot + 1, 2 * slot + 2);
            if left >= len {
                break;
            }
            let at = |slot: usize| (self.scores[slot], self.ids[slot]);
            let child = if right < len && worse(at(right), at(left)) { right } else { left };
            if !worse(at(child), (score, id)) {
                break;
            }
            (self.scores[slot], self.ids[slot]) = at(child);
            slot = child;
        }
        (self.scores[slot], self.ids[slot]) = (score, id);
    }
}

#[inline]
fn worse(a: (f32, SampleId), b: (f32, SampleId)) -> bool {
    a.0 < b.0 || (a.0 == b.0 && a.1 > b.1)
}

/// How many slots a list of a kNN graph has: its `neighbors` and a reserve.
///
/// The reserve is large enough that the best by rough scores include the K nearest, and that it holds most of the
/// nearest after the next change of the embeddings.
pub(in crate::graph) fn with_reserve(neighbors: usize) -> usize {
    with_margin(neighbors).max(neighbors + MIN_RESERVE)
}

/// How many samples a thread takes at a time.
const SAMPLES_PER_TASK: usize = 64;

/// How many samples are behind one lock.
const SAMPLES_PER_STRIPE: usize = 1024;

/// The least reserve of a list.
const MIN_RESERVE: usize = 14;
