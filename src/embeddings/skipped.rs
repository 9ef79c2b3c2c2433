//! Remembers which samples have no embedding, and why.

use std::f64::consts::FRAC_1_SQRT_2;

use crate::config::Similarity;
use crate::error::{EmbeddingError, Error};
use crate::sample::SampleId;

/// A reason why samples were skipped. They have no embedding, and are in no mini-batch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SkipReason {
    /// How many samples were skipped for this reason. Reasons that differ in their numbers only are one.
    pub samples: usize,
    /// The first of these samples.
    pub first: SampleId,
    /// The column at fault.
    pub column: String,
    /// What is wrong with the value of the first one, as in "is null".
    pub reason: String,
}

impl std::fmt::Display for SkipReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "column `{}` {}, {} first", self.column, self.reason, self.first)
    }
}

/// Which samples of a table were skipped, and why.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Skipped {
    /// A bit for each sample, set if it was skipped; the bits after the last one set may be missing.
    bits: Vec<u64>,
    reasons: Vec<SkipReason>,
}

impl Skipped {
    pub fn add(&mut self, sample: SampleId) {
        let word = sample.index() / 64;
        self.bits.resize(self.bits.len().max(word + 1), 0);
        self.bits[word] |= 1 << (sample.index() % 64);
    }

    #[inline]
    pub fn contains(&self, sample: SampleId) -> bool {
        self.bits.get(sample.index() / 64).is_some_and(|bits| bits >> (sample.index() % 64) & 1 == 1)
    }

    pub fn is_empty(&self) -> bool {
        self.bits.is_empty()
    }

    pub fn count(&self) -> usize {
        self.bits.iter().map(|bits| bits.count_ones() as usize).sum()
    }

    pub fn bits(&self) -> &[u64] {
        &self.bits
    }

    pub fn reasons(&self) -> &[SkipReason] {
        &self.reasons
    }

    /// Counts a sample under its reason. Reasons beyond the first [`MAX_REASONS`] are counted as one.
    pub fn count_reason(&mut self, sample: SampleId, column: &str, reason: &str) {
        // A reason takes one line when it is saved.
        let line = |text: &str| -> String { text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect() };
        let column = line(column);
        let reason = line(reason);
        let is_same = |known: &SkipReason| known.column == column && kind(&known.reason).eq(kind(&reason));
        let index = self.reasons.iter().position(is_same).unwrap_or(self.reasons.len().min(MAX_REASONS));
        match self.reasons.get_mut(index) {
            Some(known) => known.samples += 1,
            None => {
                let reason = if index < MAX_REASONS { reason } else { format!("{reason}, or is bad in another way") };
                self.reasons.push(SkipReason { samples: 1, first: sample, column, reason });
            }
        }
    }

    /// Formats the reasons as lines, to be saved.
    pub fn lines(&self) -> String {
        let line = |reason: &SkipReason| {
            let SkipReason { samples, first, column, reason } = reason;
            format!("{samples}\t{}\t{column}\t{reason}\n", first.0)
        };
        self.reasons.iter().map(line).collect()
    }

    /// Adds the reasons that [`lines`](Self::lines) formatted; `None` if these are other lines.
    pub fn read_lines(&mut self, lines: &str) -> Option<()> {
        for line in lines.lines() {
            let mut parts = line.splitn(4, '\t');
            self.reasons.push(SkipReason {
                samples: parts.next()?.parse().ok()?,
                first: SampleId(parts.next()?.parse().ok()?),
                column: parts.next()?.to_owned(),
                reason: parts.next()?.to_owned(),
            });
        }
        Some(())
    }
}

/// Returns a reason without its numbers: "has 3 numbers, not 8" is the same kind as "has 11 numbers, not 8".
fn kind(reason: &str) -> impl Iterator<Item = char> {
    reason.chars().filter(|c| !(c.is_ascii_digit() || matches!(c, '-' | '.')))
}

/// Why a vector cannot be an embedding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Flaw {
    /// A component is NaN or infinite, or is finite but overflows the type that the table keeps.
    NotFinite { component: usize, value: f32 },
    /// The vector is so short that it has no direction, or so long that similarities overflow.
    BadLength { length: f32, similarity: Similarity },
}

