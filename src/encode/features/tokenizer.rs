//! The tokenizer of a model, as its file says, except for the longest text.

use std::path::PathBuf;

use tokenizers::utils::truncation::TruncationError;
use tokenizers::{
    EncodeInput, PaddingDirection, PaddingStrategy, PostProcessor, Tokenizer, TruncationParams, TruncationStrategy,
};

use super::tokens::{NAMES, Padding, Tokens};
use crate::config::EncodeConfig;
use crate::encode::model::{Model, tokenizer_of};
use crate::error::{Cause, Error, ModelError, Result};
use crate::panics::guarded;
use crate::telemetry;

/// A tokenizer that cuts texts to a limit, and does not pad them.
pub(super) struct TextTokenizer {
    tokenizer: Tokenizer,
    path: PathBuf,
    is_pair: bool,
    pub padding: Padding,
    /// The most tokens of a text, including special ones.
    pub max_tokens: usize,
    /// Whether the settings fix that limit.
    pub is_set: bool,
}

impl TextTokenizer {
    /// Opens the tokenizer of a model.
    pub fn open(config: &EncodeConfig, model: &Model) -> Result<Self> {
        let path = config.tokenizer.clone().unwrap_or_else(|| tokenizer_of(&model.path));
        if !path.is_file() {
            let hint = Some("give the tokenizer.json of the model as `encode.tokenizer` (--tokenizer)".into());
            return Err(Error::NotFound { uri: path.display().to_string(), hint });
        }
        let read = guarded(|| Tokenizer::from_file(&path)).unwrap_or_else(|panic| Err(panic.into()));
        let tokenizer = read.map_err(|cause| ModelError::Tokenizer { path: path.clone(), cause })?;
        let declared = |name: &str| model.inputs.iter().find(|input| input.is(name));
        let fixed = declared(NAMES[0]).filter(|ids| ids.shape.len() == 2).and_then(|ids| ids.dimension(1));
        let padding = padding(&tokenizer, fixed, declared(NAMES[1]).is_some());
        if padding.id.is_none() && fixed.is_some() && declared(NAMES[1]).is_none() {
            telemetry::padding_unknown(&path);
        }
        let is_set = config.max_tokens > 0;
        let in_file =
            tokenizer.get_truncation().map(|truncation| truncation.max_length.min(fixed.unwrap_or(MAX_FILE_TOKENS)));
        let wanted = if is_set { config.max_tokens } else { in_file.or(fixed).unwrap_or(DEFAULT_TOKENS) };
        let max_tokens = wanted.min(fixed.unwrap_or(usize::MAX));
        if let Some(fixed) = fixed.filter(|fixed| is_set && *fixed < wanted) {
            let message =
                format!("the model takes texts of exactly {fixed} tokens; give at most that, or leave it out");
            return Err(fault(wanted, &message));
        }
        let is_pair = config.pair_column.is_some();
        let mut opened = Self { tokenizer, path, is_pair, padding, max_tokens, is_set };
        opened.cut(max_tokens)?;
        Ok(opened)
    }

    /// Limits texts to this many tokens from now on.
    pub fn cut(&mut self, max_tokens: usize) -> Result<()> {
        let failed = |cause| ModelError::Tokenizer { path: self.path.clone(), cause };
        // The library may panic on what a damaged file holds.
        let processor = self.tokenizer.get_post_processor();
        let special = guarded(|| processor.map_or(0, |processor| processor.added_tokens(self.is_pair)));
        let special = special.map_err(|panic| failed(panic.into()))?;
        if max_tokens <= special {
            let message = format!("the tokenizer adds {special} special tokens to each text; give more than that");
            return Err(fault(max_tokens, &message));
        }
        let in_file = self.tokenizer.get_truncation().cloned().unwrap_or_default();
        // A strategy says which of two texts is cut, and does not fit a single one. A stride affects cut-off parts
        // only.
        let strategy = if self.is_pair { in_file.strategy } else { TruncationStrategy::LongestFirst };
        let truncation = TruncationParams { max_length: max_tokens, stride: 0, strategy, ..in_file };
        let tokenizer = self.tokenizer.with_padding(None);
        // It panics if the template of one text has more tokens than the limit.
        let set = guarded(|| tokenizer.with_truncation(Some(truncation)).map(drop));
        set.unwrap_or_else(|panic| Err(panic.into()))
            .map_err(|cause| ModelError::Tokenizer { path: self.path.clone(), cause })?;
        self.max_tokens = max_tokens;
        Ok(())
    }

