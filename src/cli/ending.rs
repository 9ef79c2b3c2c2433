//! How a command ends, and the exit status that says so.

use futures::TryStreamExt;
use futures::future::{BoxFuture, FutureExt};

use super::out::is_closed_pipe;
use crate::error::{EmbeddingError, TooFewError};
use crate::{Error, ErrorKind, Faults, MiniBatch, MiniBatchStream, Result};

/// How a command that did not fail has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Done,
    /// Ctrl-C.
    Interrupted,
    /// SIGTERM, as schedulers send it.
    Terminated,
    /// It has failed, and has printed why; with the status of the cause.
    Failed(u8),
}

impl Ending {
    /// What JSON calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Interrupted => "interrupted",
            Self::Terminated => "terminated",
            Self::Failed(_) => "failed",
        }
    }
}

/// What `--help` says about [`exit_code`].
pub(super) const EXIT_CODES: &str = "\
Exit status:
  0    done
  1    failed for another reason than those below
  2    the command line is wrong
  3    no mini-batch can be made: too few rows, a filter that keeps none, or guards that keep all apart
  4    the settings are wrong: the pipeline file, --set, or a filter
  5    nothing is at a path or a uri, or the data cannot be read or do not fit their use
  6    a model, a tokenizer, ONNX Runtime or a device cannot be used
  7    a state cannot be resumed or kept
  8    the system refused: a file cannot be opened or written, a disk is full
  130  ended early by Ctrl-C
  141  nobody reads the output any more
  143  ended early by SIGTERM";

/// The exit status of a command; prints its error, if there is one.
pub(super) fn exit_code(result: &Result<Ending>) -> u8 {
    match result {
        Ok(Ending::Done) => 0,
        Ok(Ending::Interrupted) => signal_exit_code(2),
        Ok(Ending::Terminated) => signal_exit_code(15),
        Ok(Ending::Failed(status)) => *status,
        Err(error) if is_closed_pipe(error) => signal_exit_code(13),
        Err(error) => {
            note!("error: {error}");
            status(error)
        }
    }
}

/// The exit status of an error, by its cause.
pub(super) fn status(error: &Error) -> u8 {
    match error {
        Error::TooFew(TooFewError::Samples { .. } | TooFewError::NoMiniBatch { .. }) => 3,
        Error::Config(faults) if faults.origin == Faults::COMMAND_LINE => 2,
        // The encoder works, and this row is at fault.
        Error::Embedding(EmbeddingError::BadSample { .. }) => 5,
        // Without a wildcard, so that a new kind does not compile without its status.
        other => match other.kind() {
            ErrorKind::Config => 4,
            ErrorKind::Source | ErrorKind::NotFound => 5,
            ErrorKind::Model | ErrorKind::OnnxRuntime | ErrorKind::Encode => 6,
            ErrorKind::State => 7,
            ErrorKind::File => SYSTEM,
            ErrorKind::Argument | ErrorKind::Refresh | ErrorKind::Server | ErrorKind::TaskDied => 1,
        },
    }
}

/// The exit status of what the system refuses.
pub(super) const SYSTEM: u8 = 8;

/// The exit status of a shell for a process that a signal has ended.
fn signal_exit_code(signal: u8) -> u8 {
    128 + signal
}

/// Takes mini-batches until the stream ends or the user ends the command.
pub(super) struct UntilEnded {
    early: BoxFuture<'static, Result<Ending>>,
    /// How it has ended so far.
    pub ending: Ending,
}

impl UntilEnded {
    pub fn new() -> Self {
        Self { early: early_end().boxed(), ending: Ending::Done }
    }

    /// The next mini-batch; `None` at the end, of which `ending` then says how it came.
    pub async fn next(&mut self, stream: &mut MiniBatchStream) -> Result<Option<MiniBatch>> {
        tokio::select! {
            // Polled first, since a stream that always has a mini-batch ready would keep it from being heard.
            biased;
            early = &mut self.early => {
                self.ending = early?;
                Ok(None)
            }
            next = stream.try_next() => next,
        }
    }
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
