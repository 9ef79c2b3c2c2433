//! Tokens on their way into a model's inputs.

use crate::encode::inputs::{Declared, Given, Input, Numbers};
use crate::encode::model::Model;
use crate::encode::outputs::{CACHES, Counted};
use crate::error::Result;

/// A text as the model sees it. Every token counts (mask 1): padding comes later.
#[derive(Clone, Debug, Default)]
pub(super) struct Tokens {
    pub ids: Vec<i64>,
    pub type_ids: Vec<i64>,
}

/// How texts are filled up to a common length.
#[derive(Clone, Debug)]
pub(super) struct Padding {
    /// The token that does it, where one is known.
    pub id: Option<i64>,
    pub type_id: i64,
    /// Whether it stands before the text.
    pub is_left: bool,
    /// Texts have so many tokens at least, with it.
    pub least: usize,
    /// And a multiple of this.
    pub multiple: usize,
}

/// What a model takes of texts.
#[derive(Clone, Debug)]
pub(super) struct TokenInputs {
    pub is_masked: bool,
    has_positions: bool,
    caches: Vec<Cache>,
}

/// An input that stands for tokens before the text, of which there are none.
#[derive(Clone, Debug)]
struct Cache {
    name: String,
    /// `None` stands for the texts of a batch.
    shape: Vec<Option<usize>>,
}

impl Padding {
    /// The common length of texts of which the longest has so many tokens.
    pub fn length(&self, longest: usize) -> usize {
        longest.max(self.least).next_multiple_of(self.multiple)
    }
}

impl Tokens {
    /// Tokens of this length: the first and the last of these, and between them the others in turn.
    pub fn of_length(&self, length: usize, turn: usize) -> Self {
        let last = self.ids.len().saturating_sub(1);
        let (first, inner) = (usize::from(last > 1), last.saturating_sub(1).max(1));
        let place = |at: usize| match at {
            0 => 0,
            _ if at + 1 == length => last,
            _ => first + (at - 1 + turn) % inner,
        };
        let take = |of: &[i64]| (0..length).map(|at| of.get(place(at)).copied().unwrap_or(0)).collect();
        Self { ids: take(&self.ids), type_ids: take(&self.type_ids) }
    }
}

impl TokenInputs {
    pub fn new(model: &Model) -> Result<Self> {
        let declares = |name: &str| model.inputs.iter().any(|input| input.is(name));
        let batch = model.inputs.iter().find(|input| input.is(NAMES[0])).and_then(|ids| ids.symbols.first());
        let caches = model.inputs.iter().filter(|input| input.name.starts_with(CACHES[0]));
        let caches = caches.map(|input| Cache::new(input, batch, &model.outputs)).collect::<Result<_, _>>();
        Ok(Self {
            is_masked: declares(NAMES[1]),
            has_positions: declares(NAMES[3]),
            caches: caches.map_err(|reason| model.fault(reason, None))?,
        })
    }

    /// What is given, whether or not a model declares it.
    pub fn given(&self) -> Vec<Given> {
        let usual = NAMES
            .into_iter()
            .map(|name| Given::new(name, "[batch, sequence] of whole numbers", true, name == NAMES[0]));
        let caches = self.caches.iter().map(|cache| Given::new(&cache.name, "", true, false));
        usual.chain(caches).chain([Given::new(USE_CACHE, "", true, false)]).collect()
    }

    /// The inputs for these texts, and which of their states count.
    pub fn batch(&self, tokens: &[&Tokens], padding: &Padding) -> (Vec<Input>, Counted) {
        let longest = padding.length(tokens.iter().map(|t| t.ids.len()).max().unwrap_or(0));
        let [mut all_ids, mut mask, mut all_type_ids, mut positions]: [Vec<i64>; 4] =
            std::array::from_fn(|_| Vec::with_capacity(tokens.len() * longest));
        let mut counted = Vec::with_capacity(tokens.len());
        for (row, Tokens { ids, type_ids }) in tokens.iter().enumerate() {
            let filled = longest - ids.len();
            let (start, end) = (row * longest + if padding.is_left { filled } else { 0 }, (row + 1) * longest);
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
                // Who is told of no mask takes padding for text.
                let before = if self.is_masked { start - row * longest } else { 0 };
                positions.extend((0..longest).map(|at| at.saturating_sub(before) as i64));
            }
            let first = start - row * longest;
            counted.push(first..first + ids.len());
        }
        let (rows, shape) = (tokens.len(), vec![tokens.len(), longest]);
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

impl Cache {
    /// Empty: of the axes that the model leaves open, one is the batch's and one counts tokens. What else is open may
    /// be told by the output that gives the cache back.
    fn new(input: &Declared, batch: Option<&String>, outputs: &[Declared]) -> Result<Self, String> {
        let given_back = input.name.replacen(CACHES[0], CACHES[1], 1);
        let given_back = outputs.iter().find(|output| output.name == given_back);
        let symbol = |axis: usize| input.symbols.get(axis).map_or("", String::as_str);
        let counts_tokens = |axis: usize| ["past", "seq", "len"].iter().any(|part| symbol(axis).contains(part));
        let is_batch = |axis: usize| {
            let named = batch.is_some_and(|batch| !batch.is_empty() && batch == symbol(axis));
            named || symbol(axis).contains("batch") || (axis == 0 && !counts_tokens(axis))
        };
        let mut shape = Vec::new();
        for axis in 0..input.shape.len() {
            let known = || given_back.and_then(|output| output.dimension(axis));
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

/// Inputs of texts, all [batch, sequence], as transformers names them.
pub(super) const NAMES: [&str; 4] = ["input_ids", "attention_mask", "token_type_ids", "position_ids"];

/// Whether a decoder with two branches takes the one that reads its caches.
const USE_CACHE: &str = "use_cache_branch";
