//! The rows that a table lacks, a record batch at a time, some of which other processes embed.
//!
//! Processes that keep embeddings in one folder embed each record batch once between them. Each of them
//!
//! 1. appends to its table what is there for the next rows in order, made here or read from the folder,
//! 2. claims the first record batch that nobody has embedded or claimed, and embeds it,
//! 3. waits if there is none, until a claimed one is embedded, or its claim has ended.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;

use super::Encoded;
use super::ahead::{Next, Tasks};
use super::all::Pass;
use crate::claim::Claim;
use crate::embeddings::EmbeddingTable;
use crate::error::{Error, Result};
use crate::sample::SampleId;
use crate::telemetry;

/// Hands out the rows to embed, and fills the table in the order of ids.
pub(super) struct RowQueue<'a, R> {
    pass: &'a Pass<'a>,
    table: &'a mut EmbeddingTable,
    progress: &'a mut dyn FnMut(usize) -> Result<()>,
    /// The rows that were not looked at yet.
    rest: R,
    /// Those that were, and are not in the table yet.
    queue: VecDeque<QueuedRows>,
    counts: EmbeddedCounts,
    has_waited: bool,
}

/// A record batch of consecutive samples that the table lacks.
struct QueuedRows {
    first: SampleId,
    rows: RecordBatch,
    /// The file for their embeddings, if these are kept.
    path: Option<PathBuf>,
    state: RowState,
    embedded_by: EmbeddedBy,
    /// Since when another process is known to have claimed them.
    claimed_since: Option<Instant>,
}

/// Where the embeddings of a record batch are.
enum RowState {
    Missing,
    /// Being made by this process.
    Begun,
    /// Here, and not in a file.
    Encoded(EncodedRows),
    /// In their file.
    Kept,
    /// In a file that cannot be read.
    Damaged,
}

/// Who has embedded a record batch.
#[derive(Clone, Copy)]
enum EmbeddedBy {
    EarlierRun,
    OtherProcess,
    ThisProcess,
}

/// The number of samples by who has embedded them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EmbeddedCounts {
    pub here: usize,
    pub before: usize,
    pub elsewhere: usize,
}

/// A record batch that this process embeds.
pub(super) struct ClaimedRows {
    pub first: SampleId,
    pub rows: RecordBatch,
    pub path: Option<PathBuf>,
    pub claim: Claim,
}

/// What an encoder makes of a record batch.
pub(super) struct EncodedRows {
    pub first: SampleId,
    /// [rows × dimension], row-major; zeros for rows that cannot be read.
    pub vectors: Vec<f32>,
    pub encoded: Encoded,
    /// Whether this was written to its file.
    pub is_kept: bool,
    /// The number of rows.
    pub rows: usize,
}

impl<'a, R: Iterator<Item = Result<(SampleId, RecordBatch)>>> RowQueue<'a, R> {
    pub fn new(
        pass: &'a Pass<'a>,
        table: &'a mut EmbeddingTable,
        rest: R,
        progress: &'a mut dyn FnMut(usize) -> Result<()>,
    ) -> Self {
        let counts = EmbeddedCounts::default();
        Self { pass, table, progress, rest, queue: VecDeque::new(), counts, has_waited: false }
    }

    pub fn counts(&self) -> EmbeddedCounts {
        self.counts
    }

    /// Appends what is there for the next samples of the table.
    fn fill_table(&mut self) -> Result<()> {
        while self.look_at(0)?
            && let Some(mut front) = self.queue.pop_front()
        {
            let Some(encoded) = self.embeddings(&mut front) else {
                self.queue.push_front(front);
                break;
            };
            self.append(encoded, front.embedded_by)?;
        }
        Ok(())
    }

    fn append(&mut self, encoded: EncodedRows, by: EmbeddedBy) -> Result<()> {
        let before = self.table.len();
        self.pass.append(self.table, encoded)?;
        let samples = self.table.len() - before;
        match by {
            EmbeddedBy::EarlierRun => self.counts.before += samples,
            EmbeddedBy::OtherProcess => self.counts.elsewhere += samples,
            EmbeddedBy::ThisProcess => self.counts.here += samples,
        }
        (self.progress)(self.table.len())
    }

