use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use rand::{Rng, RngExt};

use super::guards::Groups;
use super::remaining::Remaining;
use crate::sample::SampleId;

/// Groups of which every mini-batch to come must have a sample, or the epoch cannot have them all: those with as many
/// fresh samples as there are mini-batches left.
///
/// Without it, walks would take what is easy, and an epoch would end with samples that only each other keep apart.
#[derive(Clone, Debug)]
pub(super) struct MustDraw {
    groups: Arc<Groups>,
    /// Fresh samples of each group.
    fresh: Vec<u32>,
    /// The groups, largest first, each with how many of its samples were fresh when that was last looked at.
    heap: BinaryHeap<(u32, Reverse<u32>)>,
}

impl MustDraw {
    /// O(samples in groups).
    pub fn new(groups: &Arc<Groups>, fresh: &Remaining) -> Self {
        let count = |group: u32| groups.members(group).iter().filter(|&&id| fresh.contains(id)).count() as u32;
        let counts: Vec<_> = (0..groups.len() as u32).map(count).collect();
        let heap = counts.iter().zip(0..).map(|(&count, group)| (count, Reverse(group))).collect();
        Self { groups: groups.clone(), fresh: counts, heap }
    }

    pub fn are_of(&self, groups: &Arc<Groups>) -> bool {
        Arc::ptr_eq(&self.groups, groups)
    }

    /// These samples are not fresh any more.
    pub fn drawn(&mut self, ids: &[SampleId]) {
        for group in ids.iter().flat_map(|&id| self.groups.groups_of(id)) {
            let fresh = &mut self.fresh[*group as usize];
            *fresh = fresh.saturating_sub(1);
        }
    }

    /// A fresh sample of each group that must have one, with `left` mini-batches to come; the largest group's first.
    pub fn samples(&mut self, fresh: &Remaining, left: u64, generator: &mut impl Rng) -> Vec<SampleId> {
        let mut must_draw = Vec::new();
        while let Some(&(count, Reverse(group))) = self.heap.peek()
            && u64::from(count) >= left
        {
            self.heap.pop();
            let now = self.fresh[group as usize];
            if u64::from(now) >= left {
                must_draw.push((now, Reverse(group)));
            } else if now > 0 {
                self.heap.push((now, Reverse(group)));
            }
        }
        self.heap.extend(&must_draw);
        must_draw.sort_unstable_by(|a, b| b.cmp(a));
        must_draw
            .into_iter()
            .filter_map(|(_, Reverse(group))| any(self.groups.members(group), fresh, generator))
            .collect()
    }
}

/// Any fresh one of these.
fn any(members: &[SampleId], fresh: &Remaining, generator: &mut impl Rng) -> Option<SampleId> {
    let mut at = generator.random_range(0..members.len());
    // Where few are fresh, the next one on: not quite as likely each, but found in time.
    for attempt in 0..members.len() {
        if fresh.contains(members[at]) {
            return Some(members[at]);
        }
        at = if attempt < ATTEMPTS { generator.random_range(0..members.len()) } else { (at + 1) % members.len() };
    }
    (0..members.len()).map(|more| members[(at + more) % members.len()]).find(|&id| fresh.contains(id))
}

const ATTEMPTS: usize = 32;
