//! Encoded images become pixels, upright.

use std::fmt::Display;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, ImageResult, Limits, guess_format};

use super::pixels::{Pixels, Values};
use crate::compute::panic_message;

/// Decodes JPEG, PNG or WebP, at most 512 MiB of pixels; of an animation the first picture.
pub(super) fn decode(bytes: &[u8]) -> Result<Pixels, String> {
    let cannot = |reason: &dyn Display| format!("is an image that cannot be decoded ({reason})");
    let format = guess_format(bytes).map_err(|_| match bytes.is_empty() {
        true => "is no JPEG, PNG or WebP image, but empty",
        false => "is no JPEG, PNG or WebP image",
    })?;
    let (bytes, oriented) = match format {
        ImageFormat::Jpeg => {
            let jpeg = Jpeg::find(bytes).ok_or_else(|| cannot(&"it is cut short"))?;
            (jpeg.bytes, jpeg.exif.and_then(of_exif).or_else(|| jpeg.xmp.and_then(of_xmp)))
        }
        ImageFormat::Png => (bytes, exif_of_png(bytes).and_then(of_exif)),
        ImageFormat::WebP => (bytes, None),
        other => {
            let name = format!("{other:?}").to_uppercase();
            return Err(format!("holds {name}, but only JPEG, PNG and WebP images are read: convert it"));
        }
    };
    // A defect of a decoder is as bad as a broken image, and no worse.
    let decoded = catch_unwind(AssertUnwindSafe(|| upright(format, bytes, oriented)));
    let decoded = decoded.map_err(|panic| cannot(&panic_message(panic.as_ref())))?;
    let image = decoded.map_err(|e| cannot(&e))?;
    let (height, width) = (image.height() as usize, image.width() as usize);
    let (channels, values) = match image.color().has_color() {
        true => (3, image.into_rgb8().into_raw()),
        false => (1, image.into_luma8().into_raw()),
    };
    Ok(Pixels { height, width, channels, values: Values::Bytes(values) })
}

/// The image, turned as it or `oriented` says, which was found before.
fn upright(format: ImageFormat, bytes: &[u8], oriented: Option<Orientation>) -> Result<DynamicImage, String> {
    let said = |e: ImageError| e.to_string();
    let mut decoder = ImageReader::with_format(Cursor::new(bytes), format).into_decoder().map_err(said)?;
    let ((width, height), mut limits) = (decoder.dimensions(), Limits::default());
    let too_large = |_| format!("its {height} × {width} pixels take more than 512 MiB");
    limits.reserve(decoder.total_bytes()).map_err(too_large)?;
    decoder.set_limits(limits).map_err(said)?;
    let oriented = match oriented {
        // To look again would cost a second reading of the headers.
        _ if format == ImageFormat::Jpeg => oriented,
        None => metadata(decoder.exif_metadata(), of_exif).or_else(|| metadata(decoder.xmp_metadata(), of_xmp)),
        found => found,
    };
    let mut image = DynamicImage::from_decoder(decoder).map_err(said)?;
    image.apply_orientation(oriented.unwrap_or(Orientation::NoTransforms));
    Ok(image)
}

/// What metadata say that can be read; those that cannot say nothing, as in Pillow.
fn metadata(found: ImageResult<Option<Vec<u8>>>, of: fn(&[u8]) -> Option<Orientation>) -> Option<Orientation> {
    of(&found.ok()??)
}

fn of_exif(exif: &[u8]) -> Option<Orientation> {
    Orientation::from_exif_chunk(exif.strip_prefix(EXIF).unwrap_or(exif))
}

/// Pillow, too, looks here where EXIF says nothing.
fn of_xmp(xmp: &[u8]) -> Option<Orientation> {
    let name = b"tiff:Orientation";
    let mut rest = xmp;
    while let Some(at) = rest.windows(name.len()).position(|part| part == name) {
        rest = &rest[at + name.len()..];
        let digit = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">")).and_then(|value| value.first());
        if let Some(digit) = digit.filter(|digit| digit.is_ascii_digit()) {
            return Orientation::from_exif(digit - b'0');
        }
    }
    None
}

/// The EXIF of a PNG, which may stand behind the pixels, where the decoder does not look.
fn exif_of_png(png: &[u8]) -> Option<&[u8]> {
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

/// A JPEG, and what of its metadata may turn it.
#[derive(Default)]
struct Jpeg<'a> {
    /// From its begin to its end: cameras and phones put more images and films behind it.
    bytes: &'a [u8],
    exif: Option<&'a [u8]>,
    xmp: Option<&'a [u8]>,
}

impl<'a> Jpeg<'a> {
    /// Goes from marker to marker; `None` where the mark of the end does not come, and the decoder would fill up with
    /// gray what is missing.
    fn find(bytes: &'a [u8]) -> Option<Self> {
        let (mut jpeg, mut at) = (Self::default(), 0);
        loop {
            at += bytes.get(at..)?.iter().position(|&byte| byte == 0xff)? + 1;
            let marker = *bytes.get(at)?;
            match marker {
                // A byte of the pixels, more filling, and markers without a segment.
                0x00 | 0x01 | 0xd0..=0xd8 => at += 1,
                0xff => {}
                0xd9 => return Some(Self { bytes: &bytes[..=at], ..jpeg }),
                _ => {
                    let rest = &bytes[at + 1..];
                    let length = usize::from(u16::from_be_bytes(rest.get(..2)?.try_into().ok()?));
                    let segment = rest.get(2..length.max(2))?;
                    if marker == 0xe1 {
                        jpeg.exif = jpeg.exif.or(Some(segment).filter(|segment| segment.starts_with(EXIF)));
                        jpeg.xmp = jpeg.xmp.or_else(|| segment.strip_prefix(XMP));
                    }
                    at += 1 + length.max(2);
                }
            }
        }
    }
}

/// How EXIF begins in JPEGs, and here and there in WebP.
const EXIF: &[u8] = b"Exif\0\0";
const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
