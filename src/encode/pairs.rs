//! An encoder for rows that are pairs.

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use super::combined::common_field;
use super::{Encoded, Encoder, once_a_row, refuse, unit_vectors};
use crate::config::GraphOver;
use crate::error::{ModelError, Result};

/// Embeds rows that are an anchor and its positive, with an encoder for each; these may share a model.
///
/// Both vectors are scaled to unit length. The vector of the row is that of the anchor, that of the positive, their
/// mean, or, to be compared by [`Similarity::Cross`](crate::config::Similarity::Cross), one behind the other. The
/// cosine of the two is kept beside it.
pub struct PairEncoder {
    name: String,
    columns: Vec<String>,
    anchor: Arc<dyn Encoder>,
    positive: Arc<dyn Encoder>,
    over: GraphOver,
}

impl PairEncoder {
    /// Makes an encoder of rows with the columns of both; `over` says which vector a row has.
    ///
    /// # Errors
    /// [`ModelError::Dimension`] if the two make vectors of different dimensions.
    pub fn new(anchor: Arc<dyn Encoder>, positive: Arc<dyn Encoder>, over: GraphOver) -> Result<Self> {
        let found = positive.dimension();
        let expected = anchor.dimension();
        if found != expected {
            return Err(ModelError::Dimension {
                encoder: positive.name().to_owned(),
                found,
                other: "the anchors' encoder",
                expected,
                remedy: "take encoders of one dimension",
            }
            .into());
        }
        let mut columns = anchor.columns().to_vec();
        columns.extend(positive.columns().iter().filter(|c| !anchor.columns().contains(c)).cloned());
        let name = if anchor.name() == positive.name() {
            anchor.name().to_owned()
        } else {
            format!("{} and {}", anchor.name(), positive.name())
        };
        Ok(Self { name, columns, anchor, positive, over })
    }
}

// A wrapper decides about every method, also about those with a default.
#[deny(clippy::missing_trait_methods)]
impl Encoder for PairEncoder {
    fn name(&self) -> &str {
        &self.name
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn field(&self, column: &str) -> Option<&str> {
        common_field([self.anchor.as_ref(), self.positive.as_ref()], column)
    }

    fn identity(&self) -> Option<String> {
        let anchor = self.anchor.identity()?;
        let positive = self.positive.identity()?;
        Some(format!("{}\n{:?} of pairs, anchors by\n{anchor}\npositives by\n{positive}", self.name, self.over))
    }

    fn calls_at_once(&self) -> usize {
        self.anchor.calls_at_once().min(self.positive.calls_at_once())
    }

    fn dimension(&self) -> usize {
        match self.over {
            GraphOver::Cross => 2 * self.anchor.dimension(),
            GraphOver::Anchors | GraphOver::Positives | GraphOver::Mean => self.anchor.dimension(),
        }
    }

    fn accepts(&self, uri: &str, schema: &Schema) -> Result<()> {
        self.anchor.accepts(uri, schema)?;
        self.positive.accepts(uri, schema)
    }

    fn model_file(&self) -> Option<&Path> {
        self.anchor.model_file().or_else(|| self.positive.model_file())
    }

    fn model_files(&self) -> Vec<&Path> {
        let mut files = [self.anchor.model_files(), self.positive.model_files()].concat();
        files.sort_unstable();
        files.dedup();
        files
    }

    fn newer(&self) -> Result<Option<Arc<dyn Encoder>>> {
        let anchor = self.anchor.newer()?;
        let positive = self.positive.newer()?;
        if anchor.is_none() && positive.is_none() {
            return Ok(None);
        }
        let anchor = anchor.unwrap_or_else(|| self.anchor.clone());
        let positive = positive.unwrap_or_else(|| self.positive.clone());
        Ok(Some(Arc::new(Self::new(anchor, positive, self.over)?)))
    }

    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()> {
        refuse(&self.name, self.encode_readable(rows, vectors)?.bad)
    }

    fn encode_readable(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<Encoded> {
        let d = self.anchor.dimension();
        let mut bad = Vec::new();
        let anchors = unit_vectors(self.anchor.as_ref(), rows, &mut bad)?;
        let positives = unit_vectors(self.positive.as_ref(), rows, &mut bad)?;
        match self.over {
            GraphOver::Anchors => vectors.copy_from_slice(&anchors),
            GraphOver::Positives => vectors.copy_from_slice(&positives),
            GraphOver::Mean => {
                let means = anchors.iter().zip(&positives).map(|(a, p)| (a + p) / 2.0);
                vectors.iter_mut().zip(means).for_each(|(x, mean)| *x = mean);
            }
            GraphOver::Cross => {
                let pairs = anchors.chunks_exact(d).zip(positives.chunks_exact(d));
                for (vector, (anchor, positive)) in vectors.chunks_exact_mut(2 * d).zip(pairs) {
                    vector[..d].copy_from_slice(anchor);
                    vector[d..].copy_from_slice(positive);
                }
            }
        }
        let cosine = |(a, p): (&[f32], &[f32])| a.iter().zip(p).map(|(a, p)| f64::from(a * p)).sum::<f64>() as f32;
        let pair_similarities = anchors.chunks_exact(d).zip(positives.chunks_exact(d)).map(cosine).collect();
        once_a_row(&mut bad, vectors, self.dimension());
        Ok(Encoded { bad, pair_similarities })
    }
}

impl std::fmt::Debug for PairEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PairEncoder").field("name", &self.name).field("over", &self.over).finish_non_exhaustive()
    }
}
