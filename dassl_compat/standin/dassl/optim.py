"""Optimizers and learning rate schedules by their settings."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, MultiStepLR, StepLR

from core.errors import InputError
from dassl_compat.schedulers import ConstantWarmupScheduler, LinearWarmupScheduler

AVAI_OPTIMS = ("adam", "amsgrad", "sgd", "rmsprop", "radam", "adamw")
AVAI_SCHEDS = ("single_step", "multi_step", "cosine")
AVAI_WARMUPS = ("constant", "linear")


def build_optimizer(
    model: nn.Module | Iterable[Any], optim_cfg: Any, param_groups: Iterable[Any] | None = None
) -> torch.optim.Optimizer:
    """Build the optimizer that ``optim_cfg.NAME`` names.

    Args:
        model: a module, or an iterable of parameters or of parameter groups.
        optim_cfg: the OPTIM node.
        param_groups: parameter groups to optimize instead of all of ``model``.

    Raises:
        InputError: for an unknown name, or OPTIM.STAGED_LR.
    """
    name = _one_of("NAME", optim_cfg.NAME, AVAI_OPTIMS)
    if optim_cfg.STAGED_LR:
        raise InputError("OPTIM.STAGED_LR needs the installed Dassl; the stand-in has no such rate")
    if param_groups is None:
        param_groups = model.parameters() if isinstance(model, nn.Module) else model

    common = {"lr": optim_cfg.LR, "weight_decay": optim_cfg.WEIGHT_DECAY}
    betas = (optim_cfg.ADAM_BETA1, optim_cfg.ADAM_BETA2)
    if name == "sgd":
        return torch.optim.SGD(
            param_groups,
            momentum=optim_cfg.MOMENTUM,
            dampening=optim_cfg.SGD_DAMPNING,
            nesterov=optim_cfg.SGD_NESTEROV,
            **common,
        )
    if name == "rmsprop":
        return torch.optim.RMSprop(
            param_groups, momentum=optim_cfg.MOMENTUM, alpha=optim_cfg.RMSPROP_ALPHA, **common
        )
    if name == "radam":
        return torch.optim.RAdam(param_groups, betas=betas, decoupled_weight_decay=True, **common)
    if name == "adamw":
        return torch.optim.AdamW(param_groups, betas=betas, **common)
    return torch.optim.Adam(param_groups, betas=betas, amsgrad=name == "amsgrad", **common)


def build_lr_scheduler(optimizer: torch.optim.Optimizer, optim_cfg: Any) -> LRScheduler:
    """Build the schedule of ``optim_cfg``, to be stepped once an epoch.

    ``single_step`` multiplies the rate by GAMMA every STEPSIZE epochs (a number, or a list of which
    the last entry is used; MAX_EPOCH if not positive), ``multi_step`` at each epoch in STEPSIZE,
    and ``cosine`` lets it fall to zero in MAX_EPOCH steps. WARMUP_EPOCH epochs of warm-up precede.

    Raises:
        InputError: for an unknown name or a STEPSIZE of another type.
    """
    scheduler = _main_schedule(optimizer, optim_cfg)
    warmup_epoch = optim_cfg.WARMUP_EPOCH
    if warmup_epoch <= 0:
        return scheduler
    warmup = _one_of("WARMUP_TYPE", optim_cfg.WARMUP_TYPE, AVAI_WARMUPS)
    if not optim_cfg.WARMUP_RECOUNT:
        scheduler.last_epoch = warmup_epoch
    if warmup == "constant":
        return ConstantWarmupScheduler(optimizer, scheduler, warmup_epoch, optim_cfg.WARMUP_CONS_LR)
    return LinearWarmupScheduler(optimizer, scheduler, warmup_epoch, optim_cfg.WARMUP_MIN_LR)


def _main_schedule(optimizer: torch.optim.Optimizer, optim_cfg: Any) -> LRScheduler:
    kind, steps = optim_cfg.LR_SCHEDULER, optim_cfg.STEPSIZE
    _one_of("LR_SCHEDULER", kind, AVAI_SCHEDS)
    if kind == "cosine":
        return CosineAnnealingLR(optimizer, optim_cfg.MAX_EPOCH)
    steps = [steps] if isinstance(steps, int) else list(steps)
    if not steps or not all(isinstance(step, int) for step in steps):
        raise InputError(f"OPTIM.STEPSIZE must be whole numbers, not {optim_cfg.STEPSIZE!r}")
    if kind == "multi_step":
        return MultiStepLR(optimizer, steps, optim_cfg.GAMMA)
    every = steps[-1] if steps[-1] > 0 else optim_cfg.MAX_EPOCH
    return StepLR(optimizer, every, optim_cfg.GAMMA)


def _one_of(key: str, name: str, choices: tuple[str, ...]) -> str:
    if name not in choices:
        raise InputError(f"OPTIM.{key} is {name!r}; choose one of {', '.join(choices)}")
    return name
