//! "Here is a sample id, give me its embedding."
//!
//! An [`EmbeddingTable`] holds what an encoder makes of a store: one vector a sample, in the order of ids. It knows the
//! model version that made them, and which samples were skipped. A refresh does not change a table that is in use: it
//! makes a new one, or forks it.
//!
//! ```
//! use prosampler::{ModelVersion, SampleId, config::Similarity, embeddings::EmbeddingTable};
//!
//! let vectors = vec![0.0, 2.0, 0.0, -3.0];
//! let table = EmbeddingTable::new(vectors, 2, Similarity::Cosine, ModelVersion(1))?;
//! assert_eq!(*table.get(SampleId(0)), [0.0, 1.0]);
//! assert_eq!(table.similarity_of(SampleId(0), SampleId(1)), -1.0);
//! # Ok::<(), prosampler::Error>(())
//! ```

mod epochs;
mod file;
mod similarity;
mod skipped;
mod stored;
mod table;

pub(crate) use self::epochs::all_bits;
pub use self::skipped::SkipReason;
pub(crate) use self::skipped::{Flaw, prepare};
pub use self::table::EmbeddingTable;

/// From which cosine on two samples are likely copies of each other.
pub(crate) const COPY: f32 = 0.999;
