use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt;
use prosampler::config::PipelineConfig;
use prosampler::{Pipeline, Progress, Result, State};
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::errors::{exception, raise};
use crate::handle::RefreshHandle;
use crate::interchange::of_schema;
use crate::mini_batch::MiniBatch;
use crate::pending::TURN;
use crate::run::{Handle, Run};
use crate::source::{Given, Tables};
use crate::state;

/// A run, here or on a server, in small steps: `prosampler.Stream` puts them together. Every wait ends after the given
/// seconds, so that Python can hear Ctrl-C, and lets other Python threads run meanwhile.
#[pyclass(frozen, module = "prosampler._prosampler")]
pub struct RawStream {
    running: Mutex<Option<Arc<Running>>>,
    /// Threads do not survive a fork, so the stream is of use in the process that started it only.
    process: u32,
}

struct Running {
    phase: Arc<tokio::sync::Mutex<Phase>>,
    started: OnceLock<Started>,
    /// The latest of each stage since somebody looked.
    progress: Arc<Mutex<Vec<Progress>>>,
    /// Read while someone waits on it, written to end it.
    runtime: RwLock<Option<Runtime>>,
    spawner: tokio::runtime::Handle,
}

/// What is fixed once it runs.
struct Started {
    handle: Arc<dyn Handle>,
    schema: arrow::datatypes::SchemaRef,
}

enum Phase {
    Starting(JoinHandle<Result<Box<dyn Run>>>),
    Running(Box<Live>),
    Failed,
}

struct Live {
    stream: Box<dyn Run>,
    /// The next mini-batch, or the end, and the state before it.
    next: Option<(Option<Result<prosampler::MiniBatch>>, State)>,
}

impl Phase {
    /// Waits until it runs, or why it does not. May be dropped at any await.
    async fn start(&mut self) -> Result<()> {
        let Self::Starting(task) = self else { return Ok(()) };
        let started = task.await;
        *self = Self::Failed;
        let died = |e| prosampler::Error::of_task("start", e);
        *self = Self::Running(Box::new(Live { stream: started.map_err(died)??, next: None }));
        Ok(())
    }

    /// Waits until the next mini-batch is there. May be dropped at any await.
    async fn ready(&mut self) -> Result<()> {
        self.start().await?;
        if let Self::Running(live) = self
            && live.next.is_none()
        {
            let before = live.stream.state();
            live.next = Some((live.stream.next().await, before));
        }
        Ok(())
    }
}

/// Refuses settings that no run could begin with. Those that adapters ask for: `walk.batch_size`, `walk.drop_last` and
/// `checkpoint.dir`.
#[pyfunction]
#[pyo3(signature = (path, settings, has_data))]
pub fn check_settings(
    py: Python<'_>,
    path: Option<PathBuf>,
    settings: Vec<String>,
    has_data: bool,
) -> PyResult<(usize, bool, Option<PathBuf>)> {
    let config = read_settings(path, settings, has_data).map_err(|e| exception(py, &e))?;
    Ok((config.walk.batch_size, config.walk.drop_last, config.checkpoint.dir))
}

pub fn read_settings(path: Option<PathBuf>, mut settings: Vec<String>, has_data: bool) -> Result<PipelineConfig> {
    let names_sources = settings.iter().any(|line| line.starts_with("sources="));
    if has_data && !names_sources {
        // What is required of settings alone; `data` takes its place.
        settings.push("source.uri='data'".into());
    }
    match path {
        Some(path) => PipelineConfig::from_file_with(path, &settings),
        None => PipelineConfig::from_settings(&settings),
    }
}

#[pymethods]
impl RawStream {
    /// Starts a pipeline in the background.
    #[staticmethod]
    #[pyo3(signature = (path, settings, data, state, runtime))]
    fn open(
        py: Python<'_>,
        path: Option<PathBuf>,
        settings: Vec<String>,
        data: Given<'_>,
        state: Option<Bound<'_, PyDict>>,
        runtime: Option<PathBuf>,
    ) -> PyResult<Self> {
        let mut config = read_settings(path, settings, data.0.is_some()).map_err(|e| exception(py, &e))?;
        config.encode.runtime = config.encode.runtime.or(runtime);
        let tables = Tables::read(&data)?;
        let state = state.as_ref().map(state::read).transpose()?;
        let progress = Arc::new(Mutex::new(Vec::<Progress>::new()));
        let heard = progress.clone();
        let start = async move {
            let builder = Pipeline::from_config(config).on_progress(move |p| {
                let mut unseen = heard.lock().unwrap_or_else(PoisonError::into_inner);
                unseen.retain(|before| before.stage != p.stage);
                unseen.push(p);
            });
            let mut builder = tables.give_to(builder);
            if let Some(state) = state {
                builder = builder.resume(state);
            }
            Ok(Box::new(builder.start().await?) as Box<dyn Run>)
        };
        Self::begin(py, progress, start)
    }

