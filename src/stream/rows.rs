//! The rows that mini-batches carry.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, ListArray, RecordBatch, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};

use super::one_of::OneOf;
use crate::error::{Error, Result};
use crate::sample::SampleId;
use crate::store::Store;

/// The columns that mini-batches carry.
#[derive(Clone, Debug)]
pub(crate) struct RowColumns {
    pub payload: Vec<String>,
    /// The column that explicit negatives are taken from, if there are any.
    pub negative: Option<String>,
    /// A column of lists, of which they carry one item each, and so do explicit negatives.
    pub one_of: Option<OneOf>,
    /// Whether they carry the mask.
    pub mask: bool,
}

/// The name of the column of marks for pairs that are no negatives.
pub(crate) const MASK_COLUMN: &str = "mask";

/// What tells this column from one of the rows that has the same name: a key of its metadata.
pub(super) const MASK_ROLE: &str = "prosampler.role";

/// The name of the column of the `number`-th explicit negative, from 1.
pub(crate) fn negative_column(number: usize) -> String {
    format!("negative_{number}")
}

/// A store's rows with the columns that mini-batches carry.
#[derive(Debug)]
pub(super) struct Rows {
    payload: Store,
    /// The one column that explicit negatives are taken from.
    negative: Option<Store>,
    one_of: Option<OneOf>,
    has_mask: bool,
}

impl Rows {
    /// Copies nothing. O(record batches of the store).
    pub fn of(store: &Store, columns: &RowColumns) -> Result<Self> {
        let payload = store.select(&columns.payload)?;
        let negative = columns.negative.as_ref().map(|column| store.select(std::slice::from_ref(column)));
        Ok(Self { payload, negative: negative.transpose()?, one_of: columns.one_of.clone(), has_mask: columns.mask })
    }

    /// The columns of mini-batches with `negatives` explicit negatives of each sample.
    pub fn schema(&self, negatives: usize) -> SchemaRef {
        let mut fields: Vec<_> = self.payload.schema().fields().iter().map(|field| self.carried(field)).collect();
        if let Some(negative) = &self.negative {
            let field = self.carried(&negative.schema().fields()[0]);
            let named = |number| field.as_ref().clone().with_name(negative_column(number)).with_nullable(true);
            fields.extend((1..=negatives).map(|number| Arc::new(named(number))));
        }
        if self.has_mask {
            let role = [(MASK_ROLE.to_owned(), "mask".to_owned())];
            fields.push(Arc::new(Field::new_list(MASK_COLUMN, mark(), false).with_metadata(role)));
        }
        Schema::new(fields).into()
    }

    /// The field of a column as mini-batches carry it.
    fn carried(&self, field: &FieldRef) -> FieldRef {
        let is_drawn = self.one_of.as_ref().is_some_and(|of| of.column == *field.name());
        OneOf::field(field).filter(|_| is_drawn).unwrap_or_else(|| field.clone())
    }

    /// The rows of these samples in `epoch`.
    fn rows(&self, store: &Store, ids: &[SampleId], epoch: u64) -> Result<Vec<ArrayRef>> {
        let rows = store.gather(ids)?;
        let mut columns = rows.columns().to_vec();
        if let Some(of) = &self.one_of
            && let Ok(place) = rows.schema().index_of(&of.column)
        {
            let chosen = of.choose(&columns[place], ids, epoch);
            columns[place] = chosen.map_err(|cause| Error::Arrow { action: "draw positives", cause })?;
        }
        Ok(columns)
    }

    /// The rows of the samples `ids` in `epoch`, with columns for their explicit negatives, [ids × negatives], and for
    /// `marks`, [ids × marks of each].
    ///
    /// Blocks while pages come in from disk.
    pub fn gather(
        &self,
        ids: &[SampleId],
        negatives: &[Option<SampleId>],
        marks: Option<Vec<bool>>,
        epoch: u64,
    ) -> Result<RecordBatch> {
        if self.negative.is_none() && self.one_of.is_none() && marks.is_none() {
            return self.payload.gather(ids);
        }
        let of_each = negatives.len() / ids.len().max(1);
        let mut columns = self.rows(&self.payload, ids, epoch)?;
        columns.extend(self.negatives(negatives, of_each, epoch)?);
        columns.extend(marks.map(|marks| lists(marks, ids.len())));
        RecordBatch::try_new(self.schema(of_each), columns)
            .map_err(|cause| Error::Arrow { action: "join rows with their negatives", cause })
    }

    /// A column for each of `count` explicit negatives, [samples × count].
    fn negatives(&self, negatives: &[Option<SampleId>], count: usize, epoch: u64) -> Result<Vec<ArrayRef>> {
        let Some(store) = self.negative.as_ref().filter(|_| count > 0) else { return Ok(Vec::new()) };
        let found: Vec<_> = negatives.iter().copied().flatten().collect();
        let values = self.rows(store, &found, epoch)?;
        let mut next_index = 0..;
        let indices: Vec<Option<u32>> = negatives.iter().map(|id| id.and_then(|_| next_index.next())).collect();

        let column = |number| {
            let indices: UInt32Array = indices.iter().skip(number).step_by(count).copied().collect();
            take(&values[0], &indices, None)
        };
        let columns = (0..count).map(column).collect::<Result<_, _>>();
        columns.map_err(|cause| Error::Arrow { action: "gather negatives", cause })
    }
}

/// One of the marks of a sample.
fn mark() -> Field {
    Field::new_list_field(DataType::Boolean, false)
}

/// Marks [rows × marks of each] as a list for each row.
fn lists(marks: Vec<bool>, rows: usize) -> ArrayRef {
    let offsets = OffsetBuffer::from_repeated_length(marks.len() / rows.max(1), rows);
    Arc::new(ListArray::new(mark().into(), offsets, Arc::new(BooleanArray::from(marks)), None))
}
