//! A uniform sample of rows, in one pass.

use std::collections::BinaryHeap;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use futures::TryStreamExt;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::error::{Error, Result};
use crate::source::Source;

/// Some rows of a source, in their order.
pub(super) struct SampledRows {
    pub batches: Vec<RecordBatch>,
    /// How many rows the source has.
    pub total: usize,
}

impl SampledRows {
    /// Draws at most `most` rows uniformly: every row has a random number, and those with the smallest stay.
    ///
    /// Reads all rows once, and keeps a few times as many as it returns. `report` is called with the rows read.
    pub async fn draw(
        source: &dyn Source,
        columns: &[String],
        most: usize,
        seed: u64,
        report: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Self> {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        let mut smallest = BinaryHeap::new();
        let mut kept: Vec<(RecordBatch, Vec<u64>)> = Vec::new();
        let (mut total, mut rows_kept) = (0, 0);
        let mut batches = source.read(columns)?;
        while let Some(batch) = batches.try_next().await? {
            total += batch.num_rows();
            let numbers: Vec<u64> = (0..batch.num_rows()).map(|_| generator.random()).collect();
            for &number in &numbers {
                smallest.push(number);
                if smallest.len() > most {
                    smallest.pop();
                }
            }
            let largest = largest_kept(&smallest, most);
            let part = narrow((batch, numbers), largest)?;
            rows_kept += part.1.len();
            kept.push(part);
            if rows_kept > 2 * most {
                kept = kept.into_iter().map(|part| narrow(part, largest)).collect::<Result<_>>()?;
                rows_kept = kept.iter().map(|(_, numbers)| numbers.len()).sum();
            }
            report(total);
        }
        let largest = largest_kept(&smallest, most);
        let narrowed = kept.into_iter().map(|part| Ok(narrow(part, largest)?.0));
        let batches = narrowed.collect::<Result<Vec<_>>>()?;
        Ok(Self { batches: batches.into_iter().filter(|batch| batch.num_rows() > 0).collect(), total })
    }
}

/// The largest number with which a row stays.
fn largest_kept(smallest: &BinaryHeap<u64>, most: usize) -> u64 {
    if smallest.len() < most { u64::MAX } else { smallest.peek().copied().unwrap_or(u64::MAX) }
}

/// The rows whose numbers are not above the largest.
fn narrow((batch, numbers): (RecordBatch, Vec<u64>), largest: u64) -> Result<(RecordBatch, Vec<u64>)> {
    let stay: BooleanArray = numbers.iter().map(|&number| Some(number <= largest)).collect();
    let batch = filter_record_batch(&batch, &stay).map_err(|cause| Error::Arrow { action: "sample rows", cause })?;
    Ok((batch, numbers.into_iter().filter(|&number| number <= largest).collect()))
}