    /// Waits for so many seconds at most; whether it has started.
    fn poll_start(&self, py: Python<'_>, seconds: f64) -> PyResult<bool> {
        let running = self.running(py)?;
        if running.started.get().is_some() {
            return Ok(true);
        }
        let started = running.wait(py, seconds, async |phase: &mut Phase| {
            phase.start().await?;
            Ok(match phase {
                Phase::Running(live) => Some(Started { handle: live.stream.handle(), schema: live.stream.schema() }),
                _ => None,
            })
        })?;
        if let Some(Some(started)) = started {
            // Another thread may have been first, with the same.
            let _ = running.started.set(started);
        }
        Ok(running.started.get().is_some())
    }

    /// How far the start has come since the last call, for each stage that moved: its name, samples done, samples in
    /// all where known.
    fn progress(&self, py: Python<'_>) -> PyResult<Vec<(&'static str, usize, Option<usize>)>> {
        let running = self.running(py)?;
        let unseen = std::mem::take(&mut *running.progress.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(unseen.into_iter().map(|p| (p.stage.name(), p.done, p.total)).collect())
    }

    /// Waits for so many seconds at most; whether the next mini-batch, or the end, is there.
    fn poll(&self, py: Python<'_>, seconds: f64) -> PyResult<bool> {
        let ready = self.running(py)?.wait(py, seconds, async |phase: &mut Phase| phase.ready().await)?;
        Ok(ready.is_some())
    }

    /// Calls `callback`, without arguments and from another thread, once the next mini-batch, or the end, is there.
    fn notify(&self, py: Python<'_>, callback: Py<PyAny>) -> PyResult<()> {
        let running = self.running(py)?;
        let phase = running.phase.clone();
        running.spawner.spawn(async move {
            // The lock is let go now and then for whoever asks for the state. An error stays for `poll` to find.
            while timeout(TURN, async { phase.lock().await.ready().await }).await.is_err() {}
            // An interpreter or an event loop that is gone has no use for the call.
            let _ = tokio::task::spawn_blocking(move || {
                Python::try_attach(|py| callback.call0(py).map(drop).map_err(|_| ()))
            })
            .await;
        });
        Ok(())
    }

    /// The epoch of the mini-batch that is there; none where that is the end, or an error.
    fn next_epoch(&self, py: Python<'_>) -> PyResult<Option<u64>> {
        let running = self.running(py)?;
        let phase = py.detach(|| running.phase.blocking_lock());
        Ok(match &*phase {
            Phase::Running(live) => match &live.next {
                Some((Some(Ok(mini_batch)), _)) => Some(mini_batch.epoch),
                _ => None,
            },
            _ => None,
        })
    }

    /// The mini-batch that is there; none at the end.
    fn take(&self, py: Python<'_>) -> PyResult<Option<MiniBatch>> {
        let running = self.running(py)?;
        let mut phase = py.detach(|| running.phase.blocking_lock());
        let next = match &mut *phase {
            Phase::Running(live) => live.next.take(),
            _ => None,
        };
        match next {
            None | Some((None, _)) => Ok(None),
            Some((Some(Ok(mini_batch)), _)) => Ok(Some(MiniBatch::new(mini_batch))),
            Some((Some(Err(error)), _)) => Err(exception(py, &error)),
        }
    }

    /// Where the run stands: after the mini-batches that were taken.
    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let state = self.with_stream(py, |stream, before| before.cloned().unwrap_or_else(|| stream.state()))?;
        state::write(py, &state)
    }

    fn mini_batches_per_epoch(&self, py: Python<'_>) -> PyResult<u64> {
        self.with_stream(py, |stream, _| stream.mini_batches_per_epoch())
    }

    fn samples(&self, py: Python<'_>) -> PyResult<usize> {
        self.with_stream(py, |stream, _| stream.samples())
    }

    fn handle(&self, py: Python<'_>) -> PyResult<RefreshHandle> {
        let running = self.running(py)?;
        Ok(RefreshHandle::new(running.started(py)?.handle.clone(), running.spawner.clone()))
    }

