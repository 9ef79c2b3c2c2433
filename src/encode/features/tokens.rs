//! Makes a model's inputs of tokens.

use crate::encode::inputs::{Declared, Given, Input, Numbers};
use crate::encode::model::Model;
use crate::encode::outputs::{CACHES, Counted};
use crate::error::Result;

/// The tokens of a text, without padding.
#[derive(Clone, Debug, Default)]
pub(super) struct Tokens {
    pub ids: Vec<i64>,
    pub type_ids: Vec<i64>,
}

/// How texts are padded to a common length.
#[derive(Clone, Debug)]
pub(super) struct Padding {
    /// The padding token, if it is known.
    pub id: Option<i64>,
    pub type_id: i64,
    /// Whether padding precedes the text.
    pub is_left: bool,
    /// The fewest tokens of a padded text.
    pub least: usize,
    /// What the tokens of a padded text are a multiple of.
    pub multiple: usize,
}

/// The inputs that a model declares for texts.
#[derive(Clone, Debug)]
pub(super) struct TokenInputs {
    pub is_masked: bool,
    has_positions: bool,
    caches: Vec<DecoderCache>,
}

/// A decoder's cache as an input. It stands for tokens before the text, and is empty.
#[derive(Clone, Debug)]
struct DecoderCache {
    name: String,
    /// The dimensions; `None` is the number of texts in the batch.
    shape: Vec<Option<usize>>,
}

impl Padding {
    /// Returns the padded length of texts, the longest of which has `longest` tokens.
    pub fn length(&self, longest: usize) -> usize {
        longest.max(self.least).next_multiple_of(self.multiple)
    }
}

impl Tokens {
    /// Makes a text of this length: the first and the last of these tokens, and between them the others in turn.
    ///
    /// `turn` says with which of the others to start.
    pub fn of_length(&self, length: usize, turn: usize) -> Self {
        let last = self.ids.len().saturating_sub(1);
        let first = usize::from(last > 1);
        let inner = last.saturating_sub(1).max(1);
        let index = |position: usize| match position {
            0 => 0,
            _ if position + 1 == length => last,
            _ => first + (position - 1 + turn) % inner,
        };
        let take = |ids: &[i64]| (0..length).map(|i| ids.get(index(i)).copied().unwrap_or(0)).collect();
        Self { ids: take(&self.ids), type_ids: take(&self.type_ids) }
    }
}

impl TokenInputs {
    /// Reads what a model declares.
    pub fn new(model: &Model) -> Result<Self> {
        let declares = |name: &str| model.inputs.iter().any(|input| input.is(name));
        let batch = model.inputs.iter().find(|input| input.is(NAMES[0])).and_then(|ids| ids.symbols.first());
        let caches = model.inputs.iter().filter(|input| input.name.starts_with(CACHES[0]));
        let caches = caches.map(|input| DecoderCache::new(input, batch, &model.outputs)).collect::<Result<_, _>>();
        Ok(Self {
            is_masked: declares(NAMES[1]),
            has_positions: declares(NAMES[3]),
            caches: caches.map_err(|reason| model.fault(reason, None))?,
        })
    }

    /// Lists the inputs that are given, whether or not the model declares them.
    pub fn given(&self) -> Vec<Given> {
        let usual = NAMES
            .into_iter()
            .map(|name| Given::new(name, "[batch, sequence] of whole numbers", true, name == NAMES[0]));
        let caches = self.caches.iter().map(|cache| Given::new(&cache.name, "", true, false));
        usual.chain(caches).chain([Given::new(USE_CACHE, "", true, false)]).collect()
    }

