//! Parses the text of a condition.

use crate::error::{Error, Result};

/// A comparison, as written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Condition {
    pub column: String,
    pub operator: Operator,
    pub literal: Literal,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

/// What a column is compared with.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Literal {
    pub text: String,
    /// Whether it was in single quotes.
    pub quoted: bool,
}

/// Parses comparisons that are joined by `and`.
///
/// # Errors
/// [`Error::Filter`], which says what is expected, and after what.
pub(super) fn parse(text: &str) -> Result<Vec<Condition>> {
    let mut parser = Parser { text, rest: text };
    let mut conditions = vec![parser.condition()?];
    while !parser.skip_spaces().is_empty() {
        parser.word("and")?;
        conditions.push(parser.condition()?);
    }
    Ok(conditions)
}

/// A parser of a condition.
struct Parser<'a> {
    text: &'a str,
    /// What is left to read.
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn skip_spaces(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        self.rest
    }

    fn condition(&mut self) -> Result<Condition> {
        let column = if self.skip_spaces().starts_with('"') { self.quoted('"')? } else { self.plain("a column")? };
        let operator = self.operator()?;
        let quoted = self.skip_spaces().starts_with('\'');
        let text = if quoted { self.quoted('\'')? } else { self.plain("a value")? };
        Ok(Condition { column, operator, literal: Literal { text, quoted } })
    }

    /// Reads up to the closing quote; two quotes in a row stand for one.
    fn quoted(&mut self, quote: char) -> Result<String> {
        let mut text = String::new();
        let mut inside = &self.rest[1..];
        loop {
            let Some(end) = inside.find(quote) else {
                return Err(self.expected(&format!("a closing {quote}")));
            };
            text.push_str(&inside[..end]);
            inside = &inside[end + 1..];
            if !inside.starts_with(quote) {
                self.rest = inside;
                return Ok(text);
            }
            text.push(quote);
            inside = &inside[1..];
        }
    }

    /// Reads a word without quotes.
    fn plain(&mut self, what: &str) -> Result<String> {
        let belongs = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '+');
        let end = self.skip_spaces().find(|c| !belongs(c)).unwrap_or(self.rest.len());
        if end == 0 {
            return Err(self.expected(what));
        }
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(word.to_owned())
    }

    fn operator(&mut self) -> Result<Operator> {
        self.skip_spaces();
        for (sign, operator) in OPERATORS {
            if let Some(rest) = self.rest.strip_prefix(sign) {
                self.rest = rest;
                return Ok(operator);
            }
        }
        Err(self.expected("one of = != < <= > >="))
    }

    /// Reads a keyword, in upper or lower case.
    fn word(&mut self, word: &str) -> Result<()> {
        let found = self.skip_spaces().get(..word.len()).is_some_and(|found| found.eq_ignore_ascii_case(word));
        if !found {
            return Err(self.expected(&format!("`{word}`")));
        }
        self.rest = &self.rest[word.len()..];
        Ok(())
    }

    fn expected(&self, what: &str) -> Error {
        let before = &self.text[..self.text.len() - self.rest.len()];
        Error::Filter {
            filter: self.text.to_owned(),
            understood: before.trim_end().to_owned(),
            expected: what.to_owned(),
        }
    }
}

/// The signs of the operators. Of two that begin alike, the longer one comes first.
const OPERATORS: [(&str, Operator); 7] = [
    ("!=", Operator::NotEqual),
    ("<>", Operator::NotEqual),
    ("<=", Operator::AtMost),
    (">=", Operator::AtLeast),
    ("=", Operator::Equal),
    ("<", Operator::Less),
    (">", Operator::Greater),
];
