//! Vectors and losses that a trainer had pushed when it kept a state, and that were not in the state's graph.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, FixedSizeListArray, Float32Array, RecordBatch, UInt32Array, UInt64Array};
use arrow::datatypes::{DataType, Field, Float32Type, Schema, UInt32Type, UInt64Type};

use crate::arrow_file::{self, FORMAT_VERSION};
use crate::error::{Error, Result};
use crate::sample::SampleId;

/// What was pushed and waits for a graph.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Waiting {
    pub vectors: SavedPushes,
    /// As vectors of one number.
    pub losses: SavedPushes,
}

impl Waiting {
    /// Drops what was pushed before `step`.
    pub fn retain_from(&mut self, step: u64) {
        self.vectors.retain_from(step);
        self.losses.retain_from(step);
    }
}

/// Pushed vectors as a checkpoint keeps them, in the order of their pushes as far as one replaces another.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SavedPushes {
    pub dimension: usize,
    pub ids: Vec<SampleId>,
    /// The step at which each vector was pushed.
    pub steps: Vec<u64>,
    /// [ids × dimension], row-major.
    pub vectors: Vec<f32>,
}

impl SavedPushes {
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Adds a vector.
    pub fn push(&mut self, id: SampleId, step: u64, vector: &[f32]) {
        self.ids.push(id);
        self.steps.push(step);
        self.vectors.extend_from_slice(vector);
    }

    /// All samples with the steps of their pushes and their vectors, of so many numbers.
    pub fn iter(&self, dimension: usize) -> impl Iterator<Item = (&SampleId, (&u64, &[f32]))> {
        self.ids.iter().zip(self.steps.iter().zip(self.vectors.chunks_exact(dimension.max(1))))
    }

    /// Drops what was pushed before `step`.
    fn retain_from(&mut self, step: u64) {
        let mut kept = Self { dimension: self.dimension, ..Self::default() };
        self.iter(self.dimension)
            .filter(|(_, (at, _))| **at >= step)
            .for_each(|(&id, (&at, of))| kept.push(id, at, of));
        *self = kept;
    }

    pub fn save(&self, path: &Path) -> Result<()> {
        let failed = |cause| Error::Arrow { action: "save pushed vectors", cause };
        let item = Arc::new(Field::new("item", DataType::Float32, false));
        let values = Arc::new(Float32Array::from(self.vectors.clone()));
        let vectors = FixedSizeListArray::try_new(item, self.dimension as i32, values, None).map_err(failed)?;
        let columns: [ArrayRef; 3] = [
            Arc::new(self.ids.iter().map(|id| id.0).collect::<UInt32Array>()),
            Arc::new(UInt64Array::from(self.steps.clone())),
            Arc::new(vectors),
        ];
        let named = ["id", "step", "vector"].into_iter().zip(&columns);
        let fields = named.map(|(name, column)| Field::new(name, column.data_type().clone(), false));
        let metadata = HashMap::from([(FORMAT_VERSION.to_owned(), FORMAT.to_owned())]);
        let schema = Schema::new_with_metadata(fields.collect::<Vec<_>>(), metadata);
        arrow_file::save(path, &RecordBatch::try_new(Arc::new(schema), columns.into()).map_err(failed)?)
    }

    /// Opens the file of a run with so many samples and embeddings of `dimension`, if that is known.
    pub fn open(path: &Path, samples: usize, dimension: Option<usize>) -> Result<Self> {
        arrow_file::open_one(path, FORMAT, "pushed vectors of a checkpoint that this version reads", |_, batch| {
            let column = |index: usize| batch.columns().get(index).ok_or("it lacks columns");
            let ids = column(0)?.as_primitive_opt::<UInt32Type>();
            let steps = column(1)?.as_primitive_opt::<UInt64Type>();
            let vectors = column(2)?.as_fixed_size_list_opt();
            let values = vectors.and_then(|vectors| vectors.values().as_primitive_opt::<Float32Type>());
            let (Some(ids), Some(steps), Some(values)) = (ids, steps, values) else {
                return Err("it holds something else".to_owned());
            };
            if let Some(beyond) = ids.values().iter().find(|id| **id as usize >= samples) {
                return Err(format!("it has a vector of sample {beyond}, of {samples}"));
            }
            let found = vectors.map_or(0, |vectors| vectors.value_length() as usize);
            let dimension = dimension.unwrap_or(found);
            if values.len() != ids.len() * dimension {
                return Err(format!("its vectors are not of dimension {dimension}"));
            }
            Ok(Self {
                dimension,
                ids: ids.values().iter().map(|&id| SampleId(id)).collect(),
                steps: steps.values().to_vec(),
                vectors: values.values().to_vec(),
            })
        })
    }
}

/// Raised if older releases would misread a file.
const FORMAT: &str = "1";
