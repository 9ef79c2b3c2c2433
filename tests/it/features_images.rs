//! Images are decoded and resized as Pillow does it, and vectors are those of onnxruntime in Python.

use prosampler::arrow::array::{AsArray, RecordBatch};
use prosampler::config::{EncodeConfig, FeatureKind, ImageConfig, ImageSize, Layout, PixelOrder};
use prosampler::encode::{Encoder, OnnxEncoder};

use crate::support::{assert_says, difference, encode, lists, path, read_parquet};

fn config(model: &str, column: &str, image: ImageConfig) -> EncodeConfig {
    EncodeConfig {
        model: Some(path(&format!("tests/data/features/{model}.onnx"))),
        column: Some(column.into()),
        image: Some(image),
        sessions: 1,
        ..EncodeConfig::default()
    }
}

fn open(model: &str, column: &str, image: ImageConfig) -> OnnxEncoder {
    OnnxEncoder::open(&config(model, column, image)).unwrap()
}

fn images() -> RecordBatch {
    read_parquet("tests/data/features/images.parquet")
}

fn exact() -> ImageConfig {
    ImageConfig { size: Some(ImageSize::Exact([8, 6])), ..ImageConfig::default() }
}

/// How far pixels may differ, in steps of 1/255: by one from rounding in the resizer, and by another one from the
/// decoders of JPEG and WebP.
fn allowed(name: &str) -> f32 {
    if name.starts_with("png") || name.starts_with("webp,") { 1.01 } else { 2.01 }
}

fn assert_like_pillow(rows: &RecordBatch, found: &[Vec<f32>], expected: &str, steps: [f32; 3]) {
    let names = rows["name"].as_string::<i32>();
    for ((name, found), expected) in names.iter().zip(found).zip(lists(rows, expected)) {
        let name = name.unwrap();
        let plane = found.len() / 3;
        let differences =
            || found.iter().zip(&expected).enumerate().map(|(at, (a, b))| (a - b).abs() / steps[at / plane]);
        let (worst, mean) = (differences().fold(0.0, f32::max), differences().sum::<f32>() / found.len() as f32);
        println!("{name}: at most {worst:.3} steps, {mean:.3} on average");
        assert!(
            worst <= allowed(name) && mean < if allowed(name) > 2.0 { 1.0 } else { 0.1 },
            "{name}: {worst}, {mean}"
        );
    }
}

#[test]
fn decoded_and_resized_like_pillow() {
    let rows = images();
    assert!(rows.num_rows() >= 16);
    let found = encode(&open("image_any", "image", exact()), &rows);
    assert_like_pillow(&rows, &found, "stretched", [1.0 / 255.0; 3]);
    assert_eq!(found, encode(&open("image_any", "hf", exact()), &rows), "a struct with bytes is the same");
}

#[test]
fn cut_and_normalized_like_torchvision() {
    let image = ImageConfig {
        size: Some(ImageSize::Shorter(12)),
        crop: Some([9, 11]),
        mean: vec![0.485, 0.456, 0.406],
        std: vec![0.229, 0.224, 0.225],
        ..ImageConfig::default()
    };
    let rows = images();
    let steps = [0.229, 0.224, 0.225].map(|std| 1.0 / 255.0 / std);
    assert_like_pillow(&rows, &encode(&open("image_any", "image", image), &rows), "cropped", steps);
}

/// The model takes and gives f16 and gray images, and only it declares their size and the name of its input.
#[test]
fn gray_in_half_precision() {
    let rows = images();
    let found = encode(&open("image_f16", "image", ImageConfig::default()), &rows);
    let names = rows["name"].as_string::<i32>();
    for ((name, found), expected) in names.iter().zip(found).zip(lists(&rows, "gray")) {
        let worst = difference(&[found], &[expected]) * 255.0;
        assert!(worst <= allowed(name.unwrap()) + 0.1, "{}: {worst} steps", name.unwrap());
    }
}

#[test]
fn channels_last_is_the_same_in_another_order() {
    let rows = images();
    let first = encode(&open("image_any", "image", exact()), &rows);
    let last = ImageConfig { layout: Layout::Nhwc, ..ImageConfig::default() };
    for (first, last) in first.iter().zip(encode(&open("image_nhwc", "image", last), &rows)) {
        let turned: Vec<_> = (0..48).flat_map(|at| (0..3).map(move |c| c * 48 + at)).map(|at| first[at]).collect();
        assert_eq!(turned, last);
    }
}

