"""The ``prosampler`` command: that of the Rust crate, with the library of the installed ``onnxruntime``."""

import os
import signal
import sys

from ._prosampler import command
from .data import onnxruntime_library


def main() -> int:
    """Runs the command line of this process, and returns its exit status."""
    library = onnxruntime_library()
    if library is not None:
        os.environ["ORT_DYLIB_PATH"] = str(library)
    # Ctrl-C is the command's to hear: Python would hear it only after the command has ended.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return command(["prosampler", *sys.argv[1:]])
