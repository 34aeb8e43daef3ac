"""Reading a file of weights: plain tensors, checked, without running anything in it."""

import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from core.errors import InputError

# Where training programs put the weights among other things.
WRAPPERS = ("state_dict", "model_state_dict", "model")
WANTED = "give a PyTorch file that holds a model's state dict"


class WeightsFile(NamedTuple):
    """A file's tensors by name; ``path`` is for messages and for families that read more files."""

    path: Path
    tensors: dict[str, Tensor]


def read_weights(path: str | Path) -> WeightsFile:
    """Read a state dict or a TorchScript archive, on the CPU.

    ``{"state_dict": ...}``, its siblings in ``WRAPPERS`` and a ``module.`` before each name are
    unwrapped.

    Raises:
        InputError: there is no such file, it is of another kind, it holds no tensors, or one of
            them is not finite.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"MODEL.BACKBONE.PATH: there is no file {path} (seen from {os.getcwd()})")
    tensors = _unwrapped(_read(path))
    if not tensors:
        raise InputError(f"{path} contains no named tensors; {WANTED}")
    weights = WeightsFile(path, tensors)
    check_finite(weights)
    return weights


def check_finite(weights: WeightsFile) -> None:
    """Raise InputError that names the first tensor with NaN or infinity."""
    for name, tensor in weights.tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise InputError(
                f"{weights.path}: the tensor {name} holds NaN or infinity; the weights are damaged "
                "or their training diverged: use another copy"
            )


def _read(path: Path) -> Any:
    try:
        kind = _other_kind(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if kind:
        raise InputError(f"{path} {kind}; {WANTED}")
    try:
        if _is_torchscript(path):
            return dict(torch.jit.load(str(path), map_location="cpu").state_dict())
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers' errors have no common base
        if "Unsupported global" in str(error):
            reason = (
                "holds Python objects beside tensors, which are not read because that could run "
                "code: save model.state_dict() alone"
            )
        else:
            reason = f"is damaged, incomplete or of another kind; {WANTED}"
        raise InputError(f"{path} {reason}") from error


def _other_kind(path: Path) -> str:
    """What the file is, in words, where it is plainly not a file of PyTorch's; else ""."""
    with open(path, "rb") as file:
        start = file.read(2048)
    text = start.lstrip().lower()
    if not start:
        return "is empty"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, not a file of weights: download the file itself"
    if text.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file: run `git lfs pull`"
    if start[8:10] == b'{"':
        return "is a safetensors file, which is not supported"
    if start.startswith(b"PK\x03\x04"):
        if not zipfile.is_zipfile(path):
            return "is incomplete: copy or download it again"
        with zipfile.ZipFile(path) as archive:
            if not any(name.endswith("data.pkl") for name in archive.namelist()):
                return "is a zip archive of other files: unpack it"
    elif start[:2] == b"\x1f\x8b":
        return "is a gzip archive: unpack it"
    elif not any(byte < 9 or 13 < byte < 32 for byte in start):
        return "is a text file"
    return ""


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _unwrapped(content: Any) -> dict[str, Tensor]:
    """The tensors of a state dict, found in what training programs put around it."""
    while isinstance(content, dict):
        inner = next((content[k] for k in WRAPPERS if isinstance(content.get(k), dict)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, dict):
        return {}
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors
