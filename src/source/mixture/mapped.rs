use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryFutureExt};

use super::prefixes::{self, PREFIXED_TYPE, is_text, prefixed};
use crate::config::{NamedSource, Prefix};
use crate::error::{ColumnError, Error, Result};
use crate::source::interface::{Fingerprint, RecordBatches, Source, SourceCounts, SourceFile, column_indices};

/// The rows of another source under other names, with texts before others.
pub(super) struct MappedSource {
    source: Box<dyn Source>,
    columns: Arc<[Column]>,
}

/// A column, and where it is from.
#[derive(Clone, Debug)]
struct Column {
    field: Field,
    /// Its name in the source.
    of: String,
    prefix: Option<Prefix>,
}

impl MappedSource {
    /// Looks up what the settings name.
    pub fn new(settings: &NamedSource, source: Box<dyn Source>) -> Result<Self> {
        let NamedSource { name, rename, prefix, .. } = settings;
        let schema = source.schema();
        let uri = format!("{name}: {}", source.uri());
        let find = |column: &String| Ok::<_, Error>(column_indices(&uri, &schema, std::slice::from_ref(column))?[0]);
        for column in rename.keys() {
            find(column)?;
        }
        let mut columns = Vec::new();
        for field in schema.fields() {
            let new = rename.get(field.name()).unwrap_or(field.name());
            let mut field_now = field.as_ref().clone().with_name(new);
            let prefix = prefix.get(new).cloned();
            if let Some(prefix) = &prefix {
                let before = match prefix {
                    Prefix::Text(_) => None,
                    Prefix::Column { column } => Some(&schema.fields()[find(column)?]),
                };
                if let Some(field) = [field].into_iter().chain(before).find(|field| !is_text(field.data_type())) {
                    let expected = format!("sources give it a prefix or take one from it ({name}); name a text column");
                    let (column, found) = (field.name().clone(), field.data_type().to_string());
                    return Err(ColumnError::Type { column, found, expected }.into());
                }
                field_now = field_now.with_data_type(PREFIXED_TYPE);
            }
            columns.push(Column { field: field_now, of: field.name().clone(), prefix });
        }
        for new in rename.values() {
            if columns.iter().filter(|column| column.field.name() == new).count() > 1 {
                let message = format!("rename a column of `{name}` to `{new}`, and it has one; rename that too");
                return Err(Error::setting("sources", message));
            }
        }
        if let Some(missing) = prefix.keys().find(|name| columns.iter().all(|column| column.field.name() != *name)) {
            let available = columns.iter().map(|column| column.field.name().clone()).collect();
            return Err(ColumnError::Missing { column: missing.clone(), uri, available }.into());
        }
        Ok(Self { source, columns: columns.into() })
    }

    /// What of the rows depends on the names and prefixes.
    fn described(&self) -> String {
        let line = |Column { field, of, prefix }: &Column| format!("{of} as {}: {prefix:?}\n", field.name());
        self.columns.iter().map(line).collect()
    }
}

// A wrapper decides about every method, also about those with a default.
#[deny(clippy::missing_trait_methods)]
impl Source for MappedSource {
    fn uri(&self) -> &str {
        self.source.uri()
    }

    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.columns.iter().map(|column| column.field.clone()).collect::<Vec<_>>()))
    }

    fn rows(&self) -> Option<usize> {
        self.source.rows()
    }

    fn filter(&self) -> Option<&str> {
        self.source.filter()
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        let of = self.source.fingerprint()?;
        Some(Fingerprint { settings: format!("{}\n{}", of.settings, self.described()), ..of })
    }

    fn counts(&self) -> SourceCounts {
        self.source.counts()
    }

    fn added(&self, known: Vec<SourceFile>) -> BoxFuture<'_, Result<Option<Box<dyn Source>>>> {
        let map = |source| Box::new(Self { source, columns: self.columns.clone() }) as Box<dyn Source>;
        self.source.added(known).map_ok(move |added| added.map(map)).boxed()
    }

    fn read(&self, columns: &[String]) -> Result<RecordBatches> {
        let wanted = column_indices(self.uri(), &self.schema(), columns)?;
        let wanted: Vec<Column> = wanted.into_iter().map(|index| self.columns[index].clone()).collect();
        let mut needed: Vec<String> = wanted.iter().map(|column| column.of.clone()).collect();
        for column in &wanted {
            if let Some(Prefix::Column { column }) = &column.prefix
                && !needed.contains(column)
            {
                needed.push(column.clone());
            }
        }
        let (wanted, needed_of): (Arc<[Column]>, Arc<[String]>) = (wanted.into(), needed.clone().into());
        let has_prefix = wanted.iter().any(|column| column.prefix.is_some());
        let map = move |batch: Result<RecordBatch>| {
            let (wanted, needed) = (wanted.clone(), needed_of.clone());
            async move {
                let batch = batch?;
                let work = move || mapped(&wanted, &needed, &batch);
                if has_prefix {
                    tokio::task::spawn_blocking(work).await.map_err(|e| Error::of_task("source", e))?
                } else {
                    work()
                }
            }
        };
        Ok(self.source.read(&needed)?.map(map).buffered(MAX_MAPPED_BATCHES).boxed())
    }
}

/// The `wanted` columns of a record batch that has those that are `needed`, in this order.
fn mapped(wanted: &[Column], needed: &[String], batch: &RecordBatch) -> Result<RecordBatch> {
    let failed = |cause| Error::Arrow { action: "put texts before others", cause };
    let mut fields = Vec::new();
    let mut columns = Vec::new();
    for (place, Column { field, prefix, .. }) in wanted.iter().enumerate() {
        let texts = batch.column(place);
        let column = match prefix {
            None => texts.clone(),
            Some(Prefix::Text(prefix)) => prefixed(texts, &|_| Some(prefix.as_bytes())).map_err(failed)?,
            Some(Prefix::Column { column }) => {
                let place = needed.iter().position(|needed| needed == column).unwrap_or_default();
                prefixes::before(batch.column(place), texts).map_err(failed)?
            }
        };
        // Texts that are not UTF-8 arrive as bytes.
        fields.push(field.clone().with_data_type(column.data_type().clone()));
        columns.push(column);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(failed)
}

/// The most record batches that get prefixes at the same time.
const MAX_MAPPED_BATCHES: usize = 2;
