//! What the kinds of features have for settings of their own, below `[encode]`.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::check::{Check, Checker};

/// `[encode.image]`: how the images of `encode.column` become the model's input, f32 or f16 as it declares.
///
/// The column holds either encoded images (JPEG, PNG or WebP as binary values, or as a struct with `bytes`, as Hugging
/// Face writes them) or raw pixels: lists of u8 or f32, nested or flat.
///
/// Encoded images are decoded as Pillow does it in `ImageOps.exif_transpose(image).convert("RGB")`, and Hugging Face's
/// datasets since 2024: turned upright as their EXIF, or else their XMP, says. Of an animation the first picture
/// counts; 16 bits are rounded to 8; color profiles are not applied. What follows the end of a JPEG, a film or another
/// image, is not looked at. A JPEG without its end is a bad sample, never half an image (one whose end comes too early
/// cannot be told from a whole one), and so is what takes more than 512 MiB of pixels (decoding may take three times
/// that for a moment), or is in another format.
///
/// Colors become `channels`, then the image is resized, cut, scaled and normalized, in this order:
/// (value × `scale` − `mean`) / `std`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct ImageConfig {
    /// What an image is resized to, in pixels: a number for the shorter side, the longer one in proportion; or [height,
    /// width], whatever the proportions. Default: the height and width that the model declares, exactly.
    pub size: Option<ImageSize>,
    /// The middle that is cut out after resizing: a number for a square, or [height, width]. Default: nothing is cut if
    /// `size` is exact; else the height and width that the model declares, or a square of `size`.
    #[serde(deserialize_with = "one_or_two")]
    pub crop: Option<[usize; 2]>,
    /// 3 for red, green and blue, 1 for shades of gray. Images are converted as Pillow does; transparency is dropped.
    /// Default: what the model declares, else 3.
    pub channels: Option<usize>,
    /// What pixels are multiplied with first. Default 1/255, so that u8 becomes 0 to 1; 1 for raw pixels in f32 that
    /// are scaled already.
    pub scale: f32,
    /// What is subtracted after that: one number or one for each channel. Default: nothing. [0.485, 0.456, 0.406] is
    /// usual for models that were trained on ImageNet.
    pub mean: Vec<f32>,
    /// What is divided by after that, likewise. Default: nothing. [0.229, 0.224, 0.225] belongs to the mean above.
    pub std: Vec<f32>,
    /// How the model takes its input. Default `nchw`.
    pub layout: Layout,
    /// How raw pixels lie in the column. Default `hwc`. Nested lists without channels are [height, width].
    pub order: PixelOrder,
    /// The height of raw pixels in flat lists. Default: what the nesting says.
    pub height: Option<usize>,
    /// Their width; goes with `height`.
    pub width: Option<usize>,
}

/// What an image is resized to, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected a number of pixels, or [height, width]")]
pub enum ImageSize {
    /// The shorter side; the longer one in proportion, rounded down.
    Shorter(usize),
    /// [height, width].
    Exact([usize; 2]),
}

/// The dimensions of a model's image input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// [batch, channels, height, width], as PyTorch has it.
    #[default]
    Nchw,
    /// [batch, height, width, channels], as TensorFlow has it.
    Nhwc,
}

/// The dimensions of raw pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PixelOrder {
    /// [height, width, channels].
    #[default]
    Hwc,
    /// [channels, height, width].
    Chw,
}

impl Default for ImageConfig {
    fn default() -> Self {
        Self {
            size: None,
            crop: None,
            channels: None,
            scale: 1.0 / 255.0,
            mean: Vec::new(),
            std: Vec::new(),
            layout: Layout::Nchw,
            order: PixelOrder::Hwc,
            height: None,
            width: None,
        }
    }
}

impl Check for ImageConfig {
    const SECTION: &'static str = "encode.image";

