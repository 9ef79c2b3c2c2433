//! What the rules that decide about mini-batches look at in the rows, and in a guide's embeddings of them.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type};

use super::rules::{GuardRules, RowRules};
use super::shared::Report;
use super::work::RefreshContext;
use crate::embeddings::EmbeddingTable;
use crate::encode::{BadSamples, Encoder, TableSettings, encode_present, encode_rest};
use crate::error::{Error, Result, TooFewError};
use crate::sample::{ModelVersion, SampleId};
use crate::source::{IN_CORPUS, ROLE_COLUMN};
use crate::store::Store;
use crate::telemetry;
use crate::walk::{Groups, Guards, Left, Lengths, Mask, Strata};

/// What samples have in common, how long they are, and how similar a guide holds them to be. Clones share all of it.
#[derive(Clone, Debug)]
pub(crate) struct RowFacts {
    guards: Arc<Groups>,
    mask: Option<Arc<Groups>>,
    /// Which samples are no pairs; `None` without `pairs.corpus`.
    corpus: Option<Arc<Corpus>>,
    /// What samples are divided into; `None` if mini-batches take all alike.
    pub strata: Option<Arc<Strata>>,
    /// `None` without `walk.length_column`.
    pub lengths: Option<Arc<Lengths>>,
    /// `None` without `walk.weight_column`.
    pub weights: Option<Arc<[f32]>>,
    /// `None` without `guards.guide`.
    guide: Option<Arc<EmbeddingTable>>,
    /// How many samples an epoch has at most, if the others sit out.
    pub epoch_samples: Option<usize>,
}

/// The samples that are in no epoch: those of `pairs.corpus`.
#[derive(Debug)]
struct Corpus {
    /// A bit for each sample.
    bits: Vec<u64>,
    samples: usize,
}

impl Corpus {
    /// Reads which rows are of the corpus, and refuses too few others for a mini-batch. Blocks.
    fn of(store: &Store, batch_size: usize) -> Result<Self> {
        let mut bits = vec![0; store.len().div_ceil(64)];
        let mut samples = 0;
        for item in store.select(&[ROLE_COLUMN.to_owned()])?.record_batches() {
            let (first, rows) = item?;
            for (row, role) in rows.column(0).as_string::<i32>().iter().enumerate() {
                let id = first.index() + row;
                let is_in = role == Some(IN_CORPUS);
                bits[id / 64] |= u64::from(is_in) << (id % 64);
                samples += usize::from(is_in);
            }
        }
        let (found, needed) = (store.len() - samples, batch_size.max(2));
        if found < needed {
            let reason = "make a mini-batch, beside those of pairs.corpus; give more pairs, widen the filter, or lower \
                          walk.batch_size";
            return Err(TooFewError::Samples {
                uri: store.uri().to_owned(),
                filter: None,
                found,
                needed,
                reason: reason.to_owned(),
            }
            .into());
        }
        Ok(Self { bits, samples })
    }
}

impl RefreshContext {
    /// Reads the rows, and embeds by the guide, if there is one, what the facts `before` lack. Blocks.
    ///
    /// `report` is told how many samples the guide has done, and its error ends the work.
    pub(crate) fn row_facts(&self, store: &Store, before: Option<&RowFacts>, report: Report<'_>) -> Result<RowFacts> {
        let rules = &self.row_rules;
        let groups = |rules: &GuardRules| Groups::of(store, &rules.keys).map(Arc::new);
        let before = before.and_then(|before| before.guide.as_ref());
        let guide = self.guide.as_ref().map(|guide| self.judge(guide.as_ref(), store, before, report)).transpose()?;
        Ok(RowFacts {
            guards: groups(&rules.guards)?,
            mask: rules.mask.as_ref().map(groups).transpose()?,
            corpus: rules.has_corpus.then(|| Corpus::of(store, self.batch_size).map(Arc::new)).transpose()?,
            strata: rules.strata.as_ref().map(|rule| rule.divide(store).map(Arc::new)).transpose()?,
            lengths: rules.length.as_ref().map(|column| Lengths::of(store, column).map(Arc::new)).transpose()?,
            weights: rules.weight.as_ref().map(|column| weights(store, column)).transpose()?,
            guide,
            epoch_samples: rules.epoch_samples,
        })
    }

