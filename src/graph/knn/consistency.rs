//! Which pairs are consistent: those whose positive is among the ones nearest to its anchor.

use rayon::prelude::*;

use super::product::Product;
use crate::config::{Similarity, Storage};
use crate::embeddings::EmbeddingTable;
use crate::error::Result;
use crate::graph::kernel::{Format, Kernel};
use crate::sample::SampleId;

/// Finds the pairs of which `k` or more other positives are more similar to the anchor than its own: a bit for each
/// sample of `table`, which holds both sides of pairs.
///
/// Copies of a positive are as similar as it is, and count for nothing. Costs N² d multiplications in f32 for N pairs
/// with 2 d numbers, and a few MB a thread. `check` is called now and then, and its error ends the work. Runs on the
/// current rayon pool; the result does not depend on the number of threads.
///
/// # Panics
/// Panics unless the table is made for [`Similarity::Cross`].
pub(crate) fn inconsistent_pairs(
    table: &EmbeddingTable,
    k: usize,
    check: &mut dyn FnMut() -> Result<()>,
) -> Result<Vec<u64>> {
    assert_eq!(table.similarity(), Similarity::Cross, "vectors of pairs have two halves");
    let ids = table.present_ids();
    let mut bits = vec![0u64; table.len().div_ceil(64)];
    for rows in ids.chunks(ROWS_TOGETHER * rayon::current_num_threads()) {
        check()?;
        let found = rows.par_chunks(ROWS_TOGETHER).map(|rows| nearer_positives(table, rows, &ids, k));
        for (&id, nearer) in rows.iter().zip(found.collect::<Result<Vec<_>>>()?.concat()) {
            bits[id as usize / 64] |= u64::from(nearer >= k) << (id % 64);
        }
    }
    Ok(bits)
}

/// How many positives of `all` are more similar to each row's anchor than its own; `k` if there are more.
fn nearer_positives(table: &EmbeddingTable, rows: &[u32], all: &[u32], k: usize) -> Result<Vec<usize>> {
    let mut product = Product::new(Kernel::new(Format::F32));
    let anchors = side(table, rows, Side::Anchor)?;
    let numbers: Vec<u32> = (0..COLUMNS_TOGETHER.max(ROWS_TOGETHER) as u32).collect();
    let mut own = vec![0f32; rows.len()];
    // By the same kernel, so that copies of a positive have the same score.
    let positives = side(table, rows, Side::Positive)?;
    for some in numbers[..rows.len()].chunks(OWN_TOGETHER) {
        product.pack_rows(&anchors, some);
        product.pack_columns(&positives, some);
        let reached = || some.iter().map(|_| f32::NEG_INFINITY);
        let unreached = some.iter().map(|_| f32::INFINITY);
        product.run(reached(), unreached, false, |_, _, row, column, score| {
            if row == column {
                own[some[row] as usize] = score;
            }
        });
    }
    let mut nearer = vec![0; rows.len()];
    product.pack_rows(&anchors, &numbers[..rows.len()]);
    for columns in all.chunks(COLUMNS_TOGETHER) {
        product.pack_columns(&side(table, columns, Side::Positive)?, &numbers[..columns.len()]);
        let least = |(own, nearer): (&f32, &usize)| if *nearer < k { own.next_up() } else { f32::INFINITY };
        let thresholds: Vec<f32> = own.iter().zip(&nearer).map(least).collect();
        let unreached = columns.iter().map(|_| f32::INFINITY);
        product.run(thresholds.into_iter(), unreached, false, |thresholds, _, row, _, _| {
            nearer[row] += 1;
            if nearer[row] >= k {
                thresholds.rows[row] = f32::INFINITY;
            }
        });
    }
    Ok(nearer)
}

/// Which half of a pair's vector.
#[derive(Clone, Copy)]
enum Side {
    Anchor,
    Positive,
}

/// The vectors that some samples have on one side.
fn side(table: &EmbeddingTable, ids: &[u32], side: Side) -> Result<EmbeddingTable> {
    let d = table.dimension() / 2;
    let mut vectors =
        EmbeddingTable::with_capacity(ids.len(), d, Storage::F32, Similarity::Dot, table.model_version())?;
    let mut whole = vec![0f32; 2 * d];
    for &id in ids {
        table.read(SampleId(id), &mut whole);
        let (anchor, positive) = whole.split_at_mut(d);
        vectors.push(match side {
            Side::Anchor => anchor,
            Side::Positive => positive,
        })?;
    }
    Ok(vectors)
}

/// How many anchors a thread compares with all positives at a time, and with how many of these.
const ROWS_TOGETHER: usize = 512;
const COLUMNS_TOGETHER: usize = 1024;

/// How many anchors are compared with each other's positives to find the score of their own.
const OWN_TOGETHER: usize = 16;
