//! The nearest of one table's vectors for each of another's: queries against a corpus.

use rayon::prelude::*;

use super::product::Product;
use crate::config::Precision;
use crate::embeddings::EmbeddingTable;
use crate::error::{ArgumentError, Result};
use crate::graph::kernel::{Format, Kernel};
use crate::graph::params::with_margin;
use crate::graph::topk::buffer::TopK;
use crate::graph::topk::rank::best_first;
use crate::sample::SampleId;

/// What [`search_exact`] finds.
#[derive(Clone, Debug, PartialEq)]
pub struct Nearest {
    /// How many are found for each query: those asked for, or all of the corpus if it has fewer.
    pub k: usize,
    /// Their ids in the corpus [queries × k], most similar first; the smaller id comes first among equals.
    pub ids: Vec<SampleId>,
    /// Their similarities to the query [queries × k], in f32.
    pub similarities: Vec<f32>,
}

/// Finds the `k` samples of `corpus` that are most similar to each of `queries`.
///
/// Costs queries × corpus × d multiplications on the current rayon pool, and beside the result a few MB a thread. The
/// result does not depend on the number of threads.
///
/// Long vectors are first scored in i8, a little more than 2 k are kept, and these are scored again in f32. A query
/// whose k-th similarity is not above all scores that were dropped, by half more than the largest difference between
/// both kinds of scores over all queries, is searched for in f32 from the start. So the result is that of f32
/// throughout.
///
/// Samples that `corpus` has skipped are never found; a query that was skipped has the similarity 0 to all.
///
/// # Errors
/// [`ArgumentError::Query`] if the two tables differ in dimension or kind of similarity.
///
/// ```
/// use prosampler::{SampleId, config::Similarity, embeddings::EmbeddingTable, graph};
/// let table = |vectors: Vec<f32>| EmbeddingTable::new(vectors, 2, Similarity::Cosine, Default::default());
/// let corpus = table(vec![1.0, 0.0, 0.6, 0.8, 0.0, 1.0])?;
/// let found = graph::search_exact(&table(vec![0.1, 2.0])?, &corpus, 2)?;
/// assert_eq!(found.ids, [SampleId(2), SampleId(1)]);
/// # Ok::<(), prosampler::Error>(())
/// ```
pub fn search_exact(queries: &EmbeddingTable, corpus: &EmbeddingTable, k: usize) -> Result<Nearest> {
    refuse_strangers(queries, corpus)?;
    let documents = corpus.present_ids();
    let k = k.min(documents.len());
    let all: Vec<u32> = (0..queries.len() as u32).collect();
    if k == 0 || all.is_empty() {
        return Ok(Nearest { k, ids: Vec::new(), similarities: Vec::new() });
    }
    let kept = (2 * k + MIN_MARGIN).min(documents.len());
    let search = Search { queries, corpus, documents: &documents, k };
    let kernel = Kernel::choose(Precision::Auto, queries.dimension(), kept, documents.len());
    if kernel.is_exact() {
        return Ok(search.exactly(&all));
    }
    let Pass { mut nearest, leads, error } = search.pass(kernel, kept, &all);
    let unsure: Vec<u32> = all.into_iter().filter(|&row| leads[row as usize] < ERROR_FACTOR * error).collect();
    let again = search.exactly(&unsure);
    for (slot, &row) in unsure.iter().enumerate() {
        let (to, from) = (row as usize * k..(row as usize + 1) * k, slot * k..(slot + 1) * k);
        nearest.ids[to.clone()].copy_from_slice(&again.ids[from.clone()]);
        nearest.similarities[to].copy_from_slice(&again.similarities[from]);
    }
    Ok(nearest)
}

/// Refuses tables that cannot be compared.
fn refuse_strangers(queries: &EmbeddingTable, corpus: &EmbeddingTable) -> Result<()> {
    let (dimension, expected) = (queries.dimension(), corpus.dimension());
    if dimension != expected {
        let reason = format!("it has {dimension} numbers, those of the corpus have {expected}");
        return Err(ArgumentError::Query { reason }.into());
    }
    let (similarity, expected) = (queries.similarity().name(), corpus.similarity().name());
    if similarity != expected {
        let reason = format!("it is made for {similarity} similarity, those of the corpus for {expected}");
        return Err(ArgumentError::Query { reason }.into());
    }
    Ok(())
}

/// What is searched for, and where.
struct Search<'a> {
    queries: &'a EmbeddingTable,
    corpus: &'a EmbeddingTable,
    documents: &'a [u32],
    k: usize,
}

/// What a pass of one kernel over some queries finds.
struct Pass {
    nearest: Nearest,
    /// By how much the k-th similarity of each query exceeds what a sample may score that was dropped.
    leads: Vec<f32>,
    /// The largest difference between a score of the kernel and the similarity.
    error: f32,
}

