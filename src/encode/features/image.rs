//! Images as inputs of a vision model.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Schema, UInt8Type};
use fast_image_resize::Resizer;

use super::decode::decode;
use super::lists::{Lists, number_type};
use super::pixels::{PixelValues, Pixels};
use super::{Batch, Feature, Samples};
use crate::config::{EncodeConfig, ImageConfig, ImageSize, Layout, PixelOrder};
use crate::encode::BadRow;
use crate::encode::batching::{Grouping, length_sorted};
use crate::encode::inputs::{Given, Input, Numbers};
use crate::encode::model::Model;
use crate::error::{ColumnError, Error, Result};

/// A column of images, encoded or raw, which are brought to one size.
pub(super) struct ImageFeature {
    columns: Vec<String>,
    config: ImageConfig,
    /// The name of the model's input.
    name: String,
    size: ImageSize,
    /// Height and width after cropping.
    crop: [usize; 2],
    channels: usize,
    /// For each channel, the factor of its values, and what is added to them then.
    linear: Vec<(f32, f32)>,
}

/// What a model declares about its images.
struct DeclaredImages {
    /// The name of the input.
    name: String,
    /// Height and width, if both are fixed.
    size: Option<[usize; 2]>,
    channels: Option<usize>,
}

/// Rows of a record batch as images.
struct Images<'a> {
    feature: &'a ImageFeature,
    rows: usize,
    content: Content,
}

/// Where the images of rows come from.
enum Content {
    /// Patterns, without a column, to try the model on.
    Patterns,
    /// Encoded images in a `BinaryView`, and perhaps paths in a `Utf8View`.
    Encoded(ArrayRef, Option<ArrayRef>),
    /// Pixels in lists.
    Raw(Lists),
}

impl ImageFeature {
    /// Opens the feature for a model, and checks the settings against its input.
    pub fn open(config: &EncodeConfig, model: &Model) -> Result<Self> {
        let image = config.image.clone().unwrap_or_default();
        let declared = DeclaredImages::of(model, image.layout)?;
        let (size, crop) = size_and_crop(&image, declared.size)?;
        let channels = channels(&image, declared.channels)?;
        let linear = linear(&image, channels)?;
        let columns = config.column.iter().cloned().collect();
        Ok(Self { columns, name: declared.name, size, crop, channels, linear, config: image })
    }

    /// Resizes and crops an image to the size of the model.
    fn fit(&self, pixels: Pixels, resizer: &mut Resizer) -> Result<Pixels, String> {
        let size = match self.size {
            ImageSize::Exact(size) => size,
            ImageSize::Shorter(side) if pixels.height <= pixels.width => {
                [side, side * pixels.width / pixels.height.max(1)]
            }
            ImageSize::Shorter(side) => [side * pixels.height / pixels.width.max(1), side],
        };
        if size.iter().any(|side| *side > MAX_RESIZED_SIDE) {
            return Err(format!(
                "is an image of {} × {} pixels, too narrow to be resized",
                pixels.height, pixels.width
            ));
        }
        Ok(pixels.with_channels(self.channels).resize(size, resizer)?.crop(self.crop))
    }

    /// Reads the raw pixels of a row [height, width, channels].
    fn raw(&self, lists: &Lists, row: usize) -> Result<Pixels, String> {
        let dimensions = lists.dimensions(row)?;
        let chw = self.config.order == PixelOrder::Chw;
        let ordered = |[c, h, w]: [usize; 3], [h2, w2, c2]: [usize; 3]| if chw { (h, w, c) } else { (h2, w2, c2) };
        let (height, width, channels) = match (&dimensions[..], self.config.height.zip(self.config.width)) {
            (&[a, b, c], _) => ordered([a, b, c], [a, b, c]),
            (&[height, width], None) => (height, width, 1),
            (flat, Some((height, width))) => (height, width, flat.iter().product::<usize>() / (height * width)),
            _ => return Err("holds flat lists; give encode.image.height and encode.image.width".into()),
        };
        let range = lists.range(row)?;
        if !matches!(channels, 1 | 3) || height * width * channels != range.len() || range.is_empty() {
            let numbers = range.len();
            return Err(format!(
                "has {numbers} numbers in lists of {dimensions:?}, which are no {height} × {width} pixels of 1 or 3 channels"
            ));
        }
        /// Reorders pixels from planes, one a channel, if they are in planes.
        fn interleaved<T: Copy>(values: &[T], channels: usize, chw: bool) -> Vec<T> {
            if !chw || channels == 1 {
                return values.to_vec();
            }
            let pixels = values.len() / channels;
            (0..values.len()).map(|index| values[index % channels * pixels + index / channels]).collect()
        }
        let numbers = lists.numbers();
        let values = match numbers.as_primitive_opt::<UInt8Type>() {
            Some(bytes) => PixelValues::Bytes(interleaved(&bytes.values()[range], channels, chw)),
            None => {
                let floats = &numbers.as_primitive::<Float32Type>().values()[range];
                if let Some(odd) = floats.iter().find(|x| !x.is_finite()) {
                    return Err(format!("has a pixel of {odd}"));
                }
                PixelValues::Floats(interleaved(floats, channels, chw))
            }
        };
        Ok(Pixels { height, width, channels, values })
    }

