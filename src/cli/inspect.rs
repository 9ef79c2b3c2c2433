//! `prosampler inspect`: says what is in files, and what their columns can serve as.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::util::display::array_value_to_string;
use clap::{Args, ValueHint};
use futures::TryStreamExt;

use super::ending::Ending;
use super::progress::thousands;
use crate::config::{OnCorrupt, SourceConfig};
use crate::error::EmbeddingError;
use crate::source::{FileSource, Source, filtered, readable};
use crate::{Error, Result, SampleId};

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Inspect {
    /// Files, folders or shell patterns, as `source.uri` takes them.
    #[arg(required = true, value_hint = ValueHint::AnyPath)]
    uri: Vec<String>,

    /// An option of the store or server, as `source.options` takes them, for example region=eu-west-1. May be given
    /// again.
    #[arg(long = "option", value_name = "KEY=VALUE", value_parser = pair)]
    options: Vec<(String, String)>,

    /// Only rows for which this holds, as `source.filter` takes it.
    #[arg(long)]
    filter: Option<String>,

    /// Rows to show.
    #[arg(long, default_value_t = 3)]
    rows: usize,

    /// Rows to count nulls in.
    #[arg(long, default_value_t = 100_000)]
    scan: usize,
}

fn pair(text: &str) -> std::result::Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

impl Inspect {
    /// Shows what can be read. What cannot be read is listed at the end, and the first of it is the error.
    pub async fn run(self) -> Result<Ending> {
        let config = SourceConfig {
            uri: self.uri.clone(),
            options: self.options.iter().cloned().collect(),
            on_corrupt: OnCorrupt::Skip,
            ..SourceConfig::default()
        };
        let (files, mut damage) = FileSource::open_readable(&config).await?;
        print_files(&files)?;

        let source = filtered(Box::new(files.clone()), self.filter.as_deref())?;
        let content = self.scan(source.as_ref()).await?;
        content.print_columns()?;
        match (content.scanned, &self.filter) {
            (0, Some(filter)) => say!("\nno row that can be read passes the filter: {filter}")?,
            (0, None) => say!("\nno row that can be read")?,
            _ => say!("\nrows")?,
        }
        content.print_rows()?;

        damage.extend(files.take_damage());
        damage.extend(content.bad_texts());
        if !damage.is_empty() {
            say!("what cannot be read")?;
            damage.iter().try_for_each(|error| say!("  {error}"))?;
        }
        damage.into_iter().next().map_or(Ok(Ending::Done), Err)
    }

    /// Reads the first rows.
    async fn scan(&self, source: &dyn Source) -> Result<Content> {
        let schema = source.schema();
        let is_unique =
            |field: &&Field| schema.fields().iter().filter(|other| other.name() == field.name()).count() == 1;
        let fields: Vec<Field> = schema.fields().iter().map(AsRef::as_ref).filter(is_unique).cloned().collect();
        let names: Vec<_> = fields.iter().map(|field| field.name().clone()).collect();
        let mut columns: Vec<_> = fields.into_iter().map(Column::new).collect();
        let mut batches = source.read(&names)?;
        let mut scanned = 0;
        let mut shown = Vec::new();
        while scanned < self.scan.max(self.rows)
            && let Some(batch) = batches.try_next().await?
        {
            let missing = self.rows.saturating_sub(shown.iter().map(RecordBatch::num_rows).sum());
            if missing > 0 {
                shown.push(batch.slice(0, missing.min(batch.num_rows())));
            }
            for (column, values) in columns.iter_mut().zip(batch.columns()) {
                column.add(scanned, values);
            }
            scanned += batch.num_rows();
        }
        drop(batches);
        Ok(Content { schema, columns, scanned, shown })
    }
}

fn print_files(files: &FileSource) -> Result<()> {
    say!("{}", files.uri())?;
    for (uri, kind, parts) in files.files().take(LISTED_FILES) {
        say!("  {uri}: {kind}, {parts} {}", if kind == "Parquet" { "row groups" } else { "part" })?;
    }
    let more = files.files().count().saturating_sub(LISTED_FILES);
    if more > 0 {
        say!("  and {more} more files")?;
    }
    if let Some(rows) = files.rows() {
        say!("  {} rows", thousands(rows as u64))?;
    }
    Ok(())
}

/// What the first rows of a source hold.
struct Content {
    schema: SchemaRef,
    /// The columns whose name no other column has, in the order of the schema.
    columns: Vec<Column>,
    /// The number of rows that were read.
    scanned: usize,
    /// The rows to show.
    shown: Vec<RecordBatch>,
}

