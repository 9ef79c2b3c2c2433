//! What columns are likely for.

use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};

/// What a pipeline embeds.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Embedded {
    Pairs { anchor: String, positive: String },
    Text { column: String },
    Image { column: String },
    Graph,
    Tensor { inputs: Vec<String> },
    Vector { column: String, dimension: Option<usize> },
}

/// A guess, each part with its reason.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Guess {
    pub embedded: Embedded,
    pub why: String,
    pub label: Option<(String, String)>,
}

/// Guesses from columns, some rows, and the names of the model's inputs if there is a model.
///
/// # Errors
/// What is missing, and what to do.
pub(super) fn guess(schema: &Schema, rows: &RecordBatch, inputs: Option<&[String]>) -> Result<Guess, String> {
    let (embedded, why) = embedded(schema, rows, inputs)?;
    let label = label(schema, rows, &embedded);
    Ok(Guess { embedded, why, label })
}

fn embedded(schema: &Schema, rows: &RecordBatch, inputs: Option<&[String]>) -> Result<(Embedded, String), String> {
    let has = |name: &str| inputs.is_some_and(|inputs| inputs.iter().any(|input| input == name));
    if inputs.is_some() {
        if has("input_ids") {
            return texts(schema, rows)
                .map(|(embedded, why)| (embedded, format!("the model takes input_ids, and {why}")))
                .ok_or_else(|| {
                    "the model takes texts (input_ids), but no column holds any; name another model".into()
                });
        }
        if has("edge_index") {
            return Ok((Embedded::Graph, "the model takes edge_index, so rows are graphs".into()));
        }
        let named: Vec<String> =
            inputs.into_iter().flatten().filter(|input| schema.field_with_name(input).is_ok()).cloned().collect();
        if named.is_empty() {
            let (column, why) = image(schema, rows).ok_or_else(|| nothing_fits(inputs))?;
            return Ok((Embedded::Image { column }, format!("the model takes no texts, and {why}")));
        }
        let why = format!("columns have the names of the model's inputs: {}", named.join(", "));
        return Ok((Embedded::Tensor { inputs: named }, why));
    }
    if let Some((column, dimension)) = vector(schema, rows) {
        let why = format!("`{column}` holds lists of one length of floating-point numbers, and no model is given");
        return Ok((Embedded::Vector { column, dimension }, why));
    }
    if let Some((column, why)) = image(schema, rows) {
        return Ok((Embedded::Image { column }, why));
    }
    if ["edge_sources", "edge_targets"].iter().all(|name| schema.field_with_name(name).is_ok()) {
        return Ok((Embedded::Graph, "there are columns edge_sources and edge_targets".into()));
    }
    texts(schema, rows).ok_or_else(|| nothing_fits(None))
}

fn nothing_fits(inputs: Option<&[String]>) -> String {
    let inputs = inputs.map(|inputs| format!("; the model takes {}", inputs.join(", "))).unwrap_or_default();
    format!(
        "no column is a text, an image, a graph or a vector that could be embedded{inputs}. `prosampler inspect` shows \
         the columns, and pipelines/ in the repository has files to start from"
    )
}

/// Pairs of texts by the usual names, or the text that is most likely meant.
fn texts(schema: &Schema, rows: &RecordBatch) -> Option<(Embedded, String)> {
    let all: Vec<&Field> =
        schema.fields().iter().map(AsRef::as_ref).filter(|field| is_text(field.data_type())).collect();
    let find = |name: &str| all.iter().find(|field| field.name().eq_ignore_ascii_case(name)).map(|f| f.name().clone());
    for (anchor, positive) in PAIRS {
        if let (Some(anchor), Some(positive)) = (find(anchor), find(positive)) {
            let why = format!("`{anchor}` and `{positive}` are usual names of a text and its positive");
            return Some((Embedded::Pairs { anchor, positive }, why));
        }
    }
    if let Some(column) = TEXTS.iter().find_map(|name| find(name)) {
        let why = format!("`{column}` is a usual name of a text");
        return Some((Embedded::Text { column }, why));
    }
    let longest = all.iter().max_by_key(|field| rows.column_by_name(field.name()).map_or(0, characters))?;
    let column = longest.name().clone();
    let why = format!("`{column}` has the longest texts");
    Some((Embedded::Text { column }, why))
}

