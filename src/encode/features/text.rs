use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use rayon::prelude::*;
use tokenizers::{Tokenizer, TruncationParams};

use crate::error::{Cause, Error, Result};
use crate::source::positions;

/// A string column and the tokenizer that reads it.
pub(in crate::encode) struct TextFeature {
    pub column: [String; 1],
    tokenizer: Tokenizer,
    path: PathBuf,
    padding: i64,
}

/// A text as the model sees it. Every token counts (mask 1): padding comes later.
#[derive(Clone, Debug)]
pub(in crate::encode) struct Tokens {
    pub ids: Vec<i64>,
    pub type_ids: Vec<i64>,
}

impl TextFeature {
    pub fn open(path: &Path, column: String, max_tokens: usize) -> Result<Self> {
        let failed = |cause: Cause| Error::Tokenizer { path: path.into(), cause };
        if !path.is_file() {
            let hint = "; give the tokenizer.json of the model as `encode.tokenizer` (--tokenizer)".into();
            return Err(Error::NotFound { uri: path.display().to_string(), hint });
        }
        let mut tokenizer = Tokenizer::from_file(path).map_err(failed)?;
        let padding = tokenizer.get_padding().map(|p| p.pad_id);
        let padding = padding.or_else(|| ["[PAD]", "<pad>"].iter().find_map(|p| tokenizer.token_to_id(p)));
        let truncation = TruncationParams { max_length: max_tokens, ..TruncationParams::default() };
        tokenizer.with_padding(None).with_truncation(Some(truncation)).map_err(failed)?;
        Ok(Self { column: [column], tokenizer, path: path.into(), padding: padding.unwrap_or(0).into() })
    }

    /// The id that fills short texts up; the attention mask hides it.
    pub fn padding(&self) -> i64 {
        self.padding
    }

    /// Refuses a column that holds no text.
    pub fn accepts(&self, uri: &str, schema: &Schema) -> Result<()> {
        let field = schema.field(positions(uri, schema, &self.column)?[0]);
        let value = match field.data_type() {
            DataType::Dictionary(_, value) => value.as_ref(),
            other => other,
        };
        if matches!(value, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) {
            return Ok(());
        }
        Err(Error::ColumnType {
            column: field.name().clone(),
            found: value.to_string(),
            expected: "text to encode must be strings; name another column as `encode.column`".into(),
        })
    }

    /// Tokenises every text, in parallel.
    pub fn tokens(&self, texts: &dyn Array) -> Result<Vec<Tokens>> {
        let failed = |cause: Cause| Error::Tokenizer { path: self.path.clone(), cause };
        let texts = cast(texts, &DataType::Utf8View).map_err(|e| failed(e.into()))?;
        let texts = texts.as_string_view();
        let one = |row: usize| {
            let encoding = self.tokenizer.encode_fast(texts.value(row), true).map_err(failed)?;
            let widen = |ids: &[u32]| ids.iter().map(|&id| i64::from(id)).collect();
            Ok(Tokens { ids: widen(encoding.get_ids()), type_ids: widen(encoding.get_type_ids()) })
        };
        (0..texts.len()).into_par_iter().map(one).collect()
    }
}
