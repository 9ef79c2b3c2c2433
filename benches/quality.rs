//! How hard mini-batches are, and how many of their pairs are false negatives by label: random walks over M and α, with
//! nearest first and a uniform shuffle to compare with; and how that goes over the course of an epoch, with exact
//! coverage and the paper's. Each row ends with the prefix bias: the percentages of the tenth of samples with the
//! lowest in-degree, and of the tenth with the highest, that have come by half of the epoch's mini-batches.
//!
//! `cargo bench --bench quality -- [PIPELINE] [--vectors COLUMN] [--plot FILE.svg]`: rows, encoder, B, K (or 32) and label are
//! those of the pipeline file (default `pipelines/text.toml`); with `--vectors` the embeddings are read from a column
//! of the rows instead. Prints Markdown. Every number is the mean over one epoch's mini-batches, seed 1; every graph is
//! built once.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use prosampler::arrow::array::AsArray;
use prosampler::arrow::compute::cast;
use prosampler::arrow::datatypes::{DataType, Schema};
use prosampler::config::{Coverage, EncodeConfig, GraphConfig, SamplerKind, StoreConfig, WalkConfig};
use prosampler::embeddings::EmbeddingTable;
use prosampler::encode::{self, ColumnEncoder, Encoder, PairEncoder, encode_all};
use prosampler::graph::{self, ProximityGraph};
use prosampler::source::{FileSource, Source};
use prosampler::store::Store;
use prosampler::walk::EpochSampler;
use prosampler::{ComputePool, GraphVersion, ModelVersion, PipelineConfig, SampleId};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use rand::seq::SliceRandom;

/// A data set, embedded, with a class for each sample.
struct Data {
    table: EmbeddingTable,
    classes: Vec<u32>,
    batch_size: usize,
    neighbors: usize,
}

/// An epoch.
struct Epoch {
    /// Similarity and share of pairs with the same label of each mini-batch.
    mini_batches: Vec<[f64; 2]>,
    /// The mini-batch in which each sample came first.
    first: Vec<usize>,
    /// The samples with the lowest and with the highest in-degree, a tenth each.
    tenths: [Vec<SampleId>; 2],
}

impl Epoch {
    /// The means over the part of the epoch that begins and ends at these shares of its mini-batches.
    fn mean(&self, from: f64, to: f64) -> [f64; 2] {
        let at = |share: f64| (share * self.mini_batches.len() as f64).round() as usize;
        let part = &self.mini_batches[at(from)..at(to)];
        [0, 1].map(|i| part.iter().map(|m| m[i]).sum::<f64>() / part.len().max(1) as f64)
    }

    /// The percentages of both tenths that have come by half of the mini-batches.
    fn prefix_bias(&self) -> String {
        let half = self.mini_batches.len() / 2;
        let [low, high] = [&self.tenths[0], &self.tenths[1]].map(|tenth| {
            let come = tenth.iter().filter(|id| self.first[id.index()] < half).count();
            100.0 * come as f64 / tenth.len().max(1) as f64
        });
        format!("{low:.0} / {high:.0}")
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut file, mut vectors, mut plot) = (None, None, None);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--vectors" => vectors = arguments.next(),
            "--plot" => plot = arguments.next().map(PathBuf::from),
            _ => file = Some(argument),
        }
    }
    let file = file.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/text.toml").into());
    let config = PipelineConfig::from_file(&file).unwrap_or_else(|e| panic!("{e}"));
    let pool = ComputePool::new(config.compute.threads).expect("a pool");
    let data = Data::load(&config, vectors.as_deref(), &pool);
    let (n, k, b) = (data.table.len(), data.neighbors, data.batch_size);
    println!("N = {n}, d = {}, K = {k}, B = {b}\n", data.table.dimension());
    hardness(&data, &pool);
    let curves = course(&data, &pool);
    if let Some(plot) = plot {
        std::fs::write(&plot, svg(&curves)).unwrap_or_else(|e| panic!("cannot write {}: {e}", plot.display()));
    }
}

/// The pipeline's, or one that reads a column.
fn encoder(config: &PipelineConfig, vectors: Option<&str>, schema: &Schema) -> prosampler::Result<Arc<dyn Encoder>> {
    if let Some(column) = vectors {
        return Ok(Arc::new(ColumnEncoder::new(schema, column)?));
    }
    let of = |column: &Option<String>| {
        let column = column.clone().or_else(|| config.encode.column.clone());
        encode::open(&EncodeConfig { column, ..config.encode.clone() }, schema)
    };
    let pairs = &config.pairs;
    if pairs.anchor.is_none() {
        return of(&None);
    }
    Ok(Arc::new(PairEncoder::new(of(&pairs.anchor)?, of(&pairs.positive)?, pairs.graph_over)?))
}

impl Data {
    fn load(config: &PipelineConfig, vectors: Option<&str>, pool: &ComputePool) -> Self {
        let label = config.report.label.clone().expect("a pipeline with report.label");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let source = runtime.block_on(FileSource::open(&config.source.uri[0])).unwrap_or_else(|e| panic!("{e}"));
        let encoder = encoder(config, vectors, &source.schema()).unwrap_or_else(|e| panic!("{e}"));
        let mut columns = encoder.columns().to_vec();
        if !columns.contains(&label) {
            columns.push(label.clone());
        }
        let store = runtime.block_on(Store::build(&source, &columns, &StoreConfig::default(), &mut |_| {}));
        let store = store.unwrap_or_else(|e| panic!("{e}"));
        let (storage, similarity) = (config.encode.storage, config.graph.similarity);
        let encode = || encode_all(&encoder, &store, storage, similarity, ModelVersion(1), &mut |_| {});
        let table = pool.install(encode).unwrap_or_else(|e| panic!("{e}"));
        let labels = store.select(&[label]).expect("the label");
        let (mut classes, mut numbers) = (Vec::new(), HashMap::new());
        for item in labels.record_batches() {
            let (_, rows) = item.expect("sound rows");
            let texts = cast(rows.column(0), &DataType::Utf8).expect("labels as text");
            for text in texts.as_string::<i32>() {
                let next = numbers.len() as u32;
                classes.push(*numbers.entry(text.unwrap_or_default().to_owned()).or_insert(next));
            }
        }
        let neighbors = config.graph.neighbors.unwrap_or(32);
        Self { table, classes, batch_size: config.walk.batch_size, neighbors }
    }

    fn graph(&self, candidates: usize, pool: &ComputePool) -> ProximityGraph {
        let config = GraphConfig {
            candidates: candidates.into(),
            neighbors: Some(self.neighbors),
            similarity: self.table.similarity(),
            ..GraphConfig::default()
        };
        pool.install(|| graph::build(&self.table, &config, 1, GraphVersion(1)).expect("settings that fit the data"))
    }

    fn epoch(&self, graph: &ProximityGraph, sampler: SamplerKind, alpha: f64, coverage: Coverage) -> Epoch {
        let restart_probability = alpha.into();
        let walk =
            WalkConfig { batch_size: self.batch_size, sampler, restart_probability, coverage, ..WalkConfig::default() };
        let mut sampler = EpochSampler::new(graph.len(), &walk, 1, 0);
        let mut epoch = Epoch { mini_batches: Vec::new(), first: vec![usize::MAX; graph.len()], tenths: tenths(graph) };
        while let Some(draw) = sampler.next(graph) {
            for id in &draw.ids {
                let first = &mut epoch.first[id.index()];
                *first = epoch.mini_batches.len().min(*first);
            }
            // The rest of a division would count as much as a whole one.
            if draw.ids.len() == self.batch_size {
                epoch.mini_batches.push([f64::from(self.table.mean_similarity(&draw.ids)), self.shared(&draw.ids)]);
            }
        }
        epoch
    }

    /// The share of pairs with the same class.
    fn shared(&self, ids: &[SampleId]) -> f64 {
        let mut sizes = HashMap::new();
        ids.iter().for_each(|id| *sizes.entry(self.classes[id.index()]).or_insert(0usize) += 1);
        let pairs = |n: usize| (n * (n - 1) / 2) as f64;
        sizes.into_values().map(pairs).sum::<f64>() / pairs(ids.len())
    }
}

/// The tenths of samples with the lowest and with the highest in-degree; chance decides among equal ones.
fn tenths(graph: &ProximityGraph) -> [Vec<SampleId>; 2] {
    let mut degrees = vec![0u32; graph.len()];
    let mut ids: Vec<_> = (0..graph.len()).map(SampleId::new).collect();
    ids.iter().flat_map(|&id| graph.neighbors(id)).for_each(|to| degrees[to.index()] += 1);
    ids.shuffle(&mut ChaCha8Rng::seed_from_u64(1));
    ids.sort_by_key(|id| degrees[id.index()]);
    let tenth = ids.len() / 10;
    [ids[..tenth].to_vec(), ids[ids.len() - tenth..].to_vec()]
}

const ALPHAS: [f64; 3] = [0.05, 0.2, 0.5];

/// Similarity and false negatives over M and α.
fn hardness(data: &Data, pool: &ComputePool) {
    println!("| sampler | M | α | mean in-batch similarity | pairs with the same label | come by half |");
    println!("|---|---|---|---|---|---|");
    let (n, k) = (data.table.len(), data.neighbors);
    let mut all = vec![k, 100, GraphConfig::default().size(n).candidates, 1000, n - 1];
    all.dedup();
    for candidates in all {
        let graph = data.graph(candidates.max(k), pool);
        let name = if candidates == n - 1 { "N".into() } else { candidates.to_string() };
        let line = |sampler: &str, alpha: &str, epoch: &Epoch| {
            let [similarity, shared] = epoch.mean(0.0, 1.0);
            println!(
                "| {sampler} | {name} | {alpha} | {similarity:.3} | {:.1} % | {} |",
                100.0 * shared,
                epoch.prefix_bias()
            );
        };
        if candidates == k {
            line("uniform", "–", &data.epoch(&graph, SamplerKind::Uniform, 0.0, Coverage::Exact));
        }
        for alpha in ALPHAS {
            let epoch = data.epoch(&graph, SamplerKind::RandomWalk, alpha, Coverage::Exact);
            line("random_walk", &alpha.to_string(), &epoch);
        }
        line("knn", "–", &data.epoch(&graph, SamplerKind::Knn, 0.0, Coverage::Exact));
    }
}

/// Similarity by quarter of an epoch, over M and α; the curves of M = 1000, α = 0.2.
fn course(data: &Data, pool: &ComputePool) -> Vec<(&'static str, Epoch)> {
    println!("\n| coverage | M | α | mini-batches | 1st quarter | 2nd | 3rd | 4th | gain kept | come by half |");
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let mut curves = Vec::new();
    let graph = data.graph(1000, pool);
    let uniform = data.epoch(&graph, SamplerKind::Uniform, 0.0, Coverage::Exact);
    let [base, _] = uniform.mean(0.0, 1.0);
    let line = |name: &str, candidates: usize, alpha: f64, epoch: &Epoch| {
        let quarters = [0.0, 0.25, 0.5, 0.75].map(|from| epoch.mean(from, from + 0.25)[0]);
        let kept = 100.0 * (quarters[3] - base) / (quarters[0] - base);
        let [a, b, c, d] = quarters.map(|q| format!("{q:.3}"));
        let (count, bias) = (epoch.mini_batches.len(), epoch.prefix_bias());
        println!("| {name} | {candidates} | {alpha} | {count} | {a} | {b} | {c} | {d} | {kept:.0} % | {bias} |");
    };
    let (count, bias) = (uniform.mini_batches.len(), uniform.prefix_bias());
    println!("| uniform | – | – | {count} | {base:.3} | | | | | {bias} |");
    for candidates in [1000, 4000] {
        let other = (candidates != 1000).then(|| data.graph(candidates, pool));
        let graph = other.as_ref().unwrap_or(&graph);
        for alpha in ALPHAS {
            for (name, coverage) in [("exact", Coverage::Exact), ("paper", Coverage::Paper)] {
                let epoch = data.epoch(graph, SamplerKind::RandomWalk, alpha, coverage);
                line(name, candidates, alpha, &epoch);
                if (candidates, alpha) == (1000, 0.2) {
                    curves.push((name, epoch));
                }
            }
        }
    }
    curves.push(("uniform", uniform));
    curves
}

/// In-batch similarity over an epoch, a line for each sampler.
fn svg(curves: &[(&str, Epoch)]) -> String {
    const POINTS: usize = 40;
    const COLORS: [&str; 3] = ["#d95f02", "#7570b3", "#666666"];
    let means = |epoch: &Epoch| -> Vec<f64> {
        (0..POINTS).map(|i| epoch.mean(i as f64 / POINTS as f64, (i + 1) as f64 / POINTS as f64)[0]).collect()
    };
    let lines: Vec<_> = curves.iter().map(|(name, epoch)| (name, means(epoch))).collect();
    let high = lines.iter().flat_map(|(_, line)| line).fold(0f64, |high, &y| high.max(y)) * 1.05;
    let (x, y) =
        (|i: usize| 60.0 + 560.0 * (i as f64 + 0.5) / POINTS as f64, |s: f64| 260.0 - 230.0 * s.max(0.0) / high);
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 310\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"720\" height=\"310\" fill=\"white\"/>\n",
    );
    for step in 0..=4 {
        let s = high * f64::from(step) / 4.0;
        let _ = writeln!(
            svg,
            "<path d=\"M60 {0:.0}H620\" stroke=\"#ddd\"/><text x=\"20\" y=\"{1:.0}\">{s:.2}</text>",
            y(s),
            y(s) + 4.0
        );
    }
    for (at, (name, line)) in lines.iter().enumerate() {
        let points: Vec<_> = line.iter().enumerate().map(|(i, &s)| format!("{:.1},{:.1}", x(i), y(s))).collect();
        let color = COLORS[at % COLORS.len()];
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>",
            points.join(" ")
        );
        let end = y(line[POINTS - 1]) + 4.0;
        let _ = writeln!(svg, "<text x=\"628\" y=\"{end:.0}\" fill=\"{color}\">{name}</text>");
    }
    svg.push_str(
        "<text x=\"240\" y=\"295\">mean in-batch similarity over an epoch, from start to end</text>\n</svg>\n",
    );
    svg
}
