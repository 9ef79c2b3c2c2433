//! Which panels each block of rows chooses from.

use rand::Rng;
use rand::seq::SliceRandom;

/// Panels dealt to blocks like cards: a deck of all panels is shuffled, dealt from the top, and shuffled anew when it
/// is used up. So every panel goes to equally many blocks, give or take one, while each block's share is as random as
/// a draw of its own: no panel is preferred anywhere. Independent draws would let the number of blocks that see a
/// sample vary, and with it the in-degrees, by about block · K² / M too much.
pub(in crate::graph) struct Assignment {
    /// The hands, one after another.
    panels: Vec<u32>,
    /// Where each block's hand begins, and where the last one ends.
    starts: Vec<usize>,
}

impl Assignment {
    /// Deals to each of `blocks` as many different panels as give it `wanted` columns; `columns` tells how many each of
    /// the `panels` has. Together they have at least `wanted`.
    pub fn new(
        panels: usize,
        columns: impl Fn(usize) -> usize,
        wanted: usize,
        blocks: usize,
        generator: &mut impl Rng,
    ) -> Self {
        let mut deal = Self { panels: Vec::new(), starts: vec![0] };
        let mut deck: Vec<u32> = (0..panels as u32).collect();
        let mut top = deck.len();
        // The block that each panel was dealt to last.
        let mut holder = vec![usize::MAX; panels];
        for block in 0..blocks {
            let mut left = wanted;
            while left > 0 {
                if top == deck.len() {
                    deck.shuffle(generator);
                    top = 0;
                }
                // A hand that began with the old deck may hold the new one's top card; it waits for the next hand.
                let card = (top..deck.len()).find(|&card| holder[deck[card] as usize] != block);
                deck.swap(top, card.expect("all panels together have the columns wanted"));
                let panel = deck[top];
                top += 1;
                holder[panel as usize] = block;
                deal.panels.push(panel);
                left = left.saturating_sub(columns(panel as usize));
            }
            deal.starts.push(deal.panels.len());
        }
        deal
    }

    /// A block's panels, in random order.
    pub fn hand(&self, block: usize) -> &[u32] {
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
        fn hands_are_distinct_sufficient_and_even(
            full in 1usize..40,
            last in 1usize..33,
            share in 0.0f64..1.0,
            blocks in 1usize..60,
            seed: u64,
        ) {
            let columns = |panel: usize| if panel == full { last } else { 32 };
            let all = full * 32 + last;
            let wanted = 1 + (share * (all - 1) as f64) as usize;
            let deal = Assignment::new(full + 1, columns, wanted, blocks, &mut ChaCha8Rng::seed_from_u64(seed));
            let mut times = vec![0i32; full + 1];
            for block in 0..blocks {
                let mut hand = deal.hand(block).to_vec();
                let sum: usize = hand.iter().map(|&p| columns(p as usize)).sum();
                prop_assert!(sum >= wanted);
                let (last, others) = hand.split_last().unwrap();
                prop_assert!(sum - columns(*last as usize) < wanted, "{} after {} cards", sum, others.len());
                hand.iter().for_each(|&p| times[p as usize] += 1);
                hand.sort_unstable();
                hand.dedup();
                prop_assert_eq!(hand.len(), deal.hand(block).len());
            }
            let spread = times.iter().max().unwrap() - times.iter().min().unwrap();
            prop_assert!(spread <= 1, "{:?}", times);
        }
    }
}
