//! The panels of candidates that each block of rows chooses from.

use rand::Rng;
use rand::seq::SliceRandom;

/// A balanced assignment of panels to blocks of rows, at random and without replacement.
///
/// 1. Shuffle all panels.
/// 2. Give each block the next ones, until it has enough columns.
/// 3. When all panels are used up, shuffle them again.
///
/// So every panel goes to equally many blocks, give or take one, while each block's panels are as random as an
/// independent draw. It is like dealing cards. If blocks drew independently, the number of blocks that see a sample
/// would vary, and with it the in-degrees, by about block rows · K² / M too much.
pub(in crate::graph) struct Assignment {
    /// The panels of all blocks, block after block.
    panels: Vec<u32>,
    /// Where the panels of each block begin, and where the last ones end.
    starts: Vec<usize>,
}

impl Assignment {
    /// Assigns to each of `blocks` as many distinct panels as have `wanted` columns together.
    ///
    /// `columns` returns how many columns each of the `panels` has. All panels have at least `wanted` columns together.
    pub fn new(
        panels: usize,
        columns: impl Fn(usize) -> usize,
        wanted: usize,
        blocks: usize,
        generator: &mut impl Rng,
    ) -> Self {
        let mut assignment = Self { panels: Vec::new(), starts: vec![0] };
        let mut shuffled: Vec<u32> = (0..panels as u32).collect();
        let mut next = shuffled.len();
        // The block that each panel was assigned to last.
        let mut last_block = vec![usize::MAX; panels];
        for block in 0..blocks {
            let mut missing = wanted;
            while missing > 0 {
                if next == shuffled.len() {
                    shuffled.shuffle(generator);
                    next = 0;
                }
                // A block that began before the shuffle may have the next panel already; it then waits for the next
                // block.
                let unused = (next..shuffled.len()).find(|&at| last_block[shuffled[at] as usize] != block);
                shuffled.swap(next, unused.expect("all panels together have the columns wanted"));
                let panel = shuffled[next];
                next += 1;
                last_block[panel as usize] = block;
                assignment.panels.push(panel);
                missing = missing.saturating_sub(columns(panel as usize));
            }
            assignment.starts.push(assignment.panels.len());
        }
        assignment
    }

    /// A block's panels, in random order.
    pub fn panels_of(&self, block: usize) -> &[u32] {
        &self.panels[self.starts[block]..self.starts[block + 1]]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::ChaCha8Rng;

    use super::*;

    proptest! {
        #[test]
        fn assigned_panels_are_distinct_sufficient_and_even(
            full in 1usize..40,
            last in 1usize..33,
            share in 0.0f64..1.0,
            blocks in 1usize..60,
            seed: u64,
        ) {
            let columns = |panel: usize| if panel == full { last } else { 32 };
            let all = full * 32 + last;
            let wanted = 1 + (share * (all - 1) as f64) as usize;
            let assignment = Assignment::new(full + 1, columns, wanted, blocks, &mut ChaCha8Rng::seed_from_u64(seed));
            let mut times = vec![0i32; full + 1];
            for block in 0..blocks {
                let mut assigned = assignment.panels_of(block).to_vec();
                let sum: usize = assigned.iter().map(|&p| columns(p as usize)).sum();
                prop_assert!(sum >= wanted);
                let (last, others) = assigned.split_last().unwrap();
                prop_assert!(sum - columns(*last as usize) < wanted, "{} after {} panels", sum, others.len());
                assigned.iter().for_each(|&p| times[p as usize] += 1);
                assigned.sort_unstable();
                assigned.dedup();
                prop_assert_eq!(assigned.len(), assignment.panels_of(block).len());
            }
            let spread = times.iter().max().unwrap() - times.iter().min().unwrap();
            prop_assert!(spread <= 1, "{:?}", times);
        }
    }
}