    /// Makes a gray image, or gray with stripes, of the size that the model takes.
    fn pattern(&self, number: usize) -> Pixels {
        let [height, width] = self.crop;
        let channels = self.channels;
        let value = |index: usize| (1.0 + (index * number % 7) as f32 / 7.0) / 2.0 / self.config.scale;
        let values = PixelValues::Floats((0..height * width * channels).map(value).collect());
        Pixels { height, width, channels, values }
    }

    /// Makes the input for images.
    fn input(&self, images: usize, numbers: Vec<f32>) -> Vec<Input> {
        let [height, width] = self.crop;
        let shape = match self.config.layout {
            Layout::Nchw => vec![images, self.channels, height, width],
            Layout::Nhwc => vec![images, height, width, self.channels],
        };
        vec![Input { name: self.name.clone(), shape, numbers: Numbers::Fractions(numbers) }]
    }
}

impl DeclaredImages {
    /// Finds the input for images: the one with the usual name, or else the only one.
    fn of(model: &Model, layout: Layout) -> Result<Self> {
        let preferred = model.inputs.iter().find(|input| input.is(NAME));
        let input = preferred.or(match &model.inputs[..] {
            [only] => Some(only),
            _ => None,
        });
        let Some(input) = input else { return Ok(Self { name: NAME.to_owned(), size: None, channels: None }) };
        if input.shape.len() != 4 {
            let reason = format!(
                "declares `{}` with {} dimensions, but images are {}: export it so",
                input.name,
                input.shape.len(),
                shape(layout)
            );
            return Err(model.fault(reason, None));
        }
        let (height, width, channels) = match layout {
            Layout::Nchw => (2, 3, 1),
            Layout::Nhwc => (1, 2, 3),
        };
        let size = input.dimension(height).zip(input.dimension(width)).map(|(h, w)| [h, w]);
        Ok(Self { name: input.name.clone(), size, channels: input.dimension(channels) })
    }
}

/// Returns the size that images are resized to, and the height and width that are then cut out.
fn size_and_crop(image: &ImageConfig, declared: Option<[usize; 2]>) -> Result<(ImageSize, [usize; 2])> {
    let raw = image.height.zip(image.width).map(|(h, w)| [h, w]);
    let size = image.size.or(declared.or(raw).map(ImageSize::Exact)).ok_or_else(|| {
        fault("size", "is required, since the model declares no fixed height and width; give both in pixels".into())
    })?;
    let (least, whole) = match size {
        ImageSize::Shorter(side) => ([side; 2], declared.unwrap_or([side; 2])),
        ImageSize::Exact(sides) => (sides, sides),
    };
    let crop = image.crop.unwrap_or(whole);
    if crop.iter().zip(least).any(|(crop, least)| *crop > least) {
        let message =
            format!("is too small for the {} × {} pixels of the model; choose a larger one", crop[0], crop[1]);
        return Err(fault("size", message));
    }
    if let Some([h, w]) = declared.filter(|declared| *declared != crop) {
        let key = if image.crop.is_some() { "crop" } else { "size" };
        let message = format!("gives {} × {} pixels, but the model declares {h} × {w}; give that", crop[0], crop[1]);
        return Err(fault(key, message));
    }
    Ok((size, crop))
}

/// Returns the channels of the model: 1 or 3.
fn channels(image: &ImageConfig, declared: Option<usize>) -> Result<usize> {
    let channels = image.channels.or(declared).unwrap_or(3);
    if declared.is_some_and(|declared| declared != channels) || !matches!(channels, 1 | 3) {
        let declared = declared.unwrap_or(channels);
        let message = format!(
            "is {channels}, but the model declares {declared}; 1 (gray) and 3 (red, green, blue) can be given, and \
             encode.image.layout says where they lie"
        );
        return Err(fault("channels", message));
    }
    Ok(channels)
}

/// Returns, for each channel, the factor of its values, and what is added to them then.
fn linear(image: &ImageConfig, channels: usize) -> Result<Vec<(f32, f32)>> {
    for (key, values) in [("mean", &image.mean), ("std", &image.std)] {
        if !matches!(values.len(), 0 | 1) && values.len() != channels {
            let message = format!("has {} numbers for {channels} channels; give one for each", values.len());
            return Err(fault(key, message));
        }
    }
    let of_channel = |values: &[f32], channel: usize| values.get(channel).or(values.first()).copied();
    let linear = |channel: usize| {
        let mean = of_channel(&image.mean, channel).unwrap_or(0.0);
        let std = of_channel(&image.std, channel).unwrap_or(1.0);
        (image.scale / std, -mean / std)
    };
    Ok((0..channels).map(linear).collect())
}

