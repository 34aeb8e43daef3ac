"""Files that are either whole or absent, and short fingerprints of what they hold."""

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from core.errors import InputError, shortened


@contextlib.contextmanager
def atomic_write(path, mode="w"):
    """Open ``path`` for writing; it changes only when the block ends without an error.

    The bytes go to a temporary file beside it and are on the disk before the rename, so a reader
    or a killed run never meets half a file. ``mode`` is "w" (UTF-8) or "wb".
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        # newline="" keeps csv.writer's line ends as they are on every platform.
        text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
        with os.fdopen(handle, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path, value):
    """Write ``value`` as readable JSON, atomically."""
    with atomic_write(path) as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file in UTF-8, with or without a byte order mark.

    Raises:
        InputError: naming the file, whatever is wrong with it: missing, unreadable, not text, not
            JSON, nested too deeply, half of a surrogate pair in a text, a key twice in an object.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        value = json.loads(text, object_pairs_hook=lambda pairs: _unique(pairs, path))
        json.dumps(value, ensure_ascii=False).encode()
        return value
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not a text file in UTF-8") from None
    except UnicodeEncodeError:
        raise InputError(
            f"{path}: a text holds half of a surrogate pair (\\ud800 to \\udfff)"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except InputError:
        raise
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}: not JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    except ValueError as error:  # such as a number of 5,000 digits
        raise InputError(f"{path}: not JSON: {error}") from None
    except RecursionError:
        raise InputError(f"{path}: its brackets are nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]], path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InputError(f"{path}: {shortened(repr(key))} appears twice; keep one")
        found[key] = value
    return found


def fingerprint(value):
    """Twelve hexadecimal digits that change when ``value`` (bytes, or anything JSON holds) does."""
    if not isinstance(value, bytes):
        value = json.dumps(value, sort_keys=True, ensure_ascii=False).encode()
    return hashlib.sha256(value).hexdigest()[:12]
