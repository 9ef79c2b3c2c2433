use std::path::PathBuf;

use serde::Deserialize;

use super::encode::{EncodeConfig, FeatureKind, Pooling};
use super::features::{GraphInputConfig, ImageConfig, TensorConfig};

/// How the vectors of several views become one, after each has been brought to unit length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Combine {
    /// Their mean; all must have the same dimension.
    #[default]
    Mean,
    /// One after the other: the dimensions add up.
    Concat,
}

/// One of `[[encode.views]]`: what is set here replaces the setting of `[encode]` with the same name.
///
/// A table is replaced as a whole.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ViewConfig {
    /// See [`EncodeConfig::feature`].
    pub feature: Option<FeatureKind>,
    /// See [`EncodeConfig::model`].
    pub model: Option<PathBuf>,
    /// See [`EncodeConfig::tokenizer`].
    pub tokenizer: Option<PathBuf>,
    /// See [`EncodeConfig::column`].
    pub column: Option<String>,
    /// See [`EncodeConfig::pair_column`].
    pub pair_column: Option<String>,
    /// See [`EncodeConfig::prefix`].
    pub prefix: Option<String>,
    /// See [`EncodeConfig::max_tokens`].
    pub max_tokens: Option<usize>,
    /// See [`EncodeConfig::pooling`].
    pub pooling: Option<Pooling>,
    /// See [`EncodeConfig::output`].
    pub output: Option<String>,
    /// See [`EncodeConfig::image`].
    pub image: Option<ImageConfig>,
    /// See [`EncodeConfig::tensor`].
    pub tensor: Option<TensorConfig>,
    /// See [`EncodeConfig::graph`].
    pub graph: Option<GraphInputConfig>,
}

impl ViewConfig {
    /// The settings of this view alone.
    #[must_use]
    pub fn over(&self, base: &EncodeConfig) -> EncodeConfig {
        let mut config = EncodeConfig { views: Vec::new(), ..base.clone() };
        let own = [self.image.is_some(), self.tensor.is_some(), self.graph.is_some()];
        if self.feature.is_some() || own.contains(&true) {
            (config.feature, config.image, config.tensor, config.graph) = (self.feature, None, None, None);
        }
        if self.model.is_some() {
            // The base's tokenizer belongs to the base's model.
            (config.model, config.tokenizer) = (self.model.clone(), None);
        }
        fn lay<T: Clone>(target: &mut T, own: Option<&T>) {
            if let Some(own) = own {
                target.clone_from(own);
            }
        }
        fn lay_some<T: Clone>(target: &mut Option<T>, own: &Option<T>) {
            if own.is_some() {
                target.clone_from(own);
            }
        }
        lay_some(&mut config.tokenizer, &self.tokenizer);
        lay_some(&mut config.column, &self.column);
        lay_some(&mut config.pair_column, &self.pair_column);
        lay(&mut config.prefix, self.prefix.as_ref());
        lay(&mut config.max_tokens, self.max_tokens.as_ref());
        lay(&mut config.pooling, self.pooling.as_ref());
        lay_some(&mut config.output, &self.output);
        lay_some(&mut config.image, &self.image);
        lay_some(&mut config.tensor, &self.tensor);
        lay_some(&mut config.graph, &self.graph);
        config
    }
}
