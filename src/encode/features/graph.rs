use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use super::lists::{Lists, number_type};
use super::{Batch, Feature, Samples};
use crate::config::{EncodeConfig, GraphInputConfig};
use crate::encode::BadRow;
use crate::encode::batching::joined;
use crate::encode::inputs::{Declared, Given, Input, Numbers};
use crate::encode::model::Model;
use crate::error::{Error, Result};

/// Columns that describe a graph in each row; a batch is their disjoint union.
pub(super) struct GraphFeature {
    config: GraphInputConfig,
    /// Features, sources, targets; then, if they are read, attributes and numbers of nodes.
    columns: Vec<String>,
    attributes: bool,
    nodes: Values,
    edges: Values,
    /// The inputs for features and attributes, where the model declares them.
    inputs: [Option<Declared>; 2],
}

/// What the model takes of each node, or edge.
#[derive(Clone, Copy, Debug)]
struct Values {
    /// Numbers of each in flat lists, where known.
    width: Option<usize>,
    takes_fractions: bool,
    /// Whether the input has no dimension for features.
    flat: bool,
}

/// One row, checked.
#[derive(Clone, Debug)]
struct Graph {
    nodes: usize,
    /// Numbers of a node.
    width: usize,
    features: Numbers,
    sources: Vec<i64>,
    targets: Vec<i64>,
    /// With the numbers of an edge.
    attributes: Option<(Numbers, usize)>,
}

struct Graphs<'a> {
    feature: &'a GraphFeature,
    lists: Vec<Lists>,
    /// Nodes and edges of each.
    lengths: Vec<usize>,
}

impl GraphFeature {
    pub fn open(config: &EncodeConfig, model: &Model) -> Self {
        let config = config.graph.clone().unwrap_or_default();
        let input = |name: &str| model.inputs.iter().find(|input| input.name == name);
        let values = |name: &str, width: Option<usize>| Values {
            width: width.or(input(name).and_then(|input| input.dimension(1))),
            takes_fractions: input(name).is_none_or(Declared::takes_fractions),
            flat: input(name).is_some_and(|input| input.shape.len() == 1),
        };
        let attributes = input(NAMES[4]).is_some();
        let mut columns = vec![config.node_features.clone(), config.edge_sources.clone(), config.edge_targets.clone()];
        columns.extend(attributes.then(|| config.edge_attributes.clone()));
        columns.extend(config.num_nodes.clone());
        let (nodes, edges) = (values(NAMES[0], config.node_width), values(NAMES[4], None));
        let inputs = [NAMES[0], NAMES[4]].map(|name| input(name).cloned());
        Self { config, columns, attributes, nodes, edges, inputs }
    }
}

impl Values {
    /// Numbers of each of `count` nodes or edges; `unit` names one.
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
            // None of them says how wide it would be.
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

    fn shape(self, count: usize, width: usize) -> Vec<usize> {
        if self.flat { vec![count] } else { vec![count, width] }
    }
}

