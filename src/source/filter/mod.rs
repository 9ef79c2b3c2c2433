mod compare;
mod number;
mod parse;
mod place;
mod time;

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::{and, filter_record_batch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryFutureExt};

use self::compare::{Test, test};
use self::parse::{Condition, parse};
use super::interface::{Fingerprint, RecordBatches, Source, SourceCounts, SourceFile, column_indices};
use crate::error::{ColumnError, Error, Result};

/// The rows of another source for which a condition holds, such as `split = 'train' and length >= 16`.
///
/// Conditions are comparisons of a column (in `"double quotes"` unless its name is a plain word) with a value, joined
/// by `and`: `=`, `!=`, `<`, `<=`, `>`, `>=`; texts, dates, times and durations in `'single quotes'`, numbers, `true`
/// and `false` without. They mean what they mean in SQL:
///
/// - A null neither equals a value nor differs from it: its row is left out, also by `!=`.
/// - Whole numbers, decimals, dates, times, timestamps and durations are compared exactly, also with a value that lies
///   between two of the column's or beyond them all: `n < 2.5` keeps 2, `tiny < 1000` every `Int8`.
/// - Floats are compared as IEEE 754 has it: −0 is 0, and NaN equals nothing, is neither below nor above anything, and
///   only `!=` keeps it. The value is first rounded to the nearest that the column can hold, so that `score = 0.1`
///   finds the `Float32` nearest to 0.1. `inf` and `-inf` are values: `score <= inf` leaves NaN out.
/// - Timestamps with a zone are compared as instants. A value is the local time of the column's zone, unless it says
///   its own: `'2020-06-01 02:00:00'`, `'2020-06-01T00:00:00Z'`, `'2020-06-01 02:00:00 +02:00'`.
/// - Texts and bytes are compared byte by byte, which is by code point; `false` comes before `true`.
/// - Dictionaries and run-end encoded columns are compared by their values. Lists, structs, maps, unions and calendar
///   intervals cannot be compared.
///
/// `docs/filters.md` has a table by type. Rows are filtered on two blocking threads, which copy the rows that are kept.
pub struct FilteredSource {
    source: Box<dyn Source>,
    text: String,
    comparisons: Arc<[Comparison]>,
}

/// Returns a source of the rows for which `filter` holds, or of all rows if there is no filter.
pub(crate) fn filtered(source: Box<dyn Source>, filter: Option<&str>) -> Result<Box<dyn Source>> {
    Ok(match filter {
        Some(filter) => Box::new(FilteredSource::new(source, filter)?),
        None => source,
    })
}

/// A condition for the type of its column.
struct Comparison {
    column: String,
    test: Test,
}

impl FilteredSource {
    /// Filters a source by a condition, which is checked against the source's columns.
    ///
    /// # Errors
    /// - [`Error::Filter`] if `filter` is not a condition.
    /// - [`ColumnError::Missing`] and [`ColumnError::Ambiguous`].
    /// - [`ColumnError::Type`] if a value cannot be compared with its column.
    pub fn new(source: Box<dyn Source>, filter: &str) -> Result<Self> {
        let schema = source.schema();
        let bind = |condition| Comparison::new(condition, source.uri(), &schema);
        let comparisons = parse(filter)?.into_iter().map(bind).collect::<Result<_>>()?;
        Ok(Self { source, text: filter.to_owned(), comparisons })
    }
}

impl std::fmt::Debug for FilteredSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FilteredSource").field("uri", &self.uri()).field("filter", &self.text).finish_non_exhaustive()
    }
}

// A wrapper decides about every method, also about those with a default.
#[deny(clippy::missing_trait_methods)]
impl Source for FilteredSource {
    fn uri(&self) -> &str {
        self.source.uri()
    }

    fn schema(&self) -> SchemaRef {
        self.source.schema()
    }

    /// Returns `None`: which rows are kept is not known before they are read.
    fn rows(&self) -> Option<usize> {
        None
    }

    fn filter(&self) -> Option<&str> {
        Some(&self.text)
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        let all = self.source.fingerprint()?;
        Some(Fingerprint { settings: format!("{} where {} ({FILTER_VERSION})", all.settings, self.text), ..all })
    }

    fn counts(&self) -> SourceCounts {
        self.source.counts()
    }

    fn added(&self, known: Vec<SourceFile>) -> BoxFuture<'_, Result<Option<Box<dyn Source>>>> {
        let filter = |source| {
            let text = self.text.clone();
            let comparisons = self.comparisons.clone();
            Box::new(Self { source, text, comparisons }) as Box<dyn Source>
        };
        self.source.added(known).map_ok(move |added| added.map(filter)).boxed()
    }

    fn read(&self, columns: &[String]) -> Result<RecordBatches> {
        column_indices(self.uri(), &self.schema(), columns)?;
        let mut needed = columns.to_vec();
        let mut compared = Vec::new();
        for Comparison { column, .. } in &*self.comparisons {
            let index = needed.iter().position(|needed| needed == column).unwrap_or(needed.len());
            if index == needed.len() {
                needed.push(column.clone());
            }
            compared.push(index);
        }
        let comparisons = self.comparisons.clone();
        let compared = Arc::<[usize]>::from(compared);
        let width = columns.len();
        let filter = move |batch: Result<RecordBatch>| {
            let comparisons = comparisons.clone();
            let compared = compared.clone();
            async move {
                let batch = batch?;
                let work = move || {
                    let kept = holds(&comparisons, &compared, &batch)?;
                    filter_record_batch(&batch.project(&(0..width).collect::<Vec<_>>())?, &kept)
                };
                let done = tokio::task::spawn_blocking(work).await;
                done.map_err(|e| Error::of_task("filter", e))?
                    .map_err(|cause| Error::Arrow { action: "filter rows", cause })
            }
        };
        Ok(self.source.read(&needed)?.map(filter).buffered(MAX_FILTERED_BATCHES).boxed())
    }
}

/// Says for which rows all comparisons hold; `columns` are the indices of their columns.
fn holds(comparisons: &[Comparison], columns: &[usize], batch: &RecordBatch) -> Result<BooleanArray, ArrowError> {
    let mut all: Option<BooleanArray> = None;
    for (comparison, &column) in comparisons.iter().zip(columns) {
        let holds = (comparison.test)(batch.column(column))?;
        all = Some(match all {
            Some(all) => and(&all, &holds)?,
            None => holds,
        });
    }
    Ok(all.unwrap_or_else(|| vec![true; batch.num_rows()].into()))
}

impl Comparison {
    fn new(condition: Condition, uri: &str, schema: &Schema) -> Result<Self> {
        let Condition { column, operator, literal } = condition;
        let index = column_indices(uri, schema, std::slice::from_ref(&column))?[0];
        let data_type = schema.field(index).data_type();
        let test = test(data_type, operator, &literal).map_err(|reason| ColumnError::Type {
            found: data_type.to_string(),
            expected: format!("the filter compares it with `{}`: {reason}", literal.text),
            column: column.clone(),
        })?;
        Ok(Self { column, test })
    }
}

/// The version of what filters mean. If they keep other rows than before, it changes, and older caches are not used.
const FILTER_VERSION: u32 = 2;

/// The most record batches that are filtered at the same time.
const MAX_FILTERED_BATCHES: usize = 2;
