use std::sync::Arc;

use arrow::array::{Array, BooleanArray, RecordBatch, Scalar, StringArray};
use arrow::compute::kernels::cmp;
use arrow::compute::{CastOptions, and, cast, cast_with_options, filter_record_batch};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::error::ArrowError;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryFutureExt};

use super::{Fingerprint, RecordBatches, Shard, Source, SourceCounts, positions};
use crate::error::{Error, Result};

/// The rows of another source for which a condition holds, such as `split = 'train' and length >= 16`.
///
/// Conditions are comparisons of a column (in `"double quotes"` where its name is no plain word) with a value, joined by
/// `and`: `=`, `!=`, `<`, `<=`, `>`, `>=`; texts, dates and times in `'single quotes'`, numbers, `true` and `false`
/// without. A null is never what it is compared with, nor different from it: its row is left out.
pub struct FilteredSource {
    source: Box<dyn Source>,
    text: String,
    conditions: Arc<[Bound]>,
}

/// A comparison, as written.
#[derive(Clone, Debug, PartialEq)]
struct Condition {
    column: String,
    operator: Operator,
    value: String,
}

/// A comparison with a value of the column's type.
#[derive(Clone)]
struct Bound {
    column: String,
    operator: Operator,
    value: Scalar<Arc<dyn Array>>,
    data_type: DataType,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

impl FilteredSource {
    /// Checks the condition against the source's columns.
    ///
    /// # Errors
    /// [`Error::Filter`] for what is no condition, [`Error::MissingColumn`], [`Error::ColumnType`] where a value is none
    /// of its column.
    pub fn new(source: Box<dyn Source>, filter: &str) -> Result<Self> {
        let schema = source.schema();
        let bind = |condition: Condition| condition.bind(source.uri(), &schema);
        let conditions = parse(filter)?.into_iter().map(bind).collect::<Result<_>>()?;
        Ok(Self { source, text: filter.to_owned(), conditions })
    }
}

impl std::fmt::Debug for FilteredSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FilteredSource").field("uri", &self.uri()).field("filter", &self.text).finish_non_exhaustive()
    }
}

impl Source for FilteredSource {
    fn uri(&self) -> &str {
        self.source.uri()
    }

    fn schema(&self) -> SchemaRef {
        self.source.schema()
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        let of_all = self.source.fingerprint()?;
        Some(Fingerprint { settings: format!("{} where {}", of_all.settings, self.text), ..of_all })
    }

    fn counts(&self) -> SourceCounts {
        self.source.counts()
    }

    fn added(&self, known: Vec<Shard>) -> BoxFuture<'_, Result<Option<Box<dyn Source>>>> {
        let filter = |source| {
            let (text, conditions) = (self.text.clone(), self.conditions.clone());
            Box::new(Self { source, text, conditions }) as Box<dyn Source>
        };
        self.source.added(known).map_ok(move |added| added.map(filter)).boxed()
    }

    fn read(&self, columns: &[String]) -> Result<RecordBatches> {
        positions(self.uri(), &self.schema(), columns)?;
        let mut needed = columns.to_vec();
        needed.extend(self.conditions.iter().map(|c| c.column.clone()).filter(|c| !columns.contains(c)));
        needed.dedup();
        let (conditions, width) = (self.conditions.clone(), columns.len());
        let filter = move |batch: Result<RecordBatch>| {
            let conditions = conditions.clone();
            async move {
                let batch = batch?;
                let work = move || {
                    let kept = filter_record_batch(&batch, &holds(&conditions, &batch)?)?;
                    kept.project(&(0..width).collect::<Vec<_>>())
                };
                let done = tokio::task::spawn_blocking(work).await;
                done.map_err(|e| Error::TaskDied { task: "filter", message: e.to_string() })?
                    .map_err(|cause| Error::Arrow { action: "filter rows", cause })
            }
        };
        Ok(self.source.read(&needed)?.map(filter).buffered(IN_FLIGHT).boxed())
    }
}

/// For which rows all conditions hold.
fn holds(conditions: &[Bound], batch: &RecordBatch) -> Result<BooleanArray, ArrowError> {
    let mut all = BooleanArray::from(vec![true; batch.num_rows()]);
    for condition in conditions {
        let column = cast(&batch[condition.column.as_str()], &condition.data_type)?;
        let compare = match condition.operator {
            Operator::Equal => cmp::eq,
            Operator::NotEqual => cmp::neq,
            Operator::Less => cmp::lt,
            Operator::AtMost => cmp::lt_eq,
            Operator::Greater => cmp::gt,
            Operator::AtLeast => cmp::gt_eq,
        };
        all = and(&all, &compare(&column, &condition.value)?)?;
    }
    Ok(all)
}

