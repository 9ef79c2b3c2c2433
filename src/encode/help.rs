//! Embeds rows for the table of another process, which finds their vectors in the cache.

use arrow::array::RecordBatch;

use super::ahead::{Next, Tasks};
use super::all::Pass;
use super::cache::EncoderCache;
use super::queue::{ClaimedRows, EncodedRows};
use crate::error::{Error, Result};
use crate::sample::SampleId;

/// Hands out the rows that nobody has embedded or claimed, once through.
pub(super) struct UnclaimedRows<'a, R> {
    cache: &'a EncoderCache<'a>,
    rest: R,
    progress: &'a mut dyn FnMut(usize) -> Result<()>,
    /// How many samples were embedded here.
    pub embedded: usize,
}

impl<'a, R: Iterator<Item = Result<(SampleId, RecordBatch)>>> UnclaimedRows<'a, R> {
    pub fn of(pass: &'a Pass<'a>, rest: R, progress: &'a mut dyn FnMut(usize) -> Result<()>) -> Option<Self> {
        Some(Self { cache: pass.cache.as_ref()?, rest, progress, embedded: 0 })
    }

    /// Claims these rows; `None` if they are embedded or claimed.
    fn claim(&self, first: SampleId, rows: RecordBatch) -> Result<Option<ClaimedRows>> {
        let path = self.cache.path(&rows)?;
        if path.exists() {
            return Ok(None);
        }
        let Some(claim) = self.cache.claim(&path, std::time::Duration::ZERO) else { return Ok(None) };
        // Another process may have embedded the rows before it gave up its claim.
        if path.exists() {
            claim.end();
            return Ok(None);
        }
        Ok(Some(ClaimedRows { first, rows, path: Some(path), claim }))
    }
}

impl<R: Iterator<Item = Result<(SampleId, RecordBatch)>>> Tasks for UnclaimedRows<'_, R> {
    type Task = ClaimedRows;
    type Done = EncodedRows;
    type Error = Error;

    fn next(&mut self) -> Result<Next<ClaimedRows>> {
        while let Some((first, rows)) = self.rest.next().transpose()? {
            (self.progress)(first.index())?;
            let claimed = self.claim(first, rows)?;
            // Vectors that are not kept are of use to nobody.
            if !self.cache.is_shared() {
                break;
            }
            if let Some(claimed) = claimed {
                return Ok(Next::Task(claimed));
            }
        }
        Ok(Next::End)
    }

    fn take(&mut self, done: EncodedRows) -> Result<()> {
        self.embedded += if done.is_kept { done.rows } else { 0 };
        Ok(())
    }
}
