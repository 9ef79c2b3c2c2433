//! Small pictures of images, for people.

use std::io::Cursor;

use image::{DynamicImage, GrayImage, ImageFormat, RgbImage};

use super::decode::decode;
use super::pixels::{PixelValues, Pixels};

/// Decodes an image as models get it, makes it at most `side` pixels high and wide, and encodes it as PNG.
///
/// # Errors
/// The reason, which follows the name of the column.
pub(crate) fn thumbnail(bytes: &[u8], side: u32) -> Result<Vec<u8>, String> {
    let Pixels { height, width, channels, values } = decode(bytes)?;
    let PixelValues::Bytes(values) = values else { return Err("is no image of bytes".into()) };
    let (width, height) = (width as u32, height as u32);
    let image = match channels {
        1 => GrayImage::from_raw(width, height, values).map(DynamicImage::ImageLuma8),
        _ => RgbImage::from_raw(width, height, values).map(DynamicImage::ImageRgb8),
    };
    let image = image.ok_or("is an image of another size than it says")?;
    let image = if width.max(height) > side { image.thumbnail(side, side) } else { image };
    let mut png = Cursor::new(Vec::new());
    image.write_to(&mut png, ImageFormat::Png).map_err(|e| format!("cannot be drawn ({e})"))?;
    Ok(png.into_inner())
}