/// The column of encoded images.
fn image(schema: &Schema, rows: &RecordBatch) -> Option<(String, String)> {
    let is_image = |field: &&&Field| {
        let Some(values) = rows.column_by_name(field.name()) else { return false };
        let bytes = match values.data_type() {
            DataType::Struct(_) => values.as_struct().column_by_name("bytes"),
            _ => Some(values),
        };
        bytes.and_then(first_bytes).is_some_and(|bytes| image::guess_format(&bytes).is_ok())
    };
    let fields: Vec<&Field> = schema.fields().iter().map(AsRef::as_ref).collect();
    let field = fields.iter().find(is_image)?;
    Some((field.name().clone(), format!("`{}` begins as images do", field.name())))
}

/// The first value of a column of bytes.
fn first_bytes(values: &ArrayRef) -> Option<Vec<u8>> {
    if !matches!(values.data_type(), DataType::Binary | DataType::LargeBinary | DataType::BinaryView) {
        return None;
    }
    let bytes = cast(values, &DataType::LargeBinary).ok()?;
    bytes.as_binary::<i64>().iter().flatten().next().map(<[u8]>::to_vec)
}

/// The column of vectors, and their length if the type does not say it.
fn vector(schema: &Schema, rows: &RecordBatch) -> Option<(String, Option<usize>)> {
    let of = |field: &Field| -> Option<(String, Option<usize>)> {
        let name = field.name().clone();
        match field.data_type() {
            DataType::FixedSizeList(item, length) if item.data_type().is_floating() && *length >= SHORTEST_VECTOR => {
                Some((name, None))
            }
            DataType::List(item) | DataType::LargeList(item) if item.data_type().is_floating() => {
                let length = one_length(rows.column_by_name(&name)?)?;
                (length >= SHORTEST_VECTOR as usize).then_some((name, Some(length)))
            }
            _ => None,
        }
    };
    schema.fields().iter().find_map(|field| of(field))
}

/// The length of all lists, if it is one.
fn one_length(values: &ArrayRef) -> Option<usize> {
    let item = Field::new_list_field(DataType::Float64, true);
    let lists = cast(values, &DataType::LargeList(item.into())).ok()?;
    let lists = lists.as_list::<i64>();
    let mut lengths = (0..lists.len()).filter(|&row| lists.is_valid(row)).map(|row| lists.value_length(row));
    let first = lengths.next()?;
    lengths.all(|length| length == first).then_some(first as usize)
}

/// A column that tells what a sample is, for the summary: by its usual name, with values that repeat.
fn label(schema: &Schema, rows: &RecordBatch, embedded: &Embedded) -> Option<(String, String)> {
    let embeds = |name: &str| match embedded {
        Embedded::Pairs { anchor, positive } => [anchor, positive].iter().any(|column| *column == name),
        Embedded::Text { column } | Embedded::Image { column } | Embedded::Vector { column, .. } => column == name,
        Embedded::Graph => false,
        Embedded::Tensor { inputs } => inputs.iter().any(|input| input == name),
    };
    let names = || schema.fields().iter().map(|field| field.name()).filter(|name| !embeds(name));
    let name = LABELS.iter().find_map(|label| names().find(|name| name.eq_ignore_ascii_case(label)))?;
    let values = cast(rows.column_by_name(name)?, &DataType::Utf8View).ok()?;
    let distinct = values.as_string_view().iter().flatten().collect::<HashSet<_>>().len();
    let repeats = distinct > 1 && 2 * distinct <= rows.num_rows();
    repeats.then(|| (name.clone(), format!("`{name}` has {distinct} values in the first {} rows", rows.num_rows())))
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

/// The characters of all values of a column, about.
fn characters(values: &ArrayRef) -> usize {
    let Ok(texts) = cast(values, &DataType::Utf8View) else { return 0 };
    texts.as_string_view().iter().flatten().map(str::len).sum()
}

/// Names of a text and its positive, as data sets have them.
const PAIRS: [(&str, &str); 14] = [
    ("anchor", "positive"),
    ("query", "positive"),
    ("query", "document"),
    ("query", "passage"),
    ("query", "answer"),
    ("question", "answer"),
    ("question", "context"),
    ("sentence1", "sentence2"),
    ("text1", "text2"),
    ("source", "target"),
    ("title", "abstract"),
    ("title", "body"),
    ("title", "text"),
    ("short", "long"),
];

/// Names of texts.
const TEXTS: [&str; 11] = [
    "text",
    "sentence",
    "content",
    "body",
    "document",
    "passage",
    "definition",
    "abstract",
    "description",
    "caption",
    "title",
];

/// Names of labels.
const LABELS: [&str; 8] = ["label", "labels", "class", "target", "category", "topic", "y", "coarse_label"];

/// The fewest numbers of a vector that is likely an embedding.
const SHORTEST_VECTOR: i32 = 8;