impl Condition {
    fn bind(self, uri: &str, schema: &Schema) -> Result<Bound> {
        let position = positions(uri, schema, std::slice::from_ref(&self.column))?[0];
        let data_type = match schema.field(position).data_type() {
            DataType::Dictionary(_, value) => value.as_ref().clone(),
            other => other.clone(),
        };
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let value = cast_with_options(&StringArray::from(vec![self.value.as_str()]), &data_type, &options);
        let refused = |e: &dyn std::fmt::Display| Error::ColumnType {
            column: self.column.clone(),
            found: data_type.to_string(),
            expected: format!("the filter compares it with `{}` ({e}); give a value of its type", self.value),
        };
        let value = value.map_err(|e| refused(&e))?;
        if value.is_null(0) || data_type.is_nested() {
            return Err(refused(&"which is none of its values"));
        }
        Ok(Bound { column: self.column, operator: self.operator, value: Scalar::new(value), data_type })
    }
}

fn parse(text: &str) -> Result<Vec<Condition>> {
    let mut rest = Rest { text, rest: text };
    let mut conditions = vec![rest.condition()?];
    while !rest.skip().is_empty() {
        rest.word("and")?;
        conditions.push(rest.condition()?);
    }
    Ok(conditions)
}

/// What is left to read of a condition.
struct Rest<'a> {
    text: &'a str,
    rest: &'a str,
}

impl<'a> Rest<'a> {
    fn skip(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        self.rest
    }

    fn condition(&mut self) -> Result<Condition> {
        let column = if self.skip().starts_with('"') { self.quoted('"')? } else { self.plain("a column")? };
        let operator = self.operator()?;
        let value = if self.skip().starts_with('\'') { self.quoted('\'')? } else { self.plain("a value")? };
        Ok(Condition { column, operator, value })
    }

    /// Up to the next quote; two quotes stand for one.
    fn quoted(&mut self, quote: char) -> Result<String> {
        let mut text = String::new();
        let mut inside = &self.rest[1..];
        loop {
            let Some(end) = inside.find(quote) else {
                return Err(self.expected(&format!("a closing {quote}")));
            };
            text.push_str(&inside[..end]);
            inside = &inside[end + 1..];
            if !inside.starts_with(quote) {
                self.rest = inside;
                return Ok(text);
            }
            text.push(quote);
            inside = &inside[1..];
        }
    }

    fn plain(&mut self, what: &str) -> Result<String> {
        let belongs = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '+');
        let end = self.skip().find(|c| !belongs(c)).unwrap_or(self.rest.len());
        if end == 0 {
            return Err(self.expected(what));
        }
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(word.to_owned())
    }

    fn operator(&mut self) -> Result<Operator> {
        self.skip();
        for (sign, operator) in OPERATORS {
            if let Some(rest) = self.rest.strip_prefix(sign) {
                self.rest = rest;
                return Ok(operator);
            }
        }
        Err(self.expected("one of = != < <= > >="))
    }

    fn word(&mut self, word: &str) -> Result<()> {
        let found = self.skip().get(..word.len()).is_some_and(|found| found.eq_ignore_ascii_case(word));
        if !found {
            return Err(self.expected(&format!("`{word}`")));
        }
        self.rest = &self.rest[word.len()..];
        Ok(())
    }

    fn expected(&self, what: &str) -> Error {
        let before = &self.text[..self.text.len() - self.rest.len()];
        Error::Filter { filter: self.text.to_owned(), after: before.trim_end().to_owned(), expected: what.to_owned() }
    }
}

/// The longer of two that begin alike comes first.
const OPERATORS: [(&str, Operator); 7] = [
    ("!=", Operator::NotEqual),
    ("<>", Operator::NotEqual),
    ("<=", Operator::AtMost),
    (">=", Operator::AtLeast),
    ("=", Operator::Equal),
    ("<", Operator::Less),
    (">", Operator::Greater),
];

/// Record batches that are filtered at the same time.
const IN_FLIGHT: usize = 2;
