//! Texts, or pairs of texts, as inputs of a transformer.

use std::borrow::Cow;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use rayon::prelude::*;

use super::tokenizer::TextTokenizer;
use super::tokens::{TokenInputs, Tokens};
use super::{Batch, Feature, Samples};
use crate::config::EncodeConfig;
use crate::encode::BadRow;
use crate::encode::batching::{Grouping, length_sorted};
use crate::encode::inputs::Given;
use crate::encode::model::Model;
use crate::error::{ColumnError, Error, Result};

/// One text column, or two that make pairs, and the tokenizer that reads them.
pub(super) struct TextFeature {
    columns: Vec<String>,
    prefix: String,
    tokenizer: TextTokenizer,
    inputs: TokenInputs,
    /// The tokens from which samples are made to try the model.
    example: Tokens,
}

/// Rows of a record batch as tokens.
struct Texts<'a> {
    feature: &'a TextFeature,
    tokens: Vec<Result<Tokens, BadRow>>,
    /// The length of each text with the padding that it has in a batch of its own.
    lengths: Vec<usize>,
}

impl TextFeature {
    /// Opens the tokenizer of a model.
    pub fn open(config: &EncodeConfig, model: &Model) -> Result<Self> {
        let tokenizer = TextTokenizer::open(config, model)?;
        Ok(Self {
            columns: config.column.iter().chain(&config.pair_column).cloned().collect(),
            prefix: config.prefix.clone(),
            example: tokenizer.example()?,
            inputs: TokenInputs::new(model)?,
            tokenizer,
        })
    }

    fn samples(&self, tokens: Vec<Result<Tokens, BadRow>>) -> Texts<'_> {
        let length = |tokens: &Result<Tokens, BadRow>| match tokens {
            Ok(tokens) => self.tokenizer.padding.length(tokens.ids.len()),
            Err(_) => 0,
        };
        Texts { feature: self, lengths: tokens.iter().map(length).collect(), tokens }
    }

    fn batch(&self, tokens: &[&Tokens]) -> Batch {
        let (inputs, counted) = self.inputs.batch(tokens, &self.tokenizer.padding);
        Batch { inputs, counted: vec![counted], ..Batch::default() }
    }
}

impl Feature for TextFeature {
    fn kind(&self) -> &'static str {
        "text"
    }

    fn given(&self) -> Vec<Given> {
        self.inputs.given()
    }

    fn grouping(&self) -> Grouping {
        if self.inputs.is_masked { Grouping::Any } else { Grouping::OfOneLength }
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn accepts(&self, schema: &Schema) -> Result<()> {
        for (index, column) in self.columns.iter().enumerate() {
            let Ok(field) = schema.field_with_name(column) else { continue };
            let value = match field.data_type() {
                DataType::Dictionary(_, value) => value.as_ref(),
                other => other,
            };
            if !(is_text(value) || is_binary(value)) {
                let setting = if index == 0 { "encode.column" } else { "encode.pair_column" };
                return Err(ColumnError::Type {
                    column: column.clone(),
                    found: value.to_string(),
                    expected: format!("text to encode must be strings; name another column as `{setting}`"),
                }
                .into());
            }
        }
        Ok(())
    }

    /// Tokenises every text, in parallel.
    fn prepare<'a>(&'a self, rows: &'a RecordBatch) -> Result<Box<dyn Samples + 'a>> {
        let texts = rows.columns().iter().map(|column| self.texts(column)).collect::<Result<Vec<_>>>()?;
        let bad = |row: usize, column: usize| {
            move |reason: String| BadRow { row, column: self.columns[column].clone(), reason }
        };
        let text = |column: usize, row: usize| texts[column].get(row).map_err(bad(row, column));
        let one = |row: usize| -> Result<Result<Tokens, BadRow>> {
            let first = match text(0, row) {
                Ok(text) if self.prefix.is_empty() => Cow::Borrowed(text),
                Ok(text) => Cow::Owned(format!("{}{text}", self.prefix)),
                Err(bad) => return Ok(Err(bad)),
            };
            let tokens = match self.columns.len() {
                1 => self.tokenizer.tokens(first)?.map_err(bad(row, 0)),
                _ => match text(1, row) {
                    Ok(second) => self.tokenizer.tokens((first, second))?.map_err(bad(row, 1)),
                    Err(bad) => return Ok(Err(bad)),
                },
            };
            Ok(match tokens {
                Ok(tokens) if tokens.ids.is_empty() => Err(bad(row, 0)(self.tokenizer.no_token())),
                tokens => tokens,
            })
        };
        let tokens = (0..rows.num_rows()).into_par_iter().map(one).collect::<Result<Vec<_>>>()?;
        Ok(Box::new(self.samples(tokens)))
    }

    fn probes(&self) -> Result<Box<dyn Samples + '_>> {
        let most = self.tokenizer.max_tokens;
        let lengths = [SHORT_TOKENS, SHORT_TOKENS, LONG_TOKENS].into_iter().enumerate();
        let tokens = lengths.map(|(turn, length)| Ok(self.example.of_length(length.min(most), turn))).collect();
        Ok(Box::new(self.samples(tokens)))
    }

    fn longest(&self) -> Option<usize> {
        Some(self.tokenizer.max_tokens)
    }

    fn of_length(&self, length: usize) -> Result<Batch> {
        Ok(Batch { rows: vec![0], ..self.batch(&[&self.example.of_length(length, 0)]) })
    }

    fn cut(&mut self, length: usize) -> Result<bool> {
        if !self.tokenizer.is_set {
            self.tokenizer.cut(length)?;
        }
        Ok(!self.tokenizer.is_set)
    }
}

impl TextFeature {
    /// Casts a column of texts or bytes to a common type.
    fn texts(&self, column: &ArrayRef) -> Result<Column> {
        let value_type = match column.data_type() {
            DataType::Dictionary(_, value) => value.as_ref(),
            other => other,
        };
        let is_binary = is_binary(value_type);
        let to = if is_binary { DataType::BinaryView } else { DataType::Utf8View };
        let values = cast(column, &to).map_err(|cause| Error::Arrow { action: "read texts", cause })?;
        Ok(Column { values, is_binary })
    }
}

/// A column of texts, or of bytes that should be texts.
struct Column {
    values: ArrayRef,
    is_binary: bool,
}

impl Column {
    /// Returns the text of a row. The error is the reason why it is not a text.
    fn get(&self, row: usize) -> Result<&str, String> {
        if !self.is_binary {
            return Ok(self.values.as_string_view().value(row));
        }
        std::str::from_utf8(self.values.as_binary_view().value(row))
            .map_err(|e| format!("is no UTF-8 from byte {} on", e.valid_up_to()))
    }
}

impl Samples for Texts<'_> {
    fn groups(&self, grouping: Grouping, max_rows: usize, max_tokens: usize) -> Vec<Vec<usize>> {
        let class = |row: usize| if grouping == Grouping::Any { 0 } else { self.lengths[row] };
        length_sorted(&self.lengths, class, max_rows, max_tokens)
    }

    fn batch(&self, rows: &[usize]) -> Result<Batch> {
        let mut kept = Vec::new();
        let mut bad = Vec::new();
        let mut tokens = Vec::new();
        for &row in rows {
            match &self.tokens[row] {
                Ok(text) => {
                    kept.push(row);
                    tokens.push(text);
                }
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

/// The tokens of the texts that a model is tried on.
const SHORT_TOKENS: usize = 5;
const LONG_TOKENS: usize = 13;
