use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use rand::{Rng, RngExt};

use super::guards::Groups;
use super::remaining::Remaining;
use crate::sample::SampleId;

/// Finds the groups that need a sample in every mini-batch to come, since no two of a group may share one.
///
/// These are the groups with at least as many remaining samples as there are mini-batches left. Without it, an epoch
/// would end with samples of one group, which may not share a mini-batch.
#[derive(Clone, Debug)]
pub(super) struct MustDraw {
    groups: Arc<Groups>,
    /// How many samples of each group remain.
    remaining: Vec<u32>,
    /// The groups, largest first, each with the number that remained when it was last looked at.
    heap: BinaryHeap<(u32, Reverse<u32>)>,
}

impl MustDraw {
    /// Counts the remaining samples of each group, in O(samples in groups).
    pub fn new(groups: &Arc<Groups>, remaining: &Remaining) -> Self {
        let count = |group: u32| groups.members(group).iter().filter(|&&id| remaining.contains(id)).count() as u32;
        let counts: Vec<_> = (0..groups.len() as u32).map(count).collect();
        let heap = counts.iter().zip(0..).map(|(&count, group)| (count, Reverse(group))).collect();
        Self { groups: groups.clone(), remaining: counts, heap }
    }

    /// Whether this counts these groups.
    pub fn are_of(&self, groups: &Arc<Groups>) -> bool {
        Arc::ptr_eq(&self.groups, groups)
    }

    /// Counts these samples as drawn.
    pub fn count_drawn(&mut self, ids: &[SampleId]) {
        for group in ids.iter().flat_map(|&id| self.groups.groups_of(id)) {
            let remaining = &mut self.remaining[*group as usize];
            *remaining = remaining.saturating_sub(1);
        }
    }

    /// Chooses a remaining sample of each must-draw group, the largest group first, with `left` mini-batches to come.
    pub fn samples(&mut self, remaining: &Remaining, left: u64, generator: &mut impl Rng) -> Vec<SampleId> {
        let mut must_draw = Vec::new();
        while let Some(&(count, Reverse(group))) = self.heap.peek()
            && u64::from(count) >= left
        {
            self.heap.pop();
            let now = self.remaining[group as usize];
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
            .filter_map(|(_, Reverse(group))| any(self.groups.members(group), remaining, generator))
            .collect()
    }
}

/// Chooses one of the members that remain.
fn any(members: &[SampleId], remaining: &Remaining, generator: &mut impl Rng) -> Option<SampleId> {
    let mut at = generator.random_range(0..members.len());
    // If few remain, the next member that does: not exactly uniform, but found in time.
    for attempt in 0..members.len() {
        if remaining.contains(members[at]) {
            return Some(members[at]);
        }
        at = if attempt < MAX_RANDOM_LOOKS {
            generator.random_range(0..members.len())
        } else {
            (at + 1) % members.len()
        };
    }
    (0..members.len()).map(|more| members[(at + more) % members.len()]).find(|&id| remaining.contains(id))
}

/// How many members are looked at in random order before the others are gone through.
const MAX_RANDOM_LOOKS: usize = 32;
