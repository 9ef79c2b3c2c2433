//! Converts the channels of an image, and resizes, crops and normalizes it.

use fast_image_resize::images::{Image, TypedImage};
use fast_image_resize::pixels::{F32, U8, U8x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeOptions, Resizer};

/// An image in memory [height, width, channels].
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pixels {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub values: PixelValues,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum PixelValues {
    Bytes(Vec<u8>),
    Floats(Vec<f32>),
}

impl Pixels {
    /// Converts to 1 or 3 channels, as Pillow converts between `RGB` and `L`.
    pub fn with_channels(self, channels: usize) -> Self {
        let values = match (self.channels, channels) {
            (from, to) if from == to => return self,
            (1, _) => match self.values {
                PixelValues::Bytes(values) => PixelValues::Bytes(values.iter().flat_map(|&x| [x; 3]).collect()),
                PixelValues::Floats(values) => PixelValues::Floats(values.iter().flat_map(|&x| [x; 3]).collect()),
            },
            _ => match self.values {
                PixelValues::Bytes(values) => {
                    let gray = |p: &[u8]| {
                        let sum: u32 = p.iter().zip(GRAY_WEIGHTS).map(|(&x, weight)| u32::from(x) * weight).sum();
                        ((sum + (1 << 15)) >> 16) as u8
                    };
                    PixelValues::Bytes(values.chunks_exact(3).map(gray).collect())
                }
                PixelValues::Floats(values) => {
                    let gray =
                        |p: &[f32]| p.iter().zip(GRAY_WEIGHTS).map(|(&x, weight)| x * weight as f32 / 65536.0).sum();
                    PixelValues::Floats(values.chunks_exact(3).map(gray).collect())
                }
            },
        };
        Self { channels, values, ..self }
    }

    /// Resizes with an antialiased bilinear filter, as Pillow and torchvision do by default.
    ///
    /// Rounding makes bytes differ from theirs by at most 1.
    pub fn resize(self, [height, width]: [usize; 2], resizer: &mut Resizer) -> Result<Self, String> {
        // Like Pillow, this resizes rows first, then columns, and rounds bytes in between.
        let rows = self.height;
        self.resize_at_once([rows, width], resizer)?.resize_at_once([height, width], resizer)
    }

    /// Resizes in both directions, without rounding in between.
    fn resize_at_once(self, [height, width]: [usize; 2], resizer: &mut Resizer) -> Result<Self, String> {
        if [self.height, self.width] == [height, width] {
            return Ok(self);
        }
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
        let from = (self.width as u32, self.height as u32);
        let to = (width as u32, height as u32);
        let values = match self.values {
            PixelValues::Bytes(values) => {
                let resized = match self.channels {
                    3 => resized_bytes::<U8x3>(values, from, to, resizer, &options),
                    _ => resized_bytes::<U8>(values, from, to, resizer, &options),
                };
                PixelValues::Bytes(resized?)
            }
            PixelValues::Floats(values) => {
                let mut all = vec![0f32; height * width * self.channels];
                for channel in 0..self.channels {
                    let plane = values.iter().skip(channel).step_by(self.channels).map(|&x| F32::new(x)).collect();
                    let plane = TypedImage::from_pixels(from.0, from.1, plane).map_err(|e| e.to_string())?;
                    let mut resized = TypedImage::<F32>::new(to.0, to.1);
                    resizer.resize_typed(&plane, &mut resized, &options).map_err(|e| e.to_string())?;
                    let values = all.iter_mut().skip(channel).step_by(self.channels);
                    values.zip(resized.pixels()).for_each(|(value, pixel)| *value = pixel.0);
                }
                PixelValues::Floats(all)
            }
        };
        Ok(Self { height, width, values, ..self })
    }

    /// Crops to the center of this size, as torchvision does.
    pub fn crop(self, [height, width]: [usize; 2]) -> Self {
        if [self.height, self.width] == [height, width] {
            return self;
        }
        fn cut<T: Copy>(values: &[T], row: usize, first: usize, left: usize, height: usize, width: usize) -> Vec<T> {
            values
                .chunks_exact(row)
                .skip(first)
                .take(height)
                .flat_map(|row| &row[left..left + width])
                .copied()
                .collect()
        }
        let middle = |all: usize, part: usize| (all.saturating_sub(part) as f64 / 2.0).round_ties_even() as usize;
        let top = middle(self.height, height);
        let left = middle(self.width, width) * self.channels;
        let row = self.width * self.channels;
        let taken = width * self.channels;
        let values = match &self.values {
            PixelValues::Bytes(values) => PixelValues::Bytes(cut(values, row, top, left, height, taken)),
            PixelValues::Floats(values) => PixelValues::Floats(cut(values, row, top, left, height, taken)),
        };
        Self { height, width, values, ..self }
    }

    /// Appends the values, each multiplied by the first number of its channel, plus the second.
    ///
    /// With `planes`, they are in the order [channels, height, width], else in [height, width, channels].
    pub fn write(&self, linear: &[(f32, f32)], planes: bool, to: &mut Vec<f32>) {
        let value = |pixel: usize, channel: usize| {
            let x = match &self.values {
                PixelValues::Bytes(values) => f32::from(values[pixel * self.channels + channel]),
                PixelValues::Floats(values) => values[pixel * self.channels + channel],
            };
            x.mul_add(linear[channel].0, linear[channel].1)
        };
        let pixels = self.height * self.width;
        let channels = self.channels;
        if planes {
            to.extend((0..channels).flat_map(|c| (0..pixels).map(move |p| (p, c))).map(|(p, c)| value(p, c)));
        } else {
            to.extend((0..pixels).flat_map(|p| (0..channels).map(move |c| (p, c))).map(|(p, c)| value(p, c)));
        }
    }
}

/// Resizes bytes of this kind of pixel, from one width and height to another.
///
/// [`Resizer::resize`] would compile every kind of pixel there is, which takes a minute.
fn resized_bytes<P: PixelTrait>(
    values: Vec<u8>,
    from: (u32, u32),
    to: (u32, u32),
    resizer: &mut Resizer,
    options: &ResizeOptions,
) -> Result<Vec<u8>, String> {
    let image = Image::from_vec_u8(from.0, from.1, values, P::pixel_type()).map_err(|e| e.to_string())?;
    let mut resized = Image::new(to.0, to.1, P::pixel_type());
    let views = image.typed_image::<P>().zip(resized.typed_image_mut::<P>());
    let (source, mut target) = views.ok_or("its pixels are of another kind")?;
    resizer.resize_typed(&source, &mut target, options).map_err(|e| e.to_string())?;
    Ok(resized.into_vec())
}

/// The weights of red, green and blue in gray, in parts of 65,536 (ITU-R 601, rounded as in Pillow).
const GRAY_WEIGHTS: [u32; 3] = [19_595, 38_470, 7_471];