impl Graphs<'_> {
    /// The graph in a row.
    fn read(&self, row: usize) -> Result<Graph, BadRow> {
        let columns = &self.feature.columns;
        let bad = |place: usize| move |reason: String| BadRow { row, column: columns[place].clone(), reason };
        let GraphFeature { nodes: of_nodes, edges: of_edges, attributes, config, inputs, .. } = self.feature;
        let fit = |place: usize, input: &Option<Declared>, numbers: &Numbers| {
            let reason = input.as_ref().and_then(|input| input.refuses(numbers));
            reason.map_or(Ok(()), |reason| Err(bad(place)(reason)))
        };
        let numbers = |place: usize| {
            self.lists[place].range(row).and_then(|range| self.lists[place].get(range)).map_err(bad(place))
        };
        let whole = |place: usize| match numbers(place)? {
            Numbers::Whole(numbers) => Ok(numbers),
            Numbers::Fractions(_) => Err(bad(place)("has fractions where whole numbers are needed".into())),
        };
        let told = match config.num_nodes {
            Some(_) => {
                let place = columns.len() - 1;
                let [nodes] = whole(place)?[..] else { return Err(bad(place)("is a list, not one number".into())) };
                Some(usize::try_from(nodes).map_err(|_| bad(place)(format!("says {nodes} nodes")))?)
            }
            None => None,
        };
        let features = numbers(0)?;
        fit(0, &inputs[0], &features)?;
        let width = of_nodes.width(&self.lists[0], row, features.len(), told, "node").map_err(bad(0))?;
        let nodes = features.len() / width;
        if let Some(told) = told.filter(|told| *told != nodes) {
            return Err(bad(0)(format!(
                "has features of {nodes} nodes, but `{}` says {told}",
                columns[columns.len() - 1]
            )));
        }
        if nodes == 0 {
            return Err(bad(0)("has no nodes".into()));
        }
        let (sources, targets) = (whole(1)?, whole(2)?);
        if sources.len() != targets.len() {
            let (from, to) = (sources.len(), targets.len());
            return Err(bad(2)(format!("has {to} edges, but `{}` has {from}", columns[1])));
        }
        for (place, ends) in [(1, &sources), (2, &targets)] {
            if let Some((edge, end)) = ends.iter().enumerate().find(|(_, end)| !(0..nodes as i64).contains(*end)) {
                return Err(bad(place)(format!(
                    "has node {end} at edge {edge}, but there are nodes 0 to {}",
                    nodes - 1
                )));
            }
        }
        let attributes = match attributes {
            true => {
                let values = numbers(3)?;
                fit(3, &inputs[1], &values)?;
                let width =
                    of_edges.width(&self.lists[3], row, values.len(), Some(sources.len()), "edge").map_err(bad(3))?;
                if values.len() != sources.len() * width {
                    let (found, edges) = (values.len() / width, sources.len());
                    return Err(bad(3)(format!("has attributes of {found} edges, but there are {edges}")));
                }
                // A graph without edges says nothing about their width.
                Some((values, if sources.is_empty() { 0 } else { width }))
            }
            false => None,
        };
        Ok(Graph { nodes, width, features, sources, targets, attributes })
    }
}

