//! Keeps embeddings on disk from run to run.
//!
//! A run that was killed while it embedded goes on, and a second run over the same rows with the same model embeds
//! nothing. Processes that run at the same time, such as the ranks of a job, share the work.
//!
//! Each encoder has a folder, named by its [identity](Encoder::identity), with a file for each record batch of rows,
//! named by the content of the rows. It therefore does not matter where the rows are, which run they belong to, and
//! what was added around them. The vectors are those that the encoder returned, in f32, whatever the table stores.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use arrow::array::{ArrayRef, AsArray, FixedSizeListArray, Float32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Float32Type, Schema};

use super::{BadRow, Encoded, Encoder};
use crate::arrow_file::{self, FORMAT_VERSION, checksum, checksum_of_rows, remove_unfinished, to_text};
use crate::claim::Claim;
use crate::config::{FeatureKind, PipelineConfig, StreamConfig};
use crate::error::{Error, Result};
use crate::telemetry;

/// The folder with the embeddings of all encoders.
#[derive(Debug)]
pub(crate) struct EmbeddingCache {
    dir: PathBuf,
    /// The most bytes that the folder may take.
    limit: u64,
    /// The number of ranks, which share the work.
    world_size: usize,
    rank: usize,
    reused: AtomicU64,
}

/// The folder with the embeddings of one encoder.
#[derive(Debug)]
pub(super) struct EncoderCache<'a> {
    cache: &'a EmbeddingCache,
    dir: PathBuf,
    dimension: usize,
    /// The bytes that the embeddings of all encoders take.
    taken: AtomicU64,
    /// Whether nothing more is written, since the limit is reached or writing has failed.
    is_full: AtomicBool,
    /// Whether record batches cannot be claimed, so that this process embeds all that are missing.
    is_unshared: AtomicBool,
}

impl EmbeddingCache {
    /// Opens the cache that the settings ask for: a folder of its own, or one in the cache folder of the rows.
    ///
    /// Without one, ranks cannot share the work, which is logged.
    pub fn of(config: &PipelineConfig) -> Option<Arc<Self>> {
        let PipelineConfig { encode, stream, .. } = config;
        let StreamConfig { world_size, rank, .. } = *stream;
        let dir = cache_dir(config).filter(|_| encode.cache_limit > 0);
        if dir.is_none() && world_size > 1 && encode.kind() != FeatureKind::Vector {
            telemetry::embeds_alone(world_size);
        }
        Some(Arc::new(Self { dir: dir?, limit: encode.cache_limit, world_size, rank, reused: AtomicU64::new(0) }))
    }

    /// Returns how many samples' embeddings were read from the cache so far.
    pub fn reused(&self) -> u64 {
        self.reused.load(Relaxed)
    }

    /// Opens the folder of an encoder; `None` if the encoder has no identity.
    pub(super) fn for_encoder(&self, encoder: &dyn Encoder) -> Option<EncoderCache<'_>> {
        let identity = encoder.identity();
        if identity.is_none() && self.world_size > 1 {
            telemetry::no_identity(encoder.name(), self.world_size);
        }
        let identity = identity?;
        let dir = self.dir.join(to_text(checksum(identity.as_bytes())));
        let mut encoder_cache = EncoderCache {
            cache: self,
            dir,
            dimension: encoder.dimension(),
            taken: AtomicU64::new(0),
            is_full: AtomicBool::new(false),
            is_unshared: AtomicBool::new(false),
        };
        match encoder_cache.mark_used(&identity) {
            Ok(taken) => encoder_cache.taken = AtomicU64::new(taken),
            Err(cause) => encoder_cache.stop_writing(&cause),
        }
        Some(encoder_cache)
    }
}

