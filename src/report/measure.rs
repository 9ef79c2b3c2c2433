//! What a run was like, measured once it has ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use super::bound::Bound;
use super::facts::{
    Audit, DataFacts, DriftFacts, Example, GraphFacts, HubFacts, MemoryFacts, PairFacts, Report, SampleFacts,
};
use super::hardness::{Judge, Measurement};
use super::labels::Labels;
use super::pair_counts::PairCounts;
use crate::config::{Coverage, PipelineConfig, SamplerKind, WalkConfig};
use crate::error::{Error, Result};
use crate::graph::recall;
use crate::refresh::{Drift, Snapshot};
use crate::sample::{GraphVersion, ModelVersion, SampleId};
use crate::stream::MiniBatch;
use crate::walk::WalkCounts;

/// What a run has delivered, for a [`Report`]. Takes 4 bytes a sample delivered.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    mini_batches: Vec<(u64, Vec<SampleId>)>,
    warm_up: u64,
    counts: WalkCounts,
    drift: Vec<DriftFacts>,
    last: Option<Arc<Snapshot>>,
}

impl Seen {
    /// Adds a mini-batch, drawn from `snapshot` or one shortly before. A new snapshot is compared with the last one.
    pub fn add(&mut self, mini_batch: &MiniBatch, snapshot: Option<Arc<Snapshot>>) {
        self.mini_batches.push((mini_batch.step, mini_batch.ids.clone()));
        self.warm_up += u64::from(mini_batch.is_warm_up);
        self.counts += mini_batch.counts;
        let Some(snapshot) = snapshot else { return };
        if let Some(last) = self.last.as_ref().filter(|last| last.graph_version() != snapshot.graph_version()) {
            let Drift { cosine_shift, overlap, .. } = Drift::between(&last.embeddings, &snapshot.embeddings);
            let (GraphVersion(graph_version), ModelVersion(model_version)) =
                (snapshot.graph_version(), snapshot.model_version());
            let step = mini_batch.step;
            self.drift.push(DriftFacts { step, graph_version, model_version, cosine_shift, overlap });
        }
        self.last = Some(snapshot);
    }
}

impl Report {
    /// Looks at what a run has delivered. Costs an epoch each of a uniform and a kNN sampler, at most `MEASURED`
    /// mini-batches, and 1,256 × N × d multiplications, on the current rayon pool.
    ///
    /// # Errors
    /// A setting's fault if nothing was delivered, or nothing is embedded yet; the errors of [`Observer::observe`] for
    /// `report.label`; those of reading rows.
    ///
    /// [`Observer::observe`]: super::Observer::observe
    pub fn new(config: &PipelineConfig, seen: &Seen) -> Result<Self> {
        let config = &config.clone().resolved(1);
        let nothing = "makes a run that ends before it has an embedding; make it longer, or leave the warm-up out";
        let snapshot = seen.last.as_deref().ok_or_else(|| Error::setting("stream.epochs", nothing))?;
        let table = &snapshot.embeddings;
        let bound = Bound::of(table, config.seed);
        let labels = config.report.label.as_deref();
        let labels = labels.map(|column| Labels::of(&snapshot.store, column)).transpose()?;

        let in_epochs = snapshot.in_epochs();
        let judge = Judge { table, guide: table, bound, labels: labels.as_ref(), in_epochs: &in_epochs };
        let mut run = Measurement::new(judge);
        seen.mini_batches.iter().for_each(|(_, ids)| run.add(ids));
        let (run, pairs) = run.finish(config.walk.sampler.name());
        let examples = examples(seen, &run.similarity);
        let mut hardness = vec![run];
        let mini_batches = seen.mini_batches.len().min(MEASURED);
        let others = [SamplerKind::Knn, SamplerKind::Uniform].into_iter().filter(|&kind| kind != config.walk.sampler);
        for sampler in others {
            let walk =
                WalkConfig { sampler, coverage: Coverage::Exact, negatives: 0, warm_up: None, ..config.walk.clone() };
            let mut other = Measurement::new(judge);
            other.draw(&snapshot.graph, &snapshot.guards, &walk, config.seed, mini_batches);
            hardness.push(other.finish(sampler.name()).0);
        }

        let graph = GraphFacts::of(snapshot, config.seed);
        let audit = Audit::of(seen, &pairs);
        let named = examples.iter().flat_map(|example| example.ids.iter().copied());
        let named = named.chain(audit.worst.iter().flat_map(|pair| [pair.a, pair.b]));
        let named = named.chain(graph.hubs.iter().map(|hub| hub.id));
        let mut ids: Vec<SampleId> = named.map(SampleId).collect();
        ids.sort_unstable();
        ids.dedup();
        let rows = snapshot.store.gather(&ids)?;
        let size = config.graph.size(table.present());
        Ok(Self {
            version: 1,
            data: DataFacts {
                uri: snapshot.store.uri().to_owned(),
                samples: table.len(),
                skipped: table.skipped(),
                inconsistent: table.inconsistent(),
                in_corpus: snapshot.facts.in_corpus(),
                dimension: table.dimension(),
                batch_size: config.walk.batch_size,
                candidates: size.candidates,
                neighbors: snapshot.graph.degree(),
            },
            estimate: bound.to_string(),
            hardness,
            audit,
            samples: samples(&ids, &rows, config),
            graph,
            drift: seen.drift.clone(),
            examples,
            memory: MemoryFacts {
                embeddings: (table.len() * table.bytes_per_sample()) as u64,
                graph: (snapshot.graph.len() * snapshot.graph.degree() * 8) as u64,
            },
            #[cfg(feature = "cli")]
            rows,
        })
    }