    /// The embeddings of a guide, which never change: those of `before`, and those of rows that came later.
    fn judge(
        &self,
        guide: &dyn Encoder,
        store: &Store,
        before: Option<&Arc<EmbeddingTable>>,
        report: Report<'_>,
    ) -> Result<Arc<EmbeddingTable>> {
        let skipped_before = before.map_or(0, |before| before.skipped());
        let bad = BadSamples { on_bad_sample: self.on_bad_sample, skipped_before };
        let cache = self.embedding_cache.as_deref();
        let version = ModelVersion(1);
        telemetry::guide_embeds(guide.name(), store.len() - before.map_or(0, |before| before.len()));
        let table = if let Some(before) = before {
            let mut table = before.fork(store.len(), version);
            encode_rest(guide, store, bad, &mut table, cache, report)?;
            table
        } else {
            let settings = TableSettings { storage: self.storage, similarity: self.similarity, model_version: version };
            encode_present(guide, store, bad, settings, cache, report)?
        };
        Ok(table.into())
    }
}

impl RowFacts {
    /// Guards and mask by these groups, and by embeddings if there are any.
    pub fn apply(&self, rules: &RowRules, embeddings: Option<&Arc<EmbeddingTable>>) -> (Guards, Option<Mask>) {
        let made = |rules: &GuardRules, groups: &Arc<Groups>| {
            let guards = match embeddings {
                Some(embeddings) => Guards::new(&rules.config, groups.clone(), embeddings.clone()),
                None => Guards::of_groups(&rules.config, groups.clone()),
            };
            guards.guided_by(self.guide.clone())
        };
        let mask = rules.mask.as_ref().zip(self.mask.as_ref()).map(|(rules, groups)| Mask::new(made(rules, groups)));
        (made(&rules.guards, &self.guards), mask)
    }

    /// Whether a sample is of `pairs.corpus`.
    pub fn is_in_corpus(&self, id: SampleId) -> bool {
        self.corpus.as_ref().is_some_and(|corpus| corpus.bits[id.index() / 64] >> (id.index() % 64) & 1 == 1)
    }

    /// The number of samples of `pairs.corpus`.
    pub fn in_corpus(&self) -> usize {
        self.corpus.as_ref().map_or(0, |corpus| corpus.samples)
    }

    /// Takes the samples that are in no epoch out of `bits`, which has one for each.
    pub fn leave_corpus_out(&self, bits: &mut [u64]) {
        let of_corpus = self.corpus.iter().flat_map(|corpus| &corpus.bits);
        bits.iter_mut().zip(of_corpus).for_each(|(bits, corpus)| *bits &= !corpus);
    }

    /// The beginning of epoch `epoch` over the samples whose `bits` are set, if those of `id_end` that are of the
    /// corpus or sit out in this epoch are left out of it.
    pub fn beginning(&self, id_end: usize, mut bits: Vec<u64>, seed: u64, epoch: u64) -> Left {
        self.leave_corpus_out(&mut bits);
        let mut left = Left::beginning(id_end, bits);
        if let Some(most) = self.epoch_samples {
            left.sit_out(left.samples.saturating_sub(most), seed, epoch);
        }
        left
    }
}

/// The numbers of a column, by which samples are preferred as starts: 4 bytes a sample.
fn weights(store: &Store, column: &str) -> Result<Arc<[f32]>> {
    let store = store.select(&[column.to_owned()])?;
    let mut weights = Vec::with_capacity(store.len());
    for item in store.record_batches() {
        let (first, rows) = item?;
        let cast = cast(rows.column(0), &DataType::Float32);
        let numbers = cast.map_err(|cause| Error::Arrow { action: "read weights", cause })?;
        let numbers = numbers.as_primitive::<Float32Type>();
        if let Some(row) = (0..numbers.len()).find(|&row| numbers.is_null(row) || !numbers.value(row).is_finite()) {
            let found = if numbers.is_null(row) { "null".to_owned() } else { numbers.value(row).to_string() };
            let sample = SampleId::new(first.index() + row);
            let message = format!(
                "names `{column}`, which is {found} at {sample}; weights are finite numbers: correct these rows, filter \
                 them out, or leave the key out"
            );
            return Err(Error::setting("walk.weight_column", message));
        }
        weights.extend_from_slice(numbers.values());
    }
    Ok(weights.into())
}
