//! Runs that a server has: `prosampler serve`.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use futures::FutureExt;
use prosampler::serve::{RemoteHandle, RemoteOptions, RemoteStream};
use prosampler::{SampleId, State};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::handle::Refreshed;
use crate::pending::Pending;
use crate::run::{Answer, Handle, Run, Status};
use crate::state;
use crate::stream::{RawStream, runtime};

/// Takes a rank's place in the run of a server, in the background.
#[pyfunction]
#[pyo3(signature = (uri, *, rank, world_size, prefetch, state, token, ca_certificate))]
#[expect(clippy::too_many_arguments, reason = "each is one of Python's keywords")]
pub fn connect(
    py: Python<'_>,
    uri: String,
    rank: usize,
    world_size: usize,
    prefetch: usize,
    state: Option<Bound<'_, PyDict>>,
    token: Option<String>,
    ca_certificate: Option<PathBuf>,
) -> PyResult<RawStream> {
    let mut options = RemoteOptions::default();
    options.rank = rank;
    options.world_size = world_size;
    options.prefetch = prefetch;
    options.state = state.as_ref().map(state::read).transpose()?;
    options.token = token.map(Into::into);
    options.ca_certificate = ca_certificate;
    let start = async move {
        let stream = RemoteStream::connect(&uri, options).await?;
        Ok(Box::new(stream) as Box<dyn Run>)
    };
    RawStream::begin(py, Arc::default(), start)
}

/// What a server says of its run, in which no rank's place is taken: samples in a mini-batch, whether short last ones
/// are left out, and mini-batches in an epoch.
#[pyfunction]
#[pyo3(signature = (uri, *, token, ca_certificate))]
pub fn served(
    py: Python<'_>,
    uri: String,
    token: Option<String>,
    ca_certificate: Option<PathBuf>,
) -> PyResult<(usize, bool, u64)> {
    let mut options = RemoteOptions::default();
    options.token = token.map(Into::into);
    options.ca_certificate = ca_certificate;
    let runtime = runtime(py)?;
    let status = async move { RemoteHandle::connect(&uri, &options).await?.status().await };
    let status = Pending::begin(runtime.handle(), status).wait(py);
    runtime.shutdown_background();
    let status = status?;
    Ok((status.batch_size, status.drop_last, status.mini_batches_per_epoch))
}

impl Run for RemoteStream {
    fn handle(&self) -> Arc<dyn Handle> {
        let handle = self.handle();
        Arc::new(Served { handle, dimension: self.dimension(), has_checkpoints: self.has_checkpoints() })
    }

    fn schema(&self) -> SchemaRef {
        self.schema()
    }

    fn state(&self) -> State {
        self.state()
    }

    fn samples(&self) -> usize {
        self.samples()
    }

    fn mini_batches_per_epoch(&self) -> u64 {
        self.mini_batches_per_epoch()
    }
}

/// A server's handle, with what never changes in its run.
struct Served {
    handle: RemoteHandle,
    dimension: usize,
    has_checkpoints: bool,
}

impl Handle for Served {
    fn dimension(&self) -> usize {
        self.dimension
    }

    fn has_checkpoints(&self) -> bool {
        self.has_checkpoints
    }

    fn refresh(&self) -> Answer<Refreshed> {
        let handle = self.handle.clone();
        async move {
            let done = handle.refresh_now().await?;
            Ok(Refreshed {
                graph_version: done.graph_version,
                model_version: done.model_version,
                skipped: done.skipped,
                drift: done.drift,
                added: done.added,
                pushed: done.pushed,
                seconds: done.seconds,
            })
        }
        .boxed()
    }

    fn push_embeddings(&self, ids: Vec<SampleId>, vectors: Vec<f32>) -> Answer<()> {
        let handle = self.handle.clone();
        async move { handle.push_embeddings(&ids, &vectors).await }.boxed()
    }

    fn push_losses(&self, ids: Vec<SampleId>, losses: Vec<f32>) -> Answer<()> {
        let handle = self.handle.clone();
        async move { handle.push_losses(&ids, &losses).await }.boxed()
    }

    fn keep(&self, state: State) -> Answer<()> {
        let handle = self.handle.clone();
        async move { handle.keep(&state).await }.boxed()
    }

    fn neighbors(&self, sample: SampleId) -> Answer<Vec<(SampleId, f32)>> {
        let handle = self.handle.clone();
        async move { handle.neighbors(sample).await }.boxed()
    }

    fn pair_similarity(&self, sample: SampleId) -> Answer<Option<f32>> {
        let handle = self.handle.clone();
        async move { handle.pair_similarity(sample).await }.boxed()
    }

    fn status(&self) -> Answer<Status> {
        let handle = self.handle.clone();
        async move {
            let status = handle.status().await?;
            Ok(Status {
                graph_version: status.graph_version,
                model_version: status.model_version,
                refreshes: status.refreshes,
            })
        }
        .boxed()
    }
}
