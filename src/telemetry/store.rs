//! Events of reading and storing rows.

use std::fmt::Display;
use std::path::Path;

use tracing::{info, warn};

use crate::sample::SampleId;

pub(crate) fn rows_skipped(rows: Option<usize>, reason: &dyn Display) {
    let rows = rows.map_or_else(|| "an unknown number".into(), |rows| rows.to_string());
    warn!(rows, %reason, "skipped rows of a damaged part");
}

pub(crate) fn arrow_schema_ignored(uri: &str, reason: &dyn Display) {
    warn!(uri, %reason, "the Arrow schema in the file's metadata does not fit its columns; it is ignored");
}

pub(crate) fn texts_unreadable(column: &str, count: usize, first: SampleId) {
    warn!(column, count, %first, "values that are no UTF-8 are null; the first is named");
}

pub(crate) fn column_left_out(column: &str, source: &str) {
    info!(column, source, "a column is left out, since this source has none of that name");
}

/// Logged once, when a folder is opened.
pub(crate) fn foreign_files(uri: &str, names: &[String]) {
    let count = names.len();
    let first = names.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    warn!(uri, count, first, "the folder has files or folders that are no data; they are not read");
}

pub(crate) fn file_twice(uri: &str) {
    warn!(uri, "source.uri names a file twice; its rows are samples twice");
}

#[cfg(feature = "cloud")]
pub(crate) fn request_failed(reason: &dyn Display) {
    warn!(%reason, "a request to an object store failed; it is sent again while retries are left");
}

pub(crate) fn cache_opened(path: &Path) {
    info!(path = %path.display(), "opened the cache of an earlier run");
}

pub(crate) fn read_at_random(bytes: usize) {
    info!(bytes, "the rows are read at random: they take more than half of the memory, or the settings say so");
}

pub(crate) fn cache_awaited(path: &Path) {
    info!(path = %path.display(), "another process is building this cache; waiting for it");
}

pub(crate) fn cache_discarded(path: &Path, reason: &dyn Display) {
    warn!(path = %path.display(), %reason, "the cache is unusable and is built anew");
}

pub(crate) fn shards(sizes: &[u64]) {
    let (least, most) = (sizes.iter().min().unwrap_or(&0), sizes.iter().max().unwrap_or(&0));
    info!(
        shards = sizes.len(),
        least, most, "epochs have as many samples as the smallest shard; the rest of others sits out"
    );
}

pub(crate) fn samples_added(samples: usize, total: usize) {
    info!(samples, total, "the source has gained samples");
}
