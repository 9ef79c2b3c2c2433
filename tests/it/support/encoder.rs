//! One encoder for most tests, which each test configures.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use prosampler::arrow::array::{Array, AsArray, RecordBatch};
use prosampler::arrow::datatypes::UInt32Type;
use prosampler::encode::{BadRow, Encoded, Encoder};
use prosampler::{Error, Result};

use super::vectors;

/// Numbers in a vector, unless a test says otherwise.
pub const DIMENSION: usize = 8;

/// A model in training: it makes a vector of the number in a column, and of its version.
///
/// [`train`](Self::train) makes a newer version, which `newer` then opens. Clones share the training and the counts.
#[derive(Clone)]
pub struct TestEncoder {
    columns: Vec<String>,
    dimension: usize,
    file: Option<PathBuf>,
    /// The version that this encoder runs.
    version: u64,
    /// The version that training has reached.
    pub newest: Arc<AtomicU64>,
    /// What is wrong with every version but the first.
    pub fault: Arc<Mutex<Option<ModelFault>>>,
    /// Calls of `encode` so far.
    pub calls: Arc<AtomicUsize>,
    /// Newer versions that were opened so far.
    pub openings: Arc<AtomicUsize>,
    before_call: Arc<BeforeCall>,
    is_unreadable: fn(u32) -> bool,
    write_vector: Arc<WriteVector>,
}

/// What is wrong with a newer model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelFault {
    /// Its file cannot be read.
    Unreadable,
    /// Its vectors are longer by one number.
    OtherDimension,
    /// Its vector of sample 77 has a component that is NaN.
    NotFinite,
}

/// Is told the number of the call, from 1.
type BeforeCall = dyn Fn(usize) + Send + Sync;

/// Writes what a version makes of a number.
type WriteVector = dyn Fn(u64, u32, &mut [f32]) + Send + Sync;

impl TestEncoder {
    /// Clustered vectors of the column `n`, whose numbers are below `len`: those of [`trained_vectors`].
    pub fn new(len: usize) -> Self {
        let before = vectors(len, DIMENSION, 10, 3);
        let after = OnceLock::new();
        Self::with_vectors(DIMENSION, move |version, n, vector| {
            let range = n as usize * DIMENSION..(n as usize + 1) * DIMENSION;
            vector.copy_from_slice(&before[range.clone()]);
            if version > 0 {
                let after = after.get_or_init(|| vectors(len, DIMENSION, 10, 4));
                drift(vector, &after[range], version);
            }
        })
    }

    /// Vectors of the column `n` as `write` makes them of the version and the number.
    pub fn with_vectors(dimension: usize, write: impl Fn(u64, u32, &mut [f32]) + Send + Sync + 'static) -> Self {
        Self {
            columns: vec!["n".into()],
            dimension,
            file: None,
            version: 0,
            newest: Arc::default(),
            fault: Arc::default(),
            calls: Arc::default(),
            openings: Arc::default(),
            before_call: Arc::new(|_| {}),
            is_unreadable: |_| false,
            write_vector: Arc::new(write),
        }
    }

    /// Reads another column than `n`.
    pub fn reading(self, column: &str) -> Self {
        Self { columns: vec![column.into()], ..self }
    }

    /// Changes each vector once it is written, given the version and the number; or panics.
    pub fn altered(self, alter: impl Fn(u64, u32, &mut [f32]) + Send + Sync + 'static) -> Self {
        let write = self.write_vector;
        let write_vector = Arc::new(move |version: u64, n: u32, vector: &mut [f32]| {
            write(version, n, vector);
            alter(version, n, vector);
        });
        Self { write_vector, ..self }
    }

    /// Cannot read the rows with these numbers.
    pub fn skipping(self, is_unreadable: fn(u32) -> bool) -> Self {
        Self { is_unreadable, ..self }
    }

    /// Does this before each call, given its number from 1.
    pub fn before_each_call(self, act: impl Fn(usize) + Send + Sync + 'static) -> Self {
        Self { before_call: Arc::new(act), ..self }
    }

    /// Takes this time for each call.
    pub fn pausing(self, pause: Duration) -> Self {
        self.before_each_call(move |_| std::thread::sleep(pause))
    }

    /// Has its model in a file.
    pub fn in_file(self, file: &Path) -> Self {
        Self { file: Some(file.into()), ..self }
    }

    /// Makes a newer version of the model.
    pub fn train(&self) {
        self.newest.fetch_add(1, Relaxed);
    }

    /// Sets or clears what is wrong with the newer versions.
    pub fn set_fault(&self, fault: impl Into<Option<ModelFault>>) {
        *self.fault.lock().unwrap() = fault.into();
    }

    fn has(&self, fault: ModelFault) -> bool {
        self.version > 0 && *self.fault.lock().unwrap() == Some(fault)
    }
}

/// What [`TestEncoder::new`] makes of the numbers 0 to `len`, row-major: a mix of two models, so that versions drift.
pub fn trained_vectors(version: u64, len: usize) -> Vec<f32> {
    let mut all = vectors(len, DIMENSION, 10, 3);
    drift(&mut all, &vectors(len, DIMENSION, 10, 4), version);
    all
}

fn drift(before: &mut [f32], after: &[f32], version: u64) {
    for (x, y) in before.iter_mut().zip(after) {
        *x += 0.1 * version as f32 * y;
    }
}

impl Encoder for TestEncoder {
    fn name(&self) -> &str {
        "test"
    }

    fn columns(&self) -> &[String] {
        &self.columns
    }

    fn dimension(&self) -> usize {
        self.dimension + usize::from(self.has(ModelFault::OtherDimension))
    }

    fn model_file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    fn newer(&self) -> Result<Option<Arc<dyn Encoder>>> {
        let version = self.newest.load(Relaxed);
        if version == self.version {
            return Ok(None);
        }
        self.openings.fetch_add(1, Relaxed);
        if *self.fault.lock().unwrap() == Some(ModelFault::Unreadable) {
            return Err(Error::Encode { encoder: "test".into(), cause: "it is cut short".into() });
        }
        Ok(Some(Arc::new(Self { version, ..self.clone() })))
    }

    fn encode(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<()> {
        match self.encode_readable(rows, vectors)?.bad.first() {
            Some(bad) => Err(Error::Encode { encoder: "test".into(), cause: bad.reason.clone().into() }),
            None => Ok(()),
        }
    }

    fn encode_readable(&self, rows: &RecordBatch, vectors: &mut [f32]) -> Result<Encoded> {
        let call = self.calls.fetch_add(1, Relaxed) + 1;
        (self.before_call)(call);
        let numbers = rows.column(0).as_primitive::<UInt32Type>();
        assert_eq!((rows.num_columns(), numbers.null_count()), (1, 0), "nulls never come to an encoder");
        let mut bad = Vec::new();
        for (row, (&n, vector)) in numbers.values().iter().zip(vectors.chunks_exact_mut(self.dimension)).enumerate() {
            if (self.is_unreadable)(n) {
                bad.push(BadRow { row, column: self.columns[0].clone(), reason: "cannot be read".into() });
                continue;
            }
            (self.write_vector)(self.version, n, vector);
            if n == 77 && self.has(ModelFault::NotFinite) {
                vector[3] = f32::NAN;
            }
        }
        Ok(Encoded { bad, ..Encoded::default() })
    }
}