    fn check(&self, check: &mut Checker<'_>) {
        let side = |pixels: usize| (1..=MAX_SIDE).contains(&pixels);
        let size_fits = match self.size {
            None => true,
            Some(ImageSize::Shorter(pixels)) => side(pixels),
            Some(ImageSize::Exact(sides)) => sides.into_iter().all(side),
        };
        check.require(size_fits, "size", "must lie between 1 and 16,384 pixels");
        check.require(
            self.crop.is_none_or(|c| c.into_iter().all(side)),
            "crop",
            "must lie between 1 and 16,384 pixels",
        );
        if let (Some(crop), Some(size)) = (self.crop, self.size) {
            let sides = match size {
                ImageSize::Shorter(pixels) => [pixels; 2],
                ImageSize::Exact(sides) => sides,
            };
            let fits = crop.iter().zip(sides).all(|(crop, side)| *crop <= side);
            check.require(fits, "crop", "is larger than encode.image.size; choose a larger size or a smaller crop");
        }
        check.require(
            matches!(self.channels, None | Some(1 | 3)),
            "channels",
            "must be 1 (gray) or 3 (red, green, blue)",
        );
        check.require(self.scale.is_finite() && self.scale != 0.0, "scale", "must be a number other than 0");
        for (key, values) in [("mean", &self.mean), ("std", &self.std)] {
            let fits = values.len() <= 1 || values.len() == self.channels.unwrap_or(3);
            check.require(fits, key, "must have one number, or one for each of encode.image.channels");
        }
        check.require(self.mean.iter().all(|x| x.is_finite()), "mean", "must be numbers");
        check.require(self.std.iter().all(|x| x.is_finite() && *x > 0.0), "std", "must be numbers above 0");
        let both = self.height.is_some() == self.width.is_some();
        check.require(both, "height", "and encode.image.width go together; give both or none");
        let sides = [self.height, self.width];
        check.require(sides.iter().flatten().all(|s| side(*s)), "height", "and width must lie between 1 and 16,384");
    }
}

/// `[encode.tensor]`: how columns of numbers become the model's inputs.
///
/// A column holds numbers, or lists of numbers, nested or flat; integers fit inputs of any numeric type, fractions
/// those of f32, f64, f16 and bf16. Rows of an input whose length the model leaves open may have different lengths.
/// Where the model declares `<name>_mask` (for its only input of that length also `mask`, `attention_mask` or another
/// `…_mask`) [batch, length], rows are filled up with zeros to the longest of the batch, or to a fixed length, and the
/// mask is 1 for what is there and 0 for what was filled up. If it declares none, or has several such inputs, only rows
/// of the same lengths share a batch.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct TensorConfig {
    /// The column for each of the model's inputs, by the input's name. Default: the column with the input's name.
    pub inputs: BTreeMap<String, String>,
}

impl Check for TensorConfig {
    const SECTION: &'static str = "encode.tensor";

    fn check(&self, check: &mut Checker<'_>) {
        let named = self.inputs.iter().all(|(input, column)| !input.is_empty() && !column.is_empty());
        check.require(named, "inputs", "must be names of inputs and columns, as in { x = \"values\" }");
    }
}

/// `[encode.graph]`: how columns become a graph in each row, for a model of graphs.
///
/// The graphs of a batch become one disjoint union, in the names of PyTorch Geometric: `x` [nodes, features],
/// `edge_index` [2, edges], source and target of each edge; where the model declares them `batch` \[nodes\], the graph
/// of each node, `ptr` [graphs + 1], the first node of each graph and the end, and `edge_attr` [edges, attributes]. The
/// model gives [graphs, dimension].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct GraphInputConfig {
    /// The column with the number of nodes, to check the features against. Default: none, the features tell.
    pub num_nodes: Option<String>,
    /// The column of node features: a list of a list of numbers for each node, a flat list of numbers, or a list of one
    /// whole number for each node, its category. Default `node_features`.
    pub node_features: String,
    /// Numbers for each node in a flat list. Default: what the model declares for `x`, else 1.
    pub node_width: Option<usize>,
    /// The column of the nodes, from 0, that edges leave: a list of whole numbers. Default `edge_sources`. An edge
    /// without direction is listed both ways.
    pub edge_sources: String,
    /// The column of the nodes that edges enter. Default `edge_targets`.
    pub edge_targets: String,
    /// The column of numbers for each edge, as for nodes; read where the model declares `edge_attr`. Default
    /// `edge_attributes`.
    pub edge_attributes: String,
}

impl Default for GraphInputConfig {
    fn default() -> Self {
        Self {
            num_nodes: None,
            node_features: "node_features".into(),
            node_width: None,
            edge_sources: "edge_sources".into(),
            edge_targets: "edge_targets".into(),
            edge_attributes: "edge_attributes".into(),
        }
    }
}

impl Check for GraphInputConfig {
    const SECTION: &'static str = "encode.graph";

    fn check(&self, check: &mut Checker<'_>) {
        check.require(self.node_width.is_none_or(|w| w >= 1), "node_width", "must be at least 1");
    }
}

fn one_or_two<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<[usize; 2]>, D::Error> {
    Ok(Some(match ImageSize::deserialize(deserializer)? {
        ImageSize::Shorter(pixels) => [pixels; 2],
        ImageSize::Exact(sides) => sides,
    }))
}

const MAX_SIDE: usize = 1 << 14;
