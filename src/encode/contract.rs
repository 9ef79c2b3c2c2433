//! "Does my [`Encoder`] keep what the trait promises?"
//!
//! [`check`] is for the tests of whoever writes an encoder of their own. It encodes some rows several times and looks
//! at each of these rules:
//!
//! 1. The encoder has a name, and a dimension from 1 to 65,536.
//! 2. It accepts rows that have its columns, and refuses rows that lack one of them. If a column is a struct, the field
//!    that it reads is one of it.
//! 3. It writes a vector of finite numbers for each row that it can read, and leaves zeros for the others.
//! 4. Rows that cannot be read are listed once, in order, each with one of its columns and a reason.
//! 5. `encode` gives the same vectors, and fails for a row that cannot be read.
//! 6. The vector of a row, and whether it can be read, depend on that row alone: not on how often it is encoded, the
//!    order of the rows, which rows come with it, or calls side by side.
//! 7. Name, columns, dimension and identity stay the same.
//! 8. A newer encoder has the same columns and dimension.
//! 9. The model's file is among its files.
//!
//! ```
//! use std::sync::Arc;
//!
//! use prosampler::arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
//! use prosampler::arrow::datatypes::UInt32Type;
//! use prosampler::encode::{Encoder, contract};
//!
//! /// Numbers as points on a circle.
//! struct Circle(Vec<String>);
//!
//! impl Encoder for Circle {
//!     fn name(&self) -> &str {
//!         "circle"
//!     }
//!
//!     fn columns(&self) -> &[String] {
//!         &self.0
//!     }
//!
//!     fn dimension(&self) -> usize {
//!         2
//!     }
//!
//!     fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> prosampler::Result<()> {
//!         let numbers = rows.column(0).as_primitive::<UInt32Type>().values();
//!         for (n, vector) in numbers.iter().zip(vectors.chunks_exact_mut(2)) {
//!             let angle = *n as f32;
//!             vector.copy_from_slice(&[angle.cos(), angle.sin()]);
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let numbers: ArrayRef = Arc::new(UInt32Array::from_iter_values(0..100));
//! let rows = RecordBatch::try_from_iter([("n", numbers)]).unwrap();
//! assert_eq!(contract::check(&Circle(vec!["n".into()]), &rows, 0.0), Ok(()));
//! ```

use std::thread::{self, ScopedJoinHandle};

