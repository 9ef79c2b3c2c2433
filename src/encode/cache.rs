//! Embeddings that were made before, kept on disk: a start that was killed goes on, and a second run over the same rows
//! with the same model embeds nothing.
//!
//! A folder for each encoder, named by its [identity](Encoder::identity), has a file for each record batch of rows, named
//! by the rows' content. So it does not matter where rows lie, what run they belong to, and what was added around them.
//! Vectors are those that the encoder gave, in f32, whatever they are stored in.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use arrow::array::{ArrayRef, AsArray, FixedSizeListArray, Float32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Float32Type, Schema};

use super::{BadRow, Encoded, Encoder};
use crate::arrow_file::{self, FORMAT_VERSION, checksum, checksum_of_rows, to_text};
use crate::config::{EncodeConfig, StoreConfig};
use crate::error::{Error, Result};
use crate::telemetry;

/// The folder of all encoders' embeddings, as a run uses it.
#[derive(Debug)]
pub(crate) struct EmbeddingCache {
    dir: PathBuf,
    /// Bytes that it may take.
    limit: u64,
    reused: AtomicU64,
}

/// The embeddings of one encoder.
#[derive(Debug)]
pub(super) struct Segments<'a> {
    cache: &'a EmbeddingCache,
    dir: PathBuf,
    dimension: usize,
    /// Bytes that all encoders' take.
    taken: AtomicU64,
    /// Nothing more is kept.
    full: AtomicBool,
}

impl EmbeddingCache {
    /// The one that settings ask for: a folder of its own, or one below that of the rows.
    pub fn of(encode: &EncodeConfig, store: &StoreConfig) -> Option<Arc<Self>> {
        let dir = encode.cache_dir.clone().or_else(|| store.cache_dir.as_ref().map(|dir| dir.join(FOLDER)))?;
        Some(Arc::new(Self { dir, limit: encode.cache_limit, reused: AtomicU64::new(0) }))
    }

    /// Samples whose embeddings were there so far.
    pub fn reused(&self) -> u64 {
        self.reused.load(Relaxed)
    }

    /// The embeddings of an encoder; `None` of one that does not say which it is.
    pub(super) fn segments(&self, encoder: &dyn Encoder) -> Option<Segments<'_>> {
        let identity = encoder.identity()?;
        if self.limit == 0 {
            return None;
        }
        let dir = self.dir.join(to_text(checksum(identity.as_bytes())));
        let mut segments = Segments {
            cache: self,
            dir,
            dimension: encoder.dimension(),
            taken: AtomicU64::new(0),
            full: AtomicBool::new(false),
        };
        match segments.begin(&identity) {
            Ok(taken) => segments.taken = AtomicU64::new(taken),
            Err(cause) => segments.give_up(&cause),
        }
        Some(segments)
    }
}

