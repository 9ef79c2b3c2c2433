//! Graphs, a row each, as inputs of a graph neural network.

mod row;

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use self::row::{Graph, GraphRow};
use super::lists::{Lists, number_type};
use super::{Batch, Feature, Samples};
use crate::config::{EncodeConfig, GraphInputConfig};
use crate::encode::BadRow;
use crate::encode::batching::{Grouping, joined};
use crate::encode::inputs::{Declared, Given, Input, Numbers};
use crate::encode::model::Model;
use crate::error::{ColumnError, Result};

/// Columns that describe a graph in each row. A batch is the disjoint union of its graphs.
pub(super) struct GraphFeature {
    config: GraphInputConfig,
    /// The columns of features, sources and targets; then, if they are read, of attributes and numbers of nodes.
    columns: Vec<String>,
    /// Whether edge attributes are read.
    attributes: bool,
    /// Whether the model has an input that says which graph a node belongs to.
    separates_graphs: bool,
    nodes: InputValues,
    edges: InputValues,
    /// The inputs for features and attributes, if the model declares them.
    inputs: [Option<Declared>; 2],
}

/// What the model takes for each node, or edge.
#[derive(Clone, Copy, Debug)]
struct InputValues {
    /// The numbers of a node or edge, if they are known.
    width: Option<usize>,
    takes_fractions: bool,
    /// Whether the input has no dimension for features.
    flat: bool,
}

/// Rows of a record batch as graphs.
struct Graphs<'a> {
    feature: &'a GraphFeature,
    lists: Vec<Lists>,
    /// The length of each graph: its nodes and edges.
    lengths: Vec<usize>,
}

impl GraphFeature {
    /// Opens the feature for a model.
    pub fn open(config: &EncodeConfig, model: &Model) -> Self {
        let config = config.graph.clone().unwrap_or_default();
        let input = |name: &str| model.inputs.iter().find(|input| input.is(name));
        let values = |name: &str, width: Option<usize>| InputValues {
            width: width.or(input(name).and_then(|input| input.dimension(1))),
            takes_fractions: input(name).is_none_or(Declared::takes_fractions),
            flat: input(name).is_some_and(|input| input.shape.len() == 1),
        };
        let attributes = input(NAMES[4]).is_some();
        let separates_graphs = input(NAMES[2]).or(input(NAMES[3])).is_some();
        let mut columns = vec![config.node_features.clone(), config.edge_sources.clone(), config.edge_targets.clone()];
        columns.extend(attributes.then(|| config.edge_attributes.clone()));
        columns.extend(config.num_nodes.clone());
        let (nodes, edges) = (values(NAMES[0], config.node_width), values(NAMES[4], None));
        let inputs = [NAMES[0], NAMES[4]].map(|name| input(name).cloned());
        Self { config, columns, attributes, separates_graphs, nodes, edges, inputs }
    }
}

impl InputValues {
    /// Returns the numbers of each of `count` nodes or edges; `unit` names one in errors.
    fn width(
        self,
        lists: &Lists,
        row: usize,
        numbers: usize,
        count: Option<usize>,
        unit: &str,
    ) -> Result<usize, String> {
        let dimensions = lists.dimensions(row)?;
        if numbers == 0 {
            // Without any numbers, their width is not known.
            return Ok(self.width.unwrap_or(1));
        }
        let width = match (&dimensions[..], self.width, count) {
            (&[_, width], ..) => width,
            (_, Some(width), _) => width,
            (_, None, Some(count)) if count > 0 => numbers / count,
            _ => 1,
        };
        match self.width {
            Some(wanted) if wanted != width => {
                Err(format!("has {width} numbers for each {unit} where the model takes {wanted}"))
            }
            _ if width == 0 || !numbers.is_multiple_of(width) => {
                Err(format!("has {numbers} numbers, which are no whole number for each {unit}"))
            }
            _ => Ok(width),
        }
    }

    /// Returns the shape of the input for `count` nodes or edges.
    fn shape(self, count: usize, width: usize) -> Vec<usize> {
        if self.flat { vec![count] } else { vec![count, width] }
    }
}

impl Graphs<'_> {
    /// Reads the graph of a row, and checks it.
    fn read(&self, row: usize) -> Result<Graph, BadRow> {
        GraphRow { feature: self.feature, lists: &self.lists, row }.read()
    }
}

