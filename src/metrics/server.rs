//! The server of a run that is watched.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Json};
use axum::{Router, routing::get};
use tokio::net::TcpListener;

use super::prometheus::{CONTENT_TYPE, exposition};
use super::status::Status;
use super::watched::Watched;
use crate::error::{Error, Result};
use crate::telemetry;

/// An address that is listened to.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// # Errors
    /// [`Error::System`] if the address is in use or is none of this machine.
    pub async fn bind(address: SocketAddr) -> Result<Self> {
        let failed = |cause: std::io::Error| {
            let cause = format!("{address}: {cause}; give metrics.address a free port of this machine");
            Error::System { action: "listen for those who watch the run", cause: cause.into() }
        };
        // A run that was ended a moment ago, and is started again, may not have let go of it yet.
        let mut listener = TcpListener::bind(address).await;
        for _ in 0..TRIES {
            match &listener {
                Err(cause) if cause.kind() == std::io::ErrorKind::AddrInUse => {}
                _ => break,
            }
            tokio::time::sleep(PAUSE).await;
            listener = TcpListener::bind(address).await;
        }
        let listener = listener.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until it is dropped.
    pub async fn serve(self, watched: Arc<Watched>) {
        telemetry::watchable(&self.address);
        let script = |text: &'static str| ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], text);
        let style = |text: &'static str| ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], text);
        let router = Router::new()
            .route("/", get(async || Html(include_str!("live/page.html"))))
            .route("/live.js", get(async move || script(include_str!("live/live.js"))))
            .route("/uplot.js", get(async move || script(include_str!("live/uPlot.iife.min.js"))))
            .route("/uplot.css", get(async move || style(include_str!("live/uPlot.min.css"))))
            .route("/style.css", get(async move || style(include_str!("../assets/style.css"))))
            .route("/status", get(status))
            .route("/metrics", get(metrics))
            .with_state(watched);
        if let Err(error) = axum::serve(self.listener, router).await {
            telemetry::not_watchable(&error);
        }
    }
}

/// How often an address in use is tried again, and after which time each.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(50);

async fn status(State(watched): State<Arc<Watched>>) -> Json<Status> {
    Json(Status::of(&watched))
}

async fn metrics(State(watched): State<Arc<Watched>>) -> axum::response::Response {
    match exposition(watched) {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
