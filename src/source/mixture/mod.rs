mod corpus;
mod mapped;
mod prefixes;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};

use self::corpus::CorpusSource;
use self::mapped::MappedSource;
use super::columns::{Adapter, unified};
use super::file::FileSource;
use super::filter::filtered;
use super::interface::{Fingerprint, RecordBatches, Source, SourceCounts, SourceFile, column_indices};
use crate::config::{NamedSource, PairsConfig, SOURCE_COLUMN, SourceConfig};
use crate::error::{Error, Result};
use crate::telemetry;

/// The rows of several sources, one source after the other, with a column `source` that has the name of each row's.
///
/// It has the columns that all of them have, with types that hold the values of all. Sources may gain files, and a
/// mixture may gain sources: their rows come behind those that are known, if the first source stays the first.
///
/// ```
/// use futures::TryStreamExt;
/// use prosampler::arrow::array::{AsArray, Int64Array, RecordBatch};
/// use prosampler::config::NamedSource;
/// use prosampler::source::{MemorySource, MixtureSource, Source};
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
///
/// let source = |name: &str, column: &str, values: Vec<i64>| -> Result<_, Box<dyn std::error::Error>> {
///     let rows = RecordBatch::try_from_iter([(column, std::sync::Arc::new(Int64Array::from(values)) as _)])?;
///     let rename = [(column.to_owned(), "n".to_owned())].into();
///     let settings = NamedSource { name: name.into(), rename, ..NamedSource::default() };
///     Ok((settings, Box::new(MemorySource::new(vec![rows])?) as Box<dyn Source>))
/// };
/// let mixture = MixtureSource::new(vec![source("few", "n", vec![1, 2])?, source("many", "number", vec![3, 4, 5])?])?;
/// let read: Vec<_> = mixture.read(&["n".into(), "source".into()])?.try_collect().await?;
/// assert_eq!(mixture.rows(), Some(5));
/// assert_eq!(read[1]["source"].as_string::<i32>().value(0), "many");
/// # Ok(())
/// # }
/// ```
pub struct MixtureSource {
    uri: String,
    schema: SchemaRef,
    /// What names the mixture in a cache, whatever sources it gains.
    settings: Option<String>,
    members: Vec<Member>,
    /// The column that has the name of each row's member.
    name_column: &'static str,
}

/// One of the sources.
#[derive(Clone)]
struct Member {
    name: String,
    source: Arc<dyn Source>,
}

impl MixtureSource {
    /// Joins sources in this order. Of the settings it takes `name`, `rename` and `prefix`. Columns that not all have
    /// are left out, which is logged.
    ///
    /// # Errors
    /// - [`Error::Config`] for no sources, for a source with a column `source`, and for a name that two columns would
    ///   have.
    /// - [`ColumnError`](crate::error::ColumnError) for a column to rename or prefix that is not there or no text.
    pub fn new(sources: Vec<(NamedSource, Box<dyn Source>)>) -> Result<Self> {
        let member = |(settings, source): (NamedSource, Box<dyn Source>)| {
            let name = settings.name.clone();
            Ok(Member { name, source: Arc::new(MappedSource::new(&settings, source)?) })
        };
        Self::of(sources.into_iter().map(member).collect::<Result<_>>()?, SOURCE_COLUMN)
    }

    /// The rows of pairs and, behind them, those of a corpus: positives without anchors. The column [`ROLE_COLUMN`]
    /// says which is which.
    ///
    /// # Errors
    /// [`ColumnError`](crate::error::ColumnError) for a corpus that lacks the column of positives or has another type
    /// there, and for anchors of another type than positives; [`Error::Config`] for rows that have such a column.
    pub(crate) fn with_corpus(source: Box<dyn Source>, corpus: Box<dyn Source>, pairs: &PairsConfig) -> Result<Self> {
        let corpus = CorpusSource::new(corpus, &source.schema(), pairs)?;
        let member = |name: &str, source| Member { name: name.to_owned(), source };
        Self::of(vec![member("pair", source.into()), member(IN_CORPUS, Arc::new(corpus))], ROLE_COLUMN)
    }