impl Search<'_> {
    /// The nearest of these queries, by scores in f32.
    fn exactly(&self, rows: &[u32]) -> Nearest {
        self.pass(Kernel::new(Format::F32), with_margin(self.k).min(self.documents.len()), rows).nearest
    }

    /// Keeps the best `kept` of each query by the kernel's scores, and finds the nearest among these.
    fn pass(&self, kernel: Kernel, kept: usize, rows: &[u32]) -> Pass {
        let at_once = rows.len().div_ceil(rayon::current_num_threads()).clamp(MIN_ROWS, MAX_ROWS);
        let init = || (Product::new(kernel), Vec::new());
        let chunk = |(product, best): &mut (Product, Vec<TopK>), rows: &[u32]| {
            best.resize_with(rows.len().max(best.len()), || TopK::new(kept));
            self.score(product, best, rows);
            self.rank(best, kept, rows)
        };
        let chunks: Vec<Pass> = rows.par_chunks(at_once).map_init(init, |state, rows| chunk(state, rows)).collect();
        let mut all = Pass::empty(self.k, rows.len());
        chunks.into_iter().for_each(|chunk| all.append(chunk));
        all
    }

    /// Scores these queries with all documents.
    fn score(&self, product: &mut Product, best: &mut [TopK], rows: &[u32]) {
        product.pack_rows(self.queries, rows);
        for documents in self.documents.chunks(COLUMNS_AT_ONCE) {
            product.pack_columns(self.corpus, documents);
            let thresholds: Vec<f32> = best[..rows.len()].iter().map(TopK::threshold).collect();
            let unreached = documents.iter().map(|_| f32::INFINITY);
            product.run(thresholds.into_iter(), unreached, false, |thresholds, _, row, document, score| {
                best[row].push(score, documents[document]);
                thresholds.rows[row] = best[row].threshold();
            });
        }
    }

    /// Orders what was kept of these queries by similarity.
    fn rank(&self, best: &mut [TopK], kept: usize, rows: &[u32]) -> Pass {
        let (mut ids, mut scores) = (Vec::new(), Vec::new());
        for best in &mut best[..rows.len()] {
            for (score, id) in best.drain_sorted() {
                ids.push(SampleId(id));
                scores.push(score);
            }
        }
        let similarities = self.similarities(rows, &ids, kept);

        let mut pass = Pass::empty(self.k, rows.len());
        let differences = scores.iter().zip(&similarities).map(|(score, similarity)| (score - similarity).abs());
        pass.error = differences.fold(0.0, f32::max);
        pass.nearest.ids.resize(rows.len() * self.k, SampleId(0));
        pass.nearest.similarities.resize(rows.len() * self.k, 0.0);
        let are_all = kept == self.documents.len();
        let found = pass.nearest.ids.chunks_exact_mut(self.k).zip(pass.nearest.similarities.chunks_exact_mut(self.k));
        let lists = ids.chunks_exact(kept).zip(scores.chunks_exact(kept)).zip(similarities.chunks_exact(kept));
        for ((best_ids, best_similarities), ((ids, scores), similarities)) in found.zip(lists) {
            best_first(similarities, ids, best_similarities, best_ids);
            let dropped = if are_all { f32::NEG_INFINITY } else { scores[kept - 1] };
            pass.leads.push(best_similarities[self.k - 1] - dropped);
        }
        pass
    }

    /// The similarities of these queries to `kept` documents each, [queries × kept].
    ///
    /// It goes through the documents in the order of their ids, since most are there for several queries: the vectors
    /// of the queries stay in the caches, those of the corpus do not.
    fn similarities(&self, rows: &[u32], ids: &[SampleId], kept: usize) -> Vec<f32> {
        let mut order: Vec<(SampleId, usize)> = ids.iter().copied().zip(0..).collect();
        order.sort_unstable();
        let mut similarities = vec![0.0; ids.len()];
        let (mut queries, mut found, mut done) = (Vec::new(), Vec::new(), 0);
        for slots in order.chunk_by(|a, b| a.0 == b.0) {
            done += slots.len();
            if let Some(&(soon, _)) = order.get(done + PAIRS_AHEAD) {
                self.corpus.prefetch(soon);
            }
            queries.clear();
            queries.extend(slots.iter().map(|&(_, slot)| SampleId(rows[slot / kept])));
            found.clear();
            self.queries.similarities_with(&self.corpus.get(slots[0].0), &queries, &mut found);
            slots.iter().zip(&found).for_each(|(&(_, slot), &similarity)| similarities[slot] = similarity);
        }
        similarities
    }
}

impl Pass {
    fn empty(k: usize, rows: usize) -> Self {
        let (ids, similarities) = (Vec::with_capacity(rows * k), Vec::with_capacity(rows * k));
        Self { nearest: Nearest { k, ids, similarities }, leads: Vec::with_capacity(rows), error: 0.0 }
    }

    fn append(&mut self, mut other: Self) {
        self.nearest.ids.append(&mut other.nearest.ids);
        self.nearest.similarities.append(&mut other.nearest.similarities);
        self.leads.append(&mut other.leads);
        self.error = self.error.max(other.error);
    }
}

/// How many more than 2 k are kept by rough scores, so that few queries must be searched for again even if others lie
/// close behind the nearest.
const MIN_MARGIN: usize = 16;

/// Rough scores count as sure if they differ by this many times the largest error that was seen.
const ERROR_FACTOR: f32 = 1.5;

/// How many queries a thread takes at a time: enough that packing the corpus for them costs little.
const MIN_ROWS: usize = 48;
const MAX_ROWS: usize = 4096;

/// How many samples of the corpus a thread packs at a time.
const COLUMNS_AT_ONCE: usize = 2048;

/// How many pairs ahead of its use a vector of the corpus is prefetched.
const PAIRS_AHEAD: usize = 16;
