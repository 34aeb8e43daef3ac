"""Write checkpoints, and resume from them so that an interrupted run ends in the same bits.

A checkpoint is ``<folder>/<model name>/model.pth.tar-<epoch>`` or ``model-best.pth.tar``: plain
tensors and numbers, complete or absent. The file ``checkpoint`` beside them names the last epoch's.

The stand-in's trainers and the installed Dassl's use these same functions. A trainer that has more
to save than its models returns it from ``resume_state()`` and takes it back in
``load_resume_state(state)``.
"""

import contextlib
import io
import math
import random
import shutil
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from core.errors import InputError
from core.files import atomic_write
from dassl_compat.checkpoint_reader import POINTER, read_checkpoint, read_pointer

BEST = "model-best.pth.tar"
EPOCH = "model.pth.tar-{}"


# ---- one model's file


def save_checkpoint(
    state: dict[str, Any],
    save_dir: str | Path,
    is_best: bool = False,
    remove_module_from_keys: bool = True,
    model_name: str = "",
) -> None:
    """Write ``state`` to ``save_dir``.

    Args:
        state: ``state_dict``, ``epoch`` (the number of completed epochs), ``optimizer``, ...
        save_dir: the model's folder.
        is_best: copy the file to ``model-best.pth.tar`` too.
        remove_module_from_keys: drop the ``module.`` that nn.DataParallel puts before names.
        model_name: the file's name; ``model.pth.tar-<epoch>`` unless given. The pointer names the
            epochs' files only, because training does not resume from the best model.
    """
    weights = state["state_dict"]
    if remove_module_from_keys:
        weights = OrderedDict((k.removeprefix("module."), v) for k, v in weights.items())
    content = plain_values({**state, "state_dict": weights})
    file_name = model_name or EPOCH.format(state["epoch"])
    path = Path(save_dir) / file_name
    # In memory first: torch.save hides the system's reason for a failed write (a full disk).
    serialized = io.BytesIO()
    torch.save(content, serialized)
    try:
        with atomic_write(path, "wb") as file:
            file.write(serialized.getbuffer())
        print(f"Checkpoint saved to {path}")
        if not model_name:
            with atomic_write(Path(save_dir) / POINTER) as file:
                file.write(f"{file_name}\n")
        if is_best:
            with atomic_write(Path(save_dir) / BEST, "wb") as file, open(path, "rb") as source:
                shutil.copyfileobj(source, file)
            print(f'Best checkpoint saved to "{Path(save_dir) / BEST}"')
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def resume_from_checkpoint(
    fdir: str | Path, model: nn.Module, optimizer: Any = None, scheduler: Any = None
) -> int:
    """Load the checkpoint that the pointer in ``fdir`` names; return its completed epochs."""
    path = read_pointer(fdir)
    print(f'Loading checkpoint from "{path}"')
    return _load(read_checkpoint(path), path, model, optimizer, scheduler)


def _load(
    checkpoint: dict[str, Any], where: Path, model: nn.Module, optimizer: Any, scheduler: Any
) -> int:
    with _must_fit(where, "model"):
        model.load_state_dict(checkpoint["state_dict"])
    print("Loaded model weights")
    for name, owner in (("optimizer", optimizer), ("scheduler", scheduler)):
        if owner is not None and checkpoint.get(name) is not None:
            with _must_fit(where, name):
                owner.load_state_dict(checkpoint[name])
            print(f"Loaded {name}")
    print(f"Previous epoch: {checkpoint['epoch']}")
    return checkpoint["epoch"]


@contextlib.contextmanager
def _must_fit(where: Path, owner: str) -> Iterator[None]:
    """Turn what a state's owner raises for another one's state into one line that names the file.

    Raises:
        InputError: for an entry that is missing, of another shape or of another type.
    """
    try:
        yield
    except InputError:
        raise
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        missing = isinstance(error, LookupError)
        reason = f"it has no {error}" if missing else " ".join(str(error).split())
        raise InputError(f'"{where}" does not fit this {owner}: {reason[:300]}') from error