    /// Makes the inputs for these texts, and says which of their states count.
    pub fn batch(&self, tokens: &[&Tokens], padding: &Padding) -> (Vec<Input>, Counted) {
        let longest = padding.length(tokens.iter().map(|t| t.ids.len()).max().unwrap_or(0));
        let [mut all_ids, mut mask, mut all_type_ids, mut positions]: [Vec<i64>; 4] =
            std::array::from_fn(|_| Vec::with_capacity(tokens.len() * longest));
        let mut counted = Vec::with_capacity(tokens.len());
        for (row, Tokens { ids, type_ids }) in tokens.iter().enumerate() {
            let filled = longest - ids.len();
            let start = row * longest + if padding.is_left { filled } else { 0 };
            let end = (row + 1) * longest;
            for (all, own, fill) in
                [(&mut all_ids, ids, padding.id.unwrap_or(0)), (&mut all_type_ids, type_ids, padding.type_id)]
            {
                all.resize(start, fill);
                all.extend_from_slice(own);
                all.resize(end, fill);
            }
            mask.resize(start, 0);
            mask.resize(start + ids.len(), 1);
            mask.resize(end, 0);
            if self.has_positions {
                // A model without a mask takes padding for text.
                let before = if self.is_masked { start - row * longest } else { 0 };
                positions.extend((0..longest).map(|token| token.saturating_sub(before) as i64));
            }
            let first = start - row * longest;
            counted.push(first..first + ids.len());
        }
        let rows = tokens.len();
        let shape = vec![rows, longest];
        let mut columns = vec![all_ids, mask, all_type_ids];
        columns.extend(self.has_positions.then_some(positions));
        let inputs = NAMES.into_iter().zip(columns).map(|(name, numbers)| Input {
            name: name.into(),
            shape: shape.clone(),
            numbers: Numbers::Whole(numbers),
        });
        let caches = self.caches.iter().map(|cache| Input {
            name: cache.name.clone(),
            shape: cache.shape.iter().map(|d| d.unwrap_or(rows)).collect(),
            numbers: Numbers::Whole(Vec::new()),
        });
        let mut inputs: Vec<_> = inputs.chain(caches).collect();
        if !self.caches.is_empty() {
            inputs.push(Input { name: USE_CACHE.into(), shape: vec![1], numbers: Numbers::Whole(vec![0]) });
        }
        (inputs, Counted { rows: counted, longest })
    }
}

impl DecoderCache {
    /// Makes an empty cache.
    ///
    /// Of the axes that the model leaves open, one is the batch and one counts tokens. The dimensions of others may be
    /// those of the output that returns the cache.
    ///
    /// # Errors
    /// The reason, if the axis of tokens is not clear.
    fn new(input: &Declared, batch: Option<&String>, outputs: &[Declared]) -> Result<Self, String> {
        let returned = input.name.replacen(CACHES[0], CACHES[1], 1);
        let returned = outputs.iter().find(|output| output.name == returned);
        let symbol = |axis: usize| input.symbols.get(axis).map_or("", String::as_str);
        let counts_tokens = |axis: usize| ["past", "seq", "len"].iter().any(|part| symbol(axis).contains(part));
        let is_batch = |axis: usize| {
            let named = batch.is_some_and(|batch| !batch.is_empty() && batch == symbol(axis));
            named || symbol(axis).contains("batch") || (axis == 0 && !counts_tokens(axis))
        };
        let mut shape = Vec::new();
        for axis in 0..input.shape.len() {
            let known = || returned.and_then(|output| output.dimension(axis));
            shape.push(match input.dimension(axis) {
                Some(fixed) => Some(fixed),
                None if is_batch(axis) => None,
                None if counts_tokens(axis) => Some(0),
                None => Some(known().unwrap_or(0)),
            });
        }
        if shape.iter().filter(|d| **d == Some(0)).count() != 1 {
            return Err(format!(
                "declares `{}`, which does not tell how it can be empty: one axis must be open for the tokens, and those \
                 of heads and their dimension be fixed; export it so, or without caches",
                input.text
            ));
        }
        Ok(Self { name: input.name.clone(), shape })
    }
}

/// The inputs of texts, all [batch, sequence], as transformers names them.
pub(super) const NAMES: [&str; 4] = ["input_ids", "attention_mask", "token_type_ids", "position_ids"];

/// The input that says whether a decoder with two branches takes the one that reads its caches.
const USE_CACHE: &str = "use_cache_branch";
