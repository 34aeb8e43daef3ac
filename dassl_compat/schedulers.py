"""Warm-up in front of another learning rate schedule, with a state of plain numbers.

Beside the installed Dassl these take the place of its own two classes, which today's PyTorch
refuses and whose state is not plain.
"""

from torch.optim.lr_scheduler import LRScheduler


class WarmupScheduler(LRScheduler):
    """``warmup_epoch`` epochs of warm-up, then ``successor`` from wherever it stands."""

    def __init__(self, optimizer, successor, warmup_epoch, last_epoch=-1, verbose=False):
        self.successor = successor
        self.warmup_epoch = warmup_epoch
        super().__init__(optimizer, last_epoch)  # verbose: gone from PyTorch

    def warmup_lrs(self):
        """The rate of each parameter group while ``last_epoch < warmup_epoch``."""
        raise NotImplementedError

    def get_lr(self):
        if self.last_epoch < self.warmup_epoch:
            return self.warmup_lrs()
        return self.successor.get_last_lr()

    def step(self, epoch=None):
        if self.last_epoch < self.warmup_epoch:
            super().step(epoch)
        else:
            self.successor.step(epoch)
            self._last_lr = self.successor.get_last_lr()

    def state_dict(self):
        state = super().state_dict()
        state["successor"] = self.successor.state_dict()
        return state

    def load_state_dict(self, state_dict):
        """Also takes Dassl's own state, where the successor is all that a live object held."""
        state = dict(state_dict)
        known = self.successor.state_dict().keys()
        successor = {key: value for key, value in state.pop("successor").items() if key in known}
        self.successor.load_state_dict(successor)
        super().load_state_dict(state)


class ConstantWarmupScheduler(WarmupScheduler):
    """Warm up at the rate ``cons_lr``."""

    def __init__(self, optimizer, successor, warmup_epoch, cons_lr, last_epoch=-1, verbose=False):
        self.cons_lr = cons_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch, verbose)

    def warmup_lrs(self):
        return [self.cons_lr for _ in self.base_lrs]


class LinearWarmupScheduler(WarmupScheduler):
    """Warm up in a straight line towards the base rate; the first epoch runs at ``min_lr``."""

    def __init__(self, optimizer, successor, warmup_epoch, min_lr, last_epoch=-1, verbose=False):
        self.min_lr = min_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch, verbose)

    def warmup_lrs(self):
        if self.last_epoch == 0:
            return [self.min_lr for _ in self.base_lrs]
        return [rate * self.last_epoch / self.warmup_epoch for rate in self.base_lrs]