def plain_values(value: Any) -> Any:
    """``value`` as safe loading accepts it: tensors, numbers, text, None, and containers of them.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(value, torch.Tensor):
        return value.detach()
    if isinstance(value, np.ndarray):
        # PyTorch has few operations on unsigned numbers, and older ones lack the types.
        return torch.from_numpy(value.astype(np.int64) if value.dtype.kind == "u" else value)
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return {plain_values(key): plain_values(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain_values(entry) for entry in value)
    raise TypeError(f"a checkpoint cannot hold {value!r}: only tensors, numbers and text")


# ---- the state of the random generators


def random_state() -> dict[str, Any]:
    """The state of Python's, NumPy's and PyTorch's generators, in plain tensors and numbers."""
    return plain_values(
        {
            "python": random.getstate(),
            "numpy": np.random.get_state(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
    )


def set_random_state(state: dict[str, Any]) -> None:
    """Set the generators to a state that ``random_state`` returned."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, key, *rest = state["numpy"]
    np.random.set_state((kind, key.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


# ---- the methods of a trainer


def save_model(
    self: Any,
    epoch: int,
    directory: str | Path,
    is_best: bool = False,
    val_result: float | None = None,
    model_name: str = "",
) -> None:
    """Write every model of the trainer after the epoch with index ``epoch``."""
    shared: dict[str, Any] = {
        "epoch": epoch + 1,
        "val_result": val_result,
        "best_result": getattr(self, "best_result", -math.inf),
        "random_state": random_state(),
    }
    if hasattr(self, "resume_state"):
        shared["resume_state"] = self.resume_state()
    for name in self.get_model_names():
        optim, sched = self._optims[name], self._scheds[name]
        state = {
            "state_dict": self._models[name].state_dict(),
            "optimizer": None if optim is None else optim.state_dict(),
            "scheduler": None if sched is None else sched.state_dict(),
            **shared,
        }
        save_checkpoint(state, Path(directory) / name, is_best=is_best, model_name=model_name)


def load_model(self: Any, directory: str, epoch: int | None = None) -> None:
    """Load every model from ``directory``: the best one, or that of an epoch."""
    if not directory:
        print("load_model() is skipped: no folder of a trained model is given")
        return
    file_name = BEST if epoch is None else EPOCH.format(epoch)
    for name in self.get_model_names():
        path = Path(directory) / name / file_name
        checkpoint = read_checkpoint(path)
        result = checkpoint.get("val_result")
        shown = f", val_result={result:.4f}" if isinstance(result, int | float) else ""
        print(f"Load {path} to {name} (epoch={checkpoint['epoch']}{shown})")
        with _must_fit(path, "model"):
            self._models[name].load_state_dict(checkpoint["state_dict"])


def keep_last_epoch(self: Any) -> None:
    """At the end of ``after_epoch``: write this epoch's checkpoint and delete the one before.

    An interrupted run then resumes from its last completed epoch. Checkpoints that
    TRAIN.CHECKPOINT_FREQ asks for stay.
    """
    frequency = self.cfg.TRAIN.CHECKPOINT_FREQ
    done = self.epoch + 1
    if not (done == self.max_epoch or (frequency > 0 and done % frequency == 0)):
        self.save_model(self.epoch, self.output_dir)
    if frequency <= 0 or self.epoch % frequency:
        for name in self.get_model_names():
            with contextlib.suppress(FileNotFoundError):
                (Path(self.output_dir) / name / EPOCH.format(self.epoch)).unlink()


def resume_model_if_exist(self: Any, directory: str | Path) -> int:
    """Resume from the newest complete checkpoint under ``directory``; return its completed epochs.

    Raises:
        InputError: if RESUME names a folder without one, or the checkpoint is of another model.
    """
    names = self.get_model_names()
    found = _newest_complete(Path(directory), names)
    if found and not _has_its_best(self, Path(directory), found):
        found = {}
    if not found:
        if self.cfg.RESUME:
            raise InputError(f'RESUME: no checkpoint of {", ".join(names)} under "{directory}"')
        print("No checkpoint found, train from scratch")
        return 0
    print(f"Found checkpoint at {directory} (will resume training)")
    for name in names:
        where = Path(directory) / name
        _load(found[name], where, self._models[name], self._optims[name], self._scheds[name])
    newest, folder = found[names[0]], Path(directory) / names[0]
    self.best_result = _best_result(newest, folder)
    if "resume_state" in newest:
        with _must_fit(folder, "run"):
            self.load_resume_state(newest["resume_state"])
    if "random_state" in newest:
        with _must_fit(folder, "program's random generators"):
            set_random_state(newest["random_state"])
    else:
        print(
            "The checkpoint has no random state: "
            "the next epochs differ from those of an uninterrupted run"
        )
    return newest["epoch"]


def _newest_complete(directory: Path, names: list[str]) -> dict[str, dict[str, Any]]:
    """{name: checkpoint}, all of the newest epoch that is complete for every model; or {}.

    Several models are written one after the other, so a kill between them leaves some an epoch
    behind; the epoch before is only deleted once all are written.
    """
    for file_name in _candidates(directory / names[0]) if names else []:
        paths = {name: directory / name / file_name for name in names}
        if not all(path.is_file() for path in paths.values()):
            continue
        try:
            found = {name: read_checkpoint(path) for name, path in paths.items()}
        except InputError as error:
            print(f"{error}; trying an earlier one")
            continue
        if len({checkpoint["epoch"] for checkpoint in found.values()}) == 1:
            return found
    return {}


def _candidates(folder: Path) -> list[str]:
    """File names to try: the pointer's, then the epochs from the last, then the best model."""
    names = []
    if (folder / POINTER).exists():
        try:
            names.append(read_pointer(folder).name)
        except InputError as error:
            print(f"{error}; trying the checkpoints in its folder")
    prefix = EPOCH.format("")
    epochs = [path.name.removeprefix(prefix) for path in folder.glob(f"{prefix}*")]
    numbers = sorted((int(epoch) for epoch in epochs if epoch.isdecimal()), reverse=True)
    return list(dict.fromkeys([*names, *map(EPOCH.format, numbers), BEST]))


def _has_its_best(self: Any, directory: Path, found: dict[str, dict[str, Any]]) -> bool:
    """Whether the best model so far, which the end of the run needs, is there and complete."""
    if self.cfg.TEST.FINAL_MODEL != "best_val":
        return True
    for name, checkpoint in found.items():
        if _best_result(checkpoint, directory / name) > -math.inf:
            try:
                read_checkpoint(directory / name / BEST)
            except InputError as error:
                print(f"{error}; the best model so far is lost, so training starts again")
                return False
    return True


def _best_result(checkpoint: dict[str, Any], folder: Path) -> float:
    """The best validation result so far; Dassl's files hold it in the best model only."""
    result = checkpoint.get("best_result")
    if "best_result" not in checkpoint:
        with contextlib.suppress(InputError):
            result = read_checkpoint(folder / BEST).get("val_result")
    return result if isinstance(result, int | float) else -math.inf