impl Content {
    fn print_columns(&self) -> Result<()> {
        match self.scanned {
            0 => say!("\ncolumns")?,
            scanned => say!("\ncolumns, with nulls in the first {} rows that can be read", thousands(scanned as u64))?,
        }
        let width = self.name_width();
        for field in self.schema.fields() {
            let name = field.name();
            let data_type = field.data_type();
            match self.columns.iter().find(|column| column.field.name() == name) {
                None => say!("  {name:<width$}  {data_type}: not usable, since other columns have this name")?,
                Some(_) if self.scanned == 0 => say!("  {name:<width$}  {data_type}: {}", serves(field))?,
                Some(column) => say!("  {name:<width$}  {data_type}, {column}: {}", serves(field))?,
            }
        }
        Ok(())
    }

    fn print_rows(&self) -> Result<()> {
        let width = self.name_width();
        for batch in &self.shown {
            for row in 0..batch.num_rows() {
                for (column, values) in self.columns.iter().zip(batch.columns()) {
                    say!("  {:<width$}  {}", column.field.name(), show(values, row))?;
                }
                say!()?;
            }
        }
        Ok(())
    }

    fn name_width(&self) -> usize {
        self.schema.fields().iter().map(|field| field.name().chars().count()).max().unwrap_or(0)
    }

    fn bad_texts(&self) -> impl Iterator<Item = Error> {
        self.columns.iter().filter_map(Column::error)
    }
}

/// What a column holds beside usable values.
struct Column {
    field: Field,
    nulls: usize,
    bad_texts: usize,
    /// The first row with a bad text.
    first_bad: usize,
}

impl Column {
    fn new(field: Field) -> Self {
        Self { field, nulls: 0, bad_texts: 0, first_bad: 0 }
    }

    /// Counts more values, which begin at row `start`.
    fn add(&mut self, start: usize, values: &ArrayRef) {
        self.nulls += values.logical_null_count();
        // Texts are read as bytes if one of them is no UTF-8.
        if values.data_type() != self.field.data_type()
            && let Ok((_, bad)) = readable(values, self.field.data_type())
        {
            if self.bad_texts == 0 {
                self.first_bad = start + bad.first().unwrap_or(&0);
            }
            self.bad_texts += bad.len();
        }
    }

    fn error(&self) -> Option<Error> {
        (self.bad_texts > 0).then(|| {
            EmbeddingError::BadSample {
                sample: SampleId::new(self.first_bad),
                column: self.field.name().clone(),
                reason: format!("is no UTF-8 ({} such values)", thousands(self.bad_texts as u64)),
            }
            .into()
        })
    }
}

impl std::fmt::Display for Column {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.nulls {
            0 => f.write_str("no nulls")?,
            nulls => write!(f, "{} nulls", thousands(nulls as u64))?,
        }
        match self.bad_texts {
            0 => Ok(()),
            bad => write!(f, ", {} texts that are no UTF-8", thousands(bad as u64)),
        }
    }
}

/// What a column can serve as.
fn serves(field: &Field) -> &'static str {
    fn plain(data_type: &DataType) -> &DataType {
        match data_type {
            DataType::Dictionary(_, value) => plain(value),
            DataType::RunEndEncoded(_, values) => plain(values.data_type()),
            other => other,
        }
    }
    fn nested(data_type: &DataType) -> &DataType {
        match data_type {
            DataType::FixedSizeList(item, _) | DataType::List(item) | DataType::LargeList(item) => {
                nested(item.data_type())
            }
            other => other,
        }
    }
    match plain(field.data_type()) {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text (encode.column), label, filter",
        DataType::FixedSizeList(item, _) | DataType::List(item) | DataType::LargeList(item)
            if item.data_type().is_floating() =>
        {
            "vectors (encode.feature = \"vector\"), tensors"
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "images (encode.feature = \"image\"), text",
        DataType::FixedSizeList(item, _) | DataType::List(item) | DataType::LargeList(item)
            if nested(item.data_type()).is_numeric() =>
        {
            "tensors, graphs, raw pixels (encode.feature)"
        }
        data_type if data_type.is_integer() || *data_type == DataType::Boolean => "label (report.label), filter",
        data_type if data_type.is_numeric() || data_type.is_temporal() => "filter",
        _ => "carried to the trainer as it is",
    }
}

/// A value in one line, cut to `VALUE_WIDTH` characters.
fn show(column: &dyn Array, row: usize) -> String {
    let text = match column.data_type() {
        _ if column.logical_nulls().is_some_and(|nulls| nulls.is_null(row)) => "null".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "(bytes)".to_owned()
        }
        _ => array_value_to_string(column, row).unwrap_or_else(|reason| format!("(cannot be shown: {reason})")),
    };
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(VALUE_WIDTH + 1).collect();
    if line.chars().count() <= VALUE_WIDTH {
        return line;
    }
    line.chars().take(VALUE_WIDTH - 1).chain(['…']).collect()
}

/// Files that are listed by name.
const LISTED_FILES: usize = 10;

/// Characters of a value that is shown.
const VALUE_WIDTH: usize = 100;

/// What `--help` ends with.
const EXAMPLES: &str = "\
Examples:
  prosampler inspect data/wordnet/glosses.parquet
  prosampler inspect data/wordnet --filter \"label = 'noun.animal'\" --rows 10";
