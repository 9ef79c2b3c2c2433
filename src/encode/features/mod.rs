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

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use self::graph::GraphFeature;
use self::image::ImageFeature;
use self::tensor::TensorFeature;
use self::text::TextFeature;
use super::BadRow;
use super::inputs::{Given, Input};
use super::model::Model;
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

    /// Refuses columns of the wrong type; all are there.
    fn accepts(&self, schema: &Schema) -> Result<()>;

    /// Looks at rows, which hold [`columns`](Self::columns) in that order.
    fn prepare<'a>(&'a self, rows: &'a RecordBatch) -> Result<Box<dyn Samples + 'a>>;

    /// Something to try the model on.
    fn probe(&self) -> Result<Batch>;
}

/// Rows on their way to the model.
pub(super) trait Samples: Sync {
    /// Which rows go through the model together; every row in exactly one group.
    fn groups(&self, max_rows: usize, max_tokens: usize) -> Vec<Vec<usize>>;

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
    /// How many states of each row count, and the length to which rows are filled up; `None` where all count.
    pub lengths: Option<(Vec<usize>, usize)>,
}

/// What `config` asks for, for this model.
pub(super) fn open(config: &EncodeConfig, model: &Model) -> Result<Box<dyn Feature>> {
    Ok(match config.kind() {
        FeatureKind::Image => Box::new(ImageFeature::open(config, model)?),
        FeatureKind::Tensor => Box::new(TensorFeature::open(config, model)?),
        FeatureKind::Graph => Box::new(GraphFeature::open(config, model)),
        FeatureKind::Text | FeatureKind::Vector => Box::new(TextFeature::open(config, &model.path)?),
    })
}
