//! What decides which samples share a mini-batch, and what samples have in common by it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::DataType;

use crate::config::{GuardsConfig, Schedule, Stop};
use crate::embeddings::EmbeddingTable;
use crate::error::{Error, Result};
use crate::store::{Key, Store};
use crate::walk::{Groups, Guards, Lengths, Mask, Strata, Weighting, Weights};

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

/// What the rules look at in the rows: what samples have in common, and how long they are.
#[derive(Clone, Debug)]
pub(crate) struct RowFacts {
    guards: Arc<Groups>,
    mask: Option<Arc<Groups>>,
    /// What samples are divided into; `None` if mini-batches take all alike.
    pub strata: Option<Arc<Strata>>,
    pub lengths: Option<Arc<Lengths>>,
}

impl RowFacts {
    /// Reads the rows. Blocks.
    pub fn of(store: &Store, rules: &RowRules) -> Result<Self> {
        let groups = |rules: &GuardRules| Groups::of(store, &rules.keys).map(Arc::new);
        let strata = rules.strata.as_ref().map(|rule| rule.divide(store).map(Arc::new)).transpose()?;
        let lengths = rules.length.as_ref().map(|column| Lengths::of(store, column).map(Arc::new)).transpose()?;
        Ok(Self { guards: groups(&rules.guards)?, mask: rules.mask.as_ref().map(groups).transpose()?, strata, lengths })
    }

    /// What was made before.
    pub fn of_made(
        guards: &Guards,
        mask: Option<&Mask>,
        strata: Option<&Arc<Strata>>,
        lengths: Option<&Arc<Lengths>>,
    ) -> Self {
        let mask = mask.map(|mask| mask.rules().groups().clone());
        Self { guards: guards.groups().clone(), mask, strata: strata.cloned(), lengths: lengths.cloned() }
    }

    /// Guards and mask by these groups, and by embeddings if there are any.
    pub fn apply(self, rules: &RowRules, embeddings: Option<&Arc<EmbeddingTable>>) -> (Guards, Option<Mask>) {
        let made = |rules: &GuardRules, groups| match embeddings {
            Some(embeddings) => Guards::new(&rules.config, groups, embeddings.clone()),
            None => Guards::of_groups(&rules.config, groups),
        };
        let mask = rules.mask.as_ref().zip(self.mask).map(|(rules, groups)| Mask::new(made(rules, groups)));
        (made(&rules.guards, self.guards), mask)
    }
}

impl StrataRule {
    /// Divides the rows of a store, and refuses weights that no mini-batch can follow. Blocks.
    fn divide(&self, store: &Store) -> Result<Strata> {
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
