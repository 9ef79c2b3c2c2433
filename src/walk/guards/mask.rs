use std::collections::HashMap;
use std::ops::Range;

use super::Guards;
use crate::embeddings::EmbeddingTable;
use crate::sample::SampleId;
use crate::simd::dot;

/// Marks the pairs of a mini-batch that are no negatives: those that the same rules as guards would keep apart.
#[derive(Clone, Debug)]
pub(crate) struct Mask(Guards);

impl Mask {
    /// Marks what `rules` would keep apart.
    pub fn new(rules: Guards) -> Self {
        Self(rules)
    }

    /// The marks of the samples at `places` of a mini-batch, [places × B(1 + n)].
    ///
    /// `ids` are its B samples, over all ranks, and `negatives` n of each, [B × n]. A column stands for a sample of the
    /// mini-batch, and after these for the first negative of each of them, then the second, and so on. No sample is
    /// marked for itself, and a negative that is not there is marked for all.
    ///
    /// O(places · B(1 + n)), times the dimension if there are bounds on similarity.
    pub fn marks(&self, places: Range<usize>, ids: &[SampleId], negatives: &[Option<SampleId>]) -> Vec<bool> {
        let of_each = negatives.len() / ids.len().max(1);
        let nth = |n: usize| negatives.iter().skip(n).step_by(of_each.max(1)).copied();
        let columns: Vec<Option<SampleId>> = ids.iter().copied().map(Some).chain((0..of_each).flat_map(nth)).collect();
        let missing: Vec<bool> = columns.iter().map(Option::is_none).collect();
        let mut columns_of_group: HashMap<u32, Vec<usize>> = HashMap::new();
        for (column, id) in columns.iter().enumerate() {
            let groups = id.map_or(&[][..], |id| self.0.groups.groups_of(id));
            groups.iter().for_each(|&group| columns_of_group.entry(group).or_default().push(column));
        }
        let bounded = self.0.by_similarity().map(|table| Vectors::of(table, &columns));

        let mut all = Vec::with_capacity(places.len() * columns.len());
        for place in places {
            let id = ids[place];
            let mut marks = missing.clone();
            for group in self.0.groups.groups_of(id) {
                columns_of_group[group].iter().for_each(|&column| marks[column] = true);
            }
            if let Some(vectors) = &bounded {
                self.mark_similar(id, vectors, &mut marks);
            }
            marks[place] = false;
            all.append(&mut marks);
        }
        all
    }

    /// Marks the columns that are too similar to a sample.
    fn mark_similar(&self, id: SampleId, vectors: &Vectors<'_>, marks: &mut [bool]) {
        let Vectors { table, numbers, pairs } = vectors;
        if table.is_skipped(id) {
            return;
        }
        let mut scratch = Vec::new();
        let vector = table.facing(id, &mut scratch);
        let own = table.pair_similarity(id).unwrap_or(0.0);
        for ((mark, other), pair) in marks.iter_mut().zip(numbers.chunks_exact(table.dimension())).zip(pairs) {
            let Some(pair) = *pair else { continue };
            let similarity = f64::from(dot(vector, other));
            *mark |= self.0.config.too_similar(similarity, own, pair).is_some();
        }
    }
}

/// The embeddings of a mask's columns.
struct Vectors<'a> {
    table: &'a EmbeddingTable,
    /// [columns × d], zeros where a column has none.
    numbers: Vec<f32>,
    /// How similar the two sides of each are, 0 unless rows are pairs; `None` where a column has no embedding.
    pairs: Vec<Option<f32>>,
}

impl<'a> Vectors<'a> {
    fn of(table: &'a EmbeddingTable, columns: &[Option<SampleId>]) -> Self {
        let mut numbers = vec![0.0; columns.len() * table.dimension()];
        let mut pairs = vec![None; columns.len()];
        for ((id, vector), pair) in columns.iter().zip(numbers.chunks_exact_mut(table.dimension())).zip(&mut pairs) {
            if let Some(id) = id.filter(|&id| !table.is_skipped(id)) {
                table.read(id, vector);
                *pair = Some(table.pair_similarity(id).unwrap_or(0.0));
            }
        }
        Self { table, numbers, pairs }
    }
}
