//! A model is tried before it is used: whether it runs and gives a finite vector, how long samples may be, and whether a
//! vector depends on what else is in the batch.

use super::batching::Grouping;
use super::features::Samples;
use super::onnx::OnnxEncoder;
use super::outputs::Output;
use crate::config::Provider;
use crate::error::{Cause, Error, Result};
use crate::telemetry;

impl OnnxEncoder {
    /// Tries the model, and finds out what is not known of it yet: its dimension, the longest sample, the grouping.
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

    /// Whether it runs at all: a sample that it refuses is then at fault itself.
    pub(super) fn runs(&self) -> bool {
        self.feature.probes().is_ok_and(|samples| self.vectors(samples.as_ref(), &[0]).is_ok())
    }

    fn vectors(&self, samples: &dyn Samples, rows: &[usize]) -> Result<Vec<f32>> {
        self.run(&mut samples.batch(rows)?)
    }

    /// Runs the longest sample. Where that fails, the settings ask for more than the model takes; where they ask for
    /// nothing, samples are cut to that.
    fn try_longest(&mut self) -> Result<()> {
        let Some(longest) = self.feature.longest() else { return Ok(()) };
        let tried = longest.min(LONGEST);
        let is_taken = |length: usize| -> Result<(), Error> {
            if is_finite(&self.run(&mut self.feature.of_length(length)?)?) {
                return Ok(());
            }
            Err(self.model.fault(format!("gives no finite vector for a text of {length} tokens"), None))
        };
        let failure = match is_taken(tried) {
            Ok(()) => return Ok(()),
            Err(failure @ Error::OutOfMemory { .. }) => {
                telemetry::longest_untried(&self.model.path, tried, &failure);
                return Ok(());
            }
            Err(failure) => failure,
        };
        // The most that works: more than nothing, less than what was tried.
        let (mut most, mut too_many) = (0, tried);
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
            Error::Model { cause, .. } => cause,
            other => Some(Box::new(other) as Cause),
        };
        Err(self.model.fault(reason, cause))
    }

    /// Runs samples together, which must change none of their vectors. Where it does, only samples of one length go
    /// together, or none.
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

    /// Whether these rows have the same vectors together as alone.
    fn are_independent(&self, probes: &dyn Samples, rows: &[usize]) -> bool {
        let alone = rows.iter().map(|row| self.vectors(probes, &[*row]));
        let Ok(alone) = alone.collect::<Result<Vec<_>>>() else {
            // What cannot be run alone says nothing of what can be run together.
            return true;
        };
        match self.vectors(probes, rows) {
            Ok(together) => {
                let together = together.chunks_exact(self.output.dimension);
                let rounding = if self.model.provider == Provider::Cpu { ROUNDING } else { ROUNDING_ON_GPU };
                together.len() == alone.len() && alone.iter().zip(together).all(|(a, b)| is_near(a, b, rounding))
            }
            // Batches that are too large are halved later.
            Err(error) => matches!(error, Error::OutOfMemory { .. }),
        }
    }
}

fn is_finite(vector: &[f32]) -> bool {
    !vector.is_empty() && vector.iter().all(|x| x.is_finite())
}

/// Whether vectors differ by no more than a share of their length.
fn is_near(a: &[f32], b: &[f32], share: f64) -> bool {
    let squares = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|x| x * x).sum::<f64>().sqrt();
    let difference = squares(&mut a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)));
    a.len() == b.len() && difference <= share * squares(&mut a.iter().map(|x| f64::from(*x)))
}

/// Tokens of the longest text that is tried: attention takes the square of it, 3 GB for twelve heads.
const LONGEST: usize = 8192;

/// What rounding does to a vector, as a share of its length: less than 1e-6 in 32 bits, 1e-3 in 16. What must not be
/// overlooked begins at 0.01, with numbers of 8 bits that are scaled for each batch.
const ROUNDING: f64 = 0.003;

/// 16 bits, bfloat16 among them, are common here, and to send samples alone is slow.
const ROUNDING_ON_GPU: f64 = 0.05;