impl GraphFeature {
    /// The disjoint union of these graphs, which agree on their widths.
    fn union(&self, graphs: Vec<Graph>) -> Vec<Input> {
        let width = graphs.first().map_or(1, |graph| graph.width);
        let attribute_width = graphs.iter().filter_map(|g| g.attributes.as_ref()).map(|(_, width)| *width).max();
        let whole = || Numbers::Whole(Vec::new());
        let (mut x, mut attributes) = (whole(), whole());
        let (mut sources, mut targets, mut batch, mut ptr) = (Vec::new(), Vec::new(), Vec::new(), vec![0]);
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
        given.map(|(place, (name, text))| Given::new(name, text, true, place < 2)).collect()
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn accepts(&self, schema: &Schema) -> Result<()> {
        let needs = |place: usize| match place {
            0 => self.nodes.takes_fractions,
            3 => self.attributes && self.edges.takes_fractions,
            _ => false,
        };
        for (place, column) in self.columns.iter().enumerate() {
            let Ok(field) = schema.field_with_name(column) else { continue };
            let numbers = number_type(field.data_type());
            if numbers.is_integer() || (numbers.is_floating() && needs(place)) {
                continue;
            }
            let what = if needs(place) { "numbers" } else { "whole numbers" };
            let of = ["node features", "edges", "edges"].get(place).copied().unwrap_or(match needs(place) {
                true => "edge attributes",
                false => "this part of a graph",
            });
            return Err(Error::ColumnType {
                column: column.clone(),
                found: field.data_type().to_string(),
                expected: format!("{of} are lists of {what} for this model; name another column in `[encode.graph]`"),
            });
        }
        Ok(())
    }

    fn prepare<'a>(&'a self, rows: &'a RecordBatch) -> Result<Box<dyn Samples + 'a>> {
        let lists: Vec<_> = rows.columns().iter().map(Lists::new).collect();
        // Without the width of features it is no more than a measure of size.
        let numbers = |place: usize, row: usize| lists[place].range(row).map_or(0, |range| range.len());
        let nodes = |row: usize| match lists[0].dimensions(row).as_deref() {
            Ok(&[nodes, _]) => nodes,
            _ => numbers(0, row) / self.nodes.width.unwrap_or(1).max(1),
        };
        let lengths = (0..rows.num_rows()).map(|row| nodes(row) + numbers(1, row)).collect();
        Ok(Box::new(Graphs { feature: self, lists, lengths }))
    }

    fn probe(&self) -> Result<Batch> {
        let width = self.nodes.width.unwrap_or(1);
        let ones = |values: Values, count: usize| match values.takes_fractions {
            true => Numbers::Fractions(vec![1.0; count]),
            false => Numbers::Whole(vec![1; count]),
        };
        let edge_width = self.edges.width.unwrap_or(1);
        let graph = Graph {
            nodes: 2,
            width,
            features: ones(self.nodes, 2 * width),
            sources: vec![0, 1],
            targets: vec![1, 0],
            attributes: self.attributes.then(|| (ones(self.edges, 2 * edge_width), edge_width)),
        };
        Ok(Batch { rows: vec![0], inputs: self.union(vec![graph]), ..Batch::default() })
    }
}

impl Samples for Graphs<'_> {
    /// Where the model leaves open how many numbers nodes and edges have, graphs go with others that have as many:
    /// which of them it takes must not depend on who is beside them.
    fn groups(&self, max_rows: usize, max_tokens: usize) -> Vec<Vec<usize>> {
        let GraphFeature { nodes, edges, attributes, .. } = self.feature;
        if nodes.width.is_some() && (edges.width.is_some() || !attributes) {
            return joined(&self.lengths, max_rows, max_tokens);
        }
        let mut alike = BTreeMap::<(usize, usize), Vec<usize>>::new();
        for row in 0..self.lengths.len() {
            let widths = |graph: Graph| (graph.width, graph.attributes.map_or(0, |(_, width)| width));
            alike.entry(self.read(row).map_or((0, 0), widths)).or_default().push(row);
        }
        // A graph without edges goes with any that have the same nodes.
        let edgeless: Vec<_> = alike.extract_if((0, 0).., |(_, attributes), _| *attributes == 0).collect();
        for ((width, _), rows) in edgeless {
            let with_edges = alike.range((width, 0)..).next().map(|(widths, _)| *widths).filter(|w| w.0 == width);
            alike.entry(with_edges.unwrap_or((width, 0))).or_default().extend(rows);
        }
        let groups = alike.into_values().flat_map(|mut rows| {
            rows.sort_unstable();
            let lengths: Vec<_> = rows.iter().map(|&row| self.lengths[row]).collect();
            let groups = joined(&lengths, max_rows, max_tokens);
            groups.into_iter().map(|group| group.into_iter().map(|place| rows[place]).collect()).collect::<Vec<_>>()
        });
        groups.collect()
    }

    fn batch(&self, rows: &[usize]) -> Result<Batch> {
        let (mut batch, mut graphs) = (Batch::default(), Vec::<Graph>::new());
        for &row in rows {
            match self.read(row) {
                Ok(graph) => (batch.rows.push(row), graphs.push(graph)).1,
                Err(reason) => batch.bad.push(reason),
            }
        }
        batch.inputs = self.feature.union(graphs);
        Ok(batch)
    }
}

/// What a union consists of, as PyTorch Geometric names it.
const NAMES: [&str; 5] = ["x", "edge_index", "batch", "ptr", "edge_attr"];
