//! "Here are rows, give me the inputs of a model."
//!
//! A [`Feature`] is all that [`OnnxEncoder`](super::OnnxEncoder) knows of a kind of data: rows become [`Samples`] with a
//! length, and groups of these become a [`Batch`] of inputs by name.

mod decode;
mod graph;
mod image;
mod lists;
mod pixels;
mod tensor;
mod text;
mod tokenizer;
mod tokens;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use self::graph::GraphFeature;
use self::image::ImageFeature;
use self::tensor::TensorFeature;
use self::text::TextFeature;
use super::BadRow;
use super::batching::Grouping;
use super::inputs::{Given, Input};
use super::model::Model;
use super::outputs::Counted;
use crate::config::{EncodeConfig, FeatureKind};
use crate::error::Result;

/// A kind of data that a model reads.
pub(super) trait Feature: Send + Sync {
    /// What it is called in messages.
    fn kind(&self) -> &'static str;

    /// What a batch of it consists of.
    fn given(&self) -> Vec<Given>;

    /// The columns that it reads.
    fn columns(&self) -> &[String];

    /// As that of an [`Encoder`](super::Encoder).
    fn field(&self, _: &str) -> Option<&str> {
        None
    }

    /// Refuses columns of the wrong type; all are there.
    fn accepts(&self, schema: &Schema) -> Result<()>;

    /// Looks at rows, which hold [`columns`](Self::columns) in that order.
    fn prepare<'a>(&'a self, rows: &'a RecordBatch) -> Result<Box<dyn Samples + 'a>>;

    /// Which samples may share a batch, as far as the model's inputs tell.
    fn grouping(&self) -> Grouping;

    /// Three samples to try the model on: two of one length and, where samples have one, a longer one.
    fn probes(&self) -> Result<Box<dyn Samples + '_>>;

    /// The length of the longest sample that can come, where there is a limit.
    fn longest(&self) -> Option<usize> {
        None
    }

    /// A sample of this length, where there is a limit.
    fn of_length(&self, _length: usize) -> Result<Batch> {
        self.probes()?.batch(&[0])
    }

    /// Lowers the limit to what the model takes, and tells whether it may: the settings may name another.
    fn cut(&mut self, _length: usize) -> Result<bool> {
        Ok(false)
    }
}

/// Rows on their way to the model.
pub(super) trait Samples: Sync {
    /// Which rows go through the model together; every row in exactly one group.
    fn groups(&self, grouping: Grouping, max_rows: usize, max_tokens: usize) -> Vec<Vec<usize>>;

    /// The inputs for these rows.
    fn batch(&self, rows: &[usize]) -> Result<Batch>;
}

/// What goes through the model together.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch {
    /// The rows that are in it, in their order there.
    pub rows: Vec<usize>,
    /// Those that could not be read.
    pub bad: Vec<BadRow>,
    /// Inputs, whether or not the model declares them; of no meaning without rows.
    pub inputs: Vec<Input>,
    /// Which states count, for each input that these may belong to; none where all do.
    pub counted: Vec<Counted>,
}

/// What `config` asks for, for this model.
pub(super) fn open(config: &EncodeConfig, model: &Model) -> Result<Box<dyn Feature>> {
    Ok(match config.kind() {
        FeatureKind::Image => Box::new(ImageFeature::open(config, model)?),
        FeatureKind::Tensor => Box::new(TensorFeature::open(config, model)?),
        FeatureKind::Graph => Box::new(GraphFeature::open(config, model)),
        FeatureKind::Text | FeatureKind::Vector => Box::new(TextFeature::open(config, model)?),
    })
}
