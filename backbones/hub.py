"""Folders of the Hugging Face Hub, fetched only when the user names them."""

import re
from pathlib import Path

from backbones.weights import file_of_weights
from core.errors import InputError, first_line

HUB = "hf-hub:"
# Configurations and tokenizers; never code. Of the weights, one file.
BESIDE = ("*.json", "*.txt")
TOKENIZERS = ("tokenizer.json", "vocab.txt")
_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?")


def from_hub(name: str) -> Path:
    """The folder of ``hf-hub:owner/name`` or ``hf-hub:owner/name@revision`` in the library's cache.

    What the cache does not have is downloaded: configurations, tokenizer and one file of weights.
    Other programs may have put weights there without the tokenizer.

    Raises:
        InputError: the library is missing, the name is wrong, or the folder cannot be had.
    """
    cached = cached_folder(name)
    if cached is not None and any((cached / file).is_file() for file in TOKENIZERS):
        return cached
    repository, revision = parsed(name)
    try:
        from huggingface_hub import HfApi, snapshot_download
    except ImportError:
        raise InputError(f"{name} needs huggingface_hub: pip install '.[hub]'") from None
    try:
        every = HfApi().list_repo_files(repository, revision=revision)
        weights = file_of_weights([file for file in every if "/" not in file], name)
        wanted = [*BESIDE, weights]
        folder = snapshot_download(repository, revision=revision, allow_patterns=wanted)
    except InputError:
        raise
    except Exception as error:  # the library's errors have no common base
        if cached is not None:
            return cached
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
        file_of_weights([path.name for path in folder.iterdir()], folder)
    except Exception:  # there is no library, or nothing in its cache
        return None
    return folder


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
