use std::borrow::Cow;
use std::path::{Path, PathBuf};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use rayon::prelude::*;
use tokenizers::{EncodeInput, Tokenizer, TruncationParams};

use super::{Batch, Feature, Samples};
use crate::config::EncodeConfig;
use crate::encode::BadRow;
use crate::encode::batching::length_sorted;
use crate::encode::inputs::{Given, Input, Numbers};
use crate::error::{Cause, Error, Result};

/// One text column, or two that make pairs, and the tokenizer that reads them.
pub(super) struct TextFeature {
    columns: Vec<String>,
    prefix: String,
    tokenizer: Tokenizer,
    path: PathBuf,
    /// The id that fills short texts up; the attention mask hides it.
    padding: i64,
}

/// A text as the model sees it. Every token counts (mask 1): padding comes later.
#[derive(Clone, Debug, Default)]
struct Tokens {
    ids: Vec<i64>,
    type_ids: Vec<i64>,
}

struct Texts<'a> {
    feature: &'a TextFeature,
    tokens: Vec<Result<Tokens, BadRow>>,
    lengths: Vec<usize>,
}

impl TextFeature {
    pub fn open(config: &EncodeConfig, model: &Path) -> Result<Self> {
        let path = config.tokenizer.clone().unwrap_or_else(|| model.with_file_name("tokenizer.json"));
        let failed = |cause: Cause| Error::Tokenizer { path: path.clone(), cause };
        if !path.is_file() {
            let hint = "; give the tokenizer.json of the model as `encode.tokenizer` (--tokenizer)".into();
            return Err(Error::NotFound { uri: path.display().to_string(), hint });
        }
        let mut tokenizer = Tokenizer::from_file(&path).map_err(failed)?;
        let padding = tokenizer.get_padding().map(|p| p.pad_id);
        let padding = padding.or_else(|| ["[PAD]", "<pad>"].iter().find_map(|p| tokenizer.token_to_id(p)));
        let truncation = TruncationParams { max_length: config.max_tokens, ..TruncationParams::default() };
        tokenizer.with_padding(None).with_truncation(Some(truncation)).map_err(failed)?;
        let columns = config.column.iter().chain(&config.pair_column).cloned().collect();
        let (prefix, padding) = (config.prefix.clone(), padding.unwrap_or(0).into());
        Ok(Self { columns, prefix, tokenizer, path, padding })
    }

    fn tokens<'s>(&self, input: impl Into<EncodeInput<'s>>) -> Result<Tokens> {
        let failed = |cause: Cause| Error::Tokenizer { path: self.path.clone(), cause };
        let encoding = self.tokenizer.encode_fast(input, true).map_err(failed)?;
        let widen = |ids: &[u32]| ids.iter().map(|&id| i64::from(id)).collect();
        Ok(Tokens { ids: widen(encoding.get_ids()), type_ids: widen(encoding.get_type_ids()) })
    }

    fn batch(&self, tokens: &[&Tokens]) -> Batch {
        let longest = tokens.iter().map(|t| t.ids.len()).max().unwrap_or(0).max(1);
        let mut columns: [Vec<i64>; 3] = std::array::from_fn(|_| Vec::with_capacity(tokens.len() * longest));
        for (row, Tokens { ids, type_ids }) in tokens.iter().enumerate() {
            let [all_ids, mask, all_type_ids] = &mut columns;
            all_ids.extend_from_slice(ids);
            mask.resize(mask.len() + ids.len(), 1);
            all_type_ids.extend_from_slice(type_ids);
            let end = (row + 1) * longest;
            all_ids.resize(end, self.padding);
            mask.resize(end, 0);
            all_type_ids.resize(end, 0);
        }
        let shape = vec![tokens.len(), longest];
        let input = |(name, numbers): (&str, _)| Input {
            name: name.into(),
            shape: shape.clone(),
            numbers: Numbers::Whole(numbers),
        };
        Batch {
            inputs: NAMES.into_iter().zip(columns).map(input).collect(),
            lengths: Some((tokens.iter().map(|t| t.ids.len()).collect(), longest)),
            ..Batch::default()
        }
    }
}

