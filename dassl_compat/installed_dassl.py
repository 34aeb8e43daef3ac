"""What the installed Dassl needs to run on today's PyTorch, applied from outside.

Dassl's last commit is of 2022. None of its files is edited: ``apply_fixes`` replaces what breaks in
the imported modules.
"""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import nn

from core.errors import InputError
from dassl_compat import checkpoints, schedulers
from dassl_compat.accuracy import compute_accuracy
from dassl_compat.checkpoint_reader import read_saved_dict


class _NNWithoutDataParallel:
    """``torch.nn``, but for a DataParallel that returns the model as it is."""

    def __getattr__(self, name: str) -> Any:
        return getattr(nn, name)

    @staticmethod
    def DataParallel(module: nn.Module) -> nn.Module:
        return module


def apply_fixes() -> None:
    """Fix the installed Dassl; a second call changes nothing.

    Raises:
        InputError: if something that Dassl imports is not installed.
    """
    try:
        import dassl.engine.trainer as engine
        import dassl.metrics as metrics
        import dassl.optim.lr_scheduler as lr_scheduler
        import dassl.utils.torchtools as torchtools
    except ModuleNotFoundError as error:
        raise InputError(
            f"the installed Dassl needs {error.name}: run `pip install --no-deps {error.name}`, "
            "or `pip uninstall dassl` to do without"
        ) from error

    if engine.TrainerBase.save_model is checkpoints.save_model:
        return

    # The warm-up schedulers pass PyTorch an argument that it no longer takes, and their state holds
    # the live scheduler that follows.
    for name in ("ConstantWarmupScheduler", "LinearWarmupScheduler"):
        setattr(lr_scheduler, name, getattr(schedulers, name))

    # torch.load refuses what save_checkpoint wrote, and a kill leaves half a file.
    _replace(torchtools.save_checkpoint, checkpoints.save_checkpoint)
    _replace(torchtools.load_checkpoint, read_saved_dict)
    _replace(torchtools.resume_from_checkpoint, checkpoints.resume_from_checkpoint)

    # Fails for k > 1 on a tensor that is no longer contiguous.
    _replace(metrics.compute_accuracy, compute_accuracy)

    # load_model cannot print the last epoch's missing validation result. A resumed run started at
    # the best epoch, with no best result and fresh random numbers.
    engine.TrainerBase.save_model = checkpoints.save_model
    engine.TrainerBase.load_model = checkpoints.load_model
    engine.TrainerBase.resume_model_if_exist = checkpoints.resume_model_if_exist
    engine.SimpleTrainer.after_epoch = _then_keep_last_epoch(engine.SimpleTrainer.after_epoch)

    # Two GPUs in a machine are no reason to use both.
    engine.nn = _NNWithoutDataParallel()


def _replace(original: Callable, replacement: Callable) -> None:
    """Put ``replacement`` wherever a module of Dassl has imported ``original``."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "dassl":
            for attribute, value in list(vars(module).items()):
                if value is original:
                    setattr(module, attribute, replacement)


def _then_keep_last_epoch(after_epoch: Callable) -> Callable:
    @wraps(after_epoch)
    def with_last_epoch(self: Any) -> None:
        after_epoch(self)
        checkpoints.keep_last_epoch(self)

    return with_last_epoch
