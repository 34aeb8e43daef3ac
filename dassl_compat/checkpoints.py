"""Writing checkpoints, and going on from them so that nothing shows the run was ever cut.

A checkpoint is ``<folder>/<model name>/model.pth.tar-<epoch>`` or ``model-best.pth.tar``: plain
tensors and numbers, whole or absent. The file ``checkpoint`` beside them names the last epoch's.

Our trainers and the installed Dassl's use these same functions. A trainer with more to remember
than its models gives it as ``resume_state()`` and takes it back in ``load_resume_state(state)``.
"""

import contextlib
import io
import math
import random
import shutil
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

from core.errors import InputError
from core.files import atomic_write
from dassl_compat.checkpoint_reader import read_checkpoint

BEST = "model-best.pth.tar"
EPOCH = "model.pth.tar-{}"
POINTER = "checkpoint"


# ---- one model's file


def save_checkpoint(state, save_dir, is_best=False, remove_module_from_keys=True, model_name=""):
    """Write ``state`` to ``save_dir``.

    Args:
        state: ``state_dict``, ``epoch`` (how many are done), ``optimizer``, ``scheduler``, ...
        save_dir: the model's folder.
        is_best: copy the file to ``model-best.pth.tar`` too.
        remove_module_from_keys: drop the ``module.`` that nn.DataParallel puts before names.
        model_name: the file's name; ``model.pth.tar-<epoch>`` unless given. The pointer follows
            the epochs' files only: the best model is not where training went on.
    """
    weights = state["state_dict"]
    if remove_module_from_keys:
        weights = OrderedDict((k.removeprefix("module."), v) for k, v in weights.items())
    content = plain({**state, "state_dict": weights})
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


def resume_from_checkpoint(fdir, model, optimizer=None, scheduler=None):
    """Load the file that the pointer in ``fdir`` names; return how many epochs it has done."""
    pointer = Path(fdir) / POINTER
    if not pointer.is_file():
        raise InputError(f'no file called "{POINTER}" in "{fdir}", so nothing to go on from')
    path = Path(fdir) / pointer.read_text(encoding="utf-8").strip()
    print(f'Loading checkpoint from "{path}"')
    return _load(read_checkpoint(path), model, optimizer, scheduler)


def _load(checkpoint, model, optimizer, scheduler):
    model.load_state_dict(checkpoint["state_dict"])
    print("Loaded model weights")
    if optimizer is not None and checkpoint.get("optimizer") is not None:
        optimizer.load_state_dict(checkpoint["optimizer"])
        print("Loaded optimizer")
    if scheduler is not None and checkpoint.get("scheduler") is not None:
        scheduler.load_state_dict(checkpoint["scheduler"])
        print("Loaded scheduler")
    print(f"Previous epoch: {checkpoint['epoch']}")
    return checkpoint["epoch"]


def plain(value):
    """``value`` in what safe loading knows: tensors, numbers, text, None, and containers of them.

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
        return {plain(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(entry) for entry in value)
    raise TypeError(f"a checkpoint cannot hold {value!r}: only tensors, numbers and text")


# ---- the state of the random generators


def random_state():
    """Where Python's, NumPy's and PyTorch's generators stand, in plain tensors and numbers."""
    return plain(
        {
            "python": random.getstate(),
            "numpy": np.random.get_state(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
    )


def set_random_state(state):
    """Put the generators back to where ``random_state`` found them."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, key, *rest = state["numpy"]
    np.random.set_state((kind, key.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


# ---- the methods of a trainer


def save_model(self, epoch, directory, is_best=False, val_result=None, model_name=""):
    """Write every model of the trainer after the epoch with index ``epoch``."""
    shared = {
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


def load_model(self, directory, epoch=None):
    """Load every model from ``directory``: the best one, or that of an epoch."""
    if not directory:
        print("load_model() is skipped: no folder with a trained model is given")
        return
    file_name = BEST if epoch is None else EPOCH.format(epoch)
    for name in self.get_model_names():
        path = Path(directory) / name / file_name
        checkpoint = read_checkpoint(path)
        result = checkpoint.get("val_result")
        told = f", val_result={result:.4f}" if isinstance(result, (int, float)) else ""
        print(f"Load {path} to {name} (epoch={checkpoint.get('epoch')}{told})")
        self._models[name].load_state_dict(checkpoint["state_dict"])


def keep_last_epoch(self):
    """At the end of ``after_epoch``: keep this epoch's checkpoint and drop the one before.

    So a run that is cut goes on from its last whole epoch. Checkpoints that
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


def resume_model_if_exist(self, directory):
    """Go on from the newest whole checkpoint under ``directory``; return the epochs it has done.

    Raises:
        InputError: if RESUME names a folder that has none.
    """
    names = self.get_model_names()
    found = _newest_whole(Path(directory), names)
    if found and not _has_its_best(self, Path(directory), found):
        found = {}
    if not found:
        if self.cfg.RESUME:
            raise InputError(f'RESUME: no checkpoint of {", ".join(names)} under "{directory}"')
        print("No checkpoint found, train from scratch")
        return 0
    print(f"Found checkpoint at {directory} (will resume training)")
    for name in names:
        _load(found[name], self._models[name], self._optims[name], self._scheds[name])
    newest = found[names[0]]
    self.best_result = _best_result(newest, Path(directory) / names[0])
    if "resume_state" in newest:
        self.load_resume_state(newest["resume_state"])
    if "random_state" in newest:
        set_random_state(newest["random_state"])
    else:
        print("The checkpoint has no random state: the epochs to come differ from an uncut run's")
    return newest["epoch"]


def _newest_whole(directory, names):
    """{name: checkpoint}, all of the newest epoch that is whole for every model; or {}.

    Several models are written one after the other, so a kill between them leaves some an epoch
    behind; the epoch before is only dropped once all are written.
    """
    for file_name in _candidates(directory / names[0]) if names else []:
        paths = {name: directory / name / file_name for name in names}
        if not all(path.is_file() for path in paths.values()):
            continue
        try:
            found = {name: read_checkpoint(path) for name, path in paths.items()}
        except InputError as error:
            print(f"{error}. Going back to an earlier one")
            continue
        if len({checkpoint["epoch"] for checkpoint in found.values()}) == 1:
            return found
    return {}


def _candidates(folder):
    """File names to try: the pointer's, then the epochs from the last, then the best model."""
    names = []
    with contextlib.suppress(FileNotFoundError):
        names.append((folder / POINTER).read_text(encoding="utf-8").strip())
    prefix = EPOCH.format("")
    epochs = [path.name.removeprefix(prefix) for path in folder.glob(f"{prefix}*")]
    names += [
        EPOCH.format(n) for n in sorted((int(e) for e in epochs if e.isdigit()), reverse=True)
    ]
    return list(dict.fromkeys([*names, BEST]))


def _has_its_best(self, directory, found):
    """Whether the best model so far, which the end of the run will want, is there and whole."""
    if self.cfg.TEST.FINAL_MODEL != "best_val":
        return True
    for name, checkpoint in found.items():
        if _best_result(checkpoint, directory / name) > -math.inf:
            try:
                read_checkpoint(directory / name / BEST)
            except InputError as error:
                print(f"{error}. Without the best model so far, training starts again")
                return False
    return True


def _best_result(checkpoint, folder):
    """The best validation result so far; files of Dassl say it in the best model only."""
    if "best_result" in checkpoint:
        return checkpoint["best_result"]
    result = None
    with contextlib.suppress(InputError):
        result = read_checkpoint(folder / BEST).get("val_result")
    return result if isinstance(result, (int, float)) else -math.inf
