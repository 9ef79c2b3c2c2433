//! What kinds of errors there are, by cause, and which error is of which.

use super::Error;

/// The cause of an [`Error`], and so who can mend it.
///
/// In Python each kind is a class of `prosampler.errors`, whose name is the kind's with `Error` behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The settings, or a filter: whoever wrote them.
    Config,
    /// The rows: they cannot be read, or do not fit their use.
    Source,
    /// Nothing is at a uri or a path.
    NotFound,
    /// The operating system refused: a file, a thread, a signal.
    File,
    /// ONNX Runtime's library, or a device that is to build the graph.
    OnnxRuntime,
    /// A model or a tokenizer: it cannot be opened or run, has too little memory, or does not fit its use.
    Model,
    /// An encoder failed on some rows, or made vectors that are of no use.
    Encode,
    /// Vectors or ids that the caller gave.
    Argument,
    /// A state that cannot be resumed, or kept.
    State,
    /// A refresh failed or was cancelled; the stream goes on with the graph before.
    Refresh,
    /// A server of mini-batches refused, or could not be reached.
    Server,
    /// A background task ended before its work was done: it panicked, which is a defect of this crate, or its runtime
    /// was shut down.
    TaskDied,
}

impl ErrorKind {
    /// The kind's name, as in Python's class `ConfigError` for `Config`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Config => "Config",
            Self::Source => "Source",
            Self::NotFound => "NotFound",
            Self::File => "File",
            Self::OnnxRuntime => "OnnxRuntime",
            Self::Model => "Model",
            Self::Encode => "Encode",
            Self::Argument => "Argument",
            Self::State => "State",
            Self::Refresh => "Refresh",
            Self::Server => "Server",
            Self::TaskDied => "TaskDied",
        }
    }
}

impl Error {
    /// The cause, and so who can mend it.
    ///
    /// ```
    /// use prosampler::{ErrorKind, PipelineConfig};
    ///
    /// let error = PipelineConfig::from_toml("graph.neighbours = 50").unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Config);
    /// ```
    // Without a wildcard, so that a new variant does not compile without its kind. All errors of a nested enum are of
    // one kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Config(_) | Self::Filter { .. } => ErrorKind::Config,
            Self::UnsupportedSource { .. }
            | Self::Corrupt { .. }
            | Self::Damaged { .. }
            | Self::SourceChanged { .. }
            | Self::Remote { .. }
            | Self::TooFew(_)
            | Self::Column(_)
            | Self::RowCount { .. }
            | Self::Arrow { .. } => ErrorKind::Source,
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Io { .. } | Self::System { .. } => ErrorKind::File,
            Self::OnnxRuntime(_) => ErrorKind::OnnxRuntime,
            Self::Model(_) => ErrorKind::Model,
            Self::Embedding(_) | Self::Encode { .. } => ErrorKind::Encode,
            Self::Argument(_) => ErrorKind::Argument,
            Self::State { .. } => ErrorKind::State,
            Self::Refresh { .. } | Self::Cancelled => ErrorKind::Refresh,
            Self::Server { .. } => ErrorKind::Server,
            Self::TaskDied { .. } | Self::TaskEnded { .. } => ErrorKind::TaskDied,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kind. The match makes a new one come here, and then into the list.
    fn all() -> Vec<ErrorKind> {
        use ErrorKind::*;
        let all = vec![
            Config,
            Source,
            NotFound,
            File,
            OnnxRuntime,
            Model,
            Encode,
            Argument,
            State,
            Refresh,
            Server,
            TaskDied,
        ];
        for kind in &all {
            match kind {
                Config | Source | NotFound | File | OnnxRuntime | Model | Encode | Argument | State | Refresh
                | Server | TaskDied => {}
            }
        }
        all
    }

    #[test]
    fn kinds_are_the_classes_of_python() {
        /// Classes of what only the Python package does.
        const OF_PYTHON: [&str; 4] = ["Export", "Fork", "Closed", "Rank"];
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/python/prosampler/errors.py");
        let text = std::fs::read_to_string(file).unwrap();
        let class = |line: &str| {
            let (name, _) = line.strip_prefix("class ")?.split_once("Error(")?;
            (!name.is_empty()).then(|| name.to_owned())
        };
        let mut classes: Vec<_> = text.lines().filter_map(class).collect();
        let mut kinds: Vec<_> = all().into_iter().map(ErrorKind::name).chain(OF_PYTHON).collect();
        classes.sort_unstable();
        kinds.sort_unstable();
        assert_eq!(classes, kinds);
    }
}
