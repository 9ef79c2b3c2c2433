use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::PipelineConfig;
use super::check::{Check, Checker};
use super::schedule::Schedule;
use super::source::one_or_many;
use super::walk::{Coverage, SamplerKind};
use crate::error::Fault;

/// `[[sources]]`: one of several sources of a run, in place of `source.uri`.
///
/// `source.columns`, `filter`, `on_corrupt`, `options` and `retries` hold for all of them. Rows get a column `source`
/// with the name of theirs. Columns that not all sources have are left out, which is logged; `rename` gives columns of
/// one meaning one name.
///
/// A sample's id counts the rows of all sources, in the order of the list. A `store.cache_dir` remembers which rows
/// have which ids: a source that is added later comes behind those that were there, wherever it is in the list after
/// the first.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NamedSource {
    /// The value of the column `source`. Required, and different for each source.
    pub name: String,
    /// See [`SourceConfig::uri`](super::SourceConfig::uri). Required, unless the rows are given in code.
    #[serde(deserialize_with = "one_or_many")]
    pub uri: Vec<String>,
    /// See [`SourceConfig::filter`](super::SourceConfig::filter); it names columns as the files do. Default: all rows.
    pub filter: Option<String>,
    /// New names of columns: `{ question = "anchor" }` calls the column `question` of the files `anchor`. Default none.
    pub rename: BTreeMap<String, String>,
    /// What the texts of a column begin with, by its new name: `{ anchor = "Retrieve the definition: " }`, or the texts
    /// of another column, `{ anchor = { column = "instruction" } }`. It is embedded, after `encode.prefix`, and
    /// delivered. A null of that other column is no prefix. Default none.
    pub prefix: BTreeMap<String, Prefix>,
    /// The share of this source in mini-batches, in proportion to those of the others, which need one too: above 0. A
    /// number or a [`Schedule`], which may begin or end at 0. See [`MixtureConfig`]. Default: mini-batches take the
    /// rows of all sources alike.
    pub weight: Option<Schedule>,
}

/// What the texts of a column begin with.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(untagged, expecting = "expected a text or `{ column = \"…\" }`")]
pub enum Prefix {
    /// This text.
    Text(String),
    /// The text of another column of the files in the same row.
    Column {
        /// Its name in the files.
        column: String,
    },
}

/// `[mixture]`: how often the rows of several [sources](NamedSource) come.
///
/// **Without weights**, an epoch has every row exactly once, and mini-batches are drawn from all rows alike.
///
/// **With weights**, each mini-batch has its share of each source, rounded so that the numbers since the epoch began
/// are right within one sample; a walk of its own fills each share. With [`walk.same`](super::WalkConfig::same) =
/// `"source"`, each mini-batch is of one source instead, and the numbers of mini-batches follow the weights. No row of
/// a source comes again in an epoch before all its rows have come. How long an epoch is follows from weights, numbers
/// of rows and `stop`, and is known when it begins.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct MixtureConfig {
    /// t: gives each source the weight rows^t, in place of a `weight` of its own, 0 to 1. 1 takes rows as often in
    /// large sources as in small ones, 0 takes all sources equally often; 0.5 is usual. Default: none.
    pub temperature: Option<f64>,
    /// When an epoch ends, with weights. Default `first`.
    pub stop: Stop,
}

/// When an epoch over several sources with weights ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// Before the first source would have to repeat a row: every row at most once. What is left of the others is not
    /// in this epoch; the next one chooses anew.
    #[default]
    First,
    /// Once every source has been passed through: every row at least once. Those of smaller or heavier sources come
    /// again, in passes of their own.
    All,
}

impl Check for MixtureConfig {
    const SECTION: &'static str = "mixture";

    fn check(&self, check: &mut Checker<'_>) {
        let outside = self.temperature.filter(|t| !(0.0..=1.0).contains(t));
        let message = format!("is {}; it must lie between 0 and 1", outside.unwrap_or_default());
        check.require(outside.is_none(), "temperature", message);
    }
}

impl PipelineConfig {
    /// Whether sources have weights.
    pub(crate) fn is_weighted(&self) -> bool {
        self.mixture.temperature.is_some() || self.sources.iter().any(|source| source.weight.is_some())
    }

    /// The column by whose values mini-batches are made, if they are.
    pub(crate) fn strata_column(&self) -> Option<&str> {
        self.walk.same.as_deref().or(self.is_weighted().then_some(SOURCE_COLUMN))
    }

