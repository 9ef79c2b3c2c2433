//! Which rows go through the model together.

/// Groups rows of these lengths, longest first, so that little is padded: at most `max_rows` rows and, padding
/// included, `max_tokens` tokens in a group (rows of length 0 only count), but always at least one row. Every row is in exactly one group. Depends
/// on nothing else, so the same rows are always padded alike.
pub(super) fn length_sorted(lengths: &[usize], max_rows: usize, max_tokens: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<_> = (0..lengths.len()).collect();
    order.sort_by_key(|&row| std::cmp::Reverse(lengths[row]));
    let mut groups = Vec::new();
    let mut rest = order.as_slice();
    while let Some(&longest) = rest.first() {
        let fit = max_tokens.checked_div(lengths[longest]).unwrap_or(max_rows);
        let rows = fit.clamp(1, max_rows).min(rest.len());
        let (group, others) = rest.split_at(rows);
        groups.push(group.to_vec());
        rest = others;
    }
    groups
}

/// Groups rows of these lengths in their order, for inputs that are joined without padding: at most `max_rows` rows and
/// `max_tokens` tokens in a group, but always at least one row.
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
        ) {
            let groups = length_sorted(&lengths, max_rows, max_tokens);
            for group in &groups {
                let longest = group.iter().map(|&r| lengths[r]).max().unwrap();
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
