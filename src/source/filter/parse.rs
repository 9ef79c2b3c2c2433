//! The text of a condition, taken apart.

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
    /// It stands in single quotes.
    pub quoted: bool,
}

/// Comparisons, joined by `and`.
pub(super) fn parse(text: &str) -> Result<Vec<Condition>> {
    let mut rest = Rest { text, rest: text };
    let mut conditions = vec![rest.condition()?];
    while !rest.skip().is_empty() {
        rest.word("and")?;
        conditions.push(rest.condition()?);
    }
    Ok(conditions)
}

/// What is left to read of a condition.
struct Rest<'a> {
    text: &'a str,
    rest: &'a str,
}

impl<'a> Rest<'a> {
    fn skip(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        self.rest
    }

    fn condition(&mut self) -> Result<Condition> {
        let column = if self.skip().starts_with('"') { self.quoted('"')? } else { self.plain("a column")? };
        let operator = self.operator()?;
        let quoted = self.skip().starts_with('\'');
        let text = if quoted { self.quoted('\'')? } else { self.plain("a value")? };
        Ok(Condition { column, operator, literal: Literal { text, quoted } })
    }

    /// Up to the next quote; two quotes stand for one.
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

    fn plain(&mut self, what: &str) -> Result<String> {
        let belongs = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '+');
        let end = self.skip().find(|c| !belongs(c)).unwrap_or(self.rest.len());
        if end == 0 {
            return Err(self.expected(what));
        }
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(word.to_owned())
    }

    fn operator(&mut self) -> Result<Operator> {
        self.skip();
        for (sign, operator) in OPERATORS {
            if let Some(rest) = self.rest.strip_prefix(sign) {
                self.rest = rest;
                return Ok(operator);
            }
        }
        Err(self.expected("one of = != < <= > >="))
    }

    fn word(&mut self, word: &str) -> Result<()> {
        let found = self.skip().get(..word.len()).is_some_and(|found| found.eq_ignore_ascii_case(word));
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

/// The longer of two that begin alike comes first.
const OPERATORS: [(&str, Operator); 7] = [
    ("!=", Operator::NotEqual),
    ("<>", Operator::NotEqual),
    ("<=", Operator::AtMost),
    (">=", Operator::AtLeast),
    ("=", Operator::Equal),
    ("<", Operator::Less),
    (">", Operator::Greater),
];
