use crate::sample::SampleId;

/// How the places of a mini-batch are divided between its walks: into parts whose sizes differ by one at most.
///
/// The must-draw samples, which lead a mini-batch, are dealt to the walks in turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    /// How many walks there are: at most one for each place.
    walks: usize,
    /// How many members the mini-batch has before its must-draw samples: those of other strata.
    before: usize,
    places: usize,
    must_draw: usize,
}

/// The part of a mini-batch that one walk fills.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    number: usize,
    walks: usize,
    /// The place of the first must-draw sample of all parts.
    before: usize,
    /// How many must-draw samples are of this part.
    dealt: usize,
    /// The place of the first sample that this walk finds, and the one after the last.
    begin: usize,
    end: usize,
}

impl Parts {
    /// Divides `places` between `starts` walks, in a mini-batch that begins with `must_draw` members.
    pub fn new(starts: usize, places: usize, must_draw: usize) -> Self {
        Self { walks: starts.min(places), before: 0, places, must_draw }
    }

    /// The same in a mini-batch that has other members before.
    pub fn after(self, before: usize) -> Self {
        Self { before, ..self }
    }

    pub fn walks(&self) -> usize {
        self.walks
    }

    /// The places of all parts together.
    pub fn places(&self) -> usize {
        self.places
    }

    /// How many members the mini-batch has when all parts are full.
    pub fn end(&self) -> usize {
        self.before + self.places
    }

    /// How many samples the walk of this number may have.
    pub fn size(&self, number: usize) -> usize {
        self.dealt_to(number, self.places)
    }

    /// The part of the walk of this number, in a mini-batch that has `members`.
    pub fn begin(&self, number: usize, members: usize) -> Part {
        let dealt = self.dealt_to(number, self.must_draw);
        let end = members + self.size(number).saturating_sub(dealt);
        Part { number, walks: self.walks, before: self.before, dealt, begin: members, end }
    }

    /// How many of `count` things a walk gets if they are dealt in turn.
    fn dealt_to(&self, number: usize, count: usize) -> usize {
        count / self.walks + usize::from(number < count % self.walks)
    }
}

impl Part {
    /// How many members the mini-batch has when this part is full.
    pub fn end(&self) -> usize {
        self.end
    }

    /// How many of the members `ids` are of this part.
    pub fn len(&self, ids: &[SampleId]) -> usize {
        self.dealt + ids.len() - self.begin
    }

    /// A member of this part: its must-draw samples come first, then those that the walk has found.
    pub fn get(&self, ids: &[SampleId], at: usize) -> Option<SampleId> {
        let place =
            if at < self.dealt { self.before + self.number + at * self.walks } else { self.begin + at - self.dealt };
        ids.get(place).copied()
    }
}

/// Places the `last` members evenly between the others, so that all slices of a length have nearly equally many.
pub(super) fn spread(ids: &mut [SampleId], last: usize) {
    let len = ids.len();
    if last == 0 || last == len {
        return;
    }
    let all = ids.to_vec();
    let mut others = all[..len - last].iter();
    let mut spread = all[len - last..].iter();
    let is_spread = |place: usize| (place + 1) * last / len > place * last / len;
    let placed = (0..len).filter_map(|place| if is_spread(place) { spread.next() } else { others.next() });
    ids.iter_mut().zip(placed).for_each(|(id, &placed)| *id = placed);
}

/// Places members that came share by share, `sizes` of each, so that all slices have nearly the same mixture.
pub(super) fn interleave(ids: &mut [SampleId], sizes: &[usize]) {
    let all = ids.to_vec();
    let mut begin = 0;
    let mut places = Vec::with_capacity(all.len());
    for &size in sizes {
        // The middle of each sample's stretch of the mini-batch, as a place, doubled.
        places.extend((0..size).map(|at| ((2 * at + 1) * all.len() / size, begin + at)));
        begin += size;
    }
    places.sort_unstable();
    ids.iter_mut().zip(places).for_each(|(id, (_, from))| *id = all[from]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: impl Iterator<Item = usize>) -> Vec<SampleId> {
        numbers.map(SampleId::new).collect()
    }

    /// Every member belongs to exactly one part, and parts differ by one at most.
    #[test]
    fn parts_divide_a_mini_batch() {
        for (starts, places, must_draw) in [(1, 5, 0), (1, 5, 3), (3, 10, 0), (3, 10, 4), (4, 10, 10), (9, 4, 2)] {
            let parts = Parts::new(starts, places, must_draw);
            let mut members = ids(0..must_draw);
            let mut of_parts = Vec::new();
            for number in 0..parts.walks() {
                let part = parts.begin(number, members.len());
                members.extend(ids(members.len()..part.end()));
                let own: Vec<_> = (0..part.len(&members)).filter_map(|at| part.get(&members, at)).collect();
                assert_eq!(part.get(&members, own.len()), None);
                assert_eq!(own.len(), parts.size(number));
                assert!((places / parts.walks()..=places.div_ceil(parts.walks())).contains(&own.len()));
                of_parts.extend(own);
            }
            of_parts.sort_unstable();
            assert_eq!(of_parts, ids(0..places), "{starts} starts, {must_draw} must-draw");
        }
    }

    /// Each slice has its share of the spread ones but for less than one, and nobody is lost or swapped.
    #[test]
    fn all_slices_have_the_same_mixture() {
        for len in 0..24 {
            for last in 0..=len {
                let mut spread_ids = ids(0..len);
                spread(&mut spread_ids, last);
                let (others, moved): (Vec<_>, Vec<_>) =
                    spread_ids.iter().copied().partition(|id: &SampleId| id.index() < len - last);
                assert_eq!([others, moved].concat(), ids(0..len));
                for begin in 0..len {
                    for end in begin + 1..=len {
                        let found = spread_ids[begin..end].iter().filter(|id| id.index() >= len - last).count();
                        let expected = ((end - begin) * last) as f64 / len as f64;
                        assert!((found as f64 - expected).abs() < 1.0, "{last} of {len} in {begin}..{end}");
                    }
                }
            }
        }
    }
}
