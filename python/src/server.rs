//! A server of mini-batches in a Python process.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prosampler::config::PipelineConfig;
use prosampler::serve::{ServeOptions, Server, TlsFiles};
use prosampler::{Pipeline, PipelineBuilder, Result};
use pyo3::prelude::*;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::errors::{exception, raise};
use crate::pending::Pending;
use crate::source::Tables;
use crate::stream::{read_settings, runtime};

/// A pipeline that is served by threads of this process.
#[pyclass(frozen, module = "prosampler._prosampler")]
pub struct RawServer {
    address: String,
    running: Mutex<Option<Serving>>,
    process: u32,
}

struct Serving {
    runtime: Runtime,
    task: JoinHandle<Result<()>>,
    /// Dropped, it ends the server.
    end: oneshot::Sender<()>,
}

#[pymethods]
impl RawServer {
    /// Listens, and starts the pipeline. `read_data` returns a new reader of the rows; it is called whenever the run
    /// starts anew.
    #[staticmethod]
    #[pyo3(signature = (path, settings, read_data, runtime, *, address, token, tls, insecure))]
    #[expect(clippy::too_many_arguments, reason = "each is one of Python's keywords")]
    fn start(
        py: Python<'_>,
        path: Option<PathBuf>,
        settings: Vec<String>,
        read_data: Option<Py<PyAny>>,
        runtime: Option<PathBuf>,
        address: &str,
        token: Option<String>,
        tls: Option<(PathBuf, PathBuf)>,
        insecure: bool,
    ) -> PyResult<Self> {
        let data = read_data.map(|read| Data::new(py, read)).transpose()?;
        let has_rows = data.as_ref().is_some_and(|data| data.spent.has_rows());
        let mut config = read_settings(path, settings, has_rows).map_err(|e| exception(py, &e))?;
        config.encode.runtime = config.encode.runtime.or(runtime);
        let mut options = ServeOptions::default();
        options.address = parse_address(py, address)?;
        options.token = token.map(Into::into);
        options.tls = tls.map(|(certificate, key)| TlsFiles { certificate, key });
        options.insecure = insecure;
        let make = move || pipeline(&config, data.as_ref());

        let runtime = self::runtime(py)?;
        let server = match Pending::begin(runtime.handle(), Server::start(make, options)).wait(py) {
            Ok(server) => server,
            Err(error) => {
                runtime.shutdown_background();
                return Err(error);
            }
        };
        let address = server.address().to_string();
        let (end, ended) = oneshot::channel::<()>();
        let task = runtime.spawn(server.run(async { drop(ended.await) }));
        let running = Mutex::new(Some(Serving { runtime, task, end }));
        Ok(Self { address, running, process: std::process::id() })
    }

    /// Where it listens, `HOST:PORT`.
    #[getter]
    fn address(&self) -> &str {
        &self.address
    }

    /// Ends the server, and waits for its threads so many seconds at most. May be called again.
    fn close(&self, py: Python<'_>, seconds: f64) -> PyResult<()> {
        if self.process != std::process::id() {
            return Ok(());
        }
        let serving = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Serving { runtime, task, end }) = serving else { return Ok(()) };
        let patience = Duration::from_secs_f64(seconds);
        let ended = py.detach(|| {
            drop(end);
            let ended = runtime.block_on(async { timeout(patience, task).await });
            runtime.shutdown_timeout(patience);
            ended
        });
        match ended {
            Ok(Ok(Err(error))) => Err(exception(py, &error)),
            _ => Ok(()),
        }
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        let Some(serving) = self.running.get_mut().unwrap_or_else(PoisonError::into_inner).take() else { return };
        if self.process == std::process::id() {
            serving.runtime.shutdown_background();
        } else {
            // A fork has none of the threads that ending would wait for.
            std::mem::forget(serving);
        }
    }
}

/// Rows from Python, for one run after another.
struct Data {
    read: Py<PyAny>,
    /// What the first run reads.
    first: Mutex<Option<Tables>>,
    spent: Tables,
}

impl Data {
    fn new(py: Python<'_>, read: Py<PyAny>) -> PyResult<Self> {
        let tables = Tables::read(&read.bind(py).call0()?.extract()?)?;
        Ok(Self { read, spent: tables.to_spent(), first: Mutex::new(Some(tables)) })
    }

    fn tables(&self) -> Tables {
        let first = self.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        first.unwrap_or_else(|| {
            // An interpreter that ends has nothing to read any more.
            let again = Python::try_attach(|py| Tables::read(&self.read.bind(py).call0()?.extract()?));
            match again {
                Some(Ok(tables)) => tables,
                _ => self.spent.to_spent(),
            }
        })
    }
}

fn pipeline(config: &PipelineConfig, data: Option<&Data>) -> PipelineBuilder {
    let builder = Pipeline::from_config(config.clone());
    match data {
        Some(data) => data.tables().give_to(builder),
        None => builder,
    }
}

fn parse_address(py: Python<'_>, address: &str) -> PyResult<SocketAddr> {
    address.parse().map_err(|_| {
        let message = format!("address is `{address}`; give an IP address and a port, such as 127.0.0.1:8815");
        raise(py, "ConfigError", &message)
    })
}
