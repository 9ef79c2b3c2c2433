//! The outcomes of cases, and their counts.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// How one case ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Outcome {
    /// What an undamaged run gives.
    Right,
    /// A failure that names what failed.
    Refused,
    /// Another result that cannot be told from the right one, and why.
    NotKnowable(String),
    /// A result that must not happen.
    Fault(String),
}

/// Outcomes by target, and each fault with what repeats it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    counts: BTreeMap<String, BTreeMap<String, u64>>,
    faults: Vec<String>,
}

impl Tally {
    pub fn of(target: &str, outcome: Outcome, repeat: &str) -> Self {
        let mut tally = Self::default();
        let word = match outcome {
            Outcome::Right => "right".to_owned(),
            Outcome::Refused => "refused by name".to_owned(),
            Outcome::NotKnowable(why) => format!("not knowable: {why}"),
            Outcome::Fault(fault) => {
                tally.faults.push(format!("{target}: {fault} [{repeat}]"));
                "FAULT".to_owned()
            }
        };
        tally.count(target, &word, 1);
        tally
    }

    pub fn count(&mut self, target: &str, word: &str, times: u64) {
        *self.counts.entry(target.to_owned()).or_default().entry(word.to_owned()).or_default() += times;
    }

    pub fn add(&mut self, other: Self) {
        for (target, words) in other.counts {
            words.into_iter().for_each(|(word, times)| self.count(&target, &word, times));
        }
        self.faults.extend(other.faults);
    }

    pub fn faults(&self) -> impl Iterator<Item = &str> {
        self.faults.iter().map(String::as_str)
    }

    /// Panics if a case ended in a way that must not happen.
    pub fn must_be_well(&self) {
        assert!(self.faults.is_empty(), "{} faults:\n{}", self.faults.len(), self.faults.join("\n"));
    }
}

/// Prints one line for each target.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (target, words) in &self.counts {
            let words: Vec<_> = words.iter().map(|(word, times)| format!("{times} {word}")).collect();
            writeln!(f, "  {target:<16} {}", words.join(", "))?;
        }
        Ok(())
    }
}