impl EncoderCache<'_> {
    /// Writes the encoder's identity, marks the folder as used now, and returns the bytes that all folders take.
    fn mark_used(&self, identity: &str) -> std::io::Result<u64> {
        std::fs::create_dir_all(&self.dir)?;
        let path = self.dir.join(IDENTITY_FILE);
        if std::fs::read_to_string(&path).ok().as_deref() != Some(identity) {
            std::fs::write(&path, identity)?;
        }
        std::fs::File::options().append(true).open(&path)?.set_modified(SystemTime::now())?;
        remove_unfinished(&self.dir)?;
        Ok(folders(&self.cache.dir)?.iter().map(|folder| folder.bytes).sum())
    }

    /// Returns the path of the file that has, or will have, the embeddings of these rows.
    pub fn path(&self, rows: &RecordBatch) -> Result<PathBuf> {
        let key = checksum_of_rows(rows).map_err(|cause| Error::Arrow { action: "look at rows", cause })?;
        Ok(self.dir.join(format!("{}-{}.arrow", to_text(key), rows.num_rows())))
    }

    /// Claims the record batch whose embeddings will be in this file; `None` while another process has claimed it.
    ///
    /// `awaited` is how long this process has known of that other claim, which counts for ten minutes: its process may
    /// hang, or its host may be gone without the lock being released. Without locks, or if this process keeps nothing,
    /// it embeds all that is missing.
    pub fn claim(&self, path: &Path, awaited: Duration) -> Option<Claim> {
        if self.is_full.load(Relaxed) || self.is_unshared.load(Relaxed) {
            return Some(Claim::unshared());
        }
        match Claim::of(path, self.cache.rank) {
            Ok(None) if awaited >= MAX_CLAIM_AGE => telemetry::claim_ignored(path, &Claim::holder(path), awaited),
            Ok(claim) => return claim,
            Err(cause) => {
                if !self.is_unshared.swap(true, Relaxed) {
                    telemetry::not_claimed(path, &cause);
                }
            }
        }
        Some(Claim::unshared())
    }

    /// Whether other processes can find what this one embeds.
    pub fn is_shared(&self) -> bool {
        !self.is_full.load(Relaxed) && !self.is_unshared.load(Relaxed)
    }

    /// Keeps the embeddings of a record batch, and says whether they could be kept.
    pub fn keep(&self, path: &Path, vectors: &[f32], encoded: &Encoded) -> bool {
        if self.is_full.load(Relaxed) {
            return false;
        }
        if !self.fits_limit(size_of_val(vectors) as u64) {
            self.stop_writing(&"encode.cache_limit is reached");
            return false;
        }
        let written = self.write(path, vectors, encoded);
        if let Err(error) = &written {
            self.stop_writing(error);
        }
        written.is_ok()
    }

    /// Counts samples whose embeddings were read.
    pub fn count_reused(&self, samples: usize) {
        self.cache.reused.fetch_add(samples as u64, Relaxed);
    }

    /// Counts the bytes of a file that another process has added.
    pub fn count_added(&self, vectors: &[f32]) {
        self.taken.fetch_add(size_of_val(vectors) as u64, Relaxed);
    }

    /// Fills `vectors` [rows × dimension] from a file, and returns what the encoder returned for these rows.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Damaged`]; [`Error::Corrupt`] for a file with other embeddings.
    pub fn read(&self, path: &Path, rows: usize, vectors: &mut [f32]) -> Result<Encoded> {
        arrow_file::open_one(path, FORMAT, "embeddings that this version reads", |schema, batch| {
            let list = batch.column_by_name("embedding").and_then(|column| column.as_fixed_size_list_opt());
            let numbers = list.and_then(|list| list.values().as_primitive_opt::<Float32Type>());
            let numbers = numbers.filter(|numbers| numbers.len() == vectors.len());
            vectors.copy_from_slice(numbers.ok_or("it has other vectors than these rows need")?.values());
            let pairs = batch.column_by_name("pair_similarity").and_then(|c| c.as_primitive_opt::<Float32Type>());
            let bad = schema.metadata().get(BAD_ROWS).map_or("[]", String::as_str);
            let bad: Vec<(usize, String, String)> = serde_json::from_str(bad).map_err(|e| e.to_string())?;
            let bad: Vec<_> = bad.into_iter().map(|(row, column, reason)| BadRow { row, column, reason }).collect();
            if bad.iter().any(|bad| bad.row >= rows) || pairs.is_some_and(|pairs| pairs.len() != rows) {
                return Err(format!("it is of more or fewer than {rows} rows"));
            }
            Ok(Encoded { bad, pair_similarities: pairs.map(|pairs| pairs.values().to_vec()).unwrap_or_default() })
        })
    }

    fn write(&self, path: &Path, vectors: &[f32], encoded: &Encoded) -> Result<()> {
        let failed = |cause| Error::Arrow { action: "keep embeddings", cause };
        let width = i32::try_from(self.dimension).unwrap_or(i32::MAX);
        let item = Arc::new(Field::new_list_field(DataType::Float32, false));
        let numbers = Arc::new(Float32Array::from(vectors.to_vec()));
        let embeddings = FixedSizeListArray::try_new(item, width, numbers, None).map_err(failed)?;
        let mut columns = vec![("embedding", Arc::new(embeddings) as ArrayRef)];
        if !encoded.pair_similarities.is_empty() {
            columns.push(("pair_similarity", Arc::new(Float32Array::from(encoded.pair_similarities.clone()))));
        }
        let bad: Vec<_> = encoded.bad.iter().map(|bad| (bad.row, &bad.column, &bad.reason)).collect();
        let bad =
            serde_json::to_string(&bad).map_err(|e| failed(arrow::error::ArrowError::JsonError(e.to_string())))?;
        let fields: Vec<_> =
            columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), false)).collect();
        let metadata = [(FORMAT_VERSION, FORMAT.to_owned()), (BAD_ROWS, bad)];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value));
        let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        arrow_file::save(path, &RecordBatch::try_new(schema, columns).map_err(failed)?)
    }

    /// Whether `size` more bytes are within the limit.
    ///
    /// If need be, the folders of other encoders are removed, the least recently used first.
    fn fits_limit(&self, size: u64) -> bool {
        if self.taken.fetch_add(size, Relaxed) + size <= self.cache.limit {
            return true;
        }
        let Ok(mut folders) = folders(&self.cache.dir) else { return false };
        folders.sort_by_key(|folder| folder.used);
        let mut taken: u64 = folders.iter().map(|folder| folder.bytes).sum::<u64>() + size;
        for folder in folders.iter().filter(|folder| folder.dir != self.dir) {
            if taken <= self.cache.limit {
                break;
            }
            if std::fs::remove_dir_all(&folder.dir).is_ok() {
                taken -= folder.bytes;
                telemetry::embeddings_removed(&folder.dir, folder.bytes);
            }
        }
        self.taken.store(taken, Relaxed);
        taken <= self.cache.limit
    }

    /// Writes nothing more, and logs the reason once.
    fn stop_writing(&self, reason: &dyn std::fmt::Display) {
        if !self.is_full.swap(true, Relaxed) {
            telemetry::embeddings_not_kept(&self.dir, reason);
        }
    }
}

