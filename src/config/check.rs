//! What settings can say about themselves beyond their types.

use crate::error::Fault;

/// Collects the faults of one stage's settings.
pub(crate) struct Checker<'a> {
    pub section: &'a str,
    pub faults: &'a mut Vec<Fault>,
}

impl Checker<'_> {
    /// Adds a fault of `key` unless `fine`.
    pub fn require(&mut self, fine: bool, key: &str, message: impl Into<String>) {
        if !fine {
            self.faults.push(Fault::new(format!("{}.{key}", self.section), message));
        }
    }
}

/// Settings that can say what is wrong with them beyond the types.
pub(crate) trait Check {
    /// The section's name in a pipeline file.
    const SECTION: &'static str;

    /// Requires of every setting what it must be.
    fn check(&self, check: &mut Checker<'_>);
}
