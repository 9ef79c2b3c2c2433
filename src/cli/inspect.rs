use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field};
use arrow::util::display::array_value_to_string;
use clap::Args;
use futures::TryStreamExt;

use super::ending::Ending;
use super::progress::thousands;
use crate::config::{OnCorrupt, SourceConfig};
use crate::source::{FileSource, Source, filtered, readable};
use crate::{Error, Result, SampleId};

#[derive(Debug, Args)]
pub(super) struct Inspect {
    /// Files, folders or shell patterns, as `source.uri` takes them.
    #[arg(required = true)]
    uri: Vec<String>,

    /// An option of the store or server, as `source.options` takes them, for example region=eu-west-1. May be given again.
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
    /// What cannot be read does not keep the rest from being shown: it is told file by file, and is the error at last.
    pub async fn run(self) -> Result<Ending> {
        let options = self.options.into_iter().collect();
        let on_corrupt = OnCorrupt::Skip;
        let config = SourceConfig { uri: self.uri, options, on_corrupt, ..SourceConfig::default() };
        let (files, mut damage) = FileSource::open_readable(&config).await?;
        say!("{}", files.uri())?;
        for (uri, kind, parts) in files.files().take(FILES) {
            say!("  {uri}: {kind}, {parts} {}", if kind == "Parquet" { "row groups" } else { "part" })?;
        }
        let more = files.files().count().saturating_sub(FILES);
        if more > 0 {
            say!("  and {more} more files")?;
        }
        if let Some(rows) = files.rows() {
            say!("  {} rows", thousands(rows as u64))?;
        }

        let source = filtered(Box::new(files.clone()), self.filter.as_deref())?;
        let schema = source.schema();
        let named = |name: &String| schema.fields().iter().filter(|f| f.name() == name).count();
        let names: Vec<_> = schema.fields().iter().map(|f| f.name().clone()).filter(|name| named(name) == 1).collect();
        let mut batches = source.read(&names)?;
        let (mut scanned, mut scans, mut shown) = (0, vec![Scan::default(); names.len()], Vec::new());
        while scanned < self.scan.max(self.rows)
            && let Some(batch) = batches.try_next().await?
        {
            let missing = self.rows.saturating_sub(shown.iter().map(RecordBatch::num_rows).sum());
            if missing > 0 {
                shown.push(batch.slice(0, missing.min(batch.num_rows())));
            }
            let used = schema.fields().iter().filter(|field| named(field.name()) == 1);
            for ((column, scan), field) in batch.columns().iter().zip(&mut scans).zip(used) {
                scan.add(scanned, column, field);
            }
            scanned += batch.num_rows();
        }
        drop(batches);

        match scanned {
            0 => say!("\ncolumns")?,
            _ => say!("\ncolumns, with nulls in the first {} rows that can be read", thousands(scanned as u64))?,
        }
        let width = schema.fields().iter().map(|f| f.name().chars().count()).max().unwrap_or(0);
        let mut each = scans.iter();
        for field in schema.fields() {
            if named(field.name()) > 1 {
                say!(
                    "  {:<width$}  {}: not usable, since other columns have this name",
                    field.name(),
                    field.data_type()
                )?;
            } else if let Some(scan) = each.next() {
                let nulls = if scanned == 0 { String::new() } else { format!(", {scan}") };
                say!("  {:<width$}  {}{nulls}: {}", field.name(), field.data_type(), serves(field))?;
            }
        }
        match (scanned, &self.filter) {
            (0, Some(filter)) => say!("\nno row that can be read passes the filter: {filter}")?,
            (0, None) => say!("\nno row that can be read")?,
            _ => say!("\nrows")?,
        }
        for batch in &shown {
            for row in 0..batch.num_rows() {
                for (name, column) in names.iter().zip(batch.columns()) {
                    say!("  {name:<width$}  {}", show(column, row))?;
                }
                say!()?;
            }
        }
        damage.extend(files.take_damage());
        let used = schema.fields().iter().filter(|field| named(field.name()) == 1);
        damage.extend(used.zip(&scans).filter_map(|(field, scan)| scan.error(field)));
        if !damage.is_empty() {
            say!("what cannot be read")?;
            damage.iter().try_for_each(|error| say!("  {error}"))?;
        }
        damage.into_iter().next().map_or(Ok(Ending::Done), Err)
    }
}

/// What a column holds beside values.
#[derive(Clone, Default)]
struct Scan {
    nulls: usize,
    bad_texts: usize,
    /// The first row with one of these.
    first: usize,
}

impl Scan {
    fn add(&mut self, before: usize, column: &ArrayRef, field: &Field) {
        self.nulls += column.logical_null_count();
        // Texts come as bytes where one of them is no UTF-8.
        if column.data_type() != field.data_type()
            && let Ok((_, bad)) = readable(column, field.data_type())
        {
            if self.bad_texts == 0 {
                self.first = before + bad.first().unwrap_or(&0);
            }
            self.bad_texts += bad.len();
        }
    }

    fn error(&self, field: &Field) -> Option<Error> {
        (self.bad_texts > 0).then(|| Error::BadSample {
            sample: SampleId::new(self.first),
            column: field.name().clone(),
            reason: format!("is no UTF-8 ({} such values)", thousands(self.bad_texts as u64)),
        })
    }
}

impl std::fmt::Display for Scan {
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

/// What a column may be used for.
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

/// One value, cut to a line.
fn show(column: &dyn Array, row: usize) -> String {
    let text = match column.data_type() {
        _ if column.logical_nulls().is_some_and(|nulls| nulls.is_null(row)) => "null".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "(bytes)".to_owned()
        }
        _ => array_value_to_string(column, row).unwrap_or_else(|reason| format!("(cannot be shown: {reason})")),
    };
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WIDTH + 1).collect();
    if line.chars().count() > WIDTH { line.chars().take(WIDTH - 1).chain(['…']).collect() } else { line }
}

/// Files that are listed.
const FILES: usize = 10;

/// Characters of a value.
const WIDTH: usize = 100;
