use std::ops::Range;

use crate::error::{Error, Result};
use crate::sample::SampleId;
use crate::store::{Key, Store};

/// Groups of samples that share a value: for each key, one group for each value that at least two samples have.
///
/// Values are compared by 64 bits of their hash. Two different values may have the same hash, which keeps samples apart
/// needlessly, but never brings two together that must not be: among a million values the odds are one in 37 million,
/// among a billion one in 37. Takes 4 bytes a sample and key, 8 for each sample in a group, and 16 for each value while
/// groups are made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// Where in `groups` those of each sample begin, and where the last ones end.
    starts: Vec<u32>,
    groups: Vec<u32>,
    /// Where in `members` those of each group begin, and where the last ones end.
    first_members: Vec<u32>,
    members: Vec<SampleId>,
    /// The first group of each key, and the number of groups.
    first_groups: Vec<u32>,
    /// How many samples can share a mini-batch by each key, and the column of the key that limits them.
    most_together: Vec<(usize, usize)>,
}

impl Groups {
    /// Finds the groups of each of these keys. It reads the columns once, and blocks meanwhile.
    ///
    /// Null and NaN are in no group, and −0 equals 0. Groups are numbered by key, then by their first sample.
    ///
    /// # Errors
    /// [`ColumnError::Missing`](crate::error::ColumnError::Missing);
    /// [`ColumnError::Type`](crate::error::ColumnError::Type) for types that have no equality;
    /// [`Error::UnsupportedSource`] if lists have more than four billion items.
    pub fn of(store: &Store, keys: &[Key]) -> Result<Self> {
        let mut groups = Self { first_members: vec![0], first_groups: vec![0], ..Self::default() };
        let mut memberships: Vec<(SampleId, u32)> = Vec::new();
        for key in keys {
            let (hashes, most_together) = store.hashes(key)?;
            let mut shared: Vec<_> = hashes.chunk_by(|a, b| a.0 == b.0).filter(|same| same.len() > 1).collect();
            // Not by hash: another Rust release may hash differently, and mini-batches must not depend on that.
            shared.sort_unstable_by(|a, b| a.iter().map(|of| of.1).cmp(b.iter().map(|of| of.1)));
            for same in shared {
                let group = groups.len() as u32;
                memberships.extend(same.iter().map(|&(_, id)| (id, group)));
                groups.members.extend(same.iter().map(|&(_, id)| id));
                groups.first_members.push(position(groups.members.len(), store)?);
            }
            groups.most_together.push(most_together);
            groups.first_groups.push(groups.len() as u32);
        }
        memberships.sort_unstable();
        groups.starts.reserve(store.len() + 1);
        groups.groups.reserve(memberships.len());
        for id in 0..store.len() {
            groups.starts.push(position(groups.groups.len(), store)?);
            let rest = &memberships[groups.groups.len()..];
            groups.groups.extend(rest.iter().take_while(|(member, _)| member.index() == id).map(|&(_, group)| group));
        }
        groups.starts.push(position(groups.groups.len(), store)?);
        Ok(groups)
    }

    /// How many groups there are, for all keys together.
    #[must_use]
    pub fn len(&self) -> usize {
        self.first_members.len().saturating_sub(1)
    }

    /// Whether no two samples share a value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The groups that a sample is in; none for samples that were added later.
    #[inline]
    #[must_use]
    pub fn groups_of(&self, id: SampleId) -> &[u32] {
        match self.starts.get(id.index()..id.index() + 2) {
            Some(&[start, end]) => &self.groups[start as usize..end as usize],
            _ => &[],
        }
    }

    /// The samples of a group, by ascending id.
    #[must_use]
    pub fn members(&self, group: u32) -> &[SampleId] {
        let range = |group: usize| self.first_members[group] as usize..self.first_members[group + 1] as usize;
        &self.members[range(group as usize)]
    }

    /// How many keys there are.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.most_together.len()
    }

    /// The numbers of a key's groups.
    #[must_use]
    pub fn of_key(&self, key: usize) -> Range<u32> {
        self.first_groups[key]..self.first_groups[key + 1]
    }

    /// How many samples can share a mini-batch without sharing a value of a key.
    ///
    /// This is the number of its distinct values, with every null a value of its own. If the key has several columns,
    /// the one with the fewest values counts. For lists it is the number of samples, an upper bound.
    #[must_use]
    pub fn most_together(&self, key: usize) -> usize {
        self.most_together[key].0
    }

    /// The column of a key that has the fewest values, counted from 0.
    pub(crate) fn scarcest(&self, key: usize) -> usize {
        self.most_together[key].1
    }
}

fn position(at: usize, store: &Store) -> Result<u32> {
    u32::try_from(at).map_err(|_| Error::too_many_samples(store.uri()))
}