    fn of(members: Vec<Member>, name_column: &'static str) -> Result<Self> {
        let Some(first) = members.first() else {
            return Err(Error::setting("sources", "are none; give one at least"));
        };
        let settings = first.source.fingerprint().map(|of| format!("mixture of {}: {}", first.name, of.settings));
        let uris: Vec<_> = members.iter().map(|member| member.source.uri()).collect();
        let uri = uris.join(", ");
        let schema = common_columns(&members, name_column)?;
        Ok(Self { uri, schema, settings, members, name_column })
    }

    /// Opens the files of these sources; all else that `common` says holds for each of them, but for its filter.
    ///
    /// # Errors
    /// Those of [`new`](Self::new), [`FileSource::open_all`] and [`FilteredSource::new`](super::FilteredSource::new).
    pub async fn open(sources: &[NamedSource], common: &SourceConfig) -> Result<Self> {
        let mut opened = Vec::new();
        for settings in sources {
            let config = SourceConfig { uri: settings.uri.clone(), ..common.clone() };
            let files = FileSource::open_all(&config).await?;
            opened.push((settings.clone(), filtered(Box::new(files), settings.filter.as_deref())?));
        }
        Self::new(opened)
    }
}

/// The columns that all have, and the one that names the source.
fn common_columns(members: &[Member], name_column: &str) -> Result<SchemaRef> {
    let schemas: Vec<_> = members.iter().map(|member| member.source.schema()).collect();
    let mut fields = Vec::new();
    for field in unified(&schemas).fields() {
        let has = |member: &&Member| member.source.schema().index_of(field.name()).is_ok();
        if field.name() == name_column {
            let name = members.iter().find(has).map_or("", |member| &member.name);
            if name_column == ROLE_COLUMN {
                let message = format!("adds a column `{name_column}`, and the rows have one; rename that");
                return Err(Error::setting("pairs.corpus", message));
            }
            let message = format!(
                "add a column `{name_column}`, which `{name}` has; rename that: \
                 rename = {{ {name_column} = \"origin\" }}"
            );
            return Err(Error::setting("sources", message));
        }
        match members.iter().find(|member| !has(member)) {
            None => fields.push(field.clone()),
            Some(lacking) => telemetry::column_left_out(field.name(), &lacking.name),
        }
    }
    fields.push(Arc::new(Field::new(name_column, DataType::Utf8, false)));
    Ok(Arc::new(Schema::new(fields)))
}

impl std::fmt::Debug for MixtureSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.members.iter().map(|member| &member.name).collect();
        f.debug_struct("MixtureSource").field("sources", &names).finish_non_exhaustive()
    }
}

