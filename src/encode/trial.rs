//! Tries a model before it is used.
//!
//! 1. It must run, and give a finite vector.
//! 2. It must take the longest sample; texts are cut to what it takes, unless the settings say how long they are.
//! 3. No vector may depend on what else is in the batch; else samples of one length share batches, or none do.

use super::batching::Grouping;
use super::features::Samples;
use super::onnx::OnnxEncoder;
use super::outputs::Output;
use crate::config::Provider;
use crate::error::{Cause, Error, ModelError, Result};
use crate::telemetry;

impl OnnxEncoder {
    /// Tries the model, and sets its dimension, the longest sample and the grouping.
    pub(super) fn try_out(&mut self) -> Result<()> {
        let first = self.vectors(self.feature.probes()?.as_ref(), &[0])?;
        if !is_finite(&first) {
            let kind = self.feature.kind();
            let reason = format!("gives no finite vector for a sample of {kind}; export it again, in f32");
            return Err(self.model.fault(reason, None));
        }
        self.output.dimension = first.len();
        let Output { declared, reason, .. } = &self.output;
        let others = self.model.outputs.iter().map(|output| output.name.as_str());
        let others: Vec<_> = others.filter(|name| *name != declared.name).collect();
        telemetry::output_taken(&self.model.path, &declared.text, reason, &others.join(", "));
        self.try_longest()?;
        self.try_together()
    }

    /// Whether the model runs at all, so that a sample that it refuses is itself at fault.
    pub(super) fn runs(&self) -> bool {
        self.feature.probes().is_ok_and(|samples| self.vectors(samples.as_ref(), &[0]).is_ok())
    }

    /// Runs some samples together.
    fn vectors(&self, samples: &dyn Samples, rows: &[usize]) -> Result<Vec<f32>> {
        self.run(&mut samples.batch(rows)?)
    }

    /// Runs the longest sample; if that fails, searches for the longest that the model takes.
    ///
    /// # Errors
    /// [`ModelError::Unusable`] if the settings ask for longer samples. Without such a setting, samples are cut
    /// instead.
    fn try_longest(&mut self) -> Result<()> {
        let Some(longest) = self.feature.longest() else { return Ok(()) };
        let tried = longest.min(MAX_TRIED_TOKENS);
        let is_taken = |length: usize| -> Result<(), Error> {
            if is_finite(&self.run(&mut self.feature.of_length(length)?)?) {
                return Ok(());
            }
            Err(self.model.fault(format!("gives no finite vector for a text of {length} tokens"), None))
        };
        let failure = match is_taken(tried) {
            Ok(()) => return Ok(()),
            Err(failure @ Error::Model(ModelError::OutOfMemory { .. })) => {
                telemetry::longest_untried(&self.model.path, tried, &failure);
                return Ok(());
            }
            Err(failure) => failure,
        };
        // A binary search: `most` tokens work, or are 0, and `too_many` do not.
        let mut most = 0;
        let mut too_many = tried;
        while too_many - most > 1 {
            let middle = most + (too_many - most) / 2;
            match is_taken(middle) {
                Ok(()) => most = middle,
                Err(_) => too_many = middle,
            }
        }
        if most == 0 {
            return Err(failure);
        }
        if self.feature.cut(most)? {
            telemetry::texts_cut(&self.model.path, most, &failure);
            return Ok(());
        }
        let reason = format!(
            "takes texts of {most} tokens at most, but encode.max_tokens is {longest}; set it to {most}, or leave it out"
        );
        let cause = match failure {
            Error::Model(ModelError::Unusable { cause, .. }) => cause,
            other => Some(Box::new(other) as Cause),
        };
        Err(self.model.fault(reason, cause))
    }

    /// Runs samples together, and makes the grouping stricter if that changes their vectors.
    fn try_together(&mut self) -> Result<()> {
        if self.exact_rows == Some(1) {
            self.grouping = Grouping::Alone;
            return Ok(());
        }
        let by_inputs = self.grouping;
        let probes = self.feature.probes()?;
        for (grouping, rows, stricter) in
            [(Grouping::Any, [0, 2], Grouping::OfOneLength), (Grouping::OfOneLength, [0, 1], Grouping::Alone)]
        {
            if self.grouping == grouping && !self.are_independent(probes.as_ref(), &rows) {
                self.grouping = stricter;
            }
        }
        let together = self.grouping.name();
        if self.grouping > by_inputs {
            telemetry::samples_mixed(&self.model.path, together);
        } else if self.grouping > Grouping::Any {
            telemetry::grouped(&self.model.path, together);
        }
        Ok(())
    }

    /// Whether these samples have the same vectors together as alone, but for rounding.
    fn are_independent(&self, probes: &dyn Samples, rows: &[usize]) -> bool {
        let alone = rows.iter().map(|row| self.vectors(probes, &[*row]));
        let Ok(alone) = alone.collect::<Result<Vec<_>>>() else {
            // If samples cannot be run alone, nothing follows for samples together.
            return true;
        };
        match self.vectors(probes, rows) {
            Ok(together) => {
                let together = together.chunks_exact(self.output.dimension);
                let tolerance =
                    if self.model.provider == Provider::Cpu { ROUNDING_TOLERANCE } else { GPU_ROUNDING_TOLERANCE };
                together.len() == alone.len() && alone.iter().zip(together).all(|(a, b)| is_near(a, b, tolerance))
            }
            // Batches that are too large are halved when they are run.
            Err(error) => matches!(error, Error::Model(ModelError::OutOfMemory { .. })),
        }
    }
}

fn is_finite(vector: &[f32]) -> bool {
    !vector.is_empty() && vector.iter().all(|x| x.is_finite())
}

/// Whether the difference of two vectors is at most this share of the length of the first.
fn is_near(a: &[f32], b: &[f32], share: f64) -> bool {
    let length = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|x| x * x).sum::<f64>().sqrt();
    let difference = length(&mut a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    a.len() == b.len() && difference <= share * length(&mut a.iter().map(|x| f64::from(*x)))
}

/// The most tokens of a text that is tried, since the memory of attention grows with their square.
const MAX_TRIED_TOKENS: usize = 8192;

/// The most that rounding may change a vector, as a share of its length.
///
/// It is above what 32 and 16 bits do, and below what numbers of 8 bits do that are scaled for each batch.
const ROUNDING_TOLERANCE: f64 = 0.003;

/// The same on a GPU, where 16 bits, also bfloat16, are common, and batches of one sample are slow.
const GPU_ROUNDING_TOLERANCE: f64 = 0.05;
