"""Folders of the Hugging Face Hub, fetched only when the user names them."""

import fnmatch
import re
from collections.abc import Sequence
from pathlib import Path

from core.errors import InputError, first_line

HUB = "hf-hub:"
# Configurations and tokenizers; never code. Weights are chosen by WEIGHTS, one file of them.
BESIDE = ("*.json", "*.txt")
WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model.safetensors",
    "pytorch_model.bin",
    "*.pt",
    "*.pth",
)
_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?")


def from_hub(name: str) -> Path:
    """The folder of ``hf-hub:owner/name`` or ``hf-hub:owner/name@revision`` in the library's cache.

    What the cache does not have is downloaded: configurations, tokenizer and one file of weights.

    Raises:
        InputError: the library is missing, the name is wrong, or the folder cannot be had.
    """
    if (cached := cached_folder(name)) is not None:
        return cached
    repository, revision = parsed(name)
    try:
        from huggingface_hub import HfApi, snapshot_download
    except ImportError:
        raise InputError(f"{name} needs huggingface_hub: pip install '.[hub]'") from None
    try:
        files = HfApi().list_repo_files(repository, revision=revision)
        wanted = [*BESIDE, *chosen_weights(files)]
        folder = snapshot_download(repository, revision=revision, allow_patterns=wanted)
    except Exception as error:  # the library's errors have no common base
        at = f" --revision {revision}" if revision else ""
        raise InputError(
            f"{name} is not in the cache and could not be downloaded ({first_line(error)[:200]}); "
            f"on a machine with network access run `hf download {repository}{at} --local-dir "
            "FOLDER`, copy FOLDER here, and set MODEL.BACKBONE.PATH to it"
        ) from error
    return Path(folder)


def cached_folder(name: str) -> Path | None:
    """The folder of ``name`` if it lies in the library's cache with its weights; else None."""
    repository, revision = parsed(name)
    try:
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except Exception:  # there is no library, or nothing in its cache
        return None
    return folder if chosen_weights([path.name for path in folder.iterdir()]) else None


def parsed(name: str) -> tuple[str, str | None]:
    """Repository and revision of ``hf-hub:owner/name[@revision]``.

    Raises:
        InputError: ``name`` is written in another way.
    """
    repository = name.removeprefix(HUB)
    if not _NAME.fullmatch(repository):
        raise InputError(
            f"MODEL.BACKBONE.NAME is {name!r}; write {HUB}OWNER/NAME or {HUB}OWNER/NAME@REVISION"
        )
    repository, _, revision = repository.partition("@")
    return repository, revision or None


def chosen_weights(files: Sequence[str]) -> list[str]:
    """The file of weights among ``files``, by the order of ``WEIGHTS``; empty without any."""
    for pattern in WEIGHTS:
        if found := sorted(fnmatch.filter(files, pattern)):
            return found[:1]
    return []
