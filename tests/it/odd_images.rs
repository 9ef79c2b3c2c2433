//! Images as cameras, phones and the web make them are decoded as Pillow decodes them; what is not an image is refused
//! with a reason.

use std::sync::Arc;

use prosampler::arrow::array::{Array, ArrayRef, AsArray, BinaryArray, RecordBatch, StringArray, StructArray};
use prosampler::arrow::datatypes::{DataType, Field};
use prosampler::config::{EncodeConfig, ImageConfig, ImageSize};
use prosampler::encode::{BadRow, Encoder, OnnxEncoder};

use crate::support::{encode, lists, path, read_parquet};

/// An encoder that gives the 12 × 20 pixels as they are.
fn encoder(column: &str) -> OnnxEncoder {
    OnnxEncoder::open(&EncodeConfig {
        model: Some(path("tests/data/features/image_any.onnx")),
        column: Some(column.into()),
        image: Some(ImageConfig { size: Some(ImageSize::Exact([12, 20])), ..ImageConfig::default() }),
        sessions: 1,
        ..EncodeConfig::default()
    })
    .unwrap()
}

fn bad_rows(images: ArrayRef) -> Vec<BadRow> {
    let (rows, encoder) = (images.len(), encoder("image"));
    let batch = RecordBatch::try_from_iter([("image", images)]).unwrap();
    encoder.accepts("rows", &batch.schema()).unwrap();
    let mut vectors = vec![0.0; rows * encoder.dimension()];
    encoder.encode_readable(&batch, &mut vectors).unwrap().bad
}

/// How far pixels may differ, in steps of 1/255: by rounding in the decoders of JPEG, and more if colors have fewer
/// pixels. Images of 16 bits are rounded here and cut by Pillow.
fn allowed(name: &str) -> f32 {
    match name {
        name if name.contains("4:2:0") => 4.0,
        name if name.starts_with("jpeg") => 2.0,
        name if name.contains("16 bits") => 1.0,
        _ => 0.0,
    }
}

#[test]
fn images_are_upright_and_as_pillow_decodes_them() {
    let rows = read_parquet("tests/data/images/good.parquet");
    let found = encode(&encoder("image"), &rows);
    let names = rows["name"].as_string::<i32>();
    let mut worse = Vec::new();
    for ((name, found), pixels) in names.iter().zip(&found).zip(lists(&rows, "pixels")) {
        let name = name.unwrap();
        let planes = (0..3).flat_map(|channel| pixels.iter().skip(channel).step_by(3));
        let differences: Vec<_> = found.iter().zip(planes).map(|(a, b)| (a * 255.0 - b).abs()).collect();
        let worst = differences.iter().fold(0f32, |worst, x| worst.max(*x));
        println!("{name}: at most {worst:.3} steps, {:.3} on average", differences.iter().sum::<f32>() / 720.0);
        if worst > allowed(name) + 0.01 {
            worse.push((name, worst));
        }
    }
    assert!(names.len() > 60 && worse.is_empty(), "{worse:?}");
}

#[test]
fn values_that_are_not_images_are_named() {
    let rows = read_parquet("tests/data/images/bad.parquet");
    let bad = bad_rows(rows["image"].clone());
    let reasons = rows["reason"].as_string::<i32>();
    for (row, name) in rows["name"].as_string::<i32>().iter().enumerate() {
        let found = bad.iter().find(|bad| bad.row == row).map(|bad| bad.reason.as_str());
        let name = name.unwrap();
        println!("{name}: {found:?}");
        assert!(found.is_some_and(|reason| reason.starts_with(reasons.value(row))), "{name}: {found:?}");
    }
    assert_eq!(bad.len(), rows.num_rows());
}

/// Hugging Face's struct may hold a path in place of the image.
#[test]
fn a_struct_without_bytes_says_what_is_there_instead() {
    let rows = read_parquet("tests/data/images/good.parquet");
    let image = rows["image"].as_binary::<i32>().value(0);
    let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![Some(image), None, None]));
    let paths: ArrayRef = Arc::new(StringArray::from(vec![None, Some("a/7.png"), None]));
    let field = |name: &str, of: DataType| Arc::new(Field::new(name, of, true));
    let parts = vec![(field("bytes", DataType::Binary), bytes), (field("path", DataType::Utf8), paths)];
    let bad: Vec<_> = bad_rows(Arc::new(StructArray::from(parts))).into_iter().map(|b| (b.row, b.reason)).collect();
    let path = "has no `bytes`, only the path `a/7.png`; write the images themselves into the file";
    assert_eq!(bad, [(1, path.to_owned()), (2, "has no `bytes`".to_owned())]);
}

/// A JPEG that is cut short anywhere is a bad sample, whatever its header holds or follows the cut.
#[test]
fn a_jpeg_that_is_cut_short_is_never_half_an_image() {
    let rows = read_parquet("tests/data/images/good.parquet");
    let images = rows["image"].as_binary::<i32>();
    let names = rows["name"].as_string::<i32>();
    for name in ["jpeg, a thumbnail within", "jpeg, 4:2:0, turned", "jpeg, gray", "jpeg, exif before xmp"] {
        let row = names.iter().position(|found| found == Some(name)).unwrap();
        let whole = images.value(row);
        assert!(whole.ends_with(&[0xff, 0xd9]));
        let cut: Vec<_> = (2..whole.len()).map(|length| &whole[..length]).collect();
        let bad: Vec<_> = bad_rows(Arc::new(BinaryArray::from_iter_values(&cut))).iter().map(|bad| bad.row).collect();
        assert_eq!(bad, (0..cut.len()).collect::<Vec<_>>(), "{name}");
    }
}
