use rand::Rng;

use super::epoch::Fresh;
use super::{Draw, WalkCounts};

/// `size` fresh samples, each as likely as any: what a shuffled data loader gives.
pub(super) fn draw(fresh: &mut Fresh, size: usize, generator: &mut impl Rng) -> Draw {
    let ids = (0..size).map(|_| fresh.take_any(generator)).collect();
    Draw { ids, counts: WalkCounts::default() }
}
