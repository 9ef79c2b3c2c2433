//! Reads several parts of files at the same time, and hands their record batches out in order.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::data_file::DataFile;
use crate::config::OnCorrupt;
use crate::error::{Error, Result};
use crate::panics;
use crate::source::columns::Adapter;
use crate::source::interface::RecordBatches;
use crate::telemetry;

/// A row group of a Parquet file, or a whole Arrow IPC file.
pub(super) struct FilePart {
    pub file: Arc<DataFile>,
    /// Its number among the file's parts, from 0.
    pub number: usize,
    pub adapter: Arc<Adapter>,
}

/// What was skipped since it is damaged.
#[derive(Debug, Default)]
pub(super) struct Damage {
    rows: AtomicUsize,
    errors: Mutex<Vec<Error>>,
}

impl Damage {
    /// Returns the number of rows lost, as far as it is known.
    pub fn rows(&self) -> usize {
        self.rows.load(Relaxed)
    }

    /// Returns the errors collected since the last call.
    #[cfg(feature = "cli")]
    pub fn take(&self) -> Vec<Error> {
        std::mem::take(&mut self.errors.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, rows: Option<usize>, error: Error) {
        telemetry::rows_skipped(rows, &error);
        self.rows.fetch_add(rows.unwrap_or(0), Relaxed);
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).push(error);
    }
}

/// Streams the record batches of all parts, in order.
pub(super) fn in_order(parts: VecDeque<FilePart>, on_corrupt: OnCorrupt, damage: Arc<Damage>) -> RecordBatches {
    let reading = Reading { parts, running: VecDeque::new(), on_corrupt, damage };
    futures::stream::unfold(reading, |mut reading| async move { Some((reading.next().await?, reading)) }).boxed()
}

/// Parts that are being read; the record batches of the first one are handed out.
struct Reading {
    parts: VecDeque<FilePart>,
    running: VecDeque<Running>,
    on_corrupt: OnCorrupt,
    damage: Arc<Damage>,
}

/// A part that is being read. A closed channel does not mean that it is complete: the result of its task tells.
struct Running {
    batches: mpsc::Receiver<Result<RecordBatch>>,
    task: JoinHandle<()>,
}

impl Reading {
    async fn next(&mut self) -> Option<Result<RecordBatch>> {
        loop {
            while self.running.len() < MAX_RUNNING_PARTS
                && let Some(part) = self.parts.pop_front()
            {
                self.start(part);
            }
            let first = self.running.front_mut()?;
            let item = match first.batches.recv().await {
                Some(item) => item,
                None => match (&mut first.task).await {
                    Ok(()) => {
                        self.running.pop_front();
                        continue;
                    }
                    Err(error) => Err(task_died(error)),
                },
            };
            if item.is_err() {
                self.parts.clear();
                self.running.clear();
            }
            return Some(item);
        }
    }

    fn start(&mut self, part: FilePart) {
        let (tx, batches) = mpsc::channel(BATCHES_AHEAD);
        let on_corrupt = self.on_corrupt;
        let damage = self.damage.clone();
        let task = tokio::task::spawn_blocking(move || read(&part, on_corrupt, &damage, &tx));
        self.running.push_back(Running { batches, task });
    }
}

/// Reads a part to its end, to an error, or until the receiver is gone.
fn read(part: &FilePart, on_corrupt: OnCorrupt, damage: &Damage, tx: &mpsc::Sender<Result<RecordBatch>>) {
    let mut rows = 0;
    let mut drift = None;
    let mut emit = |batch: RecordBatch| match part.adapter.adapt(&batch) {
        Ok(batch) => {
            rows += batch.num_rows();
            if tx.blocking_send(Ok(batch)).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        }
        Err(error) => {
            drift = Some(error);
            ControlFlow::Break(())
        }
    };
    let read = part.file.read(part.number, &part.adapter.column_indices, &mut emit);
    let Err(error) = drift.map_or(read.map(drop), Err) else { return };
    if on_corrupt == OnCorrupt::Skip && matches!(error, Error::Corrupt { .. }) {
        let lost = part.file.part_rows(part.number).map(|all| all.saturating_sub(rows));
        damage.add(lost, error);
    } else {
        // If the receiver is gone, there is nobody to report to.
        let _ = tx.blocking_send(Err(error));
    }
}

fn task_died(error: tokio::task::JoinError) -> Error {
    let message = match error.try_into_panic() {
        Ok(panic) => panics::message(panic.as_ref()),
        Err(_) => "the runtime has ended".into(),
    };
    Error::TaskDied { task: "source", message }
}

/// The most parts that are read at the same time.
const MAX_RUNNING_PARTS: usize = 4;

/// The most record batches that a part is read ahead.
const BATCHES_AHEAD: usize = 4;
