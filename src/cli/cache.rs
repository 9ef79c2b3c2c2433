//! `prosampler cache`: lists, checks or removes the rows and embeddings that runs keep.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use clap::{Args, Subcommand};

use super::ending::Ending;
use super::progress::{size, thousands};
use crate::arrow_file::ArrowFile;
use crate::encode::cache::{FOLDER, folders};
use crate::store::cached::cached;
use crate::{Error, PipelineConfig, Result};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Cache {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Says which rows and embeddings are kept, how many, how large, and since when they have not been used.
    List(Place),
    /// Checks all of it against the checksums that it was written with.
    Verify(Place),
    /// Removes it; what a later run needs is made again.
    Clear(Clear),
}

#[derive(Debug, Args)]
struct Place {
    /// A pipeline file, for its store.cache_dir and encode.cache_dir, or such a folder.
    place: PathBuf,
}

#[derive(Debug, Args)]
struct Clear {
    #[command(flatten)]
    place: Place,

    /// Only the rows.
    #[arg(long, conflicts_with = "embeddings")]
    rows: bool,

    /// Only the embeddings.
    #[arg(long)]
    embeddings: bool,
}

impl Cache {
    pub fn run(self) -> Result<Ending> {
        match self.action {
            Action::List(place) => list(&CacheContent::in_place(&place.place)?)?,
            Action::Verify(place) => verify(&CacheContent::in_place(&place.place)?)?,
            Action::Clear(Clear { place, rows, embeddings }) => {
                let mut content = CacheContent::in_place(&place.place)?;
                content.items.retain(|item| if item.is_rows { !embeddings } else { !rows });
                clear(&content)?;
            }
        }
        Ok(Ending::Done)
    }
}

/// What the cache folders hold.
struct CacheContent {
    items: Vec<Item>,
}

/// The rows of one pass over a source, or the embeddings of one encoder.
struct Item {
    is_rows: bool,
    /// The file, or the folder.
    path: PathBuf,
    files: Vec<PathBuf>,
    /// The number of rows, if it is known.
    rows: Option<usize>,
    bytes: u64,
    used: Option<SystemTime>,
    /// Its source or encoder, or what is wrong with it.
    description: String,
}

impl CacheContent {
    fn in_place(place: &Path) -> Result<Self> {
        let (rows, embeddings) = if place.is_dir() {
            (Some(place.to_owned()), vec![place.to_owned(), place.join(FOLDER)])
        } else {
            let config = PipelineConfig::from_file(place)?;
            let below = config.store.cache_dir.as_ref().map(|dir| dir.join(FOLDER));
            (config.store.cache_dir, config.encode.cache_dir.or(below).into_iter().collect())
        };
        let mut items = Vec::new();
        for (path, opened) in rows.map(|dir| cached(&dir)).transpose()?.unwrap_or_default() {
            let files = vec![path.clone()];
            items.push(match opened {
                Ok(rows) => Item {
                    is_rows: true,
                    path,
                    files,
                    rows: Some(rows.rows),
                    bytes: rows.bytes,
                    used: rows.written,
                    description: source_name(&rows.uris),
                },
                Err(error) => {
                    let bytes = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
                    Item { is_rows: true, path, files, rows: None, bytes, used: None, description: error.to_string() }
                }
            });
        }
        for dir in embeddings {
            let found = folders(&dir).map_err(|cause| Error::Io { action: "list", path: dir.clone(), cause })?;
            items.extend(found.into_iter().map(|folder| Item {
                is_rows: false,
                path: folder.dir,
                rows: Some(folder.files.iter().filter_map(|file| rows_by_name(file)).sum()),
                files: folder.files,
                bytes: folder.bytes,
                used: folder.used,
                description: folder.identity.lines().next().unwrap_or_default().to_owned(),
            }));
        }
        Ok(Self { items })
    }
}

fn list(content: &CacheContent) -> Result<()> {
    for item in &content.items {
        let rows = item.rows.map_or_else(|| "?".to_owned(), |rows| thousands(rows as u64));
        let kind = if item.is_rows { "rows" } else { "embeddings" };
        say!("{kind:<11}{rows:>13}{:>12}  {:<14}  {}", size(item.bytes), age(item.used), item.description)?;
        say!("{:<11}{}", "", item.path.display())?;
    }
    let bytes = content.items.iter().map(|item| item.bytes).sum();
    say!("{} in all", size(bytes))
}

fn verify(content: &CacheContent) -> Result<()> {
    let begun = Instant::now();
    let mut bytes = 0;
    let mut files = 0;
    let mut damaged = None;
    for path in content.items.iter().flat_map(|item| &item.files) {
        files += 1;
        bytes += std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        if let Err(error) = ArrowFile::open(path).and_then(|file| file.verify()) {
            say!("{error}")?;
            damaged.get_or_insert_with(|| path.clone());
        }
    }
    let rate = bytes as f64 / 1e9 / begun.elapsed().as_secs_f64().max(1e-9);
    say!("{} files, {}, at {rate:.1} GB/s", thousands(files), size(bytes))?;
    match damaged {
        None => say!("all as they were written"),
        Some(path) => {
            let remedy = Some("remove it, and it is made again when it is needed".to_owned());
            Err(Error::Damaged { path, place: None, remedy })
        }
    }
}

fn clear(content: &CacheContent) -> Result<()> {
    let mut bytes = 0;
    for item in &content.items {
        let removed = if item.is_rows { std::fs::remove_file(&item.path) } else { std::fs::remove_dir_all(&item.path) };
        removed.map_err(|cause| Error::Io { action: "remove", path: item.path.clone(), cause })?;
        bytes += item.bytes;
    }
    say!("{} removed", size(bytes))
}

/// The number of rows in a file of embeddings, with which its name ends.
fn rows_by_name(path: &Path) -> Option<usize> {
    path.file_stem()?.to_str()?.rsplit_once('-')?.1.parse().ok()
}

fn source_name(uris: &[String]) -> String {
    match uris {
        [] => "an unknown source".to_owned(),
        [uri] => uri.clone(),
        [first, rest @ ..] => format!("{first} and {} more", thousands(rest.len() as u64)),
    }
}

/// How long ago it was.
fn age(time: Option<SystemTime>) -> String {
    let since = time.and_then(|time| SystemTime::now().duration_since(time).ok()).unwrap_or(Duration::ZERO);
    let ago = |unit_seconds: u64, unit: &str| {
        let count = since.as_secs() / unit_seconds;
        format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
    };
    match since.as_secs() {
        0..3600 => ago(60, "minute"),
        3600..86400 => ago(3600, "hour"),
        _ => ago(86400, "day"),
    }
}

/// What `--help` ends with.
const EXAMPLES: &str = "\
Examples:
  prosampler cache list pipelines/text.toml
  prosampler cache clear pipelines/text.toml --embeddings";
