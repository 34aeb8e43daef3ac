"""What a run learned: finding its checkpoint, and loading it into a model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.errors import InputError
from dassl_compat.checkpoint_reader import read_checkpoint, read_pointer
from dassl_compat.checkpoints import BEST, EPOCH, POINTER
from engine.method import Method, PromptedModel


def find_checkpoint(run: Path, method: Method, epoch: int | None = None) -> Path:
    """The file of ``epoch``, by default the best one's, else the last one's.

    Raises:
        InputError: the folder holds no checkpoint of the method.
    """
    folder = run / method.checkpoint_name
    if epoch is not None:
        return folder / EPOCH.format(epoch)
    if (folder / BEST).exists():
        return folder / BEST
    if (folder / POINTER).exists():
        return read_pointer(folder)
    raise InputError(f"{folder} holds no checkpoint; is {run} a trained {method.name}?")


def load_checkpoint(
    path: Path, method: Method, model: PromptedModel, classnames: Sequence[str]
) -> int:
    """Load what ``path`` holds into ``model.learned``; strictly, on the classes of ``model``.

    Returns:
        The epoch of the checkpoint.

    Raises:
        InputError: the file cannot be read, or belongs to another model or backbone.
    """
    checkpoint = read_checkpoint(path)
    state = checkpoint.get("resume_state", {})
    check_backbone(state, model, path)
    load_learned(checkpoint["state_dict"], path, method, model, classnames, state.get("classnames"))
    return checkpoint["epoch"]


def check_backbone(state: Mapping[str, Any], model: PromptedModel, where: Path | str) -> None:
    """Refuse to put what was learned beside one backbone on another; old files do not tell."""
    kind = model.backbone.text.kind
    if state.get("text_encoder", kind) != kind:
        raise InputError(
            f"{where}: learned for a text encoder of kind {state['text_encoder']}; this backbone's "
            f"is of kind {kind}: use the backbone that the run was trained with"
        )
    present = model.backbone.fingerprint
    if state.get("backbone", present) != present:
        raise InputError(
            f"{where}: trained on other weights of the backbone (fingerprint {state['backbone']}) "
            f"than the present ones ({present}); restore those weights, or delete the run's folder"
        )


def load_learned(
    state_dict: Mapping[str, Tensor],
    path: Path,
    method: Method,
    model: PromptedModel,
    classnames: Sequence[str],
    trained: Sequence[str] | None = None,
) -> None:
    """Load learned tensors strictly; an error says in one line what does not fit.

    Args:
        classnames: the classes of ``model``.
        trained: the classes that training saw, where the file tells.
    """
    state_dict = method.adapt_state_dict(dict(state_dict))
    for key in method.per_class():
        if key in state_dict:
            state_dict[key] = _rows(key, state_dict[key], method, classnames, trained, path)
    try:
        model.learned.load_state_dict(state_dict)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} does not fit this {method.name}: {reason}") from error


def _rows(
    key: str,
    rows: Tensor,
    method: Method,
    classnames: Sequence[str],
    trained: Sequence[str | None] | None,
    path: Path,
) -> Tensor:
    """Put a tensor's rows into the order of the model's classes."""
    if trained is None:  # another implementation's file: of these classes, or of others
        trained = classnames if len(rows) == len(classnames) else [None] * len(rows)
    if len(trained) != len(rows):
        raise InputError(
            f"{path}: {key} has {len(rows)} rows for {len(trained)} classes; its class "
            "names belong to another file"
        )
    known = dict(zip(trained, rows, strict=True))
    new = [name for name in classnames if name not in known]
    if new:
        row = method.new_class_row(key, rows)
        if row is None:
            raise InputError(
                f"{path}: {method.name} learned {key} for each of its classes, and has none for "
                f"{', '.join(new)}; test it on the classes it was trained on"
            )
        known |= dict.fromkeys(new, row)
        print(f"{', '.join(new)}: not among the trained classes, {key} is {row.norm():g} there")
    return torch.stack([known[name] for name in classnames])
