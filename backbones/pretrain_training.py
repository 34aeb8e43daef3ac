"""The training of a small CLIP: its step, and the state from which an interrupted one goes on."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from backbones.pretrain_data import Data
from core.files import atomic_write


def learning_rate(step: int, steps: int, peak: float) -> float:
    if step < 100:
        return peak * (step + 1) / 100
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - 100) / max(1, steps - 100))))


class Training(ABC):
    """The training of model ``name``.

    Attributes:
        trained: what is kept of an unfinished training, by name: the model and what learns with it.
        learned: the parameters that learn. peak: the largest learning rate.
    """

    peak: float

    def __init__(self, name: str, steps: int, device: torch.device) -> None:
        self.name, self.steps, self.device = name, steps, device
        self.trained: dict[str, nn.Module] = {}

    def optimise(self, learned: Iterable[nn.Parameter]) -> None:
        """Make the optimiser of these parameters; norms and biases do not decay."""
        self.learned = list(learned)
        groups = [
            {"params": [p for p in self.learned if p.ndim >= 2], "weight_decay": 0.02},
            {"params": [p for p in self.learned if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98))

    def load_state(self, path: Path) -> tuple[int, float]:
        """Take up what an interrupted run left, if anything: its steps and seconds."""
        if not path.exists():
            return 0, 0.0
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name, module in self.trained.items():
            module.load_state_dict(state[name])
        self.optimiser.load_state_dict(state["optimiser"])
        return state["step"], state["seconds"]

    def save_state(self, path: Path, step: int, seconds: float) -> None:
        """Keep the state after ``step`` steps, which took ``seconds``."""
        state: dict[str, Any] = {name: m.state_dict() for name, m in self.trained.items()}
        state |= {"optimiser": self.optimiser.state_dict(), "step": step, "seconds": seconds}
        with atomic_write(path, "wb") as file:
            torch.save(state, file)

    @abstractmethod
    def loss(self, data: Data, step: int) -> Tensor:
        """The loss of this step's batch; it seeds all that the step draws."""

    def step(self, data: Data, step: int) -> float:
        """Take one step; returns its loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(step, self.steps, self.peak)
        loss = self.loss(data, step)
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.learned, 1.0)
        self.optimiser.step()
        return loss.item()

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the weights into ``folder``, in the format of the kind of model."""