fn fault(key: &str, message: String) -> Error {
    Error::setting(format!("encode.image.{key}"), message)
}

impl Feature for ImageFeature {
    fn kind(&self) -> &'static str {
        "an image"
    }

    fn given(&self) -> Vec<Given> {
        vec![Given::new(&self.name, shape(self.config.layout), false, true)]
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn field(&self, column: &str) -> Option<&str> {
        (self.columns[0] == column).then_some(BYTES)
    }

    fn accepts(&self, schema: &Schema) -> Result<()> {
        let Ok(field) = schema.field_with_name(&self.columns[0]) else { return Ok(()) };
        let fits = match field.data_type() {
            DataType::Struct(fields) => {
                let mut named = fields.iter().filter(|f| f.name() == BYTES);
                // With two such fields, it is not clear which one is meant.
                named.next().is_some_and(|field| is_binary(field.data_type())) && named.next().is_none()
            }
            list @ (DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..)) => {
                matches!(number_type(list), DataType::UInt8 | DataType::Float32)
            }
            other => is_binary(other),
        };
        if fits {
            return Ok(());
        }
        Err(ColumnError::Type {
            column: field.name().clone(),
            found: field.data_type().to_string(),
            expected: "images are binary values (JPEG, PNG, WebP), a struct with binary `bytes`, or lists of UInt8 or \
                       Float32; name another column as `encode.column`"
                .into(),
        }
        .into())
    }

    fn prepare<'a>(&'a self, rows: &'a RecordBatch) -> Result<Box<dyn Samples + 'a>> {
        let column = rows.column(0);
        let (encoded, paths) = match column.as_struct_opt() {
            Some(parts) => (parts.column_by_name(BYTES), parts.column_by_name(PATH)),
            None => (Some(column).filter(|column| is_binary(column.data_type())), None),
        };
        let content = match encoded {
            Some(values) => Content::Encoded(
                cast(values, &DataType::BinaryView).map_err(|cause| Error::Arrow { action: "read images", cause })?,
                paths.and_then(|paths| cast(paths, &DataType::Utf8View).ok()),
            ),
            None => Content::Raw(Lists::new(column)),
        };
        Ok(Box::new(Images { feature: self, rows: rows.num_rows(), content }))
    }

    fn grouping(&self) -> Grouping {
        Grouping::Any
    }

    fn probes(&self) -> Result<Box<dyn Samples + '_>> {
        Ok(Box::new(Images { feature: self, rows: 3, content: Content::Patterns }))
    }
}

impl Samples for Images<'_> {
    fn groups(&self, _: Grouping, max_rows: usize, max_tokens: usize) -> Vec<Vec<usize>> {
        length_sorted(&vec![0; self.rows], |_| (), max_rows, max_tokens)
    }

    /// Decodes one image after another, since groups run side by side.
    fn batch(&self, rows: &[usize]) -> Result<Batch> {
        let feature = self.feature;
        let [height, width] = feature.crop;
        let mut numbers = Vec::with_capacity(rows.len() * feature.channels * height * width);
        let mut batch = Batch::default();
        let mut resizer = Resizer::new();
        for &row in rows {
            let pixels = match &self.content {
                Content::Patterns => Ok(feature.pattern(row)),
                Content::Encoded(values, paths) if values.is_null(row) => Err(no_bytes(paths.as_ref(), row)),
                Content::Encoded(values, _) => decode(values.as_binary_view().value(row)),
                Content::Raw(lists) => feature.raw(lists, row),
            };
            match pixels.and_then(|pixels| feature.fit(pixels, &mut resizer)) {
                Ok(pixels) => {
                    pixels.write(&feature.linear, feature.config.layout == Layout::Nchw, &mut numbers);
                    batch.rows.push(row);
                }
                Err(reason) => batch.bad.push(BadRow { row, column: feature.columns[0].clone(), reason }),
            }
        }
        batch.inputs = feature.input(batch.rows.len(), numbers);
        Ok(batch)
    }
}

/// Returns the reason why a struct has no image. Paths are not followed, since they lead out of the data.
fn no_bytes(paths: Option<&ArrayRef>, row: usize) -> String {
    match paths.filter(|paths| paths.is_valid(row)).map(|paths| paths.as_string_view().value(row)) {
        Some(path) => format!("has no `{BYTES}`, only the path `{path}`; write the images themselves into the file"),
        None => format!("has no `{BYTES}`"),
    }
}

fn is_binary(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

/// Describes the model's input in words.
fn shape(layout: Layout) -> &'static str {
    match layout {
        Layout::Nchw => "[batch, channels, height, width] of float",
        Layout::Nhwc => "[batch, height, width, channels] of float",
    }
}

/// The usual name of a model's image input.
const NAME: &str = "pixel_values";

/// The field of a struct that holds the encoded image.
const BYTES: &str = "bytes";

/// The field of a struct that says where the image was read from.
const PATH: &str = "path";

/// The most pixels of a side after resizing.
const MAX_RESIZED_SIDE: usize = 1 << 16;
