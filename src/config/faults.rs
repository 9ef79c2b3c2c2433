//! What is wrong with settings, all of it at once.

use std::fmt;

/// One thing wrong with one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The setting, as in `graph.neighbors`; empty for a fault of the whole file.
    pub key: String,
    /// Its line in the pipeline file, from 1, where it is there.
    pub line: Option<usize>,
    /// What is wrong, and the remedy.
    pub message: String,
}

/// Every fault found, in the order of the file. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// What holds the settings: a file's path, or words.
    pub origin: String,
    /// The faults.
    pub faults: Vec<Fault>,
}

impl Faults {
    /// `Ok` where there are no faults.
    pub(crate) fn none_or(origin: &str, mut faults: Vec<Fault>) -> Result<(), Self> {
        if faults.is_empty() {
            return Ok(());
        }
        faults.sort_by_key(|f| f.line.unwrap_or(usize::MAX));
        Err(Self { origin: origin.to_owned(), faults })
    }
}

impl std::error::Error for Faults {}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.faults.len();
        write!(f, "{count} {} in {}:", if count == 1 { "fault" } else { "faults" }, self.origin)?;
        for fault in &self.faults {
            f.write_str("\n  ")?;
            if let Some(line) = fault.line {
                write!(f, "line {line}: ")?;
            }
            if !fault.key.is_empty() {
                write!(f, "{}: ", fault.key)?;
            }
            f.write_str(&fault.message)?;
        }
        Ok(())
    }
}

/// Collects the faults of one stage's settings.
pub(crate) struct Checker<'a> {
    pub section: &'a str,
    pub faults: &'a mut Vec<Fault>,
}

impl Checker<'_> {
    /// Notes that `key` is at fault unless `fine`.
    pub fn require(&mut self, fine: bool, key: &str, message: impl Into<String>) {
        if !fine {
            let key = format!("{}.{key}", self.section);
            self.faults.push(Fault { key, line: None, message: message.into() });
        }
    }
}

/// Settings that can say what is wrong with them beyond the types.
pub(crate) trait Check {
    /// The section's name in a pipeline file.
    const SECTION: &'static str;

    fn check(&self, check: &mut Checker<'_>);
}
