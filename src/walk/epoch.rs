use rand::{Rng, RngExt};

use crate::sample::SampleId;

/// The samples that the epoch has not drawn yet. Every operation takes O(1); 8 bytes a sample.
#[derive(Clone, Debug)]
pub(super) struct Fresh {
    /// In no order.
    left: Vec<SampleId>,
    /// Where each sample stands in `left`.
    places: Vec<u32>,
}

impl Fresh {
    pub fn all(samples: usize) -> Self {
        let left: Vec<_> = (0..samples).map(SampleId::new).collect();
        let places = left.iter().map(|id| id.0).collect();
        Self { left, places }
    }

    pub fn len(&self) -> usize {
        self.left.len()
    }

    /// Draws `id`; false where it was drawn before.
    pub fn take(&mut self, id: SampleId) -> bool {
        let place = self.places[id.index()];
        if place == GONE {
            return false;
        }
        self.places[id.index()] = GONE;
        self.left.swap_remove(place as usize);
        if let Some(&moved) = self.left.get(place as usize) {
            self.places[moved.index()] = place;
        }
        true
    }

    /// Draws any.
    ///
    /// # Panics
    /// Where none is left.
    pub fn take_any(&mut self, generator: &mut impl Rng) -> SampleId {
        let id = self.left[generator.random_range(0..self.left.len())];
        self.take(id);
        id
    }
}

/// No place: ids are below this.
const GONE: u32 = u32::MAX;
