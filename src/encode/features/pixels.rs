//! One image: its channels converted, resized, cut and normalized.

use fast_image_resize::images::{Image, TypedImage};
use fast_image_resize::pixels::F32;
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

/// Pixels in memory, [height, width, channels].
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pixels {
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub values: Values,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Values {
    Bytes(Vec<u8>),
    Floats(Vec<f32>),
}

impl Pixels {
    /// With another number of channels, 1 or 3, as Pillow converts `RGB` to `L` and back.
    pub fn with_channels(self, channels: usize) -> Self {
        let values = match (self.channels, channels) {
            (from, to) if from == to => return self,
            (1, _) => match self.values {
                Values::Bytes(values) => Values::Bytes(values.iter().flat_map(|&x| [x; 3]).collect()),
                Values::Floats(values) => Values::Floats(values.iter().flat_map(|&x| [x; 3]).collect()),
            },
            _ => match self.values {
                Values::Bytes(values) => {
                    let gray = |p: &[u8]| {
                        let sum: u32 = p.iter().zip(GRAY).map(|(&x, weight)| u32::from(x) * weight).sum();
                        ((sum + (1 << 15)) >> 16) as u8
                    };
                    Values::Bytes(values.chunks_exact(3).map(gray).collect())
                }
                Values::Floats(values) => {
                    let gray = |p: &[f32]| p.iter().zip(GRAY).map(|(&x, weight)| x * weight as f32 / 65536.0).sum();
                    Values::Floats(values.chunks_exact(3).map(gray).collect())
                }
            },
        };
        Self { channels, values, ..self }
    }

    /// Bilinear, over as many pixels as a pixel stands for, which Pillow and torchvision do by default: in bytes within one
    /// of theirs, by rounding.
    pub fn resize(self, [height, width]: [usize; 2], resizer: &mut Resizer) -> Result<Self, String> {
        // As Pillow does: first the rows, then the columns, bytes rounded in between.
        let rows = self.height;
        self.resize_at_once([rows, width], resizer)?.resize_at_once([height, width], resizer)
    }

    fn resize_at_once(self, [height, width]: [usize; 2], resizer: &mut Resizer) -> Result<Self, String> {
        if [self.height, self.width] == [height, width] {
            return Ok(self);
        }
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
        let from = (self.width as u32, self.height as u32);
        let to = (width as u32, height as u32);
        let values = match self.values {
            Values::Bytes(values) => {
                let pixel = if self.channels == 3 { PixelType::U8x3 } else { PixelType::U8 };
                let image = Image::from_vec_u8(from.0, from.1, values, pixel).map_err(|e| e.to_string())?;
                let mut resized = Image::new(to.0, to.1, pixel);
                resizer.resize(&image, &mut resized, &options).map_err(|e| e.to_string())?;
                Values::Bytes(resized.into_vec())
            }
            Values::Floats(values) => {
                let mut all = vec![0f32; height * width * self.channels];
                for channel in 0..self.channels {
                    let plane = values.iter().skip(channel).step_by(self.channels).map(|&x| F32::new(x)).collect();
                    let plane = TypedImage::from_pixels(from.0, from.1, plane).map_err(|e| e.to_string())?;
                    let mut resized = TypedImage::<F32>::new(to.0, to.1);
                    resizer.resize_typed(&plane, &mut resized, &options).map_err(|e| e.to_string())?;
                    let places = all.iter_mut().skip(channel).step_by(self.channels);
                    places.zip(resized.pixels()).for_each(|(place, pixel)| *place = pixel.0);
                }
                Values::Floats(all)
            }
        };
        Ok(Self { height, width, values, ..self })
    }

    /// The middle of this size, as torchvision cuts it.
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
        let (top, left) = (middle(self.height, height), middle(self.width, width) * self.channels);
        let (row, taken) = (self.width * self.channels, width * self.channels);
        let values = match &self.values {
            Values::Bytes(values) => Values::Bytes(cut(values, row, top, left, height, taken)),
            Values::Floats(values) => Values::Floats(cut(values, row, top, left, height, taken)),
        };
        Self { height, width, values, ..self }
    }

    /// Appends the values, each times the first and plus the second number of its channel.
    pub fn write(&self, linear: &[(f32, f32)], planes: bool, to: &mut Vec<f32>) {
        let value = |at: usize, channel: usize| {
            let x = match &self.values {
                Values::Bytes(values) => f32::from(values[at * self.channels + channel]),
                Values::Floats(values) => values[at * self.channels + channel],
            };
            x.mul_add(linear[channel].0, linear[channel].1)
        };
        let (pixels, channels) = (self.height * self.width, self.channels);
        match planes {
            true => {
                to.extend((0..channels).flat_map(|c| (0..pixels).map(move |at| (at, c))).map(|(at, c)| value(at, c)))
            }
            false => {
                to.extend((0..pixels).flat_map(|at| (0..channels).map(move |c| (at, c))).map(|(at, c)| value(at, c)))
            }
        }
    }
}

/// What red, green and blue weigh in gray, of 65,536 (ITU-R 601, as Pillow rounds it).
const GRAY: [u32; 3] = [19_595, 38_470, 7_471];