impl Segments<'_> {
    /// Says whose folder this is, and that it is in use; gives the bytes that all folders take.
    fn begin(&self, identity: &str) -> std::io::Result<u64> {
        std::fs::create_dir_all(&self.dir)?;
        let about = self.dir.join(ABOUT);
        if std::fs::read_to_string(&about).ok().as_deref() != Some(identity) {
            std::fs::write(&about, identity)?;
        }
        std::fs::File::options().append(true).open(&about)?.set_modified(SystemTime::now())?;
        self.remove_unfinished()?;
        Ok(folders(&self.cache.dir)?.iter().map(|folder| folder.bytes).sum())
    }

    /// Removes what processes have left that were killed while they wrote. Others may be writing now.
    fn remove_unfinished(&self) -> std::io::Result<()> {
        for entry in std::fs::read_dir(&self.dir)?.flatten() {
            let is_unfinished = entry.file_name().to_string_lossy().starts_with(&arrow_file::unfinished(""));
            let modified = entry.metadata().and_then(|of| of.modified());
            let age = modified.ok().and_then(|time| SystemTime::now().duration_since(time).ok());
            if is_unfinished && age.is_some_and(|age| age > ABANDONED) {
                // Another process may be doing the same.
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// The vectors of these rows [rows × dimension], from the cache or from `encode`.
    pub fn vectors(
        &self,
        rows: &RecordBatch,
        vectors: &mut [f32],
        encode: impl FnOnce(&mut [f32]) -> Result<Encoded>,
    ) -> Result<Encoded> {
        let key = checksum_of_rows(rows).map_err(|cause| Error::Arrow { action: "look at rows", cause })?;
        let path = self.dir.join(format!("{}-{}.arrow", to_text(key), rows.num_rows()));
        if path.exists() {
            match self.read(&path, rows.num_rows(), vectors) {
                Ok(encoded) => {
                    self.cache.reused.fetch_add(rows.num_rows() as u64, Relaxed);
                    return Ok(encoded);
                }
                Err(error) => telemetry::cache_discarded(&path, &error),
            }
            // As encoders expect it.
            vectors.fill(0.0);
        }
        let encoded = encode(vectors)?;
        if !self.full.load(Relaxed) {
            if !self.has_room(size_of_val(vectors) as u64) {
                self.give_up(&"encode.cache_limit is reached");
            } else if let Err(error) = self.write(&path, vectors, &encoded) {
                self.give_up(&error);
            }
        }
        Ok(encoded)
    }

    fn read(&self, path: &Path, rows: usize, vectors: &mut [f32]) -> Result<Encoded> {
        arrow_file::open_one(path, FORMAT, "embeddings that this version reads", |schema, batch| {
            let list = batch.column_by_name("embedding").and_then(|column| column.as_fixed_size_list_opt());
            let numbers = list.and_then(|list| list.values().as_primitive_opt::<Float32Type>());
            let numbers = numbers.filter(|numbers| numbers.len() == vectors.len());
            vectors.copy_from_slice(numbers.ok_or("it has other vectors than these rows need")?.values());
            let pairs = batch.column_by_name("pair_similarity").and_then(|c| c.as_primitive_opt::<Float32Type>());
            let bad = schema.metadata().get(BAD).map_or("[]", String::as_str);
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
        let metadata = [(FORMAT_VERSION, FORMAT.to_owned()), (BAD, bad)];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value));
        let schema = Arc::new(Schema::new_with_metadata(fields, metadata));
        let columns = columns.into_iter().map(|(_, column)| column).collect();
        arrow_file::save(path, &RecordBatch::try_new(schema, columns).map_err(failed)?)
    }

    /// Whether so many bytes more are within the limit. Removes other encoders' embeddings if need be, those first that
    /// were not used for longest.
    fn has_room(&self, size: u64) -> bool {
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

    fn give_up(&self, reason: &dyn std::fmt::Display) {
        if !self.full.swap(true, Relaxed) {
            telemetry::embeddings_not_kept(&self.dir, reason);
        }
    }
}

/// What is kept of one encoder.
#[derive(Debug)]
pub(crate) struct EncoderFolder {
    pub dir: PathBuf,
    pub bytes: u64,
    /// Its record batches, by file.
    pub files: Vec<PathBuf>,
    /// Last.
    pub used: Option<SystemTime>,
    /// What the encoder says it is.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "the command shows it"))]
    pub identity: String,
}

/// All encoders' folders below the folder of a cache; none where it is not there.
pub(crate) fn folders(cache: &Path) -> std::io::Result<Vec<EncoderFolder>> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(cache) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    let names: HashSet<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    for dir in names {
        let about = dir.join(ABOUT);
        let Ok(identity) = std::fs::read_to_string(&about) else { continue };
        let used = std::fs::metadata(&about).and_then(|about| about.modified()).ok();
        let mut folder = EncoderFolder { dir, bytes: 0, files: Vec::new(), used, identity };
        for entry in std::fs::read_dir(&folder.dir)?.flatten() {
            folder.bytes += entry.metadata().map_or(0, |of| of.len());
            folder.files.extend(Some(entry.path()).filter(|path| path.extension().is_some_and(|e| e == "arrow")));
        }
        found.push(folder);
    }
    Ok(found)
}

/// Below the folder of the rows' cache.
pub(crate) const FOLDER: &str = "embeddings";

/// What the file is called that says whose embeddings these are.
const ABOUT: &str = "encoder.txt";

/// Key of the schema's metadata: rows that could not be read, as JSON.
const BAD: &str = "bad_rows";

/// No record batch takes as long to write.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Raised where older readers would misread a file.
const FORMAT: &str = "1";
