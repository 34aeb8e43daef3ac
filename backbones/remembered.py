"""What was found in weights, remembered by their files' paths, sizes and modification times.

They are hashed once. A run that reads kept features does not build the image encoder either, the
next time that it starts from the same seed.
"""

import contextlib
import hashlib
import json
import stat
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from backbones.formats import Stated
from core.files import atomic_write, cache_folder

FORMAT = 2  # to be raised whenever the same key would no longer give the same content
MOST = 32  # states of the generator that a file of this cache knows


class Remembered:
    """One load of weights, from the state of PyTorch's generator that it begins with.

    Some formats draw weights before they read them, and what is learned starts behind these
    draws: the generator's state after the load is remembered too, for each state before it.

    Args:
        source: the file or folder of the weights; None where they are not on this machine yet.

    Attributes:
        fingerprint: of the weights; "" where they are not known.
        is_complete: whether the generator's state behind the load is known too.
    """

    def __init__(self, source: Path | None, stated: Stated) -> None:
        self._source, self._stated = source, stated
        self._before = hashlib.sha256(torch.get_rng_state().numpy().tobytes()).hexdigest()
        self._key = self._key_now()
        self.fingerprint, self._states = self._read()
        self.is_complete = self._before in self._states

    @property
    def is_current(self) -> bool:
        """Whether the files are still those that were found at first."""
        return self._key_now() == self._key

    def restore_random_state(self) -> None:
        """Set the generator as a whole load would leave it."""
        after = bytearray.fromhex(self._states[self._before])
        torch.set_rng_state(torch.frombuffer(after, dtype=torch.uint8))

    def write(self, fingerprint: str) -> None:
        """Remember a load that has just ended; does nothing where the cache cannot be written."""
        if not self._key or not self.is_current:
            return
        self._states[self._before] = torch.get_rng_state().numpy().tobytes().hex()
        states = dict([*self._states.items()][-MOST:])
        with contextlib.suppress(OSError), atomic_write(self._file) as file:
            json.dump({"fingerprint": fingerprint, "random_states": states}, file)

    def _read(self) -> tuple[str, dict[str, str]]:
        if self._key:
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                content = json.loads(self._file.read_text(encoding="utf-8"))
                return content["fingerprint"], dict(content["random_states"])
        return "", {}

    @property
    def _file(self) -> Path:
        return cache_folder("weights") / f"{self._key}.json"

    def _key_now(self) -> str:
        """What the result follows from; "" where the files cannot be asked."""
        files = file_states(self._source)
        if not files:
            return ""
        key: dict[str, Any] = {
            "format": FORMAT,
            "files": files,
            "stated": asdict(self._stated),
            "torch": metadata.version("torch"),
        }
        return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def file_states(source: Path | None) -> list[tuple[str, int, int]]:
    """Real path, size and modification time of a file, or of each file in a folder.

    Empty where there is none, or where one cannot be asked.
    """
    if source is None:
        return []
    source = source.expanduser()
    try:
        paths = sorted(source.iterdir()) if source.is_dir() else [source]
        states = [(path, path.stat()) for path in paths]
    except OSError:
        return []
    files = [(path, state) for path, state in states if stat.S_ISREG(state.st_mode)]
    return [(str(path.resolve()), state.st_size, state.st_mtime_ns) for path, state in files]
