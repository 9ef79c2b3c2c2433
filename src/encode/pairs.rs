use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use super::Encoder;
use crate::config::GraphOver;
use crate::error::{Error, Result};

/// Embeds rows that are an anchor and its positive, by an encoder for each; they may share a model.
///
/// Both vectors are scaled to unit length. The row's vector is that of the anchor, of the positive, or their mean; and
/// how similar the two are, the cosine, is kept beside it.
pub struct PairEncoder {
    name: String,
    columns: Vec<String>,
    anchor: Arc<dyn Encoder>,
    positive: Arc<dyn Encoder>,
    over: GraphOver,
}

impl PairEncoder {
    /// Vectors of `over` rows of `anchor`'s and `positive`'s columns.
    ///
    /// # Errors
    /// [`Error::Dimension`] where they make vectors of unlike dimensions.
    pub fn new(anchor: Arc<dyn Encoder>, positive: Arc<dyn Encoder>, over: GraphOver) -> Result<Self> {
        let (found, expected) = (positive.dimension(), anchor.dimension());
        if found != expected {
            return Err(Error::Dimension { encoder: positive.name().to_owned(), found, expected });
        }
        let mut columns = anchor.columns().to_vec();
        columns.extend(positive.columns().iter().filter(|c| !anchor.columns().contains(c)).cloned());
        let name = match anchor.name() == positive.name() {
            true => anchor.name().to_owned(),
            false => format!("{} and {}", anchor.name(), positive.name()),
        };
        Ok(Self { name, columns, anchor, positive, over })
    }

    /// Its vectors of these rows, each of unit length or zero.
    fn vectors(&self, encoder: &dyn Encoder, rows: &RecordBatch) -> Result<Vec<f32>> {
        let place = |column: &String| self.columns.iter().position(|c| c == column).unwrap_or_default();
        let places: Vec<_> = encoder.columns().iter().map(place).collect();
        let rows = rows.project(&places).map_err(|cause| Error::Arrow { action: "split pairs", cause })?;
        let mut vectors = vec![0f32; rows.num_rows() * encoder.dimension()];
        encoder.encode(&rows, &mut vectors)?;
        for vector in vectors.chunks_exact_mut(encoder.dimension()) {
            let length = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
            if length > 0.0 {
                vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
            }
        }
        Ok(vectors)
    }
}

impl Encoder for PairEncoder {
    fn name(&self) -> &str {
        &self.name
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn dimension(&self) -> usize {
        self.anchor.dimension()
    }

    fn accepts(&self, uri: &str, schema: &Schema) -> Result<()> {
        self.anchor.accepts(uri, schema)?;
        self.positive.accepts(uri, schema)
    }

    fn model_file(&self) -> Option<&Path> {
        self.anchor.model_file().or_else(|| self.positive.model_file())
    }

    fn newer(&self) -> Result<Option<Arc<dyn Encoder>>> {
        let (anchor, positive) = (self.anchor.newer()?, self.positive.newer()?);
        if anchor.is_none() && positive.is_none() {
            return Ok(None);
        }
        let anchor = anchor.unwrap_or_else(|| self.anchor.clone());
        let positive = positive.unwrap_or_else(|| self.positive.clone());
        Ok(Some(Arc::new(Self::new(anchor, positive, self.over)?)))
    }

    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()> {
        self.encode_pairs(rows, vectors).map(drop)
    }

    fn encode_pairs(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<Option<Vec<f32>>> {
        let anchors = self.vectors(self.anchor.as_ref(), rows)?;
        let positives = self.vectors(self.positive.as_ref(), rows)?;
        match self.over {
            GraphOver::Anchors => vectors.copy_from_slice(&anchors),
            GraphOver::Positives => vectors.copy_from_slice(&positives),
            GraphOver::Mean => {
                let means = anchors.iter().zip(&positives).map(|(a, p)| (a + p) / 2.0);
                vectors.iter_mut().zip(means).for_each(|(x, mean)| *x = mean);
            }
        }
        let d = self.dimension();
        let cosine = |(a, p): (&[f32], &[f32])| a.iter().zip(p).map(|(a, p)| f64::from(a * p)).sum::<f64>() as f32;
        Ok(Some(anchors.chunks_exact(d).zip(positives.chunks_exact(d)).map(cosine).collect()))
    }
}

impl std::fmt::Debug for PairEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PairEncoder").field("name", &self.name).field("over", &self.over).finish_non_exhaustive()
    }
}