use arrow::array::{Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::DataType;

use super::{Encoded, Encoder};
use crate::source::column_indices;

/// Encodes `rows` about six times and says which [rule](self) the encoder breaks first.
///
/// `rows` may have other columns too. Of those without a null in the encoder's columns, the first 8,192 are encoded; at
/// least one must be readable, and it is best if some are not. Two vectors count as the same if the length of their
/// difference is at most `tolerance` times that of the longer one: 0.0 asks for the same numbers, 0.001 suits models in
/// f32 whose sums depend on the batch. It runs on the calling thread; within
/// [`ComputePool::install`](crate::ComputePool::install) it is as in a run.
///
/// # Errors
/// A sentence that names the broken rule, with what was found.
pub fn check(encoder: &dyn Encoder, rows: &RecordBatch, tolerance: f32) -> Result<(), String> {
    let before = Description::of(encoder);
    check_description(&before)?;
    check_columns(encoder, rows)?;
    let rows = readable_by(encoder, rows)?;
    let whole = Pass::of(encoder, &rows, (0..rows.num_rows()).collect())?;
    check_pass(encoder, &whole)?;
    check_encode(encoder, &rows, &whole, tolerance)?;
    check_independence(encoder, &rows, &whole, tolerance)?;
    check_side_by_side(encoder, &rows, &whole, tolerance)?;
    if Description::of(encoder) != before {
        return Err("name, columns, dimension or identity changed while rows were encoded".into());
    }
    check_newer(encoder)
}

/// What must stay the same.
#[derive(Debug, PartialEq)]
struct Description {
    name: String,
    columns: Vec<String>,
    dimension: usize,
    identity: Option<String>,
}

impl Description {
    fn of(encoder: &dyn Encoder) -> Self {
        Self {
            name: encoder.name().to_owned(),
            columns: encoder.columns().to_vec(),
            dimension: encoder.dimension(),
            identity: encoder.identity(),
        }
    }
}

/// What an encoder made of some of the rows.
struct Pass {
    /// Their places among all rows.
    rows: Vec<usize>,
    dimension: usize,
    vectors: Vec<f32>,
    encoded: Encoded,
}

impl Pass {
    fn of(encoder: &dyn Encoder, all: &RecordBatch, rows: Vec<usize>) -> Result<Self, String> {
        let dimension = encoder.dimension();
        let mut vectors = vec![0.0; rows.len() * dimension];
        let encoded = encoder.encode_readable(&take(all, &rows)?, &mut vectors);
        let encoded = encoded.map_err(|error| format!("{} rows cannot be encoded: {error}", rows.len()))?;
        Ok(Self { rows, dimension, vectors, encoded })
    }

    fn vector(&self, place: usize) -> &[f32] {
        &self.vectors[place * self.dimension..][..self.dimension]
    }

    fn is_bad(&self, place: usize) -> bool {
        self.encoded.bad.iter().any(|bad| bad.row == place)
    }

    /// The rows that were read.
    fn good(&self) -> Vec<usize> {
        (0..self.rows.len()).filter(|&place| !self.is_bad(place)).collect()
    }
}

fn take(rows: &RecordBatch, places: &[usize]) -> Result<RecordBatch, String> {
    let places = UInt32Array::from_iter_values(places.iter().map(|&place| place as u32));
    take_record_batch(rows, &places).map_err(|error| error.to_string())
}

fn check_description(description: &Description) -> Result<(), String> {
    if description.name.is_empty() {
        return Err("`name` is empty; messages need one".into());
    }
    if !(1..=MAX_DIMENSION).contains(&description.dimension) {
        return Err(format!("`dimension` is {}, not from 1 to {MAX_DIMENSION}", description.dimension));
    }
    Ok(())
}

fn check_columns(encoder: &dyn Encoder, rows: &RecordBatch) -> Result<(), String> {
    let schema = rows.schema();
    let column_indices = column_indices("the rows", &schema, encoder.columns());
    let column_indices = column_indices.map_err(|error| format!("the rows lack a column of the encoder: {error}"))?;
    encoder.accepts("the rows", &schema).map_err(|error| format!("`accepts` refuses the rows: {error}"))?;
    for (column, index) in encoder.columns().iter().zip(column_indices) {
        let rest: Vec<_> = (0..schema.fields().len()).filter(|&other| other != index).collect();
        let rest = schema.project(&rest).map_err(|error| error.to_string())?;
        if encoder.accepts("the rows", &rest).is_ok() {
            return Err(format!("`accepts` takes rows without the column `{column}`"));
        }
        if let (Some(field), DataType::Struct(fields)) = (encoder.field(column), schema.field(index).data_type())
            && fields.find(field).is_none()
        {
            return Err(format!("`field` names `{field}`, which column `{column}` does not have"));
        }
    }
    Ok(())
}

/// The encoder's columns of the first rows that have no null in them.
fn readable_by(encoder: &dyn Encoder, rows: &RecordBatch) -> Result<RecordBatch, String> {
    let indices = column_indices("the rows", &rows.schema(), encoder.columns()).map_err(|error| error.to_string())?;
    let rows = rows.project(&indices).map_err(|error| error.to_string())?;
    let nulls: Vec<_> = rows.columns().iter().filter_map(Array::logical_nulls).collect();
    let has_all = |row: &usize| nulls.iter().all(|nulls| nulls.is_valid(*row));
    let full: Vec<_> = (0..rows.num_rows()).filter(has_all).take(MAX_ROWS).collect();
    if full.is_empty() {
        return Err("there is no row without a null to check the encoder with".into());
    }
    take(&rows, &full)
}

/// The rules for one call.
fn check_pass(encoder: &dyn Encoder, pass: &Pass) -> Result<(), String> {
    let bad = &pass.encoded.bad;
    if !bad.is_sorted_by(|a, b| a.row < b.row) {
        return Err("rows that cannot be read are not listed once each, in order".into());
    }
    for bad in bad {
        if bad.row >= pass.rows.len() {
            return Err(format!("row {} of {} is said to be unreadable", bad.row, pass.rows.len()));
        }
        if !encoder.columns().contains(&bad.column) || bad.reason.is_empty() {
            return Err(format!("row {} is unreadable without a column of the encoder and a reason", bad.row));
        }
        if pass.vector(bad.row).iter().any(|x| *x != 0.0) {
            return Err(format!("row {} cannot be read, but its vector is not left at zero", bad.row));
        }
    }
    let good = pass.good();
    if good.is_empty() {
        return Err("the encoder can read none of the rows; give some that it can".into());
    }
    if let Some(row) = good.iter().find(|&&row| pass.vector(row).iter().any(|x| !x.is_finite())) {
        return Err(format!("the vector of row {row} is not finite"));
    }
    if good.iter().all(|&row| pass.vector(row).iter().all(|x| *x == 0.0)) {
        return Err("no vector was written: all are zero".into());
    }
    let similarities = &pass.encoded.pair_similarities;
    if !similarities.is_empty() && similarities.len() != pass.rows.len() {
        return Err(format!("there are {} similarities of pairs for {} rows", similarities.len(), pass.rows.len()));
    }
    if !similarities.is_empty() && good.iter().any(|&row| !similarities[row].is_finite()) {
        return Err("the similarity of a pair is not finite".into());
    }
    Ok(())
}

/// `encode` takes readable rows alone.
fn check_encode(encoder: &dyn Encoder, rows: &RecordBatch, whole: &Pass, tolerance: f32) -> Result<(), String> {
    let good = whole.good();
    let mut vectors = vec![0.0; good.len() * whole.dimension];
    let encoded = encoder.encode(&take(rows, &good)?, &mut vectors);
    encoded.map_err(|error| format!("`encode` fails for rows that `encode_readable` can read: {error}"))?;
    for (&row, vector) in good.iter().zip(vectors.chunks_exact(whole.dimension)) {
        if !is_near(whole.vector(row), vector, tolerance) {
            return Err(format!("`encode` gives row {row} another vector than `encode_readable`"));
        }
    }
    let Some(bad) = whole.encoded.bad.first() else { return Ok(()) };
    match encoder.encode(&take(rows, &[bad.row])?, &mut vec![0.0; whole.dimension]) {
        Err(_) => Ok(()),
        Ok(()) => Err(format!("`encode` does not fail for row {}, which cannot be read", bad.row)),
    }
}

/// Encodes the rows again, backwards, in two parts and some of them alone.
fn check_independence(encoder: &dyn Encoder, rows: &RecordBatch, whole: &Pass, tolerance: f32) -> Result<(), String> {
    let len = rows.num_rows();
    let (first, second) = (0..len / 2, len / 2..len);
    let parts = [first, second].into_iter().filter(|part| !part.is_empty());
    let alone = (0..len).step_by(len.div_ceil(ROWS_ALONE));
    let mut passes = vec![("a second time", (0..len).collect()), ("in reverse order", (0..len).rev().collect())];
    passes.extend(parts.map(|part| ("in two parts", part.collect())));
    passes.extend(alone.map(|row| ("alone", vec![row])));
    for (how, rows_of_pass) in passes {
        compare(whole, &Pass::of(encoder, rows, rows_of_pass)?, how, tolerance)?;
    }
    Ok(())
}

fn check_side_by_side(encoder: &dyn Encoder, rows: &RecordBatch, whole: &Pass, tolerance: f32) -> Result<(), String> {
    let calls = encoder.calls_at_once();
    if calls == 0 {
        return Err("`calls_at_once` is 0, so that nothing could be encoded".into());
    }
    if calls == 1 {
        return Ok(());
    }
    let encode = || Pass::of(encoder, rows, whole.rows.clone());
    let passes: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..calls).map(|_| scope.spawn(encode)).collect();
        threads.into_iter().map(ScopedJoinHandle::join).collect()
    });
    for pass in passes {
        let pass = pass.map_err(|_| "a call beside others panics".to_owned())?;
        compare(whole, &pass?, "beside other calls", tolerance)?;
    }
    Ok(())
}

