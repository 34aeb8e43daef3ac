"""Salted hashes in place of identifiers of patients.

The salt is random, made once and kept in the user's cache folder, in a file that the user alone may
read. The same patient has the same hash in every dataset and run on this machine, and another one
elsewhere; without the salt no list of possible identifiers finds out whose it is.
"""

import functools
import hashlib
import re
import secrets

from filelock import FileLock

from core.files import atomic_write, cache_folder

_HASHED = "hash-"
_SALT = re.compile("[0-9a-f]{64}")


def hashed(identifier: str) -> str:
    """The salted hash of an identifier, "" of an empty one."""
    if not identifier:
        return ""
    # 64 bits: two of a million patients are taken for one with a chance of 3 in 100 million.
    digest = hashlib.blake2b(identifier.encode(), key=machine_salt(), digest_size=8)
    return _HASHED + digest.hexdigest()


def is_hashed(patient: str) -> bool:
    """Whether a patient is known by a hash of this machine alone."""
    return patient.startswith(_HASHED)


@functools.cache
def machine_salt() -> bytes:
    """32 secret bytes; where none can be kept, those of this process alone."""
    folder = cache_folder("salt")
    path = folder / "patients"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(folder / ".lock", mode=0o600):
            if path.exists():
                kept = path.read_text(encoding="ascii", errors="replace").strip()
                if _SALT.fullmatch(kept):
                    return bytes.fromhex(kept)
            made = secrets.token_hex(32)
            with atomic_write(path, private=True) as file:
                file.write(f"{made}\n")
    except (OSError, NotImplementedError):  # the second where no file can be locked
        return secrets.token_bytes(32)
    return bytes.fromhex(made)


def salt_name() -> str:
    """What tells whether a hash was made with this salt, and nothing of the salt itself."""
    return hashlib.sha256(b"name of " + machine_salt()).hexdigest()[:12]