    /// The row of a sample in `rows`.
    #[cfg(feature = "cli")]
    pub(crate) fn row_of(&self, id: u32) -> Option<usize> {
        self.samples.keys().position(|&known| known == id)
    }
}

impl Audit {
    fn of(seen: &Seen, pairs: &PairCounts) -> Self {
        let facts =
            |&(similarity, SampleId(a), SampleId(b)): &(f32, SampleId, SampleId)| PairFacts { a, b, similarity };
        Self {
            mini_batches: seen.mini_batches.len(),
            warm_up: seen.warm_up,
            pairs: pairs.pairs,
            likely_false: pairs.above,
            near_copies: pairs.copies,
            refused: seen.counts.refused(),
            short: seen.counts.short,
            worst: pairs.worst.iter().map(facts).collect(),
        }
    }
}

impl GraphFacts {
    fn of(snapshot: &Snapshot, seed: u64) -> Self {
        let graph = &snapshot.graph;
        let degrees = graph.in_degrees();
        let mut in_degrees = Vec::new();
        let mut hubs: Vec<HubFacts> = Vec::new();
        for (id, &in_degree) in degrees.iter().enumerate() {
            let id = SampleId::new(id);
            if graph.is_skipped(id) {
                continue;
            }
            let bin = in_degree.checked_ilog2().map_or(0, |log| log as usize + 1);
            in_degrees.resize(in_degrees.len().max(bin + 1), 0);
            in_degrees[bin] += 1;
            let at = hubs.partition_point(|hub| hub.in_degree >= in_degree);
            if at < HUBS {
                hubs.insert(at, HubFacts { id: id.0, in_degree });
                hubs.truncate(HUBS);
            }
        }
        let recall = recall(graph, &snapshot.embeddings, RECALL_ROWS, seed);
        Self { statistics: graph.statistics(), recall, in_degrees, hubs }
    }
}

/// The first mini-batch, one of median similarity, and the hardest one.
fn examples(seen: &Seen, similarity: &[f32]) -> Vec<Example> {
    let mut by_similarity: Vec<usize> = (0..similarity.len()).collect();
    by_similarity.sort_by(|&a, &b| similarity[a].total_cmp(&similarity[b]));
    let chosen = [
        ("first", (!by_similarity.is_empty()).then_some(0)),
        ("median", by_similarity.get(by_similarity.len() / 2).copied()),
        ("hardest", by_similarity.last().copied()),
    ];
    let example = |(why, at): (&'static str, Option<usize>)| {
        let at = at?;
        let (step, ids) = &seen.mini_batches[at];
        let ids = ids.iter().take(SHOWN).map(|id| id.0).collect();
        Some(Example { why, step: *step, similarity: similarity[at], ids })
    };
    chosen.into_iter().filter_map(example).collect()
}

/// What samples are, in words.
fn samples(ids: &[SampleId], rows: &RecordBatch, config: &PipelineConfig) -> BTreeMap<u32, SampleFacts> {
    let label = config.report.label.as_ref().and_then(|column| texts(rows, column));
    let columns: Vec<_> = shown_columns(rows, config).iter().filter_map(|column| texts(rows, column)).collect();
    let facts = |(row, id): (usize, &SampleId)| {
        let of = |column: &Vec<Option<String>>| column[row].clone();
        let texts = columns.iter().filter_map(of).collect();
        (id.0, SampleFacts { label: label.as_ref().and_then(of), texts })
    };
    ids.iter().enumerate().map(facts).collect()
}

/// The columns whose values say what a sample is: both sides of a pair, the texts that are embedded, or else the first
/// column of texts that is not the label.
fn shown_columns(rows: &RecordBatch, config: &PipelineConfig) -> Vec<String> {
    let is_text = |column: &&String| {
        rows.column_by_name(column).is_some_and(|values| {
            matches!(values.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
        })
    };
    let pairs = config.pairs.columns().into_iter().flatten();
    let views = config.encode.views.iter().filter_map(|view| view.column.as_ref());
    let embedded: Vec<String> = pairs.chain(views).chain(&config.encode.column).filter(is_text).cloned().collect();
    if !embedded.is_empty() {
        return embedded;
    }
    let schema = rows.schema();
    let names = schema.fields().iter().map(|field| field.name());
    names.filter(|name| Some(*name) != config.report.label.as_ref()).filter(is_text).take(1).cloned().collect()
}

/// The values of a column as texts.
fn texts(rows: &RecordBatch, column: &str) -> Option<Vec<Option<String>>> {
    let values = cast(rows.column_by_name(column)?, &DataType::Utf8View).ok()?;
    Some(values.as_string_view().iter().map(|text| text.map(str::to_owned)).collect())
}

/// How many mini-batches of other samplers are drawn at most.
const MEASURED: usize = 500;

/// How many samples the recall of the graph is estimated by.
const RECALL_ROWS: usize = 256;

/// How many hubs are named.
const HUBS: usize = 12;

/// How many samples of an example are shown.
const SHOWN: usize = 12;
