"""Folders of the Hugging Face Hub, fetched only when the user names them."""

import re
from pathlib import Path

from core.errors import InputError, first_line

HUB = "hf-hub:"
# Weights, configurations and tokenizers; never code.
PATTERNS = ("*.json", "*.txt", "*.safetensors", "*.bin", "*.pt", "*.pth")
_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?")


def from_hub(name: str) -> Path:
    """The folder of ``hf-hub:owner/name`` or ``hf-hub:owner/name@revision`` in the library's cache.

    What the cache does not have is downloaded.

    Raises:
        InputError: the library is missing, the name is wrong, or the folder cannot be had.
    """
    repository = name.removeprefix(HUB)
    if not _NAME.fullmatch(repository):
        raise InputError(
            f"MODEL.BACKBONE.NAME is {name!r}; write {HUB}OWNER/NAME or {HUB}OWNER/NAME@REVISION"
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise InputError(f"{name} needs huggingface_hub: pip install '.[hub]'") from None
    repository, _, revision = repository.partition("@")
    try:
        folder = snapshot_download(
            repository, revision=revision or None, allow_patterns=list(PATTERNS)
        )
    except Exception as error:  # the library's errors have no common base
        at = f" --revision {revision}" if revision else ""
        raise InputError(
            f"{name} is not in the cache and could not be downloaded ({first_line(error)}); on a "
            f"machine with network access run `hf download {repository}{at} --local-dir FOLDER`, "
            "copy FOLDER here, and set MODEL.BACKBONE.PATH to it"
        ) from error
    return Path(folder)
