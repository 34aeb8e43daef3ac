"""Lets a torchvision built for CUDA be imported beside a CPU-only torch."""

import importlib.util
from pathlib import Path

import torch

# Kept for the life of the process: the declarations vanish with the library object.
_LIBRARIES: list[torch.library.Library] = []

_MISSING = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def declare_missing_operators() -> None:
    """Declare the two operators that ``import torchvision`` looks up, where they cannot be loaded.

    PyPI's torchvision has its compiled operators in a library that links to CUDA. Beside a CPU-only
    torch that library does not load and the import fails, though the transforms need none of it.
    """
    if torch.version.cuda or torch.version.hip or _loads_compiled_operators():
        return
    library = torch.library.Library("torchvision", "DEF")
    for schema in _MISSING:
        library.define(schema)
    _LIBRARIES.append(library)


def _loads_compiled_operators() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return True  # nothing to help: the import itself says that torchvision is missing
    for compiled in Path(spec.submodule_search_locations[0]).glob("_C.*"):
        try:
            torch.ops.load_library(str(compiled))
        except OSError:
            return False
        return True
    return False
