//! A stream of record batches from Python as a source.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatchReader;
use arrow::datatypes::SchemaRef;
use arrow::ffi_stream::RecordBatchStreamReader;
use futures::{StreamExt, stream};
use prosampler::error::TooFewError;
use prosampler::source::{RecordBatches, Source, column_indices};
use prosampler::{Error, PipelineBuilder, Result};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::interchange::reader;

/// How many readers there are. One that is being read, or let go, may call Python.
static READERS: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

/// Waits until no reader may call Python, so many seconds at most: an interpreter that ends meanwhile would crash.
#[pyfunction]
pub fn wait_for_readers(py: Python<'_>, seconds: f64) {
    py.detach(|| {
        let (count, ended) = &READERS;
        let count = count.lock().unwrap_or_else(PoisonError::into_inner);
        // Whether the time is over makes no difference.
        let _ = ended.wait_timeout_while(count, Duration::from_secs_f64(seconds), |count| *count > 0);
    });
}

/// Dropped in this order.
struct Reader {
    batches: RecordBatchStreamReader,
    _counted: Counted,
}

struct Counted;

impl Counted {
    fn new() -> Self {
        *READERS.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        *READERS.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        READERS.1.notify_all();
    }
}

/// A table from Python. It can be read once, which is what a run does.
pub struct PythonSource {
    schema: SchemaRef,
    reader: Mutex<Option<Reader>>,
}

/// What Python gave in place of files.
pub struct Tables {
    rows: Option<Rows>,
    corpus: Option<PythonSource>,
}

/// What `data=` gave: one table, or several by name.
enum Rows {
    One(PythonSource),
    Named(Vec<(String, PythonSource)>),
}

impl Tables {
    /// Reads a pair of rows and corpus, each of which may be `None`.
    pub fn read((rows, corpus): &Given<'_>) -> PyResult<Self> {
        let corpus = corpus.as_ref().map(reader).transpose()?.map(PythonSource::from);
        Ok(Self { rows: rows.as_ref().map(Rows::read).transpose()?, corpus })
    }

    /// Whether rows were given.
    pub fn has_rows(&self) -> bool {
        self.rows.is_some()
    }

    /// The same tables, read already.
    #[cfg(feature = "serve")]
    pub fn to_spent(&self) -> Self {
        let rows = self.rows.as_ref().map(|rows| match rows {
            Rows::One(source) => Rows::One(source.to_spent()),
            Rows::Named(named) => Rows::Named(named.iter().map(|(name, of)| (name.clone(), of.to_spent())).collect()),
        });
        Self { rows, corpus: self.corpus.as_ref().map(PythonSource::to_spent) }
    }

    pub fn give_to(self, builder: PipelineBuilder) -> PipelineBuilder {
        let builder = match self.rows {
            Some(Rows::One(source)) => builder.source(source),
            Some(Rows::Named(named)) => builder.sources(named),
            None => builder,
        };
        match self.corpus {
            Some(corpus) => builder.corpus(corpus),
            None => builder,
        }
    }
}

/// Rows and corpus, as Python gives them.
pub type Given<'py> = (Option<Bound<'py, PyAny>>, Option<Bound<'py, PyAny>>);

impl Rows {
    fn read(data: &Bound<'_, PyAny>) -> PyResult<Self> {
        let Ok(named) = data.cast::<PyDict>() else { return reader(data).map(|batches| Self::One(batches.into())) };
        let table = |(name, data): (Bound<'_, PyAny>, Bound<'_, PyAny>)| Ok((name.extract()?, reader(&data)?.into()));
        Ok(Self::Named(named.iter().map(table).collect::<PyResult<_>>()?))
    }
}

impl PythonSource {
    #[cfg(feature = "serve")]
    fn to_spent(&self) -> Self {
        Self { schema: self.schema.clone(), reader: Mutex::new(None) }
    }
}

impl From<RecordBatchStreamReader> for PythonSource {
    fn from(batches: RecordBatchStreamReader) -> Self {
        let (schema, reader) = (batches.schema(), Reader { batches, _counted: Counted::new() });
        Self { schema, reader: Mutex::new(Some(reader)) }
    }
}

impl Source for PythonSource {
    fn uri(&self) -> &str {
        NAME
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn read(&self, columns: &[String]) -> Result<RecordBatches> {
        let column_indices: Arc<[usize]> = column_indices(NAME, &self.schema, columns)?.into();
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        let reader = reader.ok_or_else(read_already)?;
        // Python may have to hold its lock for each record batch, so this is blocking work.
        let next = move |mut reader: Reader, first: bool| {
            let column_indices = column_indices.clone();
            async move {
                let read = move || (reader.batches.next().map(|batch| batch?.project(&column_indices)), reader);
                match tokio::task::spawn_blocking(read).await {
                    Ok((None, _)) if first => Some((Err(nothing_to_read()), None)),
                    Ok((item, reader)) => {
                        let failed = |cause| Error::Arrow { action: "read `data`", cause };
                        item.map(|item| (item.map_err(failed), Some(reader)))
                    }
                    Err(e) => Some((Err(Error::of_task("source", e)), None)),
                }
            }
        };
        Ok(stream::unfold((Some(reader), true), move |(reader, first)| {
            let next = next.clone();
            async move { next(reader?, first).await.map(|(item, reader)| (item, (reader, false))) }
        })
        .boxed())
    }
}

fn read_already() -> Error {
    let reason = "it has been read, and can be read once only; give a table, or a new reader for each start";
    Error::UnsupportedSource { uri: NAME.into(), reason: reason.into() }
}

fn nothing_to_read() -> Error {
    let reason = "is needed at least; a reader can be read once only: give a table, or a new reader for each start";
    TooFewError::Samples { uri: NAME.into(), filter: None, found: 0, needed: 1, reason: reason.into() }.into()
}

const NAME: &str = "data";
