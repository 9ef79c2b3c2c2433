//! An encoder for rows that are pairs.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Schema;

use super::combined::common_field;
use super::{BadRow, Encoded, Encoder, once_a_row, refuse, unit_vectors};
use crate::config::GraphOver;
use crate::error::{Error, ModelError, Result};
use crate::source::{IN_CORPUS, ROLE_COLUMN};

/// Embeds rows that are an anchor and its positive, with an encoder for each; these may share a model.
///
/// Both vectors are scaled to unit length. The vector of the row is that of the anchor, that of the positive, their
/// mean, or, to be compared by [`Similarity::Cross`](crate::config::Similarity::Cross), one behind the other. The
/// cosine of the two is kept beside it. Rows of a [corpus](crate::config::PairsConfig::corpus) have the vector of their
/// positive on both sides.
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

    /// The same encoder for a run with a [corpus](crate::config::PairsConfig::corpus): its texts go through the encoder
    /// of positives alone, once. Without this, a text of the corpus is embedded as its own anchor, too.
    #[must_use]
    pub fn with_corpus(mut self) -> Self {
        self.columns.push(ROLE_COLUMN.to_owned());
        self
    }

    /// The vectors of anchors [rows × d]: of rows of a corpus those of their `positives`.
    fn anchors(&self, rows: &RecordBatch, positives: &[f32], bad: &mut Vec<BadRow>) -> Result<Vec<f32>> {
        let has_corpus = self.columns.iter().any(|column| column == ROLE_COLUMN);
        let roles = rows.column_by_name(ROLE_COLUMN).filter(|_| has_corpus);
        let Some(roles) = roles.and_then(|roles| roles.as_string_opt::<i32>()) else {
            return unit_vectors(self.anchor.as_ref(), rows, bad);
        };
        let are_pairs: Vec<bool> = (0..roles.len()).map(|row| roles.value(row) != IN_CORPUS).collect();
        let pairs: Vec<usize> = (0..rows.num_rows()).filter(|&row| are_pairs[row]).collect();
        let mut anchors = positives.to_vec();
        if pairs.is_empty() {
            return Ok(anchors);
        }
        let rows = filter_record_batch(rows, &BooleanArray::from(are_pairs));
        let rows = rows.map_err(|cause| Error::Arrow { action: "tell pairs from a corpus", cause })?;
        let mut bad_pairs = Vec::new();
        let vectors = unit_vectors(self.anchor.as_ref(), &rows, &mut bad_pairs)?;
        bad.extend(bad_pairs.into_iter().map(|bad| BadRow { row: pairs[bad.row], ..bad }));
        let d = self.anchor.dimension();
        for (&row, vector) in pairs.iter().zip(vectors.chunks_exact(d)) {
            anchors[row * d..][..d].copy_from_slice(vector);
        }
        Ok(anchors)
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
        let corpus = if self.columns.iter().any(|column| column == ROLE_COLUMN) { " and a corpus" } else { "" };
        Some(format!("{}\n{:?} of pairs{corpus}, anchors by\n{anchor}\npositives by\n{positive}", self.name, self.over))
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
        let newer = Self::new(anchor, positive, self.over)?;
        Ok(Some(Arc::new(Self { columns: self.columns.clone(), ..newer })))
    }

    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()> {
        refuse(&self.name, self.encode_readable(rows, vectors)?.bad)
    }

    fn encode_readable(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<Encoded> {
        let d = self.anchor.dimension();
        let mut bad = Vec::new();
        let mut bad_positives = Vec::new();
        let positives = unit_vectors(self.positive.as_ref(), rows, &mut bad_positives)?;
        let anchors = self.anchors(rows, &positives, &mut bad)?;
        bad.append(&mut bad_positives);
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
