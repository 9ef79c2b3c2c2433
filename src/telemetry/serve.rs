//! Events of serving.

use std::fmt::Display;

use tracing::{info, warn};

pub(crate) fn serving(address: &dyn Display, token: bool, tls: bool) {
    info!(%address, token, tls, "serving mini-batches");
}

pub(crate) fn rank_joined(rank: usize, step: u64) {
    info!(rank, step, "a rank has joined");
}

pub(crate) fn rank_left(rank: usize, step: u64) {
    info!(rank, step, "a rank has left");
}

pub(crate) fn run_restarted(step: u64, left_out: u64) {
    info!(step, left_out, "the run goes on from a kept state");
}

pub(crate) fn ranks_late(late: &[usize], step: u64) {
    warn!(?late, step, "the other ranks wait for these to take their mini-batches");
}

pub(crate) fn server_silent(uri: &str, seconds: u64) {
    warn!(uri, seconds, "waiting for the server, which is there and answers once its samples are embedded");
}

pub(crate) fn reconnecting(uri: &str, attempt: u32, reason: &dyn Display) {
    warn!(uri, attempt, %reason, "there is no connection to the server; trying again");
}
