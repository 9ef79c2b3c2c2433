use std::cmp::Reverse;

use rand::Rng;

use super::counts::WalkCounts;
use super::guards::Admission;
use super::remaining::Remaining;
use super::strata::{Strata, Whose};
use crate::sample::SampleId;

/// A mini-batch while it is being filled.
pub(super) struct Filling<'a, A> {
    pub ids: Vec<SampleId>,
    pub counts: WalkCounts,
    /// Decides which samples may join.
    pub admission: A,
    /// How many members make it full.
    goal: usize,
    /// The samples that may be taken.
    source: &'a mut Remaining,
    /// The samples that walks start at with the paper's coverage: those not seen in this epoch.
    unseen: Option<&'a mut Remaining>,
    /// Which samples are preferred as starts: those of greater weight. `None` if none are.
    weights: Option<&'a [f32]>,
    /// The samples that may join: those of some strata alone.
    whose: Option<(&'a Strata, Whose)>,
    /// How many samples of `unseen` and of `source` were picked.
    picked: [usize; 2],
    /// How many more samples [`any`](Self::any) may look at.
    looks: usize,
}

impl<'a, A: Admission> Filling<'a, A> {
    pub fn new(
        size: usize,
        source: &'a mut Remaining,
        mut unseen: Option<&'a mut Remaining>,
        weights: Option<&'a [f32]>,
        admission: A,
    ) -> Self {
        source.sweep();
        if let Some(unseen) = &mut unseen {
            unseen.sweep();
        }
        Self {
            ids: Vec::with_capacity(size),
            counts: WalkCounts::default(),
            admission,
            goal: size,
            source,
            unseen,
            weights,
            whose: None,
            picked: [0; 2],
            looks: size.saturating_mul(MAX_LOOKS_PER_SAMPLE),
        }
    }

    /// Lets `places` samples of these strata alone join from here on.
    pub fn begin_share(&mut self, strata: &'a Strata, whose: Whose, places: usize) {
        if let Whose::Of(stratum) = whose {
            self.source.sweep_of(stratum);
        }
        self.whose = (whose != Whose::All).then_some((strata, whose));
        self.picked = [0; 2];
        self.looks = places.saturating_mul(MAX_LOOKS_PER_SAMPLE);
        self.goal = self.ids.len() + places;
    }

    /// Whether a sample is of the strata that may join.
    #[inline]
    fn is_of_share(&self, id: SampleId) -> bool {
        if !A::IS_DIVIDED {
            return true;
        }
        match self.whose {
            None | Some((_, Whose::All)) => true,
            Some((strata, Whose::Of(stratum))) => strata.stratum(id) == stratum,
            Some((strata, Whose::NotOf(stratum))) => strata.stratum(id) != stratum,
        }
    }

    /// Makes it full at `goal` members; at first it is at its size.
    pub fn aim_for(&mut self, goal: usize) {
        self.goal = goal;
    }

    pub fn is_full(&self) -> bool {
        self.ids.len() >= self.goal
    }

    /// Whether a sample may still be taken, whatever guards say.
    #[inline]
    pub fn remains(&self, id: SampleId) -> bool {
        self.source.contains(id) && self.is_of_share(id)
    }

    /// Takes a sample if it remains and may join, and returns whether it did.
    #[inline]
    pub fn offer(&mut self, id: SampleId) -> bool {
        let joins = self.remains(id) && self.admission.admits(id);
        if joins {
            self.join(id);
        }
        joins
    }

    /// Takes a sample like [`offer`](Self::offer), even if embeddings have skipped it.
    pub fn offer_skipped(&mut self, id: SampleId) {
        if !self.is_full() && self.remains(id) && self.admission.admits_skipped(id) {
            self.join(id);
        }
    }

    #[inline]
    fn join(&mut self, id: SampleId) {
        self.source.take(id);
        self.admission.join(id);
        self.ids.push(id);
    }

    /// Takes a uniformly random sample that may join; `None` if there is none, or none among very many.
    pub fn join_any(&mut self, generator: &mut impl Rng) -> Option<SampleId> {
        while self.looks > 0 {
            let id = self.pick(generator)?;
            if self.offer(id) {
                return Some(id);
            }
            self.looks -= 1;
        }
        None
    }

    /// Whether some samples are preferred as starts.
    pub fn has_weights(&self) -> bool {
        self.weights.is_some()
    }

    /// Takes a random sample to start at: of `WEIGHED` that may join the one of greatest weight, if there are weights.
    pub fn join_start(&mut self, generator: &mut impl Rng) -> Option<SampleId> {
        let Some(weights) = self.weights else { return self.join_any(generator) };
        // In the order of whole numbers, negative ones included.
        let ordered = |weight: f32| weight.to_bits() as i32 ^ ((weight.to_bits() as i32 >> 31) as u32 >> 1) as i32;
        let weight = |id: SampleId| weights.get(id.index()).copied().unwrap_or_default();
        self.join_least(WEIGHED, |id| Reverse(ordered(weight(id))), generator)
    }

    /// Takes the sample of least `rank` that may join, of a `few` random ones; if none may, [any](Self::join_any).
    pub fn join_least<R: Ord>(
        &mut self,
        few: usize,
        rank: impl Fn(SampleId) -> R,
        generator: &mut impl Rng,
    ) -> Option<SampleId> {
        let before = self.picked;
        let mut picks: Vec<_> = (0..few).filter_map(|_| self.pick(generator)).collect();
        // Samples that are not taken may be picked again.
        self.picked = before;
        picks.sort_by_key(|&id| rank(id));
        picks.into_iter().find(|&id| self.offer(id)).or_else(|| self.join_any(generator))
    }

    /// Picks a random sample that was not picked before.
    fn pick(&mut self, generator: &mut impl Rng) -> Option<SampleId> {
        if let Some((_, Whose::Of(stratum))) = self.whose {
            return self.source.pick_of(stratum, &mut self.picked[1], generator);
        }
        let unseen = self.unseen.as_mut().and_then(|unseen| unseen.pick(&mut self.picked[0], generator));
        unseen.or_else(|| self.source.pick(&mut self.picked[1], generator))
    }

    /// Takes random samples until the mini-batch is full or none may join, and returns how many.
    pub fn top_up(&mut self, generator: &mut impl Rng) -> u64 {
        let before = self.ids.len();
        while !self.is_full() && self.join_any(generator).is_some() {}
        (self.ids.len() - before) as u64
    }
}

/// How many samples a mini-batch looks at when any would do, for each of its own: all of them late in an epoch.
const MAX_LOOKS_PER_SAMPLE: usize = 64;

/// Of how many random samples a walk starts at the one of greatest weight.
const WEIGHED: usize = 4;
