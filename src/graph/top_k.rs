use std::cmp::Ordering;

/// The K best of a series of scored candidates.
///
/// Larger similarity is better, the smaller id breaks ties; similarities are finite, as the embeddings are. Keeps up to
/// 2 K + 32 candidates and throws the worse half out when that is full, so an insert costs O(1) amortised.
pub(super) struct TopK {
    k: usize,
    kept: Vec<(f32, u32)>,
    threshold: f32,
}

impl TopK {
    pub fn new(k: usize) -> Self {
        Self { k, kept: Vec::with_capacity(2 * k + SLACK), threshold: f32::NEG_INFINITY }
    }

    /// Nothing below this can be among the K best any more.
    #[inline]
    pub fn threshold(&self) -> f32 {
        self.threshold
    }

    #[inline]
    pub fn push(&mut self, similarity: f32, id: u32) {
        self.kept.push((similarity, id));
        if self.kept.len() == 2 * self.k + SLACK {
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        if self.kept.len() > self.k {
            self.kept.select_nth_unstable_by(self.k - 1, better_first);
            self.kept.truncate(self.k);
            self.threshold = self.kept[self.k - 1].0;
        }
    }

    /// The K best, best first, and an empty list to go on with.
    pub fn take(&mut self, mut emit: impl FnMut(f32, u32)) {
        self.shrink();
        self.kept.sort_unstable_by(better_first);
        for (similarity, id) in self.kept.drain(..) {
            emit(similarity, id);
        }
        self.threshold = f32::NEG_INFINITY;
    }
}

fn better_first(a: &(f32, u32), b: &(f32, u32)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// Keeps the amortised cost down for the smallest K.
const SLACK: usize = 32;
