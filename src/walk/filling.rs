use rand::Rng;

use super::WalkCounts;
use super::guards::Admission;
use super::remaining::Remaining;
use crate::sample::SampleId;

/// A mini-batch that is being filled.
pub(super) struct Filling<'a, A> {
    pub ids: Vec<SampleId>,
    pub counts: WalkCounts,
    /// Who may join.
    pub admission: A,
    size: usize,
    /// Where samples come from.
    fresh: &'a mut Remaining,
    /// With the paper's coverage, those that walks start at.
    unseen: Option<&'a mut Remaining>,
    /// Samples of either that were picked.
    picked: [usize; 2],
    /// Samples that are still looked at when any would do.
    looks: usize,
}

impl<'a, A: Admission> Filling<'a, A> {
    pub fn new(size: usize, fresh: &'a mut Remaining, mut unseen: Option<&'a mut Remaining>, admission: A) -> Self {
        fresh.sweep();
        if let Some(unseen) = &mut unseen {
            unseen.sweep();
        }
        let looks = size.saturating_mul(LOOKS_PER_SAMPLE);
        let (ids, counts) = (Vec::with_capacity(size), WalkCounts::default());
        Self { ids, counts, admission, size, fresh, unseen, picked: [0; 2], looks }
    }

    pub fn size(&self) -> usize {
        self.size
    }

    pub fn is_full(&self) -> bool {
        self.ids.len() >= self.size
    }

    /// Takes a sample, if it is fresh and may join.
    #[inline]
    pub fn offer(&mut self, id: SampleId) -> bool {
        if !self.fresh.contains(id) || !self.admission.admits(id) {
            return false;
        }
        self.fresh.take(id);
        self.admission.join(id);
        self.ids.push(id);
        true
    }

    /// Takes any sample that may join, each as likely; `None` where none may, or none of very many that were looked at.
    pub fn any(&mut self, generator: &mut impl Rng) -> Option<SampleId> {
        while self.looks > 0 {
            let id = self.pick(generator)?;
            if self.offer(id) {
                return Some(id);
            }
            self.looks -= 1;
        }
        None
    }

    /// Takes the first by `rank` of a few random samples, if it may join; else the next, else [`any`](Self::any).
    pub fn least(
        &mut self,
        few: usize,
        rank: impl Fn(SampleId) -> usize,
        generator: &mut impl Rng,
    ) -> Option<SampleId> {
        let before = self.picked;
        let mut picks: Vec<_> = (0..few).filter_map(|_| self.pick(generator)).collect();
        // Those that are not taken may be picked again.
        self.picked = before;
        picks.sort_by_key(|&id| rank(id));
        picks.into_iter().find(|&id| self.offer(id)).or_else(|| self.any(generator))
    }

    /// A random sample that was not picked before.
    fn pick(&mut self, generator: &mut impl Rng) -> Option<SampleId> {
        let unseen = self.unseen.as_mut().and_then(|unseen| unseen.pick(&mut self.picked[0], generator));
        unseen.or_else(|| self.fresh.pick(&mut self.picked[1], generator))
    }

    /// Takes any until it is full, or none may join.
    pub fn top_up(&mut self, generator: &mut impl Rng) -> u64 {
        let before = self.ids.len();
        while !self.is_full() && self.any(generator).is_some() {}
        (self.ids.len() - before) as u64
    }
}

/// Samples looked at for each of the mini-batch, when any would do. The last of an epoch are all looked at.
const LOOKS_PER_SAMPLE: usize = 64;
