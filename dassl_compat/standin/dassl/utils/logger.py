"""Standard output, copied to a file."""

import os
import sys
import time
from typing import Any


class Logger:
    """Takes the place of ``sys.stdout``: writes to it and to the file ``fpath``."""

    def __init__(self, fpath: str) -> None:
        self.console = sys.stdout
        os.makedirs(os.path.dirname(os.path.abspath(fpath)), exist_ok=True)
        # Line by line, so that a killed run leaves all that it printed.
        self.file = open(fpath, "w", encoding="utf-8", buffering=1)

    def __getattr__(self, name: str) -> Any:
        # isatty, encoding, fileno and the like are the console's.
        if name == "console":
            raise AttributeError(name)
        return getattr(self.console, name)

    def write(self, msg: str) -> None:
        self.console.write(msg)
        self.file.write(msg)

    def flush(self) -> None:
        self.console.flush()
        self.file.flush()


def setup_logger(output: str | None = None) -> None:
    """Copy standard output to ``output``: a .txt or .log file, or a folder, to its log.txt.

    A log that is already there stays; the new one gets the date after its name.
    """
    if output is None:
        return
    fpath = output if output.endswith((".txt", ".log")) else os.path.join(output, "log.txt")
    if os.path.exists(fpath):
        fpath += time.strftime("-%Y-%m-%d-%H-%M-%S")
    sys.stdout = Logger(fpath)  # type: ignore[assignment]
