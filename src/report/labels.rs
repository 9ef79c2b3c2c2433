//! Which samples share a label.

use std::collections::HashMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use crate::error::{ColumnError, Result};
use crate::sample::SampleId;
use crate::source::column_indices;
use crate::store::Store;
use crate::stream::MiniBatch;

/// The class of every sample seen, as a number.
#[derive(Clone, Debug)]
pub(crate) struct Labels {
    column: String,
    classes: HashMap<String, u32>,
    /// The class of each sample, or `NO_CLASS`.
    class_of: Vec<u32>,
}

impl Labels {
    pub fn new(samples: usize, column: &str) -> Self {
        Self { column: column.to_owned(), classes: HashMap::new(), class_of: vec![NO_CLASS; samples] }
    }

    pub fn column(&self) -> &str {
        &self.column
    }

    /// The labels of all samples.
    pub fn of(store: &Store, column: &str) -> Result<Self> {
        let mut labels = Self::new(store.len(), column);
        let names = [column.to_owned()];
        for item in store.select(&names)?.record_batches() {
            let (first, rows) = item?;
            let ids: Vec<_> = (first.index()..).take(rows.num_rows()).map(SampleId::new).collect();
            labels.learn_rows(store.uri(), &ids, rows)?;
        }
        Ok(labels)
    }

    /// Reads the labels of a mini-batch.
    pub fn learn(&mut self, mini_batch: &MiniBatch) -> Result<()> {
        self.learn_rows("the mini-batches", &mini_batch.ids, &mini_batch.rows)
    }

    /// Reads the labels of samples in their rows. A null is no class.
    fn learn_rows(&mut self, uri: &str, ids: &[SampleId], rows: &RecordBatch) -> Result<()> {
        let index = column_indices(uri, &rows.schema(), std::slice::from_ref(&self.column))?[0];
        let column = rows.column(index);
        let texts = cast(column, &DataType::Utf8View).map_err(|_| ColumnError::Type {
            column: self.column.clone(),
            found: column.data_type().to_string(),
            expected: "labels must be strings, numbers or booleans; name another column as `report.label`".into(),
        })?;
        for (&id, text) in ids.iter().zip(texts.as_string_view()) {
            let Some(text) = text else { continue };
            let next = self.classes.len() as u32;
            let class = match self.classes.get(text) {
                Some(&class) => class,
                None => *self.classes.entry(text.to_owned()).or_insert(next),
            };
            self.class_of[id.index()] = class;
        }
        Ok(())
    }

    /// The share of pairs among `ids` with the same class, 0 to 1.
    pub fn shared(&self, ids: &[SampleId]) -> f64 {
        let mut sizes: HashMap<u32, usize> = HashMap::new();
        for class in ids.iter().map(|id| self.class_of[id.index()]).filter(|&class| class != NO_CLASS) {
            *sizes.entry(class).or_default() += 1;
        }
        let pairs = |n: usize| (n * n.saturating_sub(1) / 2) as f64;
        let all = pairs(ids.len());
        if all == 0.0 { 0.0 } else { sizes.into_values().map(pairs).sum::<f64>() / all }
    }
}

/// The class of a sample without a label, or one that was not seen.
const NO_CLASS: u32 = u32::MAX;

/// Whether so large a share of pairs with the same label is likely to harm, beside that of uniform mini-batches.
///
/// On data sets of two and ten classes training lost beyond about these bounds (docs/evidence.md).
pub(super) fn is_much(share: f64, uniform: f64) -> bool {
    share > MUCH.max(uniform + MUCH_BEYOND * (1.0 - uniform))
}

/// The share of pairs with the same label that does no harm.
const MUCH: f64 = 0.2;

/// Which share of the pairs that have different labels by chance may have the same one.
const MUCH_BEYOND: f64 = 0.05;
