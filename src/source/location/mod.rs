//! Opens the bytes of a file, wherever it is.
//!
//! A file is a file of this machine or, with the cargo feature `cloud`, an object that is fetched in ranges.

#[cfg(feature = "cloud")]
mod blocks;
#[cfg(feature = "cloud")]
mod object;

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use parquet::errors::Result as ParquetResult;
use parquet::file::reader::{ChunkReader, Length};

#[cfg(feature = "cloud")]
use self::blocks::Blocks;
#[cfg(feature = "cloud")]
pub(super) use self::{
    blocks::Failure,
    object::{Object, failed},
};
use super::interface::SourceFile;
use crate::error::{Error, Result};

/// Where a file is, and in which version it was found there.
#[derive(Clone, Debug)]
pub(super) enum Location {
    File {
        path: PathBuf,
        version: String,
    },
    #[cfg(feature = "cloud")]
    Object(Object),
}

/// A reader of a file's bytes, which can seek. Blocks until they arrive.
#[derive(Debug)]
pub(super) enum ShardReader {
    File(File),
    #[cfg(feature = "cloud")]
    Object(Blocks),
}

impl Location {
    /// Notes the present version of a file.
    pub fn file(path: PathBuf) -> Result<Self> {
        let version = version(&path).map_err(|cause| Error::Io { action: "open", path: path.clone(), cause })?;
        Ok(Self::File { path, version })
    }

    /// Returns the name that messages use.
    pub fn uri(&self) -> String {
        match self {
            Self::File { path, .. } => path.display().to_string(),
            #[cfg(feature = "cloud")]
            Self::Object(object) => object.uri.clone(),
        }
    }

    /// Returns the absolute uri and the version.
    pub fn source_file(&self) -> SourceFile {
        match self {
            Self::File { path, version } => {
                let absolute = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                SourceFile { uri: absolute.display().to_string(), version: version.clone() }
            }
            #[cfg(feature = "cloud")]
            Self::Object(object) => SourceFile { uri: object.uri.clone(), version: object.version() },
        }
    }

    /// Opens the bytes, of which the ranges `spans` will be read, up to `at_once` of them side by side.
    ///
    /// # Errors
    /// [`Error::SourceChanged`] if a file is gone or has changed; [`Error::Io`]. Objects are not fetched yet.
    pub fn open(&self, spans: &[Range<u64>], at_once: usize) -> Result<ShardReader> {
        match self {
            Self::File { path, version: expected } => {
                let changed = |change| Error::SourceChanged { uri: self.uri(), change };
                let io = |cause: std::io::Error| match cause.kind() {
                    ErrorKind::NotFound => changed("is gone"),
                    _ => Error::Io { action: "open", path: path.clone(), cause },
                };
                if version(path).map_err(io)? != *expected {
                    return Err(changed("has changed"));
                }
                let _ = (spans, at_once);
                Ok(ShardReader::File(File::open(path).map_err(io)?))
            }
            #[cfg(feature = "cloud")]
            Self::Object(object) => Ok(ShardReader::Object(Blocks::new(object.clone(), spans, at_once))),
        }
    }

    /// Opens the bytes, of which the start and the end will be read.
    pub fn open_ends(&self) -> Result<ShardReader> {
        let size = match self {
            Self::File { .. } => 0,
            #[cfg(feature = "cloud")]
            Self::Object(object) => object.size,
        };
        let start = size.min(START_BYTES);
        let footer = size.saturating_sub(FOOTER_BYTES).max(start);
        self.open(&[0..start, footer..size], 2)
    }
}

/// Returns the size in bytes and the time of the last change in nanoseconds since 1970.
fn version(path: &Path) -> std::io::Result<String> {
    let metadata = path.metadata()?;
    let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(format!("{} {}", metadata.len(), modified.as_nanos()))
}

impl ShardReader {
    /// Returns another reader of the same bytes, at `start`.
    fn at(&self, start: u64) -> std::io::Result<Self> {
        let mut other = match self {
            Self::File(file) => Self::File(file.try_clone()?),
            #[cfg(feature = "cloud")]
            Self::Object(blocks) => Self::Object(blocks.clone()),
        };
        other.seek(SeekFrom::Start(start))?;
        Ok(other)
    }

    /// Returns where the reason is found if a decoder has failed since bytes could not be fetched.
    #[cfg(feature = "cloud")]
    pub fn failure(&self) -> Failure {
        match self {
            Self::File(_) => Failure::default(),
            Self::Object(blocks) => blocks.failure(),
        }
    }
}

impl Read for ShardReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            #[cfg(feature = "cloud")]
            Self::Object(blocks) => blocks.read(buffer),
        }
    }
}

impl Seek for ShardReader {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        match self {
            Self::File(file) => file.seek(to),
            #[cfg(feature = "cloud")]
            Self::Object(blocks) => blocks.seek(to),
        }
    }
}

impl Length for ShardReader {
    fn len(&self) -> u64 {
        match self {
            Self::File(file) => Length::len(file),
            #[cfg(feature = "cloud")]
            Self::Object(blocks) => blocks.len(),
        }
    }
}

impl ChunkReader for ShardReader {
    type T = BufReader<Self>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(BufReader::new(self.at(start)?))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        match self {
            Self::File(file) => file.get_bytes(start, length),
            #[cfg(feature = "cloud")]
            Self::Object(blocks) => Ok(blocks.range(start, length)?),
        }
    }
}

/// How many bytes at the start are read for the format.
const START_BYTES: u64 = 4096;

/// How many bytes at the end are fetched first; most footers fit.
const FOOTER_BYTES: u64 = 512 << 10;
