//! Models and tokenizers are damaged.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use prosampler::Result;
use prosampler::arrow::array::{ArrayRef, RecordBatch, StringArray};
use prosampler::config::EncodeConfig;
use prosampler::encode::{Encoder, OnnxEncoder};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use serde_json::Value;
use tempfile::TempDir;

use crate::child::Target;
use crate::mutate::{self, Mutant};
use crate::outcome::Outcome;
use crate::support::{path, random};

/// Damages the model or its tokenizer.
pub struct Model {
    tokenizer: bool,
    dir: TempDir,
    /// The undamaged file and its vectors.
    files: Vec<(Vec<u8>, Vec<f32>)>,
}

impl Model {
    pub fn new(tokenizer: bool) -> Self {
        let dir = TempDir::new().unwrap();
        let models = if tokenizer { vec![SMALL] } else { vec![SMALL, GLOSS] };
        let files = models.into_iter().map(|model| {
            let damaged = if tokenizer { TOKENIZER } else { model };
            (fs::read(path(damaged)).unwrap(), vectors(path(model), path(TOKENIZER)).unwrap())
        });
        Self { tokenizer, files: files.collect(), dir }
    }
}

impl Target for Model {
    fn case(&mut self, seed: u64, number: u64) -> Outcome {
        let mut random = random(seed, if self.tokenizer { "tokenizer" } else { "model" }, number);
        let (bytes, expected) = &self.files[random.random_range(0..self.files.len())];
        let mutant =
            if self.tokenizer && random.random() { edited(bytes, &mut random) } else { damaged(bytes, &mut random) };
        let name = if self.tokenizer { "damaged.json" } else { "damaged.onnx" };
        let file = self.dir.path().join(name);
        fs::write(&file, mutant).unwrap();
        let read = if self.tokenizer { vectors(path(SMALL), file) } else { vectors(file, path(TOKENIZER)) };
        match read {
            Ok(found) if found == *expected => Outcome::Right,
            Ok(_) if self.tokenizer => Outcome::NotKnowable("tokenizers have no checksum".to_owned()),
            Ok(_) => Outcome::NotKnowable("models have no checksum".to_owned()),
            Err(error) => super::refused(&error, &[name]),
        }
    }
}

fn damaged(bytes: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut mutant = Mutant::new(bytes);
    // Nodes and shapes come first. Weights are most of a file, and damage to them only changes numbers.
    let begin = 0..bytes.len().min(700);
    match random.random_range(0..6) {
        0 => mutant.rearrange(bytes, random),
        1 => mutant.change(0..bytes.len(), random),
        2 => {
            mutant.change(begin.clone(), random);
            mutant.change(begin, random);
        }
        _ => mutant.change(begin, random),
    }
    mutant.bytes
}

/// The JSON with one value changed.
fn edited(bytes: &[u8], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut whole: Value = serde_json::from_slice(bytes).unwrap();
    edit(&mut whole, random);
    serde_json::to_vec(&whole).unwrap()
}

/// Changes a value that is chosen level by level, so that the vocabulary is as likely as any other key.
fn edit(value: &mut Value, random: &mut ChaCha8Rng) {
    let deeper = random.random_range(0..6) > 0;
    match value {
        Value::Object(all) if deeper && !all.is_empty() => {
            let place = random.random_range(0..all.len());
            return edit(all.values_mut().nth(place).unwrap(), random);
        }
        Value::Array(all) if deeper && !all.is_empty() => {
            let place = random.random_range(0..all.len());
            return edit(&mut all[place], random);
        }
        _ => {}
    }
    *value = match (&*value, random.random_range(0..6)) {
        (Value::Number(n), 0..4) => mutate::number(n.as_i64().unwrap_or(0), random).into(),
        (Value::Bool(b), _) => Value::Bool(!b),
        (Value::String(text), 0..2) => Value::String(text.chars().rev().collect()),
        (_, 2) => Value::Null,
        (_, 3) => Value::String(String::new()),
        (_, 4) => Value::Array(Vec::new()),
        _ => Value::from(random.random_range(-2..1i64 << 33)),
    };
}

fn vectors(model: PathBuf, tokenizer: PathBuf) -> Result<Vec<f32>> {
    let (model, tokenizer, column) = (Some(model), Some(tokenizer), Some("text".to_owned()));
    let encoder = OnnxEncoder::open(&EncodeConfig { model, tokenizer, column, ..EncodeConfig::default() })?;
    let texts: ArrayRef = Arc::new(StringArray::from_iter_values(TEXTS));
    let rows = RecordBatch::try_from_iter([("text", texts)]).unwrap();
    encoder.accepts("the texts", &rows.schema())?;
    let mut vectors = vec![0.0; TEXTS.len() * encoder.dimension()];
    encoder.encode(&rows, &mut vectors)?;
    Ok(vectors)
}

const TEXTS: [&str; 4] =
    ["a member of the genus Canis", "the act of walking", "blue", "an animal that produces gametes but no seeds"];

const SMALL: &str = "tests/data/states.onnx";
const GLOSS: &str = "data/models/gloss-encoder/model.onnx";
const TOKENIZER: &str = "data/models/gloss-encoder/tokenizer.json";
