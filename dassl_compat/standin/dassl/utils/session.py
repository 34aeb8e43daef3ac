"""Random seeds, and what a run runs on."""

import random
from typing import Any

import numpy as np
import PIL
import torch
from torch.utils.collect_env import get_pretty_env_info


def set_random_seed(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's generators."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)


def collect_env_info() -> str:
    """What PyTorch reports on the machine and the versions, and Pillow's version."""
    return f"{get_pretty_env_info()}\n        Pillow ({PIL.__version__})"


def tolist_if_not(x: Any) -> list[Any]:
    """``x``, in a list unless it is one."""
    return x if isinstance(x, list) else [x]
