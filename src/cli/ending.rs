//! How a command ends, and the exit status that says so.

use std::process::ExitCode;

use super::out::is_closed_pipe;
use crate::error::TooFewError;
use crate::{Error, Result};

/// How a command that did not fail has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Done,
    /// Ctrl-C.
    Interrupted,
    /// SIGTERM, as schedulers send it.
    Terminated,
}

/// What `--help` says about [`exit_code`].
pub(super) const EXIT_CODES: &str = "\
Exit status:
  0    done
  1    failed; the error is on standard error
  2    the command line is wrong
  3    no mini-batch can be made: too few rows, a filter that keeps none, or guards that keep all apart
  130  ended early by Ctrl-C
  141  nobody reads the output any more
  143  ended early by SIGTERM";

/// The exit status of a command; prints its error, if there is one.
pub(super) fn exit_code(result: &Result<Ending>) -> ExitCode {
    match result {
        Ok(Ending::Done) => ExitCode::SUCCESS,
        Ok(Ending::Interrupted) => signal_exit_code(2),
        Ok(Ending::Terminated) => signal_exit_code(15),
        Err(error) if is_closed_pipe(error) => signal_exit_code(13),
        Err(error) => {
            note!("error: {error}");
            match error {
                Error::TooFew(TooFewError::Samples { .. } | TooFewError::NoMiniBatch { .. }) => ExitCode::from(3),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// The exit status of a shell for a process that a signal has ended.
fn signal_exit_code(signal: u8) -> ExitCode {
    ExitCode::from(128 + signal)
}

/// Waits for Ctrl-C or SIGTERM.
pub(super) async fn early_end() -> Result<Ending> {
    let failed = |cause: std::io::Error| Error::System { action: "listen for Ctrl-C and SIGTERM", cause: cause.into() };
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        tokio::select! {
            interrupt = tokio::signal::ctrl_c() => interrupt.map(|()| Ending::Interrupted).map_err(failed),
            _ = terminate.recv() => Ok(Ending::Terminated),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await.map(|()| Ending::Interrupted).map_err(failed)
}
