//! An encoder that joins the vectors of several.

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use super::{BadRow, Encoded, Encoder, once_a_row, refuse, unit_vectors};
use crate::config::Combine;
use crate::error::{Error, ModelError, Result};

/// Joins the vectors of several encoders, scaled to unit length, to one: their mean, or their concatenation.
///
/// The encoders run one after another; joining costs little beside them. A row is bad if one of them cannot read it, or
/// makes a vector for it that is zero or not finite.
#[derive(Clone)]
pub struct CombinedEncoder {
    name: String,
    encoders: Vec<Arc<dyn Encoder>>,
    combine: Combine,
    columns: Vec<String>,
    dimension: usize,
}

impl CombinedEncoder {
    /// Combines encoders, of which there must be at least one.
    ///
    /// # Errors
    /// [`ModelError::Dimension`] for a mean of vectors that differ in dimension; [`Error::Config`] if there are no
    /// encoders.
    pub fn new(encoders: Vec<Arc<dyn Encoder>>, combine: Combine) -> Result<Self> {
        let Some(first) = encoders.first() else {
            return Err(Error::setting(
                "encode.views",
                "is empty: there are no encoders to combine; give at least one",
            ));
        };
        let expected = first.dimension();
        if let (Combine::Mean, Some(odd)) = (combine, encoders.iter().find(|e| e.dimension() != expected)) {
            return Err(ModelError::Dimension {
                encoder: odd.name().to_owned(),
                found: odd.dimension(),
                other: "the first view",
                expected,
                remedy: "they have no mean: set encode.combine = \"concat\", or take models of one dimension",
            }
            .into());
        }
        let mut columns: Vec<String> = Vec::new();
        for column in encoders.iter().flat_map(Encoder::columns) {
            if !columns.contains(column) {
                columns.push(column.clone());
            }
        }
        let dimension = match combine {
            Combine::Mean => expected,
            Combine::Concat => encoders.iter().map(Encoder::dimension).sum(),
        };
        let names: Vec<_> = encoders.iter().map(Encoder::name).collect();
        Ok(Self { name: names.join(" + "), encoders, combine, columns, dimension })
    }
}

// A wrapper decides about every method, also about those with a default.
#[deny(clippy::missing_trait_methods)]
impl Encoder for CombinedEncoder {
    fn name(&self) -> &str {
        &self.name
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn field(&self, column: &str) -> Option<&str> {
        common_field(self.encoders.iter().map(AsRef::as_ref), column)
    }

    fn identity(&self) -> Option<String> {
        let views: Vec<_> = self.encoders.iter().map(Encoder::identity).collect::<Option<_>>()?;
        Some(format!("{}\n{:?} of views by\n{}", self.name, self.combine, views.join("\n")))
    }

    fn calls_at_once(&self) -> usize {
        self.encoders.iter().map(Encoder::calls_at_once).min().unwrap_or(1)
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn accepts(&self, uri: &str, schema: &Schema) -> Result<()> {
        self.encoders.iter().try_for_each(|encoder| encoder.accepts(uri, schema))
    }

    fn model_file(&self) -> Option<&Path> {
        self.encoders.iter().find_map(|encoder| encoder.model_file())
    }

    fn model_files(&self) -> Vec<&Path> {
        let mut files: Vec<_> = self.encoders.iter().flat_map(|encoder| encoder.model_files()).collect();
        files.sort_unstable();
        files.dedup();
        files
    }

    fn newer(&self) -> Result<Option<Arc<dyn Encoder>>> {
        let newer = self.encoders.iter().map(Encoder::newer).collect::<Result<Vec<_>>>()?;
        if newer.iter().all(Option::is_none) {
            return Ok(None);
        }
        let encoders = newer.into_iter().zip(&self.encoders).map(|(newer, old)| newer.unwrap_or_else(|| old.clone()));
        Ok(Some(Arc::new(Self::new(encoders.collect(), self.combine)?)))
    }

    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()> {
        refuse(&self.name, self.encode_readable(rows, vectors)?.bad)
    }

    fn encode_readable(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<Encoded> {
        let mut bad: Vec<BadRow> = Vec::new();
        let mut start = 0;
        for encoder in &self.encoders {
            let d = encoder.dimension();
            let views = unit_vectors(encoder.as_ref(), rows, &mut bad)?;
            let share = match self.combine {
                Combine::Mean => 1.0 / self.encoders.len() as f32,
                Combine::Concat => 1.0,
            };
            for (vector, view) in vectors.chunks_exact_mut(self.dimension).zip(views.chunks_exact(d)) {
                vector[start..][..d].iter_mut().zip(view).for_each(|(x, y)| *x += share * y);
            }
            start += if self.combine == Combine::Concat { d } else { 0 };
        }
        once_a_row(&mut bad, vectors, self.dimension);
        Ok(Encoded { bad, ..Encoded::default() })
    }
}

impl std::fmt::Debug for CombinedEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CombinedEncoder")
            .field("encoders", &self.encoders.iter().map(Encoder::name).collect::<Vec<_>>())
            .field("combine", &self.combine)
            .field("dimension", &self.dimension)
            .finish_non_exhaustive()
    }
}

/// Returns the field that is all that these encoders read of a column; `None` if they read different things.
pub(super) fn common_field<'a>(encoders: impl IntoIterator<Item = &'a dyn Encoder>, column: &str) -> Option<&'a str> {
    let reads = |encoder: &&dyn Encoder| encoder.columns().iter().any(|read| read == column);
    let mut fields = encoders.into_iter().filter(reads).map(|encoder| encoder.field(column));
    let first = fields.next()??;
    fields.all(|field| field == Some(first)).then_some(first)
}
