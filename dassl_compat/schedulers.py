"""Warm-up before another learning rate schedule, with a state of plain numbers.

They replace the two classes of an installed Dassl, which fail on today's PyTorch and whose state
is not plain.
"""

from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class WarmupScheduler(LRScheduler):
    """``warmup_epoch`` epochs of warm-up, then ``successor`` from its own current step."""

    def __init__(
        self,
        optimizer: Optimizer,
        successor: LRScheduler,
        warmup_epoch: int,
        last_epoch: int = -1,
        verbose: bool = False,
    ) -> None:
        self.successor = successor
        self.warmup_epoch = warmup_epoch
        super().__init__(optimizer, last_epoch)  # verbose: gone from PyTorch

    def warmup_lrs(self) -> list[float | Tensor]:
        """The rate of each parameter group while ``last_epoch < warmup_epoch``."""
        raise NotImplementedError

    def get_lr(self) -> list[float | Tensor]:
        if self.last_epoch < self.warmup_epoch:
            return self.warmup_lrs()
        return self.successor.get_last_lr()

    def step(self, epoch: int | None = None) -> None:
        if self.last_epoch < self.warmup_epoch:
            super().step(epoch)
        else:
            self.successor.step(epoch)
            self._last_lr = self.successor.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        state["successor"] = self.successor.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Also accepts Dassl's own state, whose successor holds all that the live object held."""
        state = dict(state_dict)
        known = self.successor.state_dict().keys()
        successor = {key: value for key, value in state.pop("successor").items() if key in known}
        self.successor.load_state_dict(successor)
        super().load_state_dict(state)


class ConstantWarmupScheduler(WarmupScheduler):
    """Warm up at the rate ``cons_lr``."""

    def __init__(
        self,
        optimizer: Optimizer,
        successor: LRScheduler,
        warmup_epoch: int,
        cons_lr: float,
        last_epoch: int = -1,
        verbose: bool = False,
    ) -> None:
        self.cons_lr = cons_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch, verbose)

    def warmup_lrs(self) -> list[float | Tensor]:
        return [self.cons_lr for _ in self.base_lrs]


class LinearWarmupScheduler(WarmupScheduler):
    """Warm up in a straight line towards the base rate; the first epoch runs at ``min_lr``."""

    def __init__(
        self,
        optimizer: Optimizer,
        successor: LRScheduler,
        warmup_epoch: int,
        min_lr: float,
        last_epoch: int = -1,
        verbose: bool = False,
    ) -> None:
        self.min_lr = min_lr
        super().__init__(optimizer, successor, warmup_epoch, last_epoch, verbose)

    def warmup_lrs(self) -> list[float | Tensor]:
        if self.last_epoch == 0:
            return [self.min_lr for _ in self.base_lrs]
        return [rate * self.last_epoch / self.warmup_epoch for rate in self.base_lrs]
