//! Decodes images to pixels, turned upright.

use std::fmt::Display;
use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, ImageResult, Limits, guess_format};

use super::pixels::{PixelValues, Pixels};
use crate::panics::guarded;

/// Decodes a JPEG, PNG or WebP image of at most 512 MiB of pixels, or the first frame of an animation.
///
/// # Errors
/// The reason, which follows the name of the column.
pub(super) fn decode(bytes: &[u8]) -> Result<Pixels, String> {
    let cannot = |reason: &dyn Display| format!("is an image that cannot be decoded ({reason})");
    let format = guess_format(bytes).map_err(|_| {
        if bytes.is_empty() { "is no JPEG, PNG or WebP image, but empty" } else { "is no JPEG, PNG or WebP image" }
    })?;
    let (bytes, oriented) = match format {
        ImageFormat::Jpeg => {
            let jpeg = Jpeg::find(bytes).ok_or_else(|| cannot(&"it is cut short"))?;
            (jpeg.bytes, jpeg.exif.and_then(exif_orientation).or_else(|| jpeg.xmp.and_then(xmp_orientation)))
        }
        ImageFormat::Png => (bytes, png_exif(bytes).and_then(exif_orientation)),
        ImageFormat::WebP => (bytes, None),
        other => {
            let name = format!("{other:?}").to_uppercase();
            return Err(format!("holds {name}, but only JPEG, PNG and WebP images are read: convert it"));
        }
    };
    // A panic of a decoder is treated like a damaged image.
    let decoded = guarded(|| upright(format, bytes, oriented)).map_err(|panic| cannot(&panic))?;
    let image = decoded.map_err(|e| cannot(&e))?;
    let height = image.height() as usize;
    let width = image.width() as usize;
    let (channels, values) =
        if image.color().has_color() { (3, image.into_rgb8().into_raw()) } else { (1, image.into_luma8().into_raw()) };
    Ok(Pixels { height, width, channels, values: PixelValues::Bytes(values) })
}

/// Decodes an image, and turns it as `oriented`, which was found before, or its metadata say.
fn upright(format: ImageFormat, bytes: &[u8], oriented: Option<Orientation>) -> Result<DynamicImage, String> {
    let said = |e: ImageError| e.to_string();
    let mut decoder = ImageReader::with_format(Cursor::new(bytes), format).into_decoder().map_err(said)?;
    let (width, height) = decoder.dimensions();
    let mut limits = Limits::default();
    let too_large = |_| format!("its {height} × {width} pixels take more than 512 MiB");
    limits.reserve(decoder.total_bytes()).map_err(too_large)?;
    decoder.set_limits(limits).map_err(said)?;
    let oriented = match oriented {
        // The metadata of a JPEG were searched before.
        _ if format == ImageFormat::Jpeg => oriented,
        None => orientation(decoder.exif_metadata(), exif_orientation)
            .or_else(|| orientation(decoder.xmp_metadata(), xmp_orientation)),
        found => found,
    };
    let mut image = DynamicImage::from_decoder(decoder).map_err(said)?;
    image.apply_orientation(oriented.unwrap_or(Orientation::NoTransforms));
    Ok(image)
}

/// Reads the orientation from metadata. As in Pillow, metadata that cannot be read do not count.
fn orientation(found: ImageResult<Option<Vec<u8>>>, read: fn(&[u8]) -> Option<Orientation>) -> Option<Orientation> {
    read(&found.ok()??)
}

/// Reads the orientation from EXIF.
fn exif_orientation(exif: &[u8]) -> Option<Orientation> {
    Orientation::from_exif_chunk(exif.strip_prefix(EXIF).unwrap_or(exif))
}

/// Reads the orientation from XMP, which counts if EXIF has none, as in Pillow.
fn xmp_orientation(xmp: &[u8]) -> Option<Orientation> {
    let name = b"tiff:Orientation";
    let mut rest = xmp;
    while let Some(start) = rest.windows(name.len()).position(|part| part == name) {
        rest = &rest[start + name.len()..];
        let digit = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">")).and_then(|value| value.first());
        if let Some(digit) = digit.filter(|digit| digit.is_ascii_digit()) {
            return Orientation::from_exif(digit - b'0');
        }
    }
    None
}

/// Finds the EXIF of a PNG, which may follow the pixels, where the decoder does not look.
fn png_exif(png: &[u8]) -> Option<&[u8]> {
    let mut rest = png.get(8..)?;
    loop {
        let (head, body) = rest.split_at_checked(8)?;
        let (length, name) = head.split_at(4);
        let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
        if name == b"eXIf" {
            return body.get(..length);
        }
        rest = body.get(length.checked_add(4)?..)?;
    }
}

/// A JPEG, and those of its metadata that may have an orientation.
#[derive(Default)]
struct Jpeg<'a> {
    /// The bytes up to its end mark. Cameras and phones append more images and films.
    bytes: &'a [u8],
    exif: Option<&'a [u8]>,
    xmp: Option<&'a [u8]>,
}

impl<'a> Jpeg<'a> {
    /// Goes from marker to marker; `None` without an end mark.
    ///
    /// The decoder would fill in gray what is missing of such a file.
    fn find(bytes: &'a [u8]) -> Option<Self> {
        let mut jpeg = Self::default();
        let mut position = 0;
        loop {
            position += bytes.get(position..)?.iter().position(|&byte| byte == 0xff)? + 1;
            let marker = *bytes.get(position)?;
            match marker {
                // These are a byte of the pixels, and markers without a segment.
                0x00 | 0x01 | 0xd0..=0xd8 => position += 1,
                0xff => {}
                0xd9 => return Some(Self { bytes: &bytes[..=position], ..jpeg }),
                _ => {
                    let rest = &bytes[position + 1..];
                    let length = usize::from(u16::from_be_bytes(rest.get(..2)?.try_into().ok()?));
                    let segment = rest.get(2..length.max(2))?;
                    if marker == 0xe1 {
                        jpeg.exif = jpeg.exif.or(Some(segment).filter(|segment| segment.starts_with(EXIF)));
                        jpeg.xmp = jpeg.xmp.or_else(|| segment.strip_prefix(XMP));
                    }
                    position += 1 + length.max(2);
                }
            }
        }
    }
}

/// What EXIF starts with in JPEGs, and in some WebPs.
const EXIF: &[u8] = b"Exif\0\0";

/// What XMP starts with in JPEGs.
const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