impl Feature for TextFeature {
    fn kind(&self) -> &'static str {
        "text"
    }

    fn given(&self) -> Vec<Given> {
        NAMES
            .into_iter()
            .map(|name| Given::new(name, "[batch, sequence] of whole numbers", true, name == NAMES[0]))
            .collect()
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn accepts(&self, schema: &Schema) -> Result<()> {
        for (place, column) in self.columns.iter().enumerate() {
            let Ok(field) = schema.field_with_name(column) else { continue };
            let value = match field.data_type() {
                DataType::Dictionary(_, value) => value.as_ref(),
                other => other,
            };
            if !(is_text(value) || is_binary(value)) {
                let setting = if place == 0 { "encode.column" } else { "encode.pair_column" };
                return Err(Error::ColumnType {
                    column: column.clone(),
                    found: value.to_string(),
                    expected: format!("text to encode must be strings; name another column as `{setting}`"),
                });
            }
        }
        Ok(())
    }

    /// Tokenises every text, in parallel.
    fn prepare<'a>(&'a self, rows: &'a RecordBatch) -> Result<Box<dyn Samples + 'a>> {
        let texts = rows.columns().iter().map(|column| self.texts(column)).collect::<Result<Vec<_>>>()?;
        let text = |place: usize, row: usize| {
            texts[place].get(row).map_err(|reason| BadRow { row, column: self.columns[place].clone(), reason })
        };
        let one = |row: usize| -> Result<Result<Tokens, BadRow>> {
            let first = match text(0, row) {
                Ok(text) if self.prefix.is_empty() => Cow::Borrowed(text),
                Ok(text) => Cow::Owned(format!("{}{text}", self.prefix)),
                Err(bad) => return Ok(Err(bad)),
            };
            let tokens = match self.columns.len() {
                1 => self.tokens(first)?,
                _ => match text(1, row) {
                    Ok(second) => self.tokens((first, second))?,
                    Err(bad) => return Ok(Err(bad)),
                },
            };
            if tokens.ids.is_empty() {
                let reason = "is a text without a token".to_owned();
                return Ok(Err(BadRow { row, column: self.columns[0].clone(), reason }));
            }
            Ok(Ok(tokens))
        };
        let tokens = (0..rows.num_rows()).into_par_iter().map(one).collect::<Result<Vec<_>>>()?;
        let lengths = tokens.iter().map(|t| t.as_ref().map_or(0, |t| t.ids.len())).collect();
        Ok(Box::new(Texts { feature: self, tokens, lengths }))
    }

    fn probe(&self) -> Result<Batch> {
        let text = "a short text to try the model on";
        let tokens = if self.columns.len() == 1 { self.tokens(text)? } else { self.tokens((text, "and another"))? };
        Ok(Batch { rows: vec![0], ..self.batch(&[&tokens]) })
    }
}

impl TextFeature {
    fn texts(&self, column: &ArrayRef) -> Result<Column> {
        let plain = match column.data_type() {
            DataType::Dictionary(_, value) => value.as_ref(),
            other => other,
        };
        let (to, is_binary) = match is_binary(plain) {
            true => (DataType::BinaryView, true),
            false => (DataType::Utf8View, false),
        };
        let values = cast(column, &to).map_err(|cause| Error::Arrow { action: "read texts", cause })?;
        Ok(Column { values, is_binary })
    }
}

/// Texts as they are stored.
struct Column {
    values: ArrayRef,
    is_binary: bool,
}

impl Column {
    fn get(&self, row: usize) -> Result<&str, String> {
        if !self.is_binary {
            return Ok(self.values.as_string_view().value(row));
        }
        std::str::from_utf8(self.values.as_binary_view().value(row))
            .map_err(|e| format!("is no UTF-8 from byte {} on", e.valid_up_to()))
    }
}

impl Samples for Texts<'_> {
    fn groups(&self, max_rows: usize, max_tokens: usize) -> Vec<Vec<usize>> {
        length_sorted(&self.lengths, max_rows, max_tokens)
    }

    fn batch(&self, rows: &[usize]) -> Result<Batch> {
        let (mut kept, mut bad, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
        for &row in rows {
            match &self.tokens[row] {
                Ok(t) => (kept.push(row), tokens.push(t)).1,
                Err(reason) => bad.push(reason.clone()),
            }
        }
        Ok(Batch { rows: kept, bad, ..self.feature.batch(&tokens) })
    }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn is_binary(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

const NAMES: [&str; 3] = ["input_ids", "attention_mask", "token_type_ids"];
