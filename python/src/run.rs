//! What Python asks of a run and its refreshes, wherever it runs: here what it answers in this process.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream};
use prosampler::refresh::{RefreshCounts, RefreshHandle};
use prosampler::{MiniBatch, MiniBatchStream, Result, SampleId, State};

use crate::handle::Refreshed;

/// A run as its trainer sees it.
pub trait Run: Stream<Item = Result<MiniBatch>> + Send + Unpin {
    fn handle(&self) -> Arc<dyn Handle>;
    fn schema(&self) -> SchemaRef;
    fn state(&self) -> State;
    fn samples(&self) -> usize;
    fn mini_batches_per_epoch(&self) -> u64;
}

/// Controls the refreshes of a run.
pub trait Handle: Send + Sync {
    fn dimension(&self) -> usize;
    fn has_checkpoints(&self) -> bool;
    fn refresh(&self) -> Answer<Refreshed>;
    /// Vectors [ids × dimension], row-major.
    fn push_embeddings(&self, ids: Vec<SampleId>, vectors: Vec<f32>) -> Answer<()>;
    /// A loss for each sample.
    fn push_losses(&self, ids: Vec<SampleId>, losses: Vec<f32>) -> Answer<()>;
    fn keep(&self, state: State) -> Answer<()>;
    fn neighbors(&self, sample: SampleId) -> Answer<Vec<(SampleId, f32)>>;
    fn pair_similarity(&self, sample: SampleId) -> Answer<Option<f32>>;
    fn status(&self) -> Answer<Status>;
}

pub type Answer<T> = BoxFuture<'static, Result<T>>;

/// The newest graph, the model that made its embeddings, and how refreshes have ended.
pub struct Status {
    pub graph_version: Option<u64>,
    pub model_version: Option<u64>,
    pub refreshes: RefreshCounts,
}

impl Run for MiniBatchStream {
    fn handle(&self) -> Arc<dyn Handle> {
        Arc::new(self.handle())
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

impl Handle for RefreshHandle {
    fn dimension(&self) -> usize {
        self.dimension()
    }

    fn has_checkpoints(&self) -> bool {
        self.has_checkpoints()
    }

    fn refresh(&self) -> Answer<Refreshed> {
        let handle = self.clone();
        async move {
            let done = handle.refresh_now().await?;
            Ok(Refreshed {
                graph_version: done.graph_version.0,
                model_version: done.model_version.0,
                skipped: done.skipped,
                drift: done.drift.as_ref().map(|drift| drift.cosine_shift),
                added: done.added,
                pushed: done.pushed,
                seconds: done.seconds.total(),
            })
        }
        .boxed()
    }

    fn push_embeddings(&self, ids: Vec<SampleId>, vectors: Vec<f32>) -> Answer<()> {
        let handle = self.clone();
        async move { handle.push_embeddings(&ids, &vectors) }.boxed()
    }

    fn push_losses(&self, ids: Vec<SampleId>, losses: Vec<f32>) -> Answer<()> {
        let handle = self.clone();
        async move { handle.push_losses(&ids, &losses) }.boxed()
    }

    fn keep(&self, state: State) -> Answer<()> {
        let handle = self.clone();
        async move { handle.keep(&state).await }.boxed()
    }

    fn neighbors(&self, sample: SampleId) -> Answer<Vec<(SampleId, f32)>> {
        let handle = self.clone();
        async move { handle.neighbors(sample) }.boxed()
    }

    fn pair_similarity(&self, sample: SampleId) -> Answer<Option<f32>> {
        let handle = self.clone();
        async move { handle.pair_similarity(sample) }.boxed()
    }

    fn status(&self) -> Answer<Status> {
        let snapshot = self.snapshot();
        let status = Status {
            graph_version: snapshot.as_ref().map(|snapshot| snapshot.graph_version().0),
            model_version: snapshot.as_ref().map(|snapshot| snapshot.model_version().0),
            refreshes: self.counts(),
        };
        async { Ok(status) }.boxed()
    }
}