impl GraphFeature {
    /// Makes the inputs for the disjoint union of graphs, which have the same widths.
    fn union(&self, graphs: Vec<Graph>) -> Vec<Input> {
        let width = graphs.first().map_or(1, |graph| graph.width);
        let attribute_width = graphs.iter().filter_map(|g| g.attributes.as_ref()).map(|(_, width)| *width).max();
        let whole = || Numbers::Whole(Vec::new());
        let mut x = whole();
        let mut attributes = whole();
        let mut sources = Vec::new();
        let mut targets = Vec::new();
        let mut batch = Vec::new();
        let mut ptr = vec![0];
        for (number, graph) in graphs.into_iter().enumerate() {
            let before = batch.len() as i64;
            let numbers = x.len() + graph.features.len();
            x.append(graph.features, numbers);
            sources.extend(graph.sources.iter().map(|node| node + before));
            targets.extend(graph.targets.iter().map(|node| node + before));
            batch.resize(batch.len() + graph.nodes, number as i64);
            ptr.push(batch.len() as i64);
            if let Some((values, _)) = graph.attributes {
                let numbers = attributes.len() + values.len();
                attributes.append(values, numbers);
            }
        }
        let (nodes, edges, graphs) = (batch.len(), sources.len(), ptr.len());
        sources.append(&mut targets);
        let mut inputs = vec![
            Input { name: NAMES[0].into(), shape: self.nodes.shape(nodes, width), numbers: x },
            Input { name: NAMES[1].into(), shape: vec![2, edges], numbers: Numbers::Whole(sources) },
            Input { name: NAMES[2].into(), shape: vec![nodes], numbers: Numbers::Whole(batch) },
            Input { name: NAMES[3].into(), shape: vec![graphs], numbers: Numbers::Whole(ptr) },
        ];
        if let Some(width) = attribute_width {
            let width = if width == 0 { self.edges.width.unwrap_or(1) } else { width };
            let shape = self.edges.shape(edges, width);
            inputs.push(Input { name: NAMES[4].into(), shape, numbers: attributes });
        }
        inputs
    }
}

impl Feature for GraphFeature {
    fn kind(&self) -> &'static str {
        "a graph"
    }

    fn given(&self) -> Vec<Given> {
        let texts = [
            "[nodes, features] of numbers",
            "[2, edges] of whole numbers",
            "[nodes] of whole numbers",
            "[graphs + 1] of whole numbers",
            "[edges, attributes] of numbers",
        ];
        let given = NAMES.into_iter().zip(texts).enumerate();
        given.map(|(index, (name, text))| Given::new(name, text, true, index < 2)).collect()
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn accepts(&self, schema: &Schema) -> Result<()> {
        let takes_fractions = |index: usize| match index {
            FEATURES => self.nodes.takes_fractions,
            ATTRIBUTES => self.attributes && self.edges.takes_fractions,
            _ => false,
        };
        for (index, column) in self.columns.iter().enumerate() {
            let Ok(field) = schema.field_with_name(column) else { continue };
            let numbers = number_type(field.data_type());
            if numbers.is_integer() || (numbers.is_floating() && takes_fractions(index)) {
                continue;
            }
            let what = if takes_fractions(index) { "numbers" } else { "whole numbers" };
            let content = match index {
                FEATURES => "node features",
                SOURCES | TARGETS => "edges",
                _ if takes_fractions(index) => "edge attributes",
                _ => "this part of a graph",
            };
            return Err(ColumnError::Type {
                column: column.clone(),
                found: field.data_type().to_string(),
                expected: format!(
                    "{content} are lists of {what} for this model; name another column in `[encode.graph]`"
                ),
            }
            .into());
        }
        Ok(())
    }

    fn prepare<'a>(&'a self, rows: &'a RecordBatch) -> Result<Box<dyn Samples + 'a>> {
        Ok(Box::new(self.samples(rows.columns().iter().map(Lists::new).collect(), rows.num_rows())))
    }

    fn grouping(&self) -> Grouping {
        if self.separates_graphs { Grouping::Any } else { Grouping::Alone }
    }

    /// Makes rings of nodes.
    fn probes(&self) -> Result<Box<dyn Samples + '_>> {
        const NODES: [usize; 3] = [2, 2, 5];
        let of_each = |of: &dyn Fn(usize, usize) -> Numbers| {
            Lists::of(&NODES.iter().enumerate().map(|(row, nodes)| of(row, *nodes)).collect::<Vec<_>>())
        };
        let values = |values: InputValues| {
            move |row: usize, nodes: usize| {
                let numbers = 0..nodes * values.width.unwrap_or(1);
                let other = move |at: usize| row > 0 && (at + row).is_multiple_of(2);
                match values.takes_fractions {
                    true => Numbers::Fractions(numbers.map(|at| if other(at) { 0.5 } else { 1.0 }).collect()),
                    false => Numbers::Whole(numbers.map(|at| i64::from(!other(at))).collect()),
                }
            }
        };
        let ends = |next: usize| {
            move |_: usize, nodes: usize| Numbers::Whole((0..nodes).map(|n| ((n + next) % nodes) as i64).collect())
        };
        let mut lists = vec![of_each(&values(self.nodes)), of_each(&ends(0)), of_each(&ends(1))];
        lists.extend(self.attributes.then(|| of_each(&values(self.edges))));
        lists.extend(self.config.num_nodes.as_ref().map(|_| of_each(&|_, nodes| Numbers::Whole(vec![nodes as i64]))));
        Ok(Box::new(self.samples(lists, NODES.len())))
    }
}

