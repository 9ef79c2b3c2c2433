//! "Here are rows, give me the inputs of a model."
//!
//! A [`Feature`] is a kind of data; [`OnnxEncoder`](super::OnnxEncoder) knows nothing else of it.
//!
//! 1. [`Feature::prepare`] makes [`Samples`] of the rows of a record batch.
//! 2. [`Samples::groups`] decides which rows go through the model together.
//! 3. [`Samples::batch`] makes a [`Batch`] of each group: inputs by name.

mod decode;
mod graph;
mod image;
mod lists;
mod pixels;
mod tensor;
mod text;
#[cfg(feature = "cli")]
mod thumbnail;
mod tokenizer;
mod tokens;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use self::graph::GraphFeature;
use self::image::ImageFeature;
use self::tensor::TensorFeature;
use self::text::TextFeature;
#[cfg(feature = "cli")]
pub(crate) use self::thumbnail::thumbnail;
use super::BadRow;
use super::batching::Grouping;
use super::inputs::{Given, Input};
use super::model::Model;
use super::outputs::Counted;
use crate::config::{EncodeConfig, FeatureKind};
use crate::error::Result;

/// A kind of data that a model reads.
pub(super) trait Feature: Send + Sync {
    /// Returns the name of the kind in messages.
    fn kind(&self) -> &'static str;

    /// Lists the inputs that it gives.
    fn given(&self) -> Vec<Given>;

    /// Returns the columns that it reads.
    fn columns(&self) -> &[String];

    /// Returns the field that it reads of a struct column; see [`Encoder::field`](super::Encoder::field).
    fn field(&self, _: &str) -> Option<&str> {
        None
    }

    /// Refuses columns of the wrong type. None is missing.
    fn accepts(&self, schema: &Schema) -> Result<()>;

    /// Prepares rows, which hold [`columns`](Self::columns) in that order.
    fn prepare<'a>(&'a self, rows: &'a RecordBatch) -> Result<Box<dyn Samples + 'a>>;

    /// Says which samples may share a batch, as far as the model's inputs tell.
    fn grouping(&self) -> Grouping;

    /// Makes three samples to try the model on: two of one length and, if samples have lengths, a longer one.
    fn probes(&self) -> Result<Box<dyn Samples + '_>>;

    /// Returns the length of the longest possible sample; `None` if there is no limit.
    fn longest(&self) -> Option<usize> {
        None
    }

    /// Makes a sample of this length, if there is a limit.
    fn of_length(&self, _length: usize) -> Result<Batch> {
        self.probes()?.batch(&[0])
    }

    /// Lowers the limit to what the model takes; returns false if the settings fix another limit.
    fn cut(&mut self, _length: usize) -> Result<bool> {
        Ok(false)
    }
}

/// Rows that are prepared for a model.
pub(super) trait Samples: Sync {
    /// Groups the rows that go through the model together. Every row is in exactly one group.
    fn groups(&self, grouping: Grouping, max_rows: usize, max_tokens: usize) -> Vec<Vec<usize>>;

    /// Makes the inputs for these rows.
    fn batch(&self, rows: &[usize]) -> Result<Batch>;
}

/// The inputs that go through the model together.
#[derive(Clone, Debug, Default)]
pub(super) struct Batch {
    /// The rows that are in the batch, in its order.
    pub rows: Vec<usize>,
    /// The rows that could not be read.
    pub bad: Vec<BadRow>,
    /// The inputs, whether or not the model declares them; meaningless without rows.
    pub inputs: Vec<Input>,
    /// The states that count, for each input that they may belong to; empty if all count.
    pub counted: Vec<Counted>,
}

/// Opens the feature that `config` asks for, for this model.
pub(super) fn open(config: &EncodeConfig, model: &Model) -> Result<Box<dyn Feature>> {
    Ok(match config.kind() {
        FeatureKind::Image => Box::new(ImageFeature::open(config, model)?),
        FeatureKind::Tensor => Box::new(TensorFeature::open(config, model)?),
        FeatureKind::Graph => Box::new(GraphFeature::open(config, model)),
        FeatureKind::Text | FeatureKind::Vector => Box::new(TextFeature::open(config, model)?),
    })
}
