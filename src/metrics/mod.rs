//! "Here is a run, let me watch it."
//!
//! While a run starts and streams, a small server tells how it goes: people by a page, Prometheus by `/metrics`, and
//! programs by `/status`, in JSON. It reads counts and changes nothing. `docs/metrics.md` lists the names.

mod prometheus;
mod server;
mod status;
mod watched;

pub(crate) use self::server::Listener;
pub(crate) use self::watched::Watched;
