//! Standard output and standard error, which may be a closed pipe or a full disk.

use std::fmt::Arguments;
use std::io::{Error as IoError, ErrorKind, Write};
use std::path::Path;

use tempfile::NamedTempFile;

use crate::{Error, Result};

/// Prints a line to standard output; the error is for the caller to return.
macro_rules! say {
    () => { $crate::cli::out::line(format_args!("")) };
    ($($text:tt)*) => { $crate::cli::out::line(format_args!($($text)*)) };
}

/// Prints a line to standard error.
macro_rules! note {
    ($($text:tt)*) => { $crate::cli::out::aside(format_args!($($text)*)) };
}

pub(super) fn line(text: Arguments<'_>) -> Result<()> {
    let written = writeln!(std::io::stdout(), "{text}");
    written.map_err(|cause| Error::Io { action: "write to", path: "standard output".into(), cause })
}

pub(super) fn aside(text: Arguments<'_>) {
    // Written in one piece, or two processes on one terminal would mix their lines. If that fails, there is no other
    // place to report it.
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}

/// A file beside `path`, which gets that name by `persist` when it is whole; with the permissions of any new file.
pub(super) fn unfinished(path: &Path) -> std::io::Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// Whether the reader of what is printed or written has closed its end.
pub(super) fn is_closed_pipe(error: &Error) -> bool {
    matches!(error, Error::Io { cause, .. } if cause.kind() == ErrorKind::BrokenPipe)
}

/// The system's own error, if Arrow only passes it on.
pub(super) fn system_error(error: arrow::error::ArrowError) -> IoError {
    match error {
        arrow::error::ArrowError::IoError(_, cause) => cause,
        other => IoError::other(other),
    }
}
