use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Field};
use arrow::util::display::array_value_to_string;
use clap::Args;
use futures::TryStreamExt;

use super::ending::Ending;
use super::progress::thousands;
use crate::config::SourceConfig;
use crate::source::{FileSource, Source, filtered};
use crate::{Error, Result};

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
    pub async fn run(self) -> Result<Ending> {
        let options = self.options.into_iter().collect();
        let files = FileSource::open_all(&SourceConfig { uri: self.uri, options, ..SourceConfig::default() }).await?;
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

        let source = filtered(Box::new(files), self.filter.as_deref())?;
        let schema = source.schema();
        let names: Vec<_> = schema.fields().iter().map(|f| f.name().clone()).collect();
        let mut batches = source.read(&names)?;
        let (mut scanned, mut nulls, mut shown) = (0, vec![0; names.len()], Vec::new());
        while scanned < self.scan.max(self.rows)
            && let Some(batch) = batches.try_next().await?
        {
            let missing = self.rows.saturating_sub(shown.iter().map(RecordBatch::num_rows).sum());
            if missing > 0 {
                shown.push(batch.slice(0, missing.min(batch.num_rows())));
            }
            scanned += batch.num_rows();
            batch.columns().iter().zip(&mut nulls).for_each(|(column, nulls)| *nulls += column.logical_null_count());
        }

        say!("\ncolumns, with nulls in the first {} rows", thousands(scanned as u64))?;
        let width = names.iter().map(|n| n.chars().count()).max().unwrap_or(0);
        for (field, nulls) in schema.fields().iter().zip(nulls) {
            let nulls = if nulls == 0 { "no nulls".to_owned() } else { format!("{} nulls", thousands(nulls as u64)) };
            say!("  {:<width$}  {}, {nulls}: {}", field.name(), field.data_type(), serves(field))?;
        }
        say!("\nrows")?;
        for batch in &shown {
            for row in 0..batch.num_rows() {
                for (name, column) in names.iter().zip(batch.columns()) {
                    say!("  {name:<width$}  {}", show(column, row)?)?;
                }
                say!()?;
            }
        }
        Ok(Ending::Done)
    }
}

/// What a column may be used for.
fn serves(field: &Field) -> &'static str {
    fn plain(data_type: &DataType) -> &DataType {
        if let DataType::Dictionary(_, value) = data_type { plain(value) } else { data_type }
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
fn show(column: &dyn Array, row: usize) -> Result<String> {
    let text = match column.data_type() {
        _ if column.is_null(row) => "null".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "(bytes)".to_owned()
        }
        _ => array_value_to_string(column, row).map_err(|cause| Error::Arrow { action: "show a value", cause })?,
    };
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(WIDTH + 1).collect();
    Ok(if line.chars().count() > WIDTH { line.chars().take(WIDTH - 1).chain(['…']).collect() } else { line })
}

/// Files that are listed.
const FILES: usize = 10;

/// Characters of a value.
const WIDTH: usize = 100;