    /// Tokenises a text, or a pair. The inner error is the reason why it cannot be cut to the limit.
    pub fn tokens<'s>(&self, input: impl Into<EncodeInput<'s>>) -> Result<Result<Tokens, String>> {
        let widen = |ids: &[u32]| ids.iter().map(|&id| i64::from(id)).collect();
        let encoded = guarded(|| self.tokenizer.encode_fast(input, true)).unwrap_or_else(|panic| Err(panic.into()));
        match encoded {
            Ok(encoding) => Ok(Ok(Tokens { ids: widen(encoding.get_ids()), type_ids: widen(encoding.get_type_ids()) })),
            Err(cause) if cause.is::<TruncationError>() => Ok(Err(format!(
                "makes a pair of more than {} tokens, and tokenizer.json says to cut only the other text, which is too \
                 short for that; raise encode.max_tokens",
                self.max_tokens
            ))),
            Err(cause) => Err(ModelError::Tokenizer { path: self.path.clone(), cause: cause as Cause }.into()),
        }
    }

    /// The reason why a text without a token cannot be encoded. It names the file, which may be the cause.
    pub fn no_token(&self) -> String {
        format!("is a text without a token by `{}`", self.path.display())
    }

    /// Tokenises an example, from whose tokens samples are made.
    pub fn example(&self) -> Result<Tokens> {
        let tokens = |text: &str| {
            if self.is_pair { self.tokens((text, text)) } else { self.tokens(text) }
        };
        let english = tokens("a short text to try the model on")?.unwrap_or_default();
        let mut distinct = english.ids.clone();
        distinct.sort_unstable();
        distinct.dedup();
        if distinct.len() > 4 {
            return Ok(english);
        }
        // The tokenizer does not know English: the example consists of words of its vocabulary.
        let vocabulary = u32::try_from(self.tokenizer.get_vocab_size(true)).unwrap_or(u32::MAX);
        let words = (0..vocabulary).step_by((vocabulary as usize / 16).max(1));
        let words: Vec<_> = words.filter_map(|id| self.tokenizer.id_to_token(id)).collect();
        tokens(&words.join(" ")).map(Result::unwrap_or_default)
    }
}

/// Reads the padding from the file, except for lengths that a fixed input or a mask make unnecessary.
fn padding(tokenizer: &Tokenizer, fixed: Option<usize>, is_masked: bool) -> Padding {
    let in_file = tokenizer.get_padding();
    let known = || ["[PAD]", "<pad>"].iter().find_map(|token| tokenizer.token_to_id(token));
    let id = in_file.map(|padding| padding.pad_id).or_else(known).map(i64::from);
    let (least, multiple) = match (fixed, in_file) {
        (Some(fixed), _) => (fixed, 1),
        // Without a mask the model sees the padding, so that it must be as long as the model was trained with.
        (None, Some(padding)) => match padding.strategy {
            PaddingStrategy::Fixed(length) if !is_masked => (length, padding.pad_to_multiple_of.unwrap_or(1)),
            _ => (1, padding.pad_to_multiple_of.unwrap_or(1)),
        },
        (None, None) => (1, 1),
    };
    Padding {
        id,
        type_id: in_file.map_or(0, |padding| padding.pad_type_id.into()),
        is_left: in_file.is_some_and(|padding| matches!(padding.direction, PaddingDirection::Left)),
        least: least.max(1),
        multiple: multiple.max(1),
    }
}

/// The error for the setting `encode.max_tokens`.
fn fault(max_tokens: usize, message: &str) -> Error {
    Error::setting("encode.max_tokens", format!("is {max_tokens}, but {message}"))
}

/// The most tokens of a text if neither the settings nor the file say it.
const DEFAULT_TOKENS: usize = 128;

/// The most tokens that a file may set: a model is tried on a text so long, and attention grows with the square.
const MAX_FILE_TOKENS: usize = 512;
