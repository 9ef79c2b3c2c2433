"""What can go wrong: one tree of exceptions, with the messages of the Rust library."""


class Error(Exception):
    """The root: everything that prosampler raises of its own."""


class ConfigError(Error, ValueError):
    """Settings that cannot be used; the message lists all faults at once."""


class SourceError(Error):
    """Rows that cannot be read, or do not fit their use: damaged files, missing columns, nulls, too few samples, or
    none that guards let come together."""


class NotFoundError(Error, FileNotFoundError):
    """Nothing is at the uri or path of a source, a model or a pipeline file."""


class FileError(Error, OSError):
    """The operating system refused to read or write a file, or to start threads."""


class OnnxRuntimeError(Error):
    """ONNX Runtime's shared library, or the device that is to build the graph, is missing or of no use."""


class ModelError(Error):
    """A model or tokenizer that cannot be opened, has too little memory, or does not fit its use."""


class EncodeError(Error):
    """An encoder failed on some rows, or gave vectors that are of no use."""


class ExportError(Error):
    """A model that cannot be exported, or whose export does not do what the model does."""


class ArgumentError(Error, ValueError):
    """Vectors or ids that do not fit the run."""


class StateError(Error):
    """A state that cannot be resumed."""


class RankError(Error):
    """Ranks that share mini-batches draw different ones; the message says how they differ."""


class RefreshError(Error):
    """A refresh failed, or was cancelled; the run goes on with the graph before."""


class ServerError(Error):
    """A server of mini-batches refused, or could not be reached."""


class TaskDiedError(Error):
    """A background task ended before its work was done; the message says whether that is a defect to report."""


class ForkError(Error, RuntimeError):
    """A stream was used in a fork of the process that started it."""


class ClosedError(Error, RuntimeError):
    """A stream was used after its end."""