    /// Makes sure that the queue has an entry `index`; false if there are not so many rows.
    fn look_at(&mut self, index: usize) -> Result<bool> {
        while self.queue.len() <= index {
            let Some((first, rows)) = self.rest.next().transpose()? else { return Ok(false) };
            self.pass.check_nulls(first, &rows)?;
            let path = self.pass.cache.as_ref().map(|cache| cache.path(&rows)).transpose()?;
            let (state, embedded_by) = match &path {
                Some(path) if path.exists() => (RowState::Kept, EmbeddedBy::EarlierRun),
                _ => (RowState::Missing, EmbeddedBy::OtherProcess),
            };
            self.queue.push_back(QueuedRows { first, rows, path, state, embedded_by, claimed_since: None });
        }
        Ok(true)
    }

    /// Returns the embeddings of rows, made here or read; `None` if there are none yet.
    fn embeddings(&self, queued: &mut QueuedRows) -> Option<EncodedRows> {
        let was_damaged = match std::mem::replace(&mut queued.state, RowState::Missing) {
            RowState::Encoded(encoded) => return Some(encoded),
            RowState::Begun => {
                queued.state = RowState::Begun;
                return None;
            }
            RowState::Missing | RowState::Kept => false,
            RowState::Damaged => true,
        };
        let cache = self.pass.cache.as_ref()?;
        let path = queued.path.as_ref().filter(|path| path.exists())?;
        let samples = queued.rows.num_rows();
        let mut vectors = vec![0f32; samples * self.pass.encoder.dimension()];
        match cache.read(path, samples, &mut vectors) {
            Ok(encoded) => {
                if matches!(queued.embedded_by, EmbeddedBy::OtherProcess) {
                    cache.count_added(&vectors);
                }
                Some(EncodedRows { first: queued.first, vectors, encoded, is_kept: true, rows: samples })
            }
            Err(error) => {
                if !was_damaged {
                    telemetry::cache_discarded(path, &error);
                }
                queued.state = RowState::Damaged;
                None
            }
        }
    }

    /// Claims an entry of the queue, if nobody has embedded or claimed it.
    fn claim(&mut self, index: usize) -> Option<ClaimedRows> {
        let queued = &mut self.queue[index];
        let QueuedRows { first, ref rows, ref path, .. } = *queued;
        let is_damaged = match queued.state {
            RowState::Missing => false,
            RowState::Damaged => true,
            RowState::Begun | RowState::Encoded(_) | RowState::Kept => return None,
        };
        let is_kept = || !is_damaged && path.as_ref().is_some_and(|path| path.exists());
        if is_kept() {
            queued.state = RowState::Kept;
            return None;
        }
        let claim = match (&self.pass.cache, path) {
            (Some(cache), Some(path)) => {
                let awaited = queued.claimed_since.map_or(Duration::ZERO, |since| since.elapsed());
                let Some(claim) = cache.claim(path, awaited) else {
                    queued.claimed_since.get_or_insert_with(Instant::now);
                    return None;
                };
                claim
            }
            _ => Claim::unshared(),
        };
        // Another process may have embedded the rows before it gave up its claim.
        if is_kept() {
            claim.end();
            queued.state = RowState::Kept;
            return None;
        }
        let claimed = ClaimedRows { first, rows: rows.clone(), path: path.clone(), claim };
        queued.state = RowState::Begun;
        queued.embedded_by = EmbeddedBy::ThisProcess;
        Some(claimed)
    }
}

impl<R: Iterator<Item = Result<(SampleId, RecordBatch)>>> Tasks for RowQueue<'_, R> {
    type Task = ClaimedRows;
    type Done = EncodedRows;
    type Error = Error;

    fn next(&mut self) -> Result<Next<ClaimedRows>> {
        self.fill_table()?;
        let mut index = 0;
        while self.look_at(index)? {
            if let Some(claimed) = self.claim(index) {
                return Ok(Next::Task(claimed));
            }
            index += 1;
        }
        let is_begun = |queued: &QueuedRows| matches!(queued.state, RowState::Begun);
        if self.queue.is_empty() {
            return Ok(Next::End);
        }
        if !self.has_waited && !self.queue.iter().any(is_begun) {
            telemetry::rows_awaited(self.queue.iter().map(|queued| queued.rows.num_rows()).sum());
            self.has_waited = true;
        }
        // This fails if the work is cancelled.
        (self.progress)(self.table.len())?;
        Ok(Next::Later)
    }

    fn take(&mut self, done: EncodedRows) -> Result<()> {
        let is_front = self.queue.front().is_some_and(|front| front.first == done.first);
        let Some(queued) = self.queue.iter_mut().find(|queued| queued.first == done.first) else { return Ok(()) };
        // Vectors whose turn comes later need no memory meanwhile.
        queued.state = if done.is_kept && !is_front { RowState::Kept } else { RowState::Encoded(done) };
        Ok(())
    }
}