// A wrapper decides about every method, also about those with a default.
#[deny(clippy::missing_trait_methods)]
impl Source for MixtureSource {
    fn uri(&self) -> &str {
        &self.uri
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn rows(&self) -> Option<usize> {
        self.members.iter().map(|member| member.source.rows()).sum()
    }

    fn filter(&self) -> Option<&str> {
        self.members.iter().find_map(|member| member.source.filter())
    }

    fn fingerprint(&self) -> Option<Fingerprint> {
        let mut files = Vec::new();
        for Member { name, source } in &self.members {
            let of = source.fingerprint()?;
            let of_member = |source_file: SourceFile| SourceFile {
                uri: format!("{name}\t{}", source_file.uri),
                version: format!("{} {}", source_file.version, digest(&of.settings)),
            };
            files.extend(of.files.into_iter().map(of_member));
        }
        Some(Fingerprint { settings: self.settings.clone()?, files })
    }

    fn counts(&self) -> SourceCounts {
        let mut sum = SourceCounts::default();
        for counts in self.members.iter().map(|member| member.source.counts()) {
            sum.skipped_rows += counts.skipped_rows;
            sum.bad_texts += counts.bad_texts;
            sum.failed_requests += counts.failed_requests;
        }
        sum
    }

    fn added(&self, known: Vec<SourceFile>) -> BoxFuture<'_, Result<Option<Box<dyn Source>>>> {
        let added = async move {
            let mut members = Vec::new();
            for Member { name, source } in &self.members {
                let Some(digest) = source.fingerprint().map(|of| digest(&of.settings)) else { return Ok(None) };
                let own = |source_file: &SourceFile| {
                    let (of, uri) = source_file.uri.split_once('\t')?;
                    let version = source_file.version.strip_suffix(&format!(" {digest}"))?;
                    (of == name).then(|| SourceFile { uri: uri.to_owned(), version: version.to_owned() })
                };
                if let Some(source) = source.added(known.iter().filter_map(own).collect()).await? {
                    members.push(Member { name: name.clone(), source: source.into() });
                }
            }
            let (uri, schema, settings) = (self.uri.clone(), self.schema.clone(), self.settings.clone());
            let (is_any, name_column) = (!members.is_empty(), self.name_column);
            Ok(is_any.then(|| Box::new(Self { uri, schema, settings, members, name_column }) as Box<dyn Source>))
        };
        added.boxed()
    }

    fn read(&self, columns: &[String]) -> Result<RecordBatches> {
        column_indices(&self.uri, &self.schema, columns)?;
        let mut own: Vec<_> = columns.iter().filter(|column| *column != self.name_column).cloned().collect();
        if own.is_empty() {
            // Rows without columns cannot be counted; the mixture has another column, or no rows.
            own.extend(self.schema.fields().first().map(|field| field.name().clone()));
        }
        let indices = column_indices(&self.uri, &self.schema, &own)?;
        let failed = |cause| Error::Arrow { action: "select columns", cause };
        let declared = Arc::new(self.schema.project(&indices).map_err(failed)?);
        let delivered =
            Arc::new(self.schema.project(&column_indices(&self.uri, &self.schema, columns)?).map_err(failed)?);
        let mut parts = Vec::new();
        for Member { name, source } in self.members.clone() {
            let adapter = Adapter::new(source.uri(), declared.clone(), &source.schema())?;
            parts.push((source, adapter, Naming { name, name_column: self.name_column, delivered: delivered.clone() }));
        }
        // One after the other: a source may read ahead as soon as it is asked to read.
        let read = move |(source, adapter, naming): (Arc<dyn Source>, Adapter, Naming)| match source.read(&own) {
            Ok(batches) => batches.map(move |batch| naming.with_name(&adapter.adapt(&batch?)?)).boxed(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        };
        Ok(stream::iter(parts).map(read).flatten().boxed())
    }
}

/// Adds the column that names the source.
struct Naming {
    name: String,
    name_column: &'static str,
    delivered: SchemaRef,
}

impl Naming {
    fn with_name(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let name = || Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&self.name, batch.num_rows())));
        let mut fields = Vec::new();
        let mut columns: Vec<ArrayRef> = Vec::new();
        for field in self.delivered.fields() {
            let column = if field.name() == self.name_column { name() } else { batch[field.name().as_str()].clone() };
            // Texts that are not UTF-8 arrive as bytes.
            fields.push(Arc::new(field.as_ref().clone().with_data_type(column.data_type().clone())));
            columns.push(column);
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
            .map_err(|cause| Error::Arrow { action: "name the source of rows", cause })
    }
}

/// A short text for the settings of a source.
fn digest(settings: &str) -> String {
    crate::arrow_file::to_text(crate::arrow_file::checksum(settings.as_bytes()))
}

/// The column that tells pairs from a corpus.
pub(crate) const ROLE_COLUMN: &str = "_role";

/// What that column says of rows of a corpus.
pub(crate) const IN_CORPUS: &str = "corpus";
