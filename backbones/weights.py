"""Reading weights: plain tensors of a file or folder, checked, without running anything in it."""

import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from core.errors import InputError, some

# Where training programs put the weights among other things.
WRAPPERS = ("state_dict", "model_state_dict", "model")
WANTED = "give a PyTorch or safetensors file that holds a model's state dict"
# The files of a folder that hold the weights, in this order; else the only file of these endings.
WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
    "model.safetensors",
    "pytorch_model.bin",
)
ENDINGS = (".safetensors", ".bin", ".pt", ".pth")
# How the names of an image encoder's tensors begin, in every format.
OF_IMAGES = ("visual.", "vision_model.", "visual_projection.")


class WeightsFile(NamedTuple):
    """Named tensors and what stands beside them.

    Attributes:
        path: the file or folder. tensors: by name.
        settings: content of a folder's JSON files by name; empty for a bare file.
        activation: as the file itself says it; "" if it does not.
        fingerprint: remembered from an earlier load; "" where the tensors are to be hashed.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    settings: Mapping[str, dict[str, Any]] = {}
    activation: str = ""
    fingerprint: str = ""

    @property
    def folder(self) -> Path:
        """The folder of the weights: ``path``, or where it lies."""
        return self.path if self.path.is_dir() else self.path.parent

    def of_texts(self) -> "WeightsFile":
        """The same with the image encoder's tensors as shapes alone, on the device ``meta``."""
        tensors = {
            name: tensor.to("meta") if name.startswith(OF_IMAGES) else tensor
            for name, tensor in self.tensors.items()
        }
        return self._replace(tensors=tensors)


def read_weights(path: str | Path, checked: bool = False) -> WeightsFile:
    """Read a folder, a state dict, a safetensors file or a TorchScript archive, on the CPU.

    ``{"state_dict": ...}``, its siblings in ``WRAPPERS`` and a ``module.`` before each name are
    unwrapped.

    Args:
        checked: an earlier load found that every number is finite; tensors that nobody asks for
            then stay on the disk, where the file can be mapped into memory.

    Raises:
        InputError: there is no such file, it is of another kind, it holds no tensors, or one of
            them is not finite.
    """
    path = Path(path).expanduser()
    settings: dict[str, dict[str, Any]] = {}
    file = path
    if path.is_dir():
        settings = _settings_of(path)
        file = path / file_of_weights((f.name for f in path.iterdir() if f.is_file()), path)
    elif not path.is_file():
        raise InputError(
            f"MODEL.BACKBONE.PATH: there is no file or folder {path} (seen from {os.getcwd()})"
        )
    tensors = _unwrapped(_read(file))
    if not tensors:
        raise InputError(f"{file} contains no named tensors; {WANTED}")
    weights = WeightsFile(path, tensors, settings, _scripted_activation(file))
    if not checked:
        check_finite(weights)
    return weights


def _settings_of(folder: Path) -> dict[str, dict[str, Any]]:
    """The JSON files of a folder that describe a model, by name."""
    found = {}
    for file in sorted(folder.glob("*config.json")):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{file} cannot be read as JSON ({error})") from None
        if not isinstance(content, dict):
            raise InputError(f"{file} does not hold a JSON object (settings by name)")
        found[file.name] = content
    return found


def file_of_weights(names: Iterable[str], where: object) -> str:
    """The file of weights among the names of a folder's files.

    Raises:
        InputError: there is none, or which one is meant cannot be known.
    """
    names = sorted(names)
    if known := [name for name in WEIGHTS if name in names]:
        return known[0]
    if shards := [name for name in names if name.endswith(".index.json")]:
        raise InputError(
            f"{where}: the weights are in several files (listed in {shards[0]}); load the model "
            "with its own library and save it as one file"
        )
    found = [name for name in names if name.endswith(ENDINGS)]
    if not found:
        raise InputError(f"{where}: contains no weights (a file that ends in {', '.join(ENDINGS)})")
    if len(found) > 1:
        raise InputError(
            f"{where}: contains several files of weights ({some(found)}) and none is called "
            f"{' or '.join(WEIGHTS)}: give one file as MODEL.BACKBONE.PATH"
        )
    return found[0]


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
        if _is_safetensors(path):
            return safetensors.torch.load_file(path)
        if _is_torchscript(path):
            return dict(torch.jit.load(str(path), map_location="cpu").state_dict())
        # A file in the format of before 2020 cannot be mapped into memory.
        return torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except SafetensorError as error:
        raise InputError(f"{path} is damaged or incomplete ({error}); copy it again") from error
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


def _is_safetensors(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(10)[8:] == b'{"'


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _scripted_activation(path: Path) -> str:
    """The activation that a TorchScript archive's own code computes; "" where nothing is known.

    The code is searched as text: a CLIP has a sigmoid in QuickGELU and nowhere else.
    """
    if not _is_torchscript(path):
        return ""
    with zipfile.ZipFile(path) as archive:
        code = [name for name in archive.namelist() if "/code/" in name and name.endswith(".py")]
        texts = [archive.read(name).decode("utf-8", "replace") for name in code]
    if any("gelu(" in text for text in texts):
        return "gelu"
    return "quick_gelu" if any("sigmoid(" in text for text in texts) else ""


def _unwrapped(content: Any) -> dict[str, Tensor]:
    """The tensors of a state dict, found in what training programs put around it."""
    while isinstance(content, dict):
        inner = next((content[k] for k in WRAPPERS if isinstance(content.get(k), dict)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, dict):
        return {}
    tensors = {
        k: v
        for k, v in content.items()
        if isinstance(k, str) and isinstance(v, Tensor) and not k.endswith("attn_mask")
    }  # the mask of a causal text encoder is infinite, and follows from its length
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors
