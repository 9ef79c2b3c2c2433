//! A pipeline file: whether its source, columns and model can be used, and what it takes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::Schema;

use super::{Findings, item, runs_models};
use crate::cli::ending::SYSTEM;
use crate::cli::progress::{size, thousands};
use crate::config::{EncodeConfig, GraphBuilder, PipelineConfig, Storage};
use crate::encode::{self, tokenizer_of};
use crate::graph::kernel_name;
use crate::source::{column_indices, filtered, unfiltered};
use crate::{ComputePool, Encoder, ErrorKind, Result, machine, pipeline};

/// Checks all that a start checks before it reads rows, and estimates what the run takes.
pub(super) async fn check(config: PipelineConfig, findings: &mut Findings) -> Result<()> {
    item("settings", "valid, each by itself")?;
    let rows = check_source(&config, findings).await?;
    let encoder = check_encoder(&config, rows.is_usable, findings).await?;
    let config = config.resolved(1);
    let dimension = encoder.as_ref().map(Encoder::dimension).or(config.encode.dimension);
    if let (Some(rows), Some(dimension)) = (rows.count, dimension) {
        print_graph(&config, rows, dimension)?;
        check_memory(&Estimate::new(&config, rows, dimension), findings)?;
    } else {
        item("memory", "cannot be estimated before the rows are read")?;
    }
    check_cache(&config, findings)
}

/// What is known about the rows without reading them.
struct Rows {
    /// How many there are, before a filter.
    count: Option<usize>,
    /// Whether the source opens and has all columns.
    is_usable: bool,
}

async fn check_source(config: &PipelineConfig, findings: &mut Findings) -> Result<Rows> {
    let opened = unfiltered(&config.source, &config.sources).await;
    let count = opened.as_ref().ok().and_then(|source| source.rows());
    let opened = opened.and_then(|source| filtered(source, config.source.filter.as_deref()));
    let source = match opened {
        Ok(source) => source,
        Err(error) => {
            findings.failed("source", &error, "mend source.uri, source.filter or the files")?;
            return Ok(Rows { count, is_usable: false });
        }
    };
    let number = count
        .map_or("a number of rows that only reading tells".to_owned(), |n| format!("{} rows", thousands(n as u64)));
    let of_filter = if source.filter().is_some() { ", of which source.filter keeps some" } else { "" };
    item("source", &format!("{}: {number}{of_filter}", source.uri()))?;

    let schema = source.schema();
    let missing = |column: String| column_indices(source.uri(), &schema, &[column]).err();
    let missing: Vec<_> = named_columns(config).into_iter().filter_map(missing).collect();
    for error in &missing {
        findings.failed("columns", error, "name columns that the source has")?;
    }
    if missing.is_empty() {
        item("columns", "all that the settings name are there")?;
    }
    Ok(Rows { count, is_usable: missing.is_empty() })
}

/// The columns that the settings name, each once.
fn named_columns(config: &PipelineConfig) -> Vec<String> {
    let encode = &config.encode;
    let of_views = encode.views.iter().flat_map(|view| [&view.column, &view.pair_column]);
    let of_encode = [&encode.column, &encode.pair_column];
    let of_walk = [&config.walk.length_column, &config.walk.weight_column];
    let of_shard = config.shard.by.iter().filter(|_| config.shard.count > 1);
    let one = of_views.chain(of_encode).chain([&config.report.label]).chain(of_walk).flatten().chain(of_shard);
    let of_rules = config.guards.distinct.iter().chain(&config.mask.same).chain(&config.walk.same);
    let several = config.source.columns.iter().flatten().chain(of_rules);
    let mut columns: Vec<String> =
        several.chain(one).chain(config.pairs.columns().into_iter().flatten()).cloned().collect();
    columns.sort_unstable();
    columns.dedup();
    columns
}

/// Opens the model with its tokenizer, and, if the source can be used, all else that a start opens.
async fn check_encoder(
    config: &PipelineConfig,
    has_source: bool,
    findings: &mut Findings,
) -> Result<Option<Arc<dyn Encoder>>> {
    let needs_model = runs_models(&config.encode);
    if !has_source && !needs_model {
        return Ok(None);
    }
    let opened = if has_source {
        pipeline::dry_start(config.clone()).await
    } else {
        let pool = ComputePool::new(config.compute.threads)?;
        let encode = config.encode.clone();
        let pairs = config.pairs.clone();
        pool.run("model", move || Ok((encode::open_of(&encode, &pairs, &Schema::empty())?, None))).await
    };
    let name = if needs_model { "model" } else { "vectors" };
    let (encoder, guide) = match opened {
        Ok(encoders) => encoders,
        Err(error) => {
            let name = match error.kind() {
                ErrorKind::Config => "settings",
                ErrorKind::Source => "source",
                _ => name,
            };
            findings.failed(name, &error, &format!("mend what the line `{name}` says"))?;
            return Ok(None);
        }
    };
    let numbers = |of: &dyn Encoder| format!("{}: {} numbers a vector", of.name(), thousands(of.dimension() as u64));
    item(name, &numbers(&encoder))?;
    if let Some(guide) = guide {
        item("guide", &numbers(&guide))?;
    }
    for tokenizer in tokenizers(&config.encode) {
        item("tokenizer", &tokenizer.display().to_string())?;
    }
    Ok(Some(encoder))
}

/// The files of the tokenizers; those of models that read no texts are not there.
fn tokenizers(encode: &EncodeConfig) -> Vec<PathBuf> {
    let of = |encode: &EncodeConfig| encode.tokenizer.clone().or(encode.model.as_deref().map(tokenizer_of));
    let of_views = encode.views.iter().map(|view| of(&view.over(encode)));
    let mut files: Vec<_> = if encode.views.is_empty() { vec![of(encode)] } else { of_views.collect() };
    files.dedup();
    files.into_iter().flatten().filter(|file| file.is_file()).collect()
}

/// The bytes that a run's embeddings and its graph take in memory.
#[derive(Debug, PartialEq)]
struct Estimate {
    embeddings: u64,
    graph: u64,
    /// Whether refreshes make both anew while the old ones are in use.
    is_refreshed: bool,
}

impl Estimate {
    fn new(config: &PipelineConfig, rows: usize, dimension: usize) -> Self {
        let (number, vector) = match config.encode.storage {
            Storage::F32 => (4, 0),
            Storage::F16 => (2, 0),
            Storage::I8 => (1, 4),
        };
        let of_pair = if config.pairs.columns().is_some() { 4 } else { 0 };
        let neighbors = config.graph.size(rows).neighbors.min(rows.saturating_sub(1));
        let rows = rows as u64;
        let refresh = &config.refresh;
        Self {
            embeddings: rows * (dimension as u64 * number + vector + of_pair),
            // An id and a similarity a neighbor.
            graph: rows * neighbors as u64 * (4 + 4),
            is_refreshed: refresh.every_steps.is_some() || refresh.is_by_clock(),
        }
    }

    fn most(&self) -> u64 {
        (self.embeddings + self.graph) * if self.is_refreshed { 2 } else { 1 }
    }
}

fn print_graph(config: &PipelineConfig, rows: usize, dimension: usize) -> Result<()> {
    let size = config.graph.size(rows);
    let others = rows.saturating_sub(1);
    let neighbors = thousands(size.neighbors.min(others) as u64);
    let of = match config.graph.builder {
        GraphBuilder::Sampled => format!("{} candidates", thousands(size.candidates.min(others) as u64)),
        GraphBuilder::Exact | GraphBuilder::NnDescent | GraphBuilder::Hnsw => "all".to_owned(),
    };
    let kernel = kernel_name(&config.graph, rows, dimension);
    let kernel = kernel.map(|name| format!(", scored in {name}")).unwrap_or_default();
    item("graph", &format!("{neighbors} neighbors of {of}{kernel}"))
}

fn check_memory(estimate: &Estimate, findings: &mut Findings) -> Result<()> {
    let twice = if estimate.is_refreshed { ", twice while a refresh makes them anew" } else { "" };
    let most = estimate.most();
    item(
        "memory",
        &format!(
            "about {} (an estimate): embeddings {}, graph {}{twice}",
            size(most),
            size(estimate.embeddings),
            size(estimate.graph),
        ),
    )?;
    let available = machine::available_memory();
    if let Some(available) = available.filter(|available| most > *available) {
        item("", &format!("only {} are available", size(available)))?;
        findings.add(SYSTEM, "take a machine with more memory, set encode.storage = \"i8\", or lower graph.neighbors");
    }
    Ok(())
}

fn check_cache(config: &PipelineConfig, findings: &mut Findings) -> Result<()> {
    let Some(dir) = &config.store.cache_dir else {
        return item("cache", "none: rows are read and embedded again by each run (store.cache_dir)");
    };
    // The folder is made by the first run.
    let there = dir.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    let free = free_space(there).map(|bytes| format!(", {} free", size(bytes))).unwrap_or_default();
    item("cache", &format!("{}{free}", dir.display()))?;
    if let Err(cause) = tempfile::tempfile_in(there) {
        item("", &format!("cannot write in `{}`: {cause}", there.display()))?;
        findings.add(SYSTEM, "let store.cache_dir be a folder that can be written to");
    }
    Ok(())
}

/// The bytes that this user can still write to the disk of a folder; `None` if the system does not tell.
#[allow(clippy::unnecessary_cast, reason = "the types of the two fields differ from system to system")]
fn free_space(folder: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let path = std::ffi::CString::new(folder.as_os_str().as_bytes()).ok()?;
        let mut about = std::mem::MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: the path ends with a zero, and the call writes to `about` alone.
        let is_known = unsafe { libc::statvfs(path.as_ptr(), about.as_mut_ptr()) } == 0;
        // SAFETY: a call that succeeds has written all of it.
        is_known.then(|| unsafe { about.assume_init() }).map(|about| about.f_bavail as u64 * about.f_frsize as u64)
    }
    #[cfg(not(unix))]
    {
        let _ = folder;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(settings: &[&str], rows: usize, dimension: usize) -> Estimate {
        let settings: Vec<_> = [&["source.uri=a", "encode.feature=vector", "encode.column=v"], settings].concat();
        let settings: Vec<_> = settings.into_iter().map(str::to_owned).collect();
        Estimate::new(&PipelineConfig::from_settings(&settings).unwrap().resolved(1), rows, dimension)
    }

    #[test]
    fn memory_is_what_the_numbers_take() {
        let expected = |embeddings, graph, is_refreshed| Estimate { embeddings, graph, is_refreshed };
        let size = ["graph.candidates=4000", "graph.neighbors=32"];
        assert_eq!(estimate(&size, 117_659, 64), expected(117_659 * 64 * 4, 117_659 * 32 * 8, false));
        let settings = [&size[..], &["encode.storage=i8", "refresh.every_steps=10"]].concat();
        let refreshed = estimate(&settings, 1000, 64);
        assert_eq!(refreshed, expected(1000 * (64 + 4), 1000 * 32 * 8, true));
        assert_eq!(refreshed.most(), 2 * (68_000 + 256_000));
        // No sample has more neighbors than there are others.
        assert_eq!(estimate(&["encode.storage=f16", "graph.neighbors=8"], 5, 10), expected(5 * 20, 5 * 4 * 8, false));
        // Pairs have a similarity of their own.
        let pairs = ["pairs.anchor=a", "pairs.positive=b", "graph.candidates=100", "graph.neighbors=10"];
        assert_eq!(estimate(&pairs, 1000, 8), expected(1000 * (32 + 4), 1000 * 80, false));
    }
}