impl GraphFeature {
    fn samples(&self, lists: Vec<Lists>, rows: usize) -> Graphs<'_> {
        // If the width of features is not known, this is only a measure of size.
        let numbers = |column: usize, row: usize| lists[column].range(row).map_or(0, |range| range.len());
        let nodes = |row: usize| match lists[FEATURES].dimensions(row).as_deref() {
            Ok(&[nodes, _]) => nodes,
            _ => numbers(FEATURES, row) / self.nodes.width.unwrap_or(1).max(1),
        };
        let lengths = (0..rows).map(|row| nodes(row) + numbers(SOURCES, row)).collect();
        Graphs { feature: self, lists, lengths }
    }
}

impl Samples for Graphs<'_> {
    /// Groups graphs with the same widths of nodes and edges, if the model does not fix these.
    ///
    /// Whether a graph can be encoded must not depend on the others in its batch.
    fn groups(&self, _: Grouping, max_rows: usize, max_tokens: usize) -> Vec<Vec<usize>> {
        let GraphFeature { nodes, edges, attributes, .. } = self.feature;
        if nodes.width.is_some() && (edges.width.is_some() || !attributes) {
            return joined(&self.lengths, max_rows, max_tokens);
        }
        let mut alike = BTreeMap::<(usize, usize), Vec<usize>>::new();
        for row in 0..self.lengths.len() {
            let widths = |graph: Graph| (graph.width, graph.attributes.map_or(0, |(_, width)| width));
            alike.entry(self.read(row).map_or((0, 0), widths)).or_default().push(row);
        }
        // A graph without edges may join others with the same width of nodes.
        let edgeless: Vec<_> = alike.extract_if((0, 0).., |(_, attributes), _| *attributes == 0).collect();
        for ((width, _), rows) in edgeless {
            let with_edges = alike.range((width, 0)..).next().map(|(widths, _)| *widths).filter(|w| w.0 == width);
            alike.entry(with_edges.unwrap_or((width, 0))).or_default().extend(rows);
        }
        let groups = alike.into_values().flat_map(|mut rows| {
            rows.sort_unstable();
            let lengths: Vec<_> = rows.iter().map(|&row| self.lengths[row]).collect();
            let groups = joined(&lengths, max_rows, max_tokens);
            groups.into_iter().map(|group| group.into_iter().map(|index| rows[index]).collect()).collect::<Vec<_>>()
        });
        groups.collect()
    }

    fn batch(&self, rows: &[usize]) -> Result<Batch> {
        let mut batch = Batch::default();
        let mut graphs = Vec::<Graph>::new();
        for &row in rows {
            match self.read(row) {
                Ok(graph) => {
                    batch.rows.push(row);
                    graphs.push(graph);
                }
                Err(reason) => batch.bad.push(reason),
            }
        }
        batch.inputs = self.feature.union(graphs);
        Ok(batch)
    }
}

/// The indices of columns in `GraphFeature::columns`. A column of numbers of nodes is the last one.
const FEATURES: usize = 0;
const SOURCES: usize = 1;
const TARGETS: usize = 2;
const ATTRIBUTES: usize = 3;

/// The inputs of a union, as PyTorch Geometric names them.
const NAMES: [&str; 5] = ["x", "edge_index", "batch", "ptr", "edge_attr"];
