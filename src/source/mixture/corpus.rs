use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};

use crate::config::PairsConfig;
use crate::error::{ColumnError, Error, Result};
use crate::source::interface::{Fingerprint, RecordBatches, Source, SourceCounts, SourceFile, column_indices};
use crate::source::types::common;

/// Positives without anchors, as rows with the columns of pairs: each stands in its own anchor's place, and other
/// columns that it lacks are null.
pub(super) struct CorpusSource {
    source: Arc<dyn Source>,
    schema: SchemaRef,
    anchor: String,
    positive: String,
}

impl CorpusSource {
    /// A source of positives beside pairs with the columns `schema`.
    ///
    /// # Errors
    /// [`ColumnError::Missing`] without the column of positives; [`ColumnError::Type`] if anchors and positives have
    /// different types, so that one cannot stand in the other's place.
    pub fn new(source: Box<dyn Source>, schema: &Schema, pairs: &PairsConfig) -> Result<Self> {
        let (Some(anchor), Some(positive)) = (&pairs.anchor, &pairs.positive) else {
            return Err(Error::setting("pairs.corpus", "needs pairs.anchor and pairs.positive"));
        };
        let own = source.schema();
        let place = column_indices(source.uri(), &own, std::slice::from_ref(positive))?[0];
        let text = own.field(place).clone();
        let of_pairs = |name: &String| schema.field_with_name(name).map(Field::data_type).ok();
        let [anchors, positives] = [anchor, positive].map(of_pairs);
        let are_alike = |a: &DataType, b: &DataType| common(a, b).is_ok();
        if let Some(positives) = positives
            && !are_alike(positives, text.data_type())
        {
            return Err(ColumnError::Type {
                column: positive.clone(),
                found: text.data_type().to_string(),
                expected: format!("in `{}` pairs.corpus needs {positives}, as the pairs have it", source.uri()),
            }
            .into());
        }
        if let (Some(anchors), Some(positives)) = (anchors, positives)
            && !are_alike(anchors, positives)
        {
            return Err(ColumnError::Type {
                column: positive.clone(),
                found: positives.to_string(),
                expected: format!(
                    "pairs.corpus needs anchors and positives of one type, and `{anchor}` is {anchors}; write both as \
                     that, or leave pairs.corpus out"
                ),
            }
            .into());
        }
        let field = |of_pairs: &Arc<Field>| match of_pairs.name() {
            name if name == anchor || name == positive => text.clone().with_name(name),
            name => {
                own.field_with_name(name).cloned().unwrap_or_else(|_| of_pairs.as_ref().clone().with_nullable(true))
            }
        };
        let schema = Arc::new(Schema::new(schema.fields().iter().map(field).collect::<Vec<_>>()));
        Ok(Self { source: source.into(), schema, anchor: anchor.clone(), positive: positive.clone() })
    }

    /// The column of the source that a column is read from; `None` if it has none.
    fn origin<'a>(&'a self, column: &'a String) -> Option<&'a String> {
        let origin = if *column == self.anchor { &self.positive } else { column };
        self.source.schema().index_of(origin).is_ok().then_some(origin)
    }
}

// A wrapper decides about every method, also about those with a default.
#[deny(clippy::missing_trait_methods)]
impl Source for CorpusSource {
    fn uri(&self) -> &str {
        self.source.uri()
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn rows(&self) -> Option<usize> {
        self.source.rows()
    }

    fn filter(&self) -> Option<&str> {
        self.source.filter()
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        let Fingerprint { settings, files } = self.source.fingerprint()?;
        let settings = format!("corpus of `{}`, also as `{}`: {settings}", self.positive, self.anchor);
        Some(Fingerprint { settings, files })
    }

    fn counts(&self) -> SourceCounts {
        self.source.counts()
    }

    fn added(&self, known: Vec<SourceFile>) -> BoxFuture<'_, Result<Option<Box<dyn Source>>>> {
        let added = async move {
            let Some(source) = self.source.added(known).await? else { return Ok(None) };
            let (schema, anchor, positive) = (self.schema.clone(), self.anchor.clone(), self.positive.clone());
            Ok(Some(Box::new(Self { source: source.into(), schema, anchor, positive }) as Box<dyn Source>))
        };
        added.boxed()
    }

    fn read(&self, columns: &[String]) -> Result<RecordBatches> {
        let indices = column_indices(self.uri(), &self.schema, columns)?;
        let failed = |cause| Error::Arrow { action: "complete rows of pairs.corpus", cause };
        let schema = Arc::new(self.schema.project(&indices).map_err(failed)?);
        let origins: Vec<Option<String>> = columns.iter().map(|column| self.origin(column).cloned()).collect();
        // Rows without columns cannot be counted.
        let mut own = vec![self.positive.clone()];
        own.extend(origins.iter().flatten().filter(|origin| **origin != self.positive).cloned());
        let complete = move |rows: RecordBatch| {
            let column = |(origin, field): (&Option<String>, &Arc<Field>)| match origin {
                Some(origin) => rows[origin.as_str()].clone(),
                None => new_null_array(field.data_type(), rows.num_rows()),
            };
            let columns: Vec<ArrayRef> = origins.iter().zip(schema.fields()).map(column).collect();
            // Texts that are not UTF-8 arrive as bytes.
            let field = |(field, column): (&Arc<Field>, &ArrayRef)| {
                field.as_ref().clone().with_data_type(column.data_type().clone())
            };
            let fields: Vec<_> = schema.fields().iter().zip(&columns).map(field).collect();
            RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(failed)
        };
        Ok(self.source.read(&own)?.map(move |rows| complete(rows?)).boxed())
    }
}
