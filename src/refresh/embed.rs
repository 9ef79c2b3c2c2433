//! Embeddings and graphs of a run, made once for all ranks that share a folder.

use super::ages::Ages;
use super::pushed_vectors::PushedVectors;
use super::shared::{Recipe, Report, Shared};
use super::work::RefreshContext;
use crate::embeddings::EmbeddingTable;
use crate::encode::{BadSamples, Encoder, TableSettings, encode_for_others, encode_present, encode_rest};
use crate::error::{Error, Result};
use crate::graph::{ProximityGraph, inconsistent_pairs};
use crate::sample::{GraphVersion, ModelVersion};
use crate::store::Store;
use crate::telemetry;

impl RefreshContext {
    /// Embeds all samples of `store`.
    pub(super) fn embed_anew(
        &self,
        encoder: &dyn Encoder,
        store: &Store,
        model_version: ModelVersion,
        skipped_before: usize,
        report: Report<'_>,
    ) -> Result<Shared<EmbeddingTable>> {
        let bad = BadSamples { on_bad_sample: self.on_bad_sample, skipped_before };
        let settings = TableSettings { storage: self.storage, similarity: self.similarity, model_version };
        let cache = self.embedding_cache.as_deref();
        let recipe = self.recipe_of_rows(encoder, store).map(|rows| {
            let settings = format!("{settings:?} {:?} {:?}", self.on_bad_sample, self.within);
            Recipe::of(&[&"anew", &rows, &settings])
        });
        let make = |report: Report<'_>| {
            let mut table = encode_present(encoder, store, bad, settings, cache, report)?;
            self.leave_out(&mut table, report)?;
            Ok(table)
        };
        let help = |report: Report<'_>| encode_for_others(encoder, store, 0, cache, report);
        let (Some(folder), Some(recipe)) = (&self.shared, recipe) else { return Ok(Shared::own(make(report)?, None)) };
        folder.get(recipe, make, help, report)
    }

    /// Takes over the embeddings `old`, embeds the samples that they lack, and puts pushed vectors in.
    pub(super) fn embed_rest(
        &self,
        Shared { value: old, origin }: Shared<&EmbeddingTable>,
        pushed: &PushedVectors,
        encoder: &dyn Encoder,
        store: &Store,
        model_version: ModelVersion,
        report: Report<'_>,
    ) -> Result<Shared<EmbeddingTable>> {
        let bad = BadSamples { on_bad_sample: self.on_bad_sample, skipped_before: old.skipped() };
        let cache = self.embedding_cache.as_deref();
        let recipe = self.recipe_of_rows(encoder, store).zip(origin.recipe).map(|(rows, old)| {
            let (pushed, within) = (pushed.digest(), format!("{:?}", self.within));
            Recipe::of(&[&"rest", &rows, &old, &pushed, &model_version, &within])
        });
        let make = |report: Report<'_>| {
            let mut table = old.fork(store.len(), model_version);
            encode_rest(encoder, store, bad, &mut table, cache, report)?;
            replace_pushed(&mut table, pushed)?;
            self.leave_out(&mut table, report)?;
            Ok(table)
        };
        let help = |report: Report<'_>| encode_for_others(encoder, store, old.len(), cache, report);
        let (Some(folder), Some(recipe)) = (&self.shared, recipe) else { return Ok(Shared::own(make(report)?, None)) };
        folder.get(recipe, make, help, report)
    }

    /// Decides which pairs are left out of epochs, if `pairs.within` says so.
    fn leave_out(&self, table: &mut EmbeddingTable, report: Report<'_>) -> Result<()> {
        let Some(within) = self.within else { return Ok(()) };
        let samples = table.len();
        table.set_inconsistent(inconsistent_pairs(table, within, &mut || report(samples))?);
        telemetry::pairs_left_out(within, table.inconsistent(), table.present());
        Ok(())
    }

    /// Refuses embeddings that leave an epoch with fewer samples than are `needed`.
    pub(super) fn check_enough(&self, table: &EmbeddingTable, store: &Store, needed: usize) -> Result<()> {
        if table.present() < needed {
            return Err(table.too_few(store.uri(), needed));
        }
        let (left, of) = (table.in_epochs(), table.present());
        if left >= needed {
            return Ok(());
        }
        let message = format!("leaves {left} of {of} pairs, and {needed} are needed; raise it, or leave it out");
        Err(Error::setting("pairs.within", message))
    }

    /// Builds a graph over the embeddings that `recipe` says, from the graph of digest `old` if it goes on from one.
    pub(super) fn shared_graph(
        &self,
        recipe: Option<Recipe>,
        old: u64,
        version: GraphVersion,
        build: impl FnOnce() -> Result<ProximityGraph>,
        report: Report<'_>,
    ) -> Result<Shared<ProximityGraph>> {
        let (Some(folder), Some(table)) = (&self.shared, recipe) else { return Ok(Shared::own(build()?, None)) };
        let strata = self.row_rules.strata.as_ref().map(|rule| &rule.column);
        let settings = format!("{:?} {strata:?}", self.backend.config());
        let recipe = Recipe::of(&[&"graph", &table, &old, &version, &self.seed, &settings]);
        folder.get(recipe, |_| build(), |_| Ok(()), report)
    }

    /// What the embeddings of a checkpoint are made of, as far as ranks that share must know.
    pub(super) fn recipe_of_saved(&self, saved: &EmbeddingTable) -> Option<Recipe> {
        self.shared.as_ref().map(|_| Recipe::of(&[&"saved", &saved.digest(), &saved.model_version()]))
    }

    /// What the vectors of rows depend on; `None` if that is unknown, or if nothing is shared.
    fn recipe_of_rows(&self, encoder: &dyn Encoder, store: &Store) -> Option<Recipe> {
        self.shared.as_ref()?;
        let identity = encoder.identity().or_else(|| self.reads_vectors.clone())?;
        Some(Recipe::of(&[&identity, &store.fingerprint()]))
    }
}

/// Replaces the vectors of pushed samples, except those that a newer model has skipped since.
fn replace_pushed(table: &mut EmbeddingTable, pushed: &PushedVectors) -> Result<()> {
    let mut scratch = vec![0f32; table.dimension()];
    for push in pushed.iter().filter(|push| !table.is_skipped(push.id)).collect::<Vec<_>>() {
        scratch.copy_from_slice(push.vector);
        table.replace(push.id, &mut scratch)?;
    }
    Ok(())
}

/// When the vectors of `table` were made, in which those of `pushed` have replaced older ones; gives their number too.
pub(super) fn ages_after(table: &EmbeddingTable, pushed: &PushedVectors, ages: &Ages) -> (Ages, usize) {
    let mut pushed_at_step = ages.pushed_at_step.to_vec();
    if pushed.len() > 0 || !pushed_at_step.is_empty() {
        pushed_at_step.resize(table.len(), Ages::NEVER);
    }
    let mut skipped = 0;
    for push in pushed.iter() {
        if table.is_skipped(push.id) {
            skipped += 1;
        } else {
            pushed_at_step[push.id.index()] = push.step;
        }
    }
    if skipped > 0 {
        telemetry::pushes_skipped(skipped);
    }
    let ages = Ages { embedded_at_step: ages.embedded_at_step, pushed_at_step: pushed_at_step.into() };
    (ages, pushed.len() - skipped)
}
