//! Accepts so many connections at a time and no more.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// A connection, which counts as one until it is dropped.
pub(super) struct Accepted {
    stream: TcpStream,
    _permit: OwnedSemaphorePermit,
}

/// The connections of a listener, at most `most` at a time; further ones wait in the system's queue.
pub(super) fn accepted(listener: TcpListener, most: usize) -> impl Stream<Item = io::Result<Accepted>> {
    let permits = Arc::new(Semaphore::new(most));
    futures::stream::unfold((listener, permits), |(listener, permits)| async {
        // The semaphore is never closed.
        let permit = permits.clone().acquire_owned().await.ok()?;
        let accepted = listener.accept().await.map(|(stream, _)| {
            // Small messages, such as credits, should not wait for more; if that cannot be set, they do.
            let _ = stream.set_nodelay(true);
            Accepted { stream, _permit: permit }
        });
        Some((accepted, (listener, permits)))
    })
}

impl Connected for Accepted {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
