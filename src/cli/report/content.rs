//! Samples as people see them: texts, images, molecules and graphs.

use std::collections::BTreeSet;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use maud::{Markup, PreEscaped, html};

use crate::cli::page::Plots;
use crate::config::{FeatureKind, PipelineConfig};
use crate::encode::thumbnail;
use crate::report::Report;

/// What is drawn of each sample, beside its texts.
enum Drawn {
    Nothing,
    /// A column of encoded images.
    Images(ArrayRef),
    /// A column of molecules in SMILES.
    Molecules(ArrayRef),
    /// Sources and targets of edges.
    Graphs([ArrayRef; 2]),
}

/// Draws the samples of a report.
pub(super) struct Content<'a> {
    report: &'a Report,
    drawn: Drawn,
}

impl<'a> Content<'a> {
    pub fn new(report: &'a Report, config: &PipelineConfig) -> Self {
        let rows = &report.rows;
        let encode = &config.encode;
        let drawn = match encode.kind() {
            FeatureKind::Image => images(rows, encode.column.as_deref()).map(Drawn::Images),
            _ => None,
        };
        let drawn = drawn.or_else(|| molecules(rows).map(Drawn::Molecules));
        let drawn = drawn.or_else(|| {
            let columns = encode.graph.as_ref()?;
            Some(Drawn::Graphs([
                whole_numbers(rows, &columns.edge_sources)?,
                whole_numbers(rows, &columns.edge_targets)?,
            ]))
        });
        Self { report, drawn: drawn.unwrap_or(Drawn::Nothing) }
    }

    /// Whether the page needs the script that draws molecules.
    pub fn has_molecules(&self) -> bool {
        matches!(self.drawn, Drawn::Molecules(_))
    }

    /// A sample: its picture, its label and its texts, cut to a few lines.
    pub fn sample(&self, plots: &mut Plots, id: u32) -> Markup {
        let facts = self.report.samples.get(&id).cloned().unwrap_or_default();
        html! {
            div.sample {
                (self.picture(plots, id))
                @if let Some(label) = &facts.label { div.label { (label) } }
                @for text in &facts.texts { div { (cut(text)) } }
                div.soft { "sample " (id) }
            }
        }
    }

    fn picture(&self, plots: &mut Plots, id: u32) -> Markup {
        let Some(row) = self.report.row_of(id) else { return PreEscaped(String::new()) };
        match &self.drawn {
            Drawn::Nothing => PreEscaped(String::new()),
            Drawn::Images(column) => match picture(column, row) {
                Ok(png) => html! { img alt="" src=(format!("data:image/png;base64,{}", BASE64_STANDARD.encode(png))); },
                Err(reason) => html! { div.soft { "the image " (reason) } },
            },
            Drawn::Molecules(column) => html! {
                @if column.is_valid(row) { svg data-smiles=(column.as_string_view().value(row)) {} }
            },
            Drawn::Graphs([sources, targets]) => {
                let ends = |column: &ArrayRef| column.as_list::<i64>().value(row).as_primitive::<Int64Type>().clone();
                let (sources, targets) = (ends(sources), ends(targets));
                let both = sources.values().iter().zip(targets.values());
                // Many edges are listed both ways, and ids that are no node were refused when they were embedded.
                let edges: BTreeSet<(usize, usize)> =
                    both.map(|(&a, &b)| (a.min(b) as usize, a.max(b) as usize)).filter(|(a, b)| a != b).collect();
                let nodes = edges.iter().map(|&(_, to)| to + 1).max().unwrap_or(0);
                if nodes > DRAWN_NODES {
                    return html! { div.soft { "a graph of " (nodes) " nodes" } };
                }
                plots.graph(nodes, edges)
            }
        }
    }
}

/// The bytes of a column of images, or of the field `bytes` of a struct.
fn images(rows: &RecordBatch, column: Option<&str>) -> Option<ArrayRef> {
    let values = rows.column_by_name(column?)?;
    let bytes = match values.data_type() {
        DataType::Struct(_) => values.as_struct().column_by_name("bytes")?,
        _ => values,
    };
    matches!(bytes.data_type(), DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
        .then(|| cast(bytes, &DataType::LargeBinary).ok())?
}

fn picture(column: &ArrayRef, row: usize) -> Result<Vec<u8>, String> {
    if column.is_null(row) {
        return Err("is null".into());
    }
    thumbnail(column.as_binary::<i64>().value(row), SIDE)
}

/// The column of molecules, by its usual names.
fn molecules(rows: &RecordBatch) -> Option<ArrayRef> {
    let schema = rows.schema();
    let is_smiles = |name: &&String| ["smiles", "canonical_smiles"].contains(&name.to_lowercase().as_str());
    let name = schema.fields().iter().map(|field| field.name()).find(is_smiles)?;
    cast(rows.column_by_name(name)?, &DataType::Utf8View).ok()
}

/// A column of lists of whole numbers.
fn whole_numbers(rows: &RecordBatch, column: &str) -> Option<ArrayRef> {
    let item = arrow::datatypes::Field::new_list_field(DataType::Int64, true);
    cast(rows.column_by_name(column)?, &DataType::LargeList(item.into())).ok()
}

/// A text of at most [`SHOWN_CHARACTERS`].
fn cut(text: &str) -> String {
    let mut cut: String = text.chars().take(SHOWN_CHARACTERS).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

/// Height and width of a picture, in pixels.
const SIDE: u32 = 128;

/// The characters of a text that are shown.
const SHOWN_CHARACTERS: usize = 240;

/// The nodes of the largest graph that is drawn.
const DRAWN_NODES: usize = 100;