    /// What is wrong with mini-batches that are made of strata, with their key.
    pub(super) fn strata_faults(&self) -> Vec<Fault> {
        let Self { walk, guards, .. } = self;
        let mut faults = Vec::new();
        let Some(column) = self.strata_column() else { return faults };
        let (key, why) = match walk.same {
            Some(_) => ("walk.same", "mini-batches have one value of a column"),
            None => ("sources", "sources have weights"),
        };
        if walk.same.is_some() && guards.distinct.iter().any(|distinct| distinct == column) {
            let message = format!("is `{column}`, which guards.distinct keeps apart; take it out of one of them");
            faults.push(Fault::new("walk.same", message));
        }
        if self.is_weighted() && column != SOURCE_COLUMN {
            let message =
                format!("is `{column}`, and sources have weights; make it \"{SOURCE_COLUMN}\", or leave one out");
            faults.push(Fault::new("walk.same", message));
        }
        if self.is_weighted() && walk.same_share < 1.0 {
            let message = "takes samples of all sources, and sources have weights; leave one of them out";
            faults.push(Fault::new("walk.same_share", message));
        }
        if walk.coverage == Coverage::Paper {
            let message = format!("is `paper`, but {why} ({key}); set coverage to `exact`");
            faults.push(Fault::new("walk.coverage", message));
        }
        if let sampler @ (SamplerKind::Communities | SamplerKind::Clusters) = walk.sampler {
            let name = sampler.name();
            let message = format!("is `{name}`, but {why} ({key}); set it to `random_walk`, `knn` or `uniform`");
            faults.push(Fault::new("walk.sampler", message));
        }
        faults
    }
}

/// The column that several sources add to their rows.
pub const SOURCE_COLUMN: &str = "source";

/// What is wrong with several sources, each by itself and together.
pub(super) fn faults(sources: &[NamedSource], mixture: &MixtureConfig) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (place, source) in sources.iter().enumerate() {
        let section = format!("sources[{place}]");
        let check = &mut Checker { section: &section, faults: &mut faults };
        source.check(check);
        let first = sources.iter().position(|other| other.name == source.name);
        let is_own = source.name.is_empty() || first == Some(place);
        check.require(is_own, "name", format!("is `{}`, as that of another source; choose another one", source.name));
        let all_have = sources.iter().all(|other| other.weight.is_some());
        let message = "is missing, and other sources have one; give all sources a weight, or none";
        let any_has = sources.iter().any(|other| other.weight.is_some());
        check.require(all_have || !any_has || source.weight.is_some(), "weight", message);
    }
    let mixture_needs = |key: &str, message: &str| Fault::new(format!("mixture.{key}"), message);
    if mixture.temperature.is_some() && sources.iter().any(|source| source.weight.is_some()) {
        faults.push(mixture_needs("temperature", "makes weights, and sources have some; leave one of them out"));
    }
    let is_weighted = mixture.temperature.is_some() || sources.iter().any(|source| source.weight.is_some());
    if !sources.is_empty() && !is_weighted && mixture.stop != Stop::First {
        let message =
            "says nothing without weights: an epoch has every row once; give sources weights, or leave it out";
        faults.push(mixture_needs("stop", message));
    }
    if sources.is_empty() && *mixture != MixtureConfig::default() {
        faults.push(Fault::new("mixture", "needs several sources; list them as [[sources]], or leave it out"));
    }
    let ends = |end: usize| sources.iter().filter_map(move |source| Some(source.weight?.ends()[end])).all(|w| w == 0.0);
    if is_weighted && mixture.temperature.is_none() && (ends(0) || ends(1)) {
        faults.push(Fault::new("sources", "have weights that are all 0 at the same time; let one stay above 0"));
    }
    faults
}

impl NamedSource {
    fn check(&self, check: &mut Checker<'_>) {
        let is_name = !self.name.is_empty() && !self.name.contains(['\t', '\n']);
        check.require(is_name, "name", "is required; give each source a name of its own, without tabs and line ends");
        let given = !self.uri.is_empty() && self.uri.iter().all(|uri| !uri.trim().is_empty());
        check.require(given, "uri", "is required; give a Parquet or Arrow IPC file, a folder, a pattern, or a list");
        let mut names: Vec<_> = self.rename.values().collect();
        names.sort_unstable();
        let twice = names.windows(2).find(|pair| pair[0] == pair[1]).map_or("", |pair| pair[0]);
        check.require(twice.is_empty(), "rename", format!("gives two columns the name `{twice}`; choose another one"));
        if let Some(weight) = self.weight {
            let [from, to] = weight.ends();
            let is_number = |weight: f64| weight.is_finite() && weight >= 0.0;
            let message = format!("is {}; it must be a number above 0", if is_number(from) { to } else { from });
            let is_sound = is_number(from) && is_number(to) && from.max(to) > 0.0;
            check.require(is_sound, "weight", message);
            check.schedule(weight, "weight");
        }
    }
}
