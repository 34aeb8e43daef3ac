"""Standard output, copied to a file."""

import os
import sys
import time

from .files import mkdir_if_missing


class Logger:
    """Stands in for ``sys.stdout``: writes to it and to the file ``fpath``."""

    def __init__(self, fpath=None):
        self.console = sys.stdout
        self.file = None
        if fpath is not None:
            mkdir_if_missing(os.path.dirname(os.path.abspath(fpath)))
            # Line by line, so that a killed run leaves all it has said.
            self.file = open(fpath, "w", encoding="utf-8", buffering=1)  # noqa: SIM115

    def __del__(self):
        self.close()

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.close()

    def __getattr__(self, name):
        # isatty, encoding, fileno and the like are the console's.
        if name == "console":
            raise AttributeError(name)
        return getattr(self.console, name)

    def write(self, msg):
        self.console.write(msg)
        if self.file is not None:
            self.file.write(msg)

    def flush(self):
        self.console.flush()
        if self.file is not None:
            self.file.flush()

    def close(self):
        """Close the file; the console stays open."""
        file = self.__dict__.get("file")
        if file is not None:
            self.file = None
            file.close()


def setup_logger(output=None):
    """Copy standard output to ``output``: a .txt or .log file, or a folder, to its log.txt.

    A log that is already there stays; the new one gets the date behind its name.
    """
    if output is None:
        return
    fpath = output if output.endswith((".txt", ".log")) else os.path.join(output, "log.txt")
    if os.path.exists(fpath):
        fpath += time.strftime("-%Y-%m-%d-%H-%M-%S")
    sys.stdout = Logger(fpath)
