//! What decides which samples share a mini-batch.

use std::collections::HashMap;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::DataType;

use crate::config::{GuardsConfig, Schedule, Stop};
use crate::error::{Error, Result};
use crate::store::{Key, Store};
use crate::walk::{Strata, Weighting, Weights};

/// What decides which samples share a mini-batch, for a run's columns.
#[derive(Debug)]
pub(crate) struct RowRules {
    /// What keeps samples out of each other's mini-batches.
    pub guards: GuardRules,
    /// What marks samples that share one; `None` without `[mask]`.
    pub mask: Option<GuardRules>,
    /// What a mini-batch takes so many samples of; `None` if it takes all alike.
    pub strata: Option<StrataRule>,
    /// The column that says how long samples are, if there is one.
    pub length: Option<String>,
    /// The column that says which samples are preferred as starts, if there is one.
    pub weight: Option<String>,
    /// Whether some rows are of `pairs.corpus`.
    pub has_corpus: bool,
    /// How many samples an epoch has at most, if the others are to sit out.
    pub epoch_samples: Option<usize>,
}

/// What two samples must not have in common.
#[derive(Debug)]
pub(crate) struct GuardRules {
    pub config: GuardsConfig,
    /// The content of samples comes first.
    pub keys: Vec<Key>,
}

/// What divides samples into strata.
#[derive(Debug)]
pub(crate) struct StrataRule {
    pub column: String,
    pub weights: Option<SourceWeights>,
    pub stop: Stop,
    pub batch_size: usize,
    /// Whether a mini-batch is of one stratum.
    pub is_single: bool,
}

/// What gives sources their weights.
#[derive(Clone, Debug)]
pub(crate) enum SourceWeights {
    /// By name.
    Given(HashMap<String, Schedule>),
    OfSize(f64),
}

impl StrataRule {
    /// Divides the rows of a store, and refuses weights that no mini-batch can follow. Blocks.
    pub(super) fn divide(&self, store: &Store) -> Result<Strata> {
        let strata = Strata::of(store, &self.column)?;
        let Some(weights) = &self.weights else { return Ok(strata) };
        let names = self.names(store, &strata)?;
        let weights = match weights {
            SourceWeights::OfSize(power) => Weights::OfSize(*power),
            SourceWeights::Given(weights) => {
                if let Some(empty) = weights.keys().filter(|name| !names.contains(*name)).min() {
                    let message =
                        format!("include `{empty}`, which has a weight and no rows; take it out, or give rows");
                    return Err(Error::setting("sources", message));
                }
                let weight = |name: &String| weights.get(name).copied().ok_or_else(|| unknown(name));
                Weights::Given(names.iter().map(weight).collect::<Result<_>>()?)
            }
        };
        let strata = strata.with_weighting(Some(Weighting { weights, stop: self.stop }));
        match strata.too_small(self.batch_size, self.is_single) {
            None => Ok(strata),
            Some((stratum, rows, share)) => {
                let message = format!(
                    "include `{}`, which has {rows} rows, and its share of a mini-batch is {share}; lower its weight or \
                     walk.batch_size, or give it more rows",
                    names[stratum]
                );
                Err(Error::setting("sources", message))
            }
        }
    }

    /// The value of each stratum.
    fn names(&self, store: &Store, strata: &Strata) -> Result<Vec<String>> {
        let first: Vec<_> = (0..strata.len()).filter_map(|stratum| strata.members(stratum).next()).collect();
        let rows = store.select(std::slice::from_ref(&self.column))?.gather(&first)?;
        let texts = cast(rows.column(0), &DataType::Utf8);
        let texts = texts.map_err(|cause| Error::Arrow { action: "read the names of sources", cause })?;
        Ok(texts.as_string::<i32>().iter().map(|name| name.unwrap_or_default().to_owned()).collect())
    }
}

/// The error for rows of a source that the settings do not know.
fn unknown(name: &str) -> Error {
    Error::setting("sources", format!("have weights, and none is for the rows of `{name}`; give it one"))
}
