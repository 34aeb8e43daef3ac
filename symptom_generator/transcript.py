"""Every exchange with the model, one JSON line each: to go on from, to rebuild from, to read.

Kinds of lines, by their "record":

- "settings": what was asked for; the last such line counts.
- "exchange": one question and its answer. "outcome" is "accepted" or says what was wrong with it.
- "no pictures": the endpoint does not take pictures; the symptoms come from the text alone.
- "similarity": CLIP's matching of features and picture answers.

Pictures appear as fingerprints, never as bytes or names.
"""

import json
import os
from pathlib import Path

from core.errors import InputError


class Transcript:
    """The lines of one transcript; new ones are on the disk before the next question is asked."""

    def __init__(self, path, keep=True, fresh=False):
        """Read ``path`` if it exists, unless ``fresh``. ``keep=False`` never writes to it."""
        self.path, self.keep = Path(path), keep
        self.lines = []
        self._half_at = None  # where a line begins that a cut run left unfinished
        self._unended = False  # whether the last line lacks its end
        if self.path.exists() and not fresh:
            self._read()

    def _read(self):
        data, read = self.path.read_bytes(), 0
        for number, line in enumerate(data.splitlines(keepends=True), start=1):
            try:
                record = json.loads(line)
                if not isinstance(record, dict) or "record" not in record:
                    raise ValueError
            except ValueError:
                if not line.endswith(b"\n"):
                    self._half_at = read  # what it would have said is asked again
                    break
                raise InputError(
                    f"{self.path}: line {number} is no line of a transcript; "
                    "move the file away, or give --fresh to start over"
                ) from None
            self.lines.append(record)
            read += len(line)
            self._unended = not line.endswith(b"\n")

    @property
    def settings(self):
        """The settings of the last run, or None."""
        return next((r for r in reversed(self.lines) if r["record"] == "settings"), None)

    def find(self, kind, key):
        """The last line of ``kind`` for ``key`` that was accepted, or None."""
        for record in reversed(self.lines):
            if record["record"] == kind and record.get("key") == key:
                if record.get("outcome", "accepted") == "accepted":
                    return record
        return None

    def append(self, record):
        """Keep ``record``, on the disk too."""
        self.lines.append(record)
        if not self.keep:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(record, ensure_ascii=False).encode() + b"\n"
        with open(self.path, "ab") as file:
            if self._half_at is not None:
                file.truncate(self._half_at)
                self._half_at = None
            file.write(b"\n" * self._unended + line)
            file.flush()
            os.fsync(file.fileno())
        self._unended = False
