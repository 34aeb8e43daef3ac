from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR, StepLR

from dassl_compat.schedulers import ConstantWarmupScheduler, LinearWarmupScheduler

AVAI_SCHEDS = ["single_step", "multi_step", "cosine"]
AVAI_WARMUPS = ["constant", "linear"]


def build_lr_scheduler(optimizer, optim_cfg):
    """Make the schedule of ``optim_cfg``, to be stepped once an epoch.

    ``single_step`` multiplies the rate by GAMMA every STEPSIZE epochs (a number, or a list whose
    last entry counts; MAX_EPOCH if not positive), ``multi_step`` at each epoch listed in STEPSIZE,
    and ``cosine`` lets it fall to zero in MAX_EPOCH steps. WARMUP_EPOCH epochs of warm-up precede.
    """
    kind, steps = optim_cfg.LR_SCHEDULER, optim_cfg.STEPSIZE
    if kind not in AVAI_SCHEDS:
        raise ValueError(f"OPTIM.LR_SCHEDULER must be one of {AVAI_SCHEDS}, not {kind!r}")
    if kind == "single_step":
        every = steps[-1] if isinstance(steps, (list, tuple)) else steps
        if not isinstance(every, int):
            raise TypeError(f"OPTIM.STEPSIZE of single_step must be whole numbers, not {steps!r}")
        scheduler = StepLR(optimizer, every if every > 0 else optim_cfg.MAX_EPOCH, optim_cfg.GAMMA)
    elif kind == "multi_step":
        if not isinstance(steps, (list, tuple)):
            raise TypeError(f"OPTIM.STEPSIZE of multi_step must be a list, not {steps!r}")
        scheduler = MultiStepLR(optimizer, list(steps), optim_cfg.GAMMA)
    else:
        scheduler = CosineAnnealingLR(optimizer, float(optim_cfg.MAX_EPOCH))

    warmup_epoch, warmup = optim_cfg.WARMUP_EPOCH, optim_cfg.WARMUP_TYPE
    if warmup_epoch <= 0:
        return scheduler
    if warmup not in AVAI_WARMUPS:
        raise ValueError(f"OPTIM.WARMUP_TYPE must be one of {AVAI_WARMUPS}, not {warmup!r}")
    if not optim_cfg.WARMUP_RECOUNT:
        scheduler.last_epoch = warmup_epoch
    if warmup == "constant":
        return ConstantWarmupScheduler(optimizer, scheduler, warmup_epoch, optim_cfg.WARMUP_CONS_LR)
    return LinearWarmupScheduler(optimizer, scheduler, warmup_epoch, optim_cfg.WARMUP_MIN_LR)