    fn schema<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        of_schema(py, &self.running(py)?.started(py)?.schema)
    }

    fn column_names(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let running = self.running(py)?;
        let schema = &running.started(py)?.schema;
        Ok(schema.fields().iter().map(|field| field.name().clone()).collect())
    }

    /// Ends the run and waits for its threads, so many seconds at most. May be called again.
    fn close(&self, py: Python<'_>, seconds: f64) {
        if self.process != std::process::id() {
            return;
        }
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(running) = running {
            py.detach(|| running.end(Duration::from_secs_f64(seconds)));
        }
    }

    /// Whether `close` has been called.
    #[getter]
    fn closed(&self) -> bool {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

impl RawStream {
    /// Begins a start in the background; it may put how far it has come into `progress`.
    pub fn begin(
        py: Python<'_>,
        progress: Arc<Mutex<Vec<Progress>>>,
        start: impl Future<Output = Result<Box<dyn Run>>> + Send + 'static,
    ) -> PyResult<Self> {
        let runtime = runtime(py)?;
        let running = Running {
            phase: Arc::new(tokio::sync::Mutex::new(Phase::Starting(runtime.spawn(start)))),
            started: OnceLock::new(),
            progress,
            spawner: runtime.handle().clone(),
            runtime: RwLock::new(Some(runtime)),
        };
        Ok(Self { running: Mutex::new(Some(Arc::new(running))), process: std::process::id() })
    }

    fn running(&self, py: Python<'_>) -> PyResult<Arc<Running>> {
        refuse_forks(py, self.process)?;
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).clone();
        running.ok_or_else(|| closed(py))
    }

    fn with_stream<T: Send>(
        &self,
        py: Python<'_>,
        read: impl FnOnce(&dyn Run, Option<&State>) -> T + Send,
    ) -> PyResult<T> {
        let running = self.running(py)?;
        let found = py.detach(|| match &*running.phase.blocking_lock() {
            Phase::Running(live) => Some(read(&*live.stream, live.next.as_ref().map(|(_, before)| before))),
            _ => None,
        });
        found.ok_or_else(|| not_started(py))
    }
}

impl Running {
    /// Waits for `work` for so many seconds at most. It must bear being dropped at any await.
    fn wait<T: Send>(
        &self,
        py: Python<'_>,
        seconds: f64,
        work: impl AsyncFnOnce(&mut Phase) -> Result<T> + Send,
    ) -> PyResult<Option<T>> {
        let limit = Duration::from_secs_f64(seconds);
        let waited = py.detach(|| {
            let runtime = self.runtime.read().unwrap_or_else(PoisonError::into_inner);
            let work = async { timeout(limit, async { work(&mut *self.phase.lock().await).await }).await };
            runtime.as_ref().map(|runtime| runtime.block_on(work))
        });
        match waited {
            None => Err(closed(py)),
            Some(Ok(done)) => done.map(Some).map_err(|e| exception(py, &e)),
            Some(Err(_)) => Ok(None),
        }
    }

    fn started(&self, py: Python<'_>) -> PyResult<&Started> {
        self.started.get().ok_or_else(|| not_started(py))
    }

    fn end(&self, patience: Duration) {
        if let Some(runtime) = self.runtime.write().unwrap_or_else(PoisonError::into_inner).take() {
            runtime.shutdown_timeout(patience);
        }
    }
}

impl Drop for RawStream {
    fn drop(&mut self) {
        let Some(running) = self.running.get_mut().unwrap_or_else(PoisonError::into_inner).take() else { return };
        if self.process == std::process::id() {
            // Python's lock is held here, so nobody may be waited for; the threads end by themselves.
            running.end(Duration::ZERO);
        } else {
            // A fork has none of the threads that ending would wait for.
            std::mem::forget(running);
        }
    }
}

/// The threads of a stream or a server, whose events Python's `logging` gets.
pub fn runtime(py: Python<'_>) -> PyResult<Runtime> {
    crate::log::install();
    let runtime = Builder::new_multi_thread().worker_threads(2).thread_name("prosampler-io").enable_all().build();
    runtime
        .map_err(|e| raise(py, "FileError", &format!("the system refuses threads ({e}); free some, and start again")))
}

/// Refuses to use threads of `process` in a fork of it.
pub fn refuse_forks(py: Python<'_>, process: u32) -> PyResult<()> {
    let own = std::process::id();
    if own == process {
        return Ok(());
    }
    let message = format!(
        "this stream was started by process {process}, and process {own} is a fork of it, without its threads; start \
         the pipeline in the process that uses it, and use DataLoader with num_workers=0"
    );
    Err(raise(py, "ForkError", &message))
}

fn closed(py: Python<'_>) -> PyErr {
    raise(py, "ClosedError", "this stream is closed; start the pipeline again")
}

fn not_started(py: Python<'_>) -> PyErr {
    raise(py, "ClosedError", "this stream has not started, or its start has failed; start the pipeline again")
}
