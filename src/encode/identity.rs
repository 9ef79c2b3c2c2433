//! What stands for a model's vectors.

use std::hash::Hasher;
use std::io::{Read, Result};
use std::path::Path;

use twox_hash::XxHash3_64;

use super::model::{Model, tokenizer_of};
use crate::arrow_file::to_text;
use crate::config::EncodeConfig;

/// A text that is the same where a model gives the same vectors: its name, the content of all its files and of the
/// tokenizer, the settings of its inputs and outputs, what it runs on, and the version of what runs it. Reads the files,
/// at some gigabytes a second; `None` where they cannot be read, or have changed since the model was opened.
pub(super) fn of(model: &Model, config: &EncodeConfig) -> Option<String> {
    let mut text = model.path.file_name()?.to_string_lossy().into_owned();
    text.push_str(&format!("\nformat {FORMAT}, on {}, {}", model.provider.name(), ort::info()));
    for file in model.files() {
        text.push_str(&format!("\nmodel {}", content(file).ok()?));
    }
    let tokenizer = config.tokenizer.clone().unwrap_or_else(|| tokenizer_of(&model.path));
    if tokenizer.exists() {
        text.push_str(&format!("\ntokenizer {}", content(&tokenizer).ok()?));
    }
    // What does not change vectors. Columns may have other names, and the same content.
    let defaults = EncodeConfig::default();
    let settings = EncodeConfig {
        model: None,
        tokenizer: None,
        column: None,
        pair_column: config.pair_column.as_ref().map(|_| String::new()),
        on_bad_sample: defaults.on_bad_sample,
        storage: defaults.storage,
        runtime: None,
        cache_dir: None,
        cache_limit: defaults.cache_limit,
        sessions: defaults.sessions,
        views: Vec::new(),
        combine: defaults.combine,
        ..config.clone()
    };
    text.push_str(&format!("\n{settings:?}"));
    (!model.is_outdated().ok()?).then_some(text)
}

fn content(path: &Path) -> Result<String> {
    let (mut file, mut sum) = (std::fs::File::open(path)?, XxHash3_64::new());
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(to_text(sum.finish())),
            read => sum.write(&buffer[..read]),
        }
    }
}

/// Raised where rows are prepared in another way for the same settings, so that vectors change.
const FORMAT: u32 = 1;