/// Vectors agree to 1e-5 for the same pixels, and for encoded images as far as the pixels agree.
#[test]
fn vectors_are_those_of_onnxruntime() {
    let rows = images();
    let (order, height, width) = (PixelOrder::Chw, Some(8), Some(6));
    let pixels = ImageConfig { scale: 1.0, order, height, width, ..ImageConfig::default() };
    let expected = lists(&rows, "vector");
    assert!(difference(&encode(&open("image_conv", "stretched", pixels), &rows), &expected) < 1e-5);
    let found = encode(&open("image_conv", "image", ImageConfig::default()), &rows);
    assert!(difference(&found, &expected) < 2e-2);
}

#[test]
fn raw_pixels_of_every_shape() {
    let rows = read_parquet("tests/data/features/raw.parquet");
    let expected = lists(&rows, "resized");
    let flat = ImageConfig { height: Some(10), width: Some(7), ..exact() };
    let planes = ImageConfig { order: PixelOrder::Chw, ..exact() };
    for (column, image) in [("flat", flat), ("nested", exact()), ("planes", planes)] {
        let worst = difference(&encode(&open("image_any", column, image), &rows), &expected) * 255.0;
        assert!(worst < 1.01, "{column}: {worst} steps");
    }
    let floats = ImageConfig { scale: 1.0, ..ImageConfig::default() };
    let worst = difference(&encode(&open("image_f16", "floats", floats), &rows), &lists(&rows, "resized_floats"));
    assert!(worst < 2e-3, "{worst}");
}

/// Images are decoded a few at a time; vectors do not depend on these groups.
#[test]
fn groups_change_nothing() {
    let rows = images();
    let whole = encode(&open("image_conv", "image", ImageConfig::default()), &rows);
    let config = EncodeConfig { batch_rows: 2, ..config("image_conv", "image", ImageConfig::default()) };
    assert!(difference(&whole, &encode(&OnnxEncoder::open(&config).unwrap(), &rows)) < 1e-6);
}

#[test]
fn settings_that_do_not_fit_the_model_are_refused() {
    let error =
        |model: &str, image: ImageConfig| OnnxEncoder::open(&config(model, "image", image)).unwrap_err().to_string();
    let size = |size| ImageConfig { size: Some(size), ..ImageConfig::default() };
    assert_says(
        &error("image_any", ImageConfig::default()),
        &["encode.image.size: is required, since the model declares no fixed height and width"],
    );
    assert_says(
        &error("image_conv", size(ImageSize::Exact([9, 9]))),
        &["encode.image.size: gives 9 × 9 pixels, but the model declares 8 × 6; give that"],
    );
    assert_says(
        &error("image_conv", size(ImageSize::Shorter(5))),
        &["encode.image.size: is too small for the 8 × 6 pixels of the model"],
    );
    assert_says(
        &error("image_conv", ImageConfig { channels: Some(1), ..ImageConfig::default() }),
        &["encode.image.channels: is 1, but the model declares 3", "encode.image.layout"],
    );
    assert_says(
        &error("image_f16", ImageConfig { mean: vec![0.5; 3], ..ImageConfig::default() }),
        &["encode.image.mean: has 3 numbers for 1 channels"],
    );
    assert_says(
        &error("../pixels", exact()),
        &["pixels.onnx` declares `pixel_values` with 2 dimensions", "export it so"],
    );
    let text = EncodeConfig { feature: Some(FeatureKind::Image), ..config("../states", "image", exact()) };
    let error = OnnxEncoder::open(&text).unwrap_err().to_string();
    assert_says(
        &error,
        &["declares `input_ids: ", "which an image does not give", "`pixel_values` [batch, channels, height, width]"],
    );
    let encoder = open("image_any", "name", exact());
    let error = encoder.accepts("rows", &images().schema()).unwrap_err().to_string();
    assert_says(&error, &["column `name` holds Utf8, but images are binary values (JPEG, PNG, WebP)", "encode.column"]);
}
