//! "Here are samples of several sources, give me how many of each a mini-batch takes."
//!
//! [`Strata`] says which samples belong together: those of a source, or those with the same value of a column.
//! `Shares` turns weights, or the wish for mini-batches of one stratum, into the numbers that each mini-batch takes of
//! each, and `Pools` are the samples of each stratum that remain.

mod pools;
mod quotas;
mod shares;

pub(super) use self::pools::Pools;
pub(super) use self::shares::{Moment, Share, Shares, Whose};
use super::lists::Lists;
use crate::config::{Schedule, Stop};
use crate::error::{ColumnError, Error, Result};
use crate::sample::SampleId;
use crate::store::{Key, Store};

/// The samples divided into strata: those of one source each, or those with one value of a column.
///
/// Strata are numbered by their first sample. Samples without a value are a stratum of their own. Takes 8 bytes a
/// sample.
#[derive(Debug)]
pub struct Strata {
    /// The stratum of each sample.
    of: Vec<u32>,
    /// The samples of each stratum, by ascending id.
    members: Lists,
    weighting: Option<Weighting>,
}

/// How often the samples of each stratum come.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighting {
    /// What gives strata their weights.
    pub weights: Weights,
    /// When an epoch ends.
    pub stop: Stop,
}

/// What gives strata their weights.
#[derive(Clone, Debug, PartialEq)]
pub enum Weights {
    /// A weight for each stratum.
    Given(Vec<Schedule>),
    /// The number of samples to this power.
    OfSize(f64),
}

impl Strata {
    /// Divides samples by their `column`. Reads it once, and blocks meanwhile.
    ///
    /// # Errors
    /// [`ColumnError::Missing`]; [`ColumnError::Type`] for lists, and for types that have no equality.
    pub fn of(store: &Store, column: &str) -> Result<Self> {
        let data_type = store.select(&[column.to_owned()])?.schema().field(0).data_type().clone();
        let refused = || ColumnError::Type {
            column: column.to_owned(),
            found: data_type.to_string(),
            expected: "mini-batches are made of samples with one value of it; name another column in walk.same".into(),
        };
        if data_type.is_nested() {
            return Err(refused().into());
        }
        let (hashes, _) = store.hashes(&Key::Value(column.to_owned())).map_err(|error| match error {
            Error::Column(ColumnError::Type { .. }) => refused().into(),
            other => other,
        })?;
        let mut same: Vec<_> = hashes.chunk_by(|a, b| a.0 == b.0).collect();
        same.sort_unstable_by_key(|same| same[0].1);
        let mut of = vec![NONE; store.len()];
        for (number, same) in (0..).zip(same) {
            same.iter().for_each(|(_, id)| of[id.index()] = number);
        }
        Ok(Self::of_values(of))
    }

    /// Divides samples by a number for each; equal numbers are one stratum.
    #[must_use]
    pub fn of_values(mut of: Vec<u32>) -> Self {
        let mut numbers = std::collections::HashMap::new();
        for value in &mut of {
            let next = numbers.len() as u32;
            *value = *numbers.entry(*value).or_insert(next);
        }
        let members = Lists::new(numbers.len(), || of.iter().zip(0..).map(|(&stratum, id)| (stratum as usize, id)));
        Self { of, members, weighting: None }
    }

    /// The same, with weights.
    #[must_use]
    pub fn with_weighting(self, weighting: Option<Weighting>) -> Self {
        Self { weighting, ..self }
    }

    /// How many strata there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is no sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// How many samples there are.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.of.len()
    }

    /// The stratum of a sample.
    ///
    /// # Panics
    /// Panics if the sample is not one of these.
    #[inline]
    #[must_use]
    pub fn stratum(&self, id: SampleId) -> usize {
        self.of[id.index()] as usize
    }

    /// The samples of a stratum, by ascending id.
    pub fn members(&self, stratum: usize) -> impl Iterator<Item = SampleId> {
        self.members.get(stratum).iter().map(|&id| SampleId(id))
    }

    /// The ids of each stratum's samples, ascending.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u32]> {
        (0..self.len()).map(|stratum| self.members.get(stratum))
    }

    /// A stratum with fewer samples than its share of the first mini-batch: its number, its samples, and the share.
    pub(crate) fn too_small(&self, batch_size: usize, is_single: bool) -> Option<(usize, u64, u64)> {
        let mut quotas = quotas::Quotas::new(self, self.samples(), batch_size, is_single, 0)?;
        let shares = quotas.next(0);
        let few = quotas.sizes().iter().zip(shares).enumerate().find(|(_, (size, share))| share > *size)?;
        Some((few.0, *few.1.0, few.1.1))
    }

    /// How many of the first `samples` each stratum has.
    fn sizes(&self, samples: usize) -> Vec<u64> {
        let members = (0..self.len()).map(|stratum| self.members.get(stratum));
        members.map(|members| members.partition_point(|&id| (id as usize) < samples) as u64).collect()
    }
}

/// Stands for no value.
const NONE: u32 = u32::MAX;
