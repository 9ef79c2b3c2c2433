//! What is wrong with settings, all of it at once.

use std::fmt;

use super::Error;

/// One thing that is wrong with one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// The setting, such as `graph.neighbors`; empty for a fault of the whole file.
    pub key: String,
    /// The line of the pipeline file that gives the setting, from 1; `None` if none does.
    pub line: Option<usize>,
    /// What is wrong, and the remedy.
    pub message: String,
}

/// Every fault that was found, in the order of the file. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Faults {
    /// What holds the settings: a file's path, or words such as `the settings`.
    pub origin: String,
    /// The faults.
    pub faults: Vec<Fault>,
}

impl Fault {
    /// A fault of a setting that stands in no line of a file.
    pub(crate) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), line: None, message: message.into() }
    }
}

impl Faults {
    /// What a fault's origin is called if no file holds the settings.
    pub(crate) const SETTINGS: &str = "the settings";

    /// What the origin of faults in options of the command is called.
    #[cfg(any(feature = "cli", feature = "serve"))]
    pub(crate) const COMMAND_LINE: &str = "the command line";

    /// A single fault.
    pub(crate) fn one(origin: impl Into<String>, fault: Fault) -> Self {
        Self { origin: origin.into(), faults: vec![fault] }
    }

    /// `Ok` if there are no faults.
    pub(crate) fn none_or(origin: &str, mut faults: Vec<Fault>) -> Result<(), Self> {
        if faults.is_empty() {
            return Ok(());
        }
        faults.sort_by_key(|f| f.line.unwrap_or(usize::MAX));
        Err(Self { origin: origin.to_owned(), faults })
    }
}

impl Error {
    /// A single setting that cannot be used, such as `encode.max_tokens`; the message says why, and the remedy.
    pub(crate) fn setting(key: impl Into<String>, message: impl Into<String>) -> Self {
        Faults::one(Faults::SETTINGS, Fault::new(key, message)).into()
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
