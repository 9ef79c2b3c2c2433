//! A run that is watched from the first stage of its start on.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinSet;

use crate::config::PipelineConfig;
use crate::error::Result;
use crate::metrics::{Listener, Watched};
use crate::progress::ProgressSink;
use crate::refresh::RefreshHandle;
use crate::stream::{Course, WatchedCourse};

/// The server of a run. Dropped, it ends.
pub(super) struct Watching {
    watched: Arc<Watched>,
    address: SocketAddr,
    server: JoinSet<()>,
}

impl Watching {
    /// Listens if `metrics.address` says so. `progress` then passes by what is watched.
    pub async fn begin(
        config: &PipelineConfig,
        ranks: usize,
        progress: ProgressSink,
    ) -> Result<(Option<Self>, ProgressSink)> {
        // One process for all ranks has no rank of its own.
        let rank = if ranks > 1 { config.stream.rank } else { 0 };
        let Some(address) = config.metrics.address else { return Ok((None, progress)) };
        let listener = Listener::bind(of_rank(address, rank)).await?;
        let address = listener.address();
        let watched = Arc::new(Watched::new());
        let mut server = JoinSet::new();
        server.spawn(listener.serve(watched.clone()));
        let watcher = watched.clone();
        let progress = progress.tee(move |progress| watcher.starts(progress));
        Ok((Some(Self { watched, address, server }), progress))
    }

    /// Tells of the stream from now on, for as long as `tasks` are there.
    pub fn go_on(self, course: Course, handle: RefreshHandle, tasks: &mut JoinSet<()>) -> WatchedCourse {
        let Self { watched, address, mut server } = self;
        let course = Arc::new(course);
        watched.streams(course.clone(), handle);
        tasks.spawn(async move { while server.join_next().await.is_some() {} });
        WatchedCourse { course, address }
    }
}

/// The address of one process of several.
fn of_rank(mut address: SocketAddr, rank: usize) -> SocketAddr {
    let port = usize::from(address.port());
    if port > 0 {
        // That there is such a port was checked with the settings.
        address.set_port(u16::try_from(port + rank).unwrap_or(u16::MAX));
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_have_ports_of_their_own() {
        let port = |text: &str, rank| of_rank(text.parse().unwrap(), rank).port();
        assert_eq!(port("127.0.0.1:9100", 0), 9100);
        assert_eq!(port("127.0.0.1:9100", 3), 9103);
        assert_eq!(port("127.0.0.1:0", 3), 0);
    }
}
