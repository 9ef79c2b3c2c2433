//! Errors from what several places have at hand.

use std::path::Path;

use tokio::task::JoinError;

use super::{Cause, Error, ModelError};
use crate::panics;

impl Error {
    /// A [`Device`](crate::graph::Device) has no memory for what it is given; `cause` is its own reason.
    ///
    /// A graph's build then tries smaller parts, as long as there are any.
    pub fn device_out_of_memory(device: impl Into<String>, cause: impl Into<Cause>) -> Self {
        ModelError::OutOfMemory {
            what: device.into(),
            task: "while it builds the graph",
            remedy: "set graph.device = \"cpu\"",
            cause: cause.into(),
        }
        .into()
    }

    /// A model has no memory for a batch, be it of a single sample.
    #[cfg_attr(not(feature = "onnx"), allow(dead_code, reason = "there are no models then"))]
    pub(crate) fn model_out_of_memory(model: &Path, cause: Cause) -> Self {
        ModelError::OutOfMemory {
            what: format!("model `{}`", model.display()),
            task: "on a single sample",
            remedy: "cut samples shorter",
            cause,
        }
        .into()
    }

    /// A source with more rows than a [`SampleId`](crate::SampleId) can name.
    pub(crate) fn too_many_samples(uri: &str) -> Self {
        let most = u32::MAX;
        let reason = format!("it has more than {most} rows, the most that a sample id can name; split the data set");
        Self::UnsupportedSource { uri: uri.to_owned(), reason }
    }

    /// A task of this name did not return: it panicked, or its runtime was shut down.
    #[doc(hidden)]
    #[must_use]
    pub fn of_task(task: &'static str, error: JoinError) -> Self {
        match error.try_into_panic() {
            Ok(panic) => Self::TaskDied { task, message: panics::message(panic.as_ref()) },
            Err(_) => Self::TaskEnded { task },
        }
    }
}
