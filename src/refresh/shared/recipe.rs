//! What tables and graphs are made of, and where they are from.

use std::fmt::{Display, Formatter};
use std::sync::Arc;

use super::file::FileInUse;
use crate::arrow_file::{checksum, to_text};
use crate::error::Result;

/// Says what a table or a graph is made of: equal ones are made of the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Recipe(pub(super) u64);

impl Recipe {
    pub fn of(parts: &[&dyn Display]) -> Self {
        let text: String = parts.iter().map(|part| format!("{part}\n")).collect();
        Self(checksum(text.as_bytes()))
    }
}

impl Display for Recipe {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(&to_text(self.0))
    }
}

/// What was made here or mapped, and where it is from.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    pub value: T,
    pub origin: Origin,
}

impl<T> Shared<T> {
    /// What this rank has made for itself.
    pub fn own(value: T, recipe: Option<Recipe>) -> Self {
        Self { value, origin: Origin { recipe, _file: None } }
    }

    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Shared<U> {
        Shared { value: change(self.value), origin: self.origin }
    }
}

/// Is told how many samples are done, and ends the work by an error.
pub(crate) type Report<'a> = &'a mut dyn FnMut(usize) -> Result<()>;

/// Where a table or a graph is from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origin {
    /// `None` if it can only be this rank's own.
    pub recipe: Option<Recipe>,
    /// Keeps the file that is mapped.
    pub(super) _file: Option<Arc<FileInUse>>,
}
