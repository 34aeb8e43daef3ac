"""Files that are either whole or absent, and short fingerprints of what they hold."""

import contextlib
import hashlib
import json
import math
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from core.errors import InputError, short


@contextlib.contextmanager
def atomic_write(
    path: str | os.PathLike[str], mode: str = "w", private: bool = False
) -> Iterator[IO[Any]]:
    """Open ``path`` for writing; it changes only when the block ends without an error.

    The bytes go to a temporary file beside it and are on the disk before the rename, so a reader
    or a killed run never meets half a file. ``mode`` is "w" (UTF-8) or "wb"; ``private`` makes a
    file that its user alone may read.

    Raises:
        OSError: the file cannot be written; the error names ``path``, whatever failed.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"
        )
        # newline="" keeps csv.writer's line ends as they are on every platform.
        text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
        with os.fdopen(handle, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if not private:  # a temporary file is
            os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError):
            _name(error, path)
        raise


def _name(error: OSError, path: Path) -> None:
    """Make an error name ``path``, unless it is about another place.

    A failed write (a full disk, say) names no file; a failed rename names the temporary one.
    """
    if error.filename is None:
        if not isinstance(error, BrokenPipeError):
            error.filename = str(path)
        return
    named = Path(os.fsdecode(error.filename))
    if named == path.parent or named in path.parents:
        error.strerror = f"{named} is not a folder that can be written to ({error.strerror})"
    elif named.parent != path.parent:
        return
    error.filename, error.filename2 = str(path), None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as readable JSON, atomically."""
    with atomic_write(path) as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file, strictly.

    Raises:
        InputError: the file is missing, is not UTF-8 or not JSON, has a key twice, a number that
            is not finite, half of a surrogate pair, or is nested too deeply.
    """
    path = Path(path)
    return parse_json(_text(path), path)


def parse_json(text: str, path: str | Path) -> Any:
    """As ``read_json``, of a text; ``path`` is for messages."""
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_float=_finite,
            parse_constant=_finite,
        )
        if "\\ud" in text.lower():  # only such an escape can leave half of a pair
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: cannot be read as JSON (line {error.lineno}, column {error.colno}: "
            f"{error.msg})"
        ) from None
    except RecursionError:
        raise InputError(f"{path}: cannot be read as JSON (nested too deeply)") from None
    except UnicodeEncodeError:
        raise InputError(
            f"{path}: contains half of a surrogate pair (\\ud800 to \\udfff), not a character"
        ) from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except ValueError as error:  # an integer of thousands of digits
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None
    return value


@contextlib.contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Hold a folder while a run writes it.

    Raises:
        InputError: another run holds it.
    """
    from filelock import FileLock, Timeout  # here: not every command locks a folder

    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"another run is writing {folder}; wait for it or stop it") from None
    try:
        yield
    finally:
        lock.release()


def check_place(path: Path, folder: bool = False) -> None:
    """Raise InputError where a file or folder stands in the way of a later output at ``path``.

    For commands that compute for a long time before they write.

    Args:
        folder: the output is a folder, else a file.
    """
    above = [path.absolute(), *path.absolute().parents][0 if folder else 1 :]
    there = next(place for place in above if place.exists())
    if not there.is_dir():
        wanted = "" if there == path.absolute() else f"{path} cannot be written: "
        raise InputError(f"{wanted}{there} is a file, and a folder is needed")
    if not folder and path.is_dir():
        raise InputError(f"{path} is a folder, and a file is needed")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error.reason})") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        repeated = next(key for key, count in Counter(k for k, _ in pairs).items() if count > 1)
        raise InputError(f"the key {short(repeated)} is there twice; keep one")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise InputError(f"the number {short(text)} is not finite")
    return number


def fingerprint(value: Any) -> str:
    """Twelve hexadecimal digits that change when ``value`` (bytes, or anything JSON holds) does."""
    if not isinstance(value, bytes):
        value = json.dumps(value, sort_keys=True, ensure_ascii=False).encode()
    return hashlib.sha256(value).hexdigest()[:12]


def slug(name: str, joined_by: str = "_") -> str:
    """``name`` in lower-case letters and digits, everything else replaced by ``joined_by``."""
    return re.sub(r"[^a-z0-9]+", joined_by, name.lower()).strip(joined_by)


def cache_folder(name: str) -> Path:
    """The folder ``name`` of this project below the user's cache ($XDG_CACHE_HOME or ~/.cache)."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "vip-for-dassl" / name
