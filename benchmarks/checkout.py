"""Time the CoOp of another checkout, unchanged, in a process of its own."""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from core.errors import InputError

from .workload import random_clip

# Its program as it is, but for the weights: random ones cannot pass for a download.
LAUNCH = """
import runpy, sys
ours, checkout, weights = sys.argv[1:4]
sys.argv = [checkout + "/train.py", *sys.argv[4:]]
sys.path.insert(0, ours)
import dassl_compat  # brings a Dassl where there is none, and what today's PyTorch needs
sys.path[0] = checkout
import clip.clip
clip.clip._download = lambda *args, **options: weights
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# A line of Dassl's log.
LINE = re.compile(
    r"epoch \[2/2\].*batch \[\d+/\d+\].*?time [\d.]+ \(([\d.]+)\).*?data [\d.]+ \(([\d.]+)\)"
)
CONFIG = """
DATALOADER:
  NUM_WORKERS: 2
  TRAIN_X:
    BATCH_SIZE: 32
INPUT:
  SIZE: (224, 224)
  INTERPOLATION: "bicubic"
  PIXEL_MEAN: [0.48145466, 0.4578275, 0.40821073]
  PIXEL_STD: [0.26862954, 0.26130258, 0.27577711]
  TRANSFORMS: ["random_resized_crop", "random_flip", "normalize"]
OPTIM:
  NAME: "sgd"
  LR: 0.001
  MAX_EPOCH: 2
  LR_SCHEDULER: "cosine"
TRAIN:
  PRINT_FREQ: 1
MODEL:
  BACKBONE:
    NAME: "ViT-B/16"
TEST:
  NO_TEST: True
TRAINER:
  COOP:
    N_CTX: 4
    PREC: "fp32"
"""


def time_checkout(checkout: Path, folder: Path, classnames: Sequence[str]) -> tuple[float, float]:
    """Seconds of a batch of 32 in its second epoch: (without, with) reading pictures.

    Args:
        checkout: a folder with CoOp's train.py. folder: an empty one to work in.
        classnames: what the texts say.

    Raises:
        InputError: it does not run; what it said last is in the message.
    """
    checkout = checkout.expanduser().resolve()
    _write_eurosat(folder / "eurosat", classnames)
    weights = folder / "random.pt"
    torch.save(random_clip("vit_b16").state_dict(), weights)
    (folder / "coop.yaml").write_text(CONFIG)
    here = Path(__file__).resolve().parent.parent
    command = [sys.executable, "-c", LAUNCH, str(here), str(checkout), str(weights)]
    command += ["--root", str(folder), "--trainer", "CoOp", "--seed", "1"]
    command += ["--dataset-config-file", str(checkout / "configs/datasets/eurosat.yaml")]
    command += ["--config-file", str(folder / "coop.yaml"), "--output-dir", str(folder / "out")]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    lines = LINE.findall(done.stdout)
    if done.returncode or not lines:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise InputError(f"--checkout {checkout} did not train; its last line: {said}")
    batch, reading = map(float, lines[-1])
    return batch - reading, batch


def _write_eurosat(folder: Path, classnames: Sequence[str]) -> None:
    """A dataset that CoOp knows, in its layout, of drawn noise."""
    rng = np.random.default_rng(0)
    split: dict[str, list[tuple[str, int, str]]] = {"train": [], "val": [], "test": []}
    for side, n in {"train": 128, "val": 4, "test": 4}.items():
        for i in range(n):
            label = i % len(classnames)
            name = f"{side}{i}.jpg"
            path = folder / "2750" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)
            Image.fromarray(noise).save(path)
            split[side].append((name, label, classnames[label]))
    (folder / "split_zhou_EuroSAT.json").write_text(json.dumps(split))
