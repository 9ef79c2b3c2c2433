//! Groups rows that go through the model together.

use std::cmp::Reverse;

/// Which samples may share a batch, so that no vector depends on the others in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Grouping {
    /// All samples. If they have lengths, a mask hides the padding of the shorter ones.
    Any,
    /// Only samples of the same length, which need no padding.
    OfOneLength,
    /// No two samples: each is a batch of its own.
    Alone,
}

impl Grouping {
    /// Names the samples in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Any => "all",
            Self::OfOneLength => "those of one length",
            Self::Alone => "none",
        }
    }
}

/// Groups rows by length, the longest first, so that there is little padding.
///
/// - A group has at most `max_rows` rows and, with padding, `max_tokens` tokens, but always at least one row. Rows of
///   length 0 count as rows only.
/// - All rows of a group have the same class.
/// - Every row is in exactly one group. The same rows always give the same groups, and so the same padding.
pub(super) fn length_sorted<C: Ord>(
    lengths: &[usize],
    class: impl Fn(usize) -> C,
    max_rows: usize,
    max_tokens: usize,
) -> Vec<Vec<usize>> {
    let mut order: Vec<_> = (0..lengths.len()).map(|row| (Reverse((class(row), lengths[row])), row)).collect();
    order.sort();
    let mut groups = Vec::new();
    for same_class in order.chunk_by(|(Reverse(a), _), (Reverse(b), _)| a.0 == b.0) {
        let mut rest = same_class;
        while let Some((Reverse((_, longest)), _)) = rest.first() {
            let fit = max_tokens.checked_div(*longest).unwrap_or(max_rows);
            let rows = fit.clamp(1, max_rows).min(rest.len());
            let (group, others) = rest.split_at(rows);
            groups.push(group.iter().map(|(_, row)| *row).collect());
            rest = others;
        }
    }
    groups
}

/// Groups rows in their order, for inputs that are joined without padding.
///
/// A group has at most `max_rows` rows and `max_tokens` tokens, but always at least one row.
pub(super) fn joined(lengths: &[usize], max_rows: usize, max_tokens: usize) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut tokens = 0usize;
    for (row, &length) in lengths.iter().enumerate() {
        match groups.last_mut() {
            Some(group) if group.len() < max_rows && tokens + length <= max_tokens => group.push(row),
            _ => {
                groups.push(vec![row]);
                tokens = 0;
            }
        }
        tokens += length;
    }
    groups
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_row_once_within_the_limits(
            lengths in proptest::collection::vec(0usize..300, 0..200),
            max_rows in 1usize..40,
            max_tokens in 1usize..1000,
            classes in 1usize..5,
        ) {
            let groups = length_sorted(&lengths, |row| lengths[row] % classes, max_rows, max_tokens);
            for group in &groups {
                let longest = group.iter().map(|&r| lengths[r]).max().unwrap();
                prop_assert!(group.iter().all(|&r| lengths[r] % classes == longest % classes));
                prop_assert!(group.len() <= max_rows);
                prop_assert!(group.len() == 1 || group.len() * longest <= max_tokens);
            }
            let mut rows = groups.concat();
            rows.sort_unstable();
            let all: Vec<_> = (0..lengths.len()).collect();
            prop_assert_eq!(rows, all.clone());

            let groups = joined(&lengths, max_rows, max_tokens);
            for (group, next) in groups.iter().zip(groups.iter().skip(1).map(|next| next[0]).chain([usize::MAX])) {
                let sum: usize = group.iter().map(|&r| lengths[r]).sum();
                prop_assert!(group.len() <= max_rows && (group.len() == 1 || sum <= max_tokens));
                let full = lengths.get(next).is_none_or(|next| group.len() == max_rows || sum + next > max_tokens);
                prop_assert!(full, "a row more would fit");
            }
            prop_assert_eq!(groups.concat(), all);
        }
    }
}
