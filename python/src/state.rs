//! A run's state as a dict of texts and whole numbers, which any checkpoint of a trainer can hold.

use std::path::PathBuf;

use prosampler::State;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::raise;

/// `State::skip`.
#[pyfunction]
#[pyo3(name = "skip_mini_batches")]
pub fn skip<'py>(py: Python<'py>, state: &Bound<'py, PyDict>, mini_batches: u64) -> PyResult<Bound<'py, PyDict>> {
    write(py, &read(state)?.skip(mini_batches))
}

/// `State::newest_kept`; `None` too if the folder cannot be read, which the start of a run says.
#[pyfunction]
pub fn newest_kept_state(py: Python<'_>, dir: PathBuf) -> PyResult<Option<Bound<'_, PyDict>>> {
    State::newest_kept(dir).ok().flatten().map(|state| write(py, &state)).transpose()
}

pub fn write<'py>(py: Python<'py>, state: &State) -> PyResult<Bound<'py, PyDict>> {
    let text = serde_json::to_string(state).map_err(|e| raise(py, "StateError", &e.to_string()))?;
    Ok(py.import("json")?.call_method1("loads", (text,))?.cast_into::<PyDict>()?)
}

pub fn read(dict: &Bound<'_, PyDict>) -> PyResult<State> {
    let py = dict.py();
    let refused = |reason: String| {
        let message = format!("cannot resume: this is no state ({reason}); give what stream.state() returned");
        raise(py, "StateError", &message)
    };
    let text = py.import("json")?.call_method1("dumps", (dict,)).map_err(|e| refused(e.to_string()))?;
    serde_json::from_str(text.extract::<&str>()?).map_err(|e| refused(e.to_string()))
}