/// What the cache has of one encoder.
#[derive(Debug)]
pub(crate) struct EncoderFolder {
    pub dir: PathBuf,
    pub bytes: u64,
    /// The files, one a record batch.
    pub files: Vec<PathBuf>,
    /// When the folder was last used.
    pub used: Option<SystemTime>,
    /// The identity of the encoder.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the command shows it"))]
    pub identity: String,
}

/// The folder for embeddings that the settings ask for: one of its own, or one in the cache folder of the rows.
pub(crate) fn cache_dir(config: &PipelineConfig) -> Option<PathBuf> {
    let of_rows = || config.store.cache_dir.as_ref().map(|dir| dir.join(FOLDER));
    config.encode.cache_dir.clone().or_else(of_rows)
}

/// Lists the folders of all encoders in the folder of a cache; none if it does not exist.
pub(crate) fn folders(cache: &Path) -> std::io::Result<Vec<EncoderFolder>> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(cache) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    let names: HashSet<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    for dir in names {
        let path = dir.join(IDENTITY_FILE);
        let Ok(identity) = std::fs::read_to_string(&path) else { continue };
        let used = std::fs::metadata(&path).and_then(|metadata| metadata.modified()).ok();
        let mut folder = EncoderFolder { dir, bytes: 0, files: Vec::new(), used, identity };
        for entry in std::fs::read_dir(&folder.dir)?.flatten() {
            folder.bytes += entry.metadata().map_or(0, |metadata| metadata.len());
            folder.files.extend(Some(entry.path()).filter(|path| path.extension().is_some_and(|e| e == "arrow")));
        }
        found.push(folder);
    }
    Ok(found)
}

/// The name of the cache's folder in the cache folder of the rows.
pub(crate) const FOLDER: &str = "embeddings";

/// The name of the file with the identity of the encoder.
const IDENTITY_FILE: &str = "encoder.txt";

/// The key in the schema's metadata of the rows that could not be read, as JSON.
const BAD_ROWS: &str = "bad_rows";

/// How long another process may take to embed a record batch before this one embeds it too.
const MAX_CLAIM_AGE: Duration = Duration::from_secs(600);

/// The version of the format, raised if older readers would misread a file.
const FORMAT: &str = "1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_of_another_process_counts_for_ten_minutes() {
        let dir = tempfile::TempDir::new().unwrap();
        let reused = AtomicU64::new(0);
        let cache = EmbeddingCache { dir: dir.path().to_owned(), limit: 1, world_size: 2, rank: 1, reused };
        let (taken, is_full, is_unshared) = Default::default();
        let dir = dir.path().to_owned();
        let cache = EncoderCache { cache: &cache, dir: dir.clone(), dimension: 1, taken, is_full, is_unshared };
        let path = dir.join("a.arrow");
        let other = Claim::of(&path, 0).unwrap().unwrap();
        assert!(cache.claim(&path, Duration::from_secs(599)).is_none());
        assert!(cache.claim(&path, Duration::from_secs(600)).is_some());
        assert!(cache.claim(&path, Duration::ZERO).is_none(), "the other claim is ignored once, not for good");
        drop(other);
        assert!(cache.claim(&path, Duration::ZERO).is_some());
    }
}
