//! Which rows go through the model together.

/// Groups rows of these lengths, longest first, so that little is padded: at most `max_rows` rows and, padding
/// included, `max_tokens` tokens in a group, but always at least one row. Every row is in exactly one group. Depends
/// on nothing else, so the same rows are always padded alike.
pub(super) fn length_sorted(lengths: &[usize], max_rows: usize, max_tokens: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<_> = (0..lengths.len()).collect();
    order.sort_by_key(|&row| std::cmp::Reverse(lengths[row]));
    let mut groups = Vec::new();
    let mut rest = order.as_slice();
    while let Some(&longest) = rest.first() {
        let rows = (max_tokens / lengths[longest].max(1)).clamp(1, max_rows).min(rest.len());
        let (group, others) = rest.split_at(rows);
        groups.push(group.to_vec());
        rest = others;
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
        ) {
            let groups = length_sorted(&lengths, max_rows, max_tokens);
            for group in &groups {
                let longest = group.iter().map(|&r| lengths[r]).max().unwrap();
                prop_assert!(group.len() <= max_rows);
                prop_assert!(group.len() == 1 || group.len() * longest <= max_tokens);
            }
            let mut rows = groups.concat();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..lengths.len()).collect::<Vec<_>>());
        }
    }
}
