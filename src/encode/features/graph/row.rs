//! Reads the graph of one row, and checks that its columns fit together.

use super::{ATTRIBUTES, FEATURES, GraphFeature, SOURCES, TARGETS};
use crate::encode::BadRow;
use crate::encode::features::lists::Lists;
use crate::encode::inputs::{Declared, Numbers};

/// The graph of one row, checked.
#[derive(Clone, Debug)]
pub(super) struct Graph {
    pub nodes: usize,
    /// The numbers of a node.
    pub width: usize,
    pub features: Numbers,
    pub sources: Vec<i64>,
    pub targets: Vec<i64>,
    /// The attributes of all edges, and the numbers of an edge.
    pub attributes: Option<(Numbers, usize)>,
}

/// A row, whose columns are read one after another. An error names the column at fault.
pub(super) struct GraphRow<'a> {
    pub feature: &'a GraphFeature,
    pub lists: &'a [Lists],
    pub row: usize,
}

impl GraphRow<'_> {
    pub fn read(&self) -> Result<Graph, BadRow> {
        let (features, width) = self.features()?;
        let nodes = features.len() / width;
        let (sources, targets) = self.edges(nodes)?;
        let attributes = self.feature.attributes.then(|| self.attributes(sources.len())).transpose()?;
        Ok(Graph { nodes, width, features, sources, targets, attributes })
    }

    /// Reads the features of all nodes, and the numbers of a node.
    fn features(&self) -> Result<(Numbers, usize), BadRow> {
        let bad = |reason: String| self.bad(FEATURES, reason);
        let stated = self.stated_nodes()?;
        let features = self.numbers(FEATURES)?;
        let [input, _] = &self.feature.inputs;
        self.check_fit(FEATURES, input.as_ref(), &features)?;
        let of_nodes = self.feature.nodes;
        let width = of_nodes.width(&self.lists[FEATURES], self.row, features.len(), stated, "node").map_err(bad)?;
        let nodes = features.len() / width;
        if let Some(stated) = stated.filter(|stated| *stated != nodes) {
            let column = &self.feature.columns[self.last_column()];
            return Err(bad(format!("has features of {nodes} nodes, but `{column}` says {stated}")));
        }
        if nodes == 0 {
            return Err(bad("has no nodes".into()));
        }
        Ok((features, width))
    }

    /// Reads how many nodes the row says that it has, if a column says so.
    fn stated_nodes(&self) -> Result<Option<usize>, BadRow> {
        if self.feature.config.num_nodes.is_none() {
            return Ok(None);
        }
        let column = self.last_column();
        let bad = |reason: String| self.bad(column, reason);
        let [nodes] = self.whole_numbers(column)?[..] else { return Err(bad("is a list, not one number".into())) };
        usize::try_from(nodes).map(Some).map_err(|_| bad(format!("says {nodes} nodes")))
    }

    /// Reads the sources and targets of all edges.
    fn edges(&self, nodes: usize) -> Result<(Vec<i64>, Vec<i64>), BadRow> {
        let sources = self.whole_numbers(SOURCES)?;
        let targets = self.whole_numbers(TARGETS)?;
        if sources.len() != targets.len() {
            let (from, to) = (sources.len(), targets.len());
            let reason = format!("has {to} edges, but `{}` has {from}", self.feature.columns[SOURCES]);
            return Err(self.bad(TARGETS, reason));
        }
        for (column, ends) in [(SOURCES, &sources), (TARGETS, &targets)] {
            if let Some((edge, end)) = ends.iter().enumerate().find(|(_, end)| !(0..nodes as i64).contains(*end)) {
                let reason = format!("has node {end} at edge {edge}, but there are nodes 0 to {}", nodes - 1);
                return Err(self.bad(column, reason));
            }
        }
        Ok((sources, targets))
    }

    /// Reads the attributes of all edges, and the numbers of an edge: 0 if there are no edges.
    fn attributes(&self, edges: usize) -> Result<(Numbers, usize), BadRow> {
        let bad = |reason: String| self.bad(ATTRIBUTES, reason);
        let values = self.numbers(ATTRIBUTES)?;
        let [_, input] = &self.feature.inputs;
        self.check_fit(ATTRIBUTES, input.as_ref(), &values)?;
        let of_edges = self.feature.edges;
        let width =
            of_edges.width(&self.lists[ATTRIBUTES], self.row, values.len(), Some(edges), "edge").map_err(bad)?;
        if values.len() != edges * width {
            let found = values.len() / width;
            return Err(bad(format!("has attributes of {found} edges, but there are {edges}")));
        }
        // Without edges, the width of attributes is not known.
        Ok((values, if edges == 0 { 0 } else { width }))
    }

    fn numbers(&self, column: usize) -> Result<Numbers, BadRow> {
        let lists = &self.lists[column];
        lists.range(self.row).and_then(|range| lists.get(range)).map_err(|reason| self.bad(column, reason))
    }

    fn whole_numbers(&self, column: usize) -> Result<Vec<i64>, BadRow> {
        match self.numbers(column)? {
            Numbers::Whole(numbers) => Ok(numbers),
            Numbers::Fractions(_) => Err(self.bad(column, "has fractions where whole numbers are needed".into())),
        }
    }

    /// Refuses numbers that the type of the model's input does not hold.
    fn check_fit(&self, column: usize, input: Option<&Declared>, numbers: &Numbers) -> Result<(), BadRow> {
        match input.and_then(|input| input.refuses(numbers)) {
            Some(reason) => Err(self.bad(column, reason)),
            None => Ok(()),
        }
    }

    /// Returns the index of the column of numbers of nodes, if there is one.
    fn last_column(&self) -> usize {
        self.feature.columns.len() - 1
    }

    fn bad(&self, column: usize, reason: String) -> BadRow {
        BadRow { row: self.row, column: self.feature.columns[column].clone(), reason }
    }
}