impl Flaw {
    /// Returns the error for a sample with this flaw.
    pub fn error(self, sample: SampleId) -> Error {
        match self {
            Self::NotFinite { component, value } => {
                let value = if value.is_finite() { f32::INFINITY.copysign(value) } else { value };
                EmbeddingError::NotFinite { sample, component, value }.into()
            }
            Self::BadLength { length, similarity } => {
                EmbeddingError::BadLength { sample, length, similarity: similarity.name() }.into()
            }
        }
    }

    /// Says what is wrong, in words that follow the name of a column or model.
    pub fn reason(self) -> String {
        match self {
            Self::NotFinite { component, value } => {
                let overflows = if value.is_finite() { ", more than encode.storage = \"f16\" holds" } else { "" };
                format!("gives a vector whose component {component} is {value}{overflows}")
            }
            Self::BadLength { length, similarity } => {
                format!("gives a vector of length {length}, which has no {} similarity", similarity.name())
            }
        }
    }
}

/// Checks a vector, and scales it to unit length for cosine similarity; for cross similarity, both halves alike.
pub(crate) fn prepare(vector: &mut [f32], similarity: Similarity) -> Result<(), Flaw> {
    if let Some(component) = vector.iter().position(|x| !x.is_finite()) {
        return Err(Flaw::NotFinite { component, value: vector[component] });
    }
    match similarity {
        Similarity::Cosine => scale(vector, 1.0, similarity),
        Similarity::Cross => {
            let (anchor, positive) = vector.split_at_mut(vector.len() / 2);
            scale(anchor, FRAC_1_SQRT_2, similarity)?;
            scale(positive, FRAC_1_SQRT_2, similarity)
        }
        // By Cauchy and Schwarz no dot product, nor any partial sum of one, then leaves the range of f32.
        Similarity::Dot => match length(vector) {
            length if length > MAX_LENGTH => Err(Flaw::BadLength { length: length as f32, similarity }),
            _ => Ok(()),
        },
    }
}

/// Scales a vector to a length.
fn scale(vector: &mut [f32], to: f64, similarity: Similarity) -> Result<(), Flaw> {
    let length = length(vector);
    if length < f64::from(f32::MIN_POSITIVE) {
        return Err(Flaw::BadLength { length: length as f32, similarity });
    }
    vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length * to) as f32);
    Ok(())
}

fn length(vector: &[f32]) -> f64 {
    vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt()
}

/// The longest vector for dot products.
const MAX_LENGTH: f64 = 1e18;

/// The most reasons that are counted separately.
const MAX_REASONS: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_counted_by_column_and_reason_whatever_the_numbers() {
        let mut skipped = Skipped::default();
        skipped.count_reason(SampleId(4), "v", "has 3 numbers, not 8");
        skipped.count_reason(SampleId(5), "v", "is null");
        skipped.count_reason(SampleId(6), "v", "has 11 numbers, not 8");
        skipped.count_reason(SampleId(7), "w", "is null");
        skipped.count_reason(SampleId(8), "v", "has node -1 at edge 2");
        skipped.count_reason(SampleId(9), "v", "has node 7\tat edge 0");
        let counts: Vec<_> = skipped.reasons().iter().map(|r| (r.samples, r.first.0, r.column.as_str())).collect();
        assert_eq!(counts, [(2, 4, "v"), (1, 5, "v"), (1, 7, "w"), (2, 8, "v")]);
        assert_eq!(skipped.reasons()[0].to_string(), "column `v` has 3 numbers, not 8, sample 4 first");
        let mut read = Skipped::default();
        read.read_lines(&skipped.lines()).unwrap();
        assert_eq!(read.reasons(), skipped.reasons());
        assert_eq!(Skipped::default().read_lines("3\tx\tv\tis null"), None);
    }

    #[test]
    fn the_list_of_reasons_stays_short() {
        let mut skipped = Skipped::default();
        for n in 0..100 {
            let word: String = "a".repeat(n + 1);
            skipped.count_reason(SampleId(n as u32), "v", &word);
        }
        assert_eq!(skipped.reasons().len(), MAX_REASONS + 1);
        assert_eq!(skipped.reasons().iter().map(|r| r.samples).sum::<usize>(), 100);
    }
}