/// Whether the rows of another pass have come out as they did among all.
fn compare(whole: &Pass, other: &Pass, how: &str, tolerance: f32) -> Result<(), String> {
    for (place, &row) in other.rows.iter().enumerate() {
        if whole.is_bad(row) != other.is_bad(place) {
            return Err(format!("row {row} can be read or not, depending on whether it is encoded {how}"));
        }
        if !is_near(whole.vector(row), other.vector(place), tolerance) {
            return Err(format!("row {row} has another vector if it is encoded {how}"));
        }
    }
    Ok(())
}

/// Whether the difference of two vectors is at most this share of their length.
fn is_near(a: &[f32], b: &[f32], share: f32) -> bool {
    let length = |vector: &mut dyn Iterator<Item = f32>| vector.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let longer = length(&mut a.iter().copied()).max(length(&mut b.iter().copied()));
    length(&mut a.iter().zip(b).map(|(a, b)| a - b)) <= f64::from(share) * longer
}

fn check_newer(encoder: &dyn Encoder) -> Result<(), String> {
    if encoder.model_file().is_some_and(|file| !encoder.model_files().contains(&file)) {
        return Err("`model_files` lacks `model_file`".into());
    }
    let newer = encoder.newer().map_err(|error| format!("`newer` fails: {error}"))?;
    let Some(newer) = newer else { return Ok(()) };
    if newer.dimension() != encoder.dimension() {
        let (found, expected) = (newer.dimension(), encoder.dimension());
        return Err(format!("`newer` gives an encoder of dimension {found} where this one has {expected}"));
    }
    if newer.columns() != encoder.columns() {
        return Err(format!("`newer` reads the columns {:?}, not {:?}", newer.columns(), encoder.columns()));
    }
    Ok(())
}

/// The largest dimension of a vector.
const MAX_DIMENSION: usize = 65_536;

/// The most rows that a call of `encode` gets.
const MAX_ROWS: usize = 8192;

/// At most so many rows are encoded alone.
const ROWS_ALONE: usize = 8;
