//! "Here is a pipeline, give its mini-batches to trainers elsewhere."
//!
//! A [`Server`] runs one pipeline and serves it over Arrow Flight (HTTP/2); all ranks of a training share its
//! mini-batches, each of which is made once. [`RemoteStream`] is the client: the same `Stream` of
//! [`MiniBatch`](crate::MiniBatch) as in process. Any Flight client can read it too: docs/serve.md has the messages.
//!
//! **Backpressure is exact.** A trainer gives credits, each for one mini-batch, and nothing is made ahead of them but
//! `stream.prefetch`. **Nothing is lost or repeated** where a connection breaks: a mini-batch is held until every rank
//! has taken it, and a rank that comes back names the state that it goes on from.
//!
//! No path and no setting comes from a client. A server listens on the machine itself unless it is told otherwise;
//! then it needs a token and TLS.

mod accept;
mod channel;
mod client;
mod exchange;
mod frames;
mod job;
mod messages;
mod options;
mod pump;
mod remote_handle;
mod server;
mod service;
mod session;
mod token;

pub use self::client::{RemoteOptions, RemoteStream};
pub use self::messages::{Credits, Facts, RefreshResult, RunStatus, Ticket};
pub use self::options::{ServeOptions, TlsFiles};
pub use self::remote_handle::RemoteHandle;
pub use self::server::Server;
pub use self::token::Token;
