"""One method twice, ours and the reference, started alike."""

import os
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .reference import Reference
from .timing import Call
from .workload import METHODS, SHAPES, Workload

BATCH = 32
QUICK_BATCH = 8  # with ViT-B/16 where time is short
# Pictures of a step where the reference would keep more than most machines have.
SMALLER = {"BayesianPrompt": 4}


def pair(work: Workload, method: str, batch: int, encoded: bool = False) -> dict[str, Call]:
    """Our trainer in the middle of an epoch and the reference, started alike.

    Args:
        encoded: give all of them features, to time what is not the image encoder.

    Returns:
        {name: function of one step}: the reference's, ours in a first run and in a later one.
    """
    precision = f"TRAINER.{METHODS[method][0].upper()}.PREC"
    trainer = work.trainer(method, "FEATURES.KEEP", "False", precision, "fp32")
    clip_model = trainer.model.backbone
    plain = work.plain_clip().to(trainer.device)
    params = trainer.model.learned.state_dict()
    reference = Reference(plain, method, params, work.classnames, work.phrases)
    side = SHAPES[work.backbone]["image_resolution"]
    pictures = torch.randn(batch, 3, side, side, device=trainer.device)
    label = torch.arange(batch, device=trainer.device) % len(work.classnames)
    features = clip_model.encode_image(pictures)
    later = _later(trainer, features, label)

    def first() -> None:
        if not encoded:
            clip_model.encode_image(pictures)
        later()

    given = features if encoded else pictures
    return {"reference": partial(reference.step, given, label), "first": first, "later": later}


def _later(trainer: Any, features: Tensor, label: Tensor) -> Call:
    """A step from kept features; for a method that learns nothing, one batch of a test."""
    if trainer.optim is not None:
        trainer.set_model_mode("train")
        return partial(trainer.forward_backward, {"features": features, "label": label})
    trainer.set_model_mode("eval")

    @torch.no_grad()
    def test() -> None:
        trainer.model.from_features(features)

    return test


def a_step(folder: str, backbone: str, method: str, way: str) -> Call:
    """Two steps of one side, to be run where their memory is measured."""
    torch.set_num_threads(os.cpu_count() or 1)
    work = Workload(folder, backbone, pictures=8)
    ways = pair(work, method, SMALLER.get(method, BATCH))
    return lambda: [ways[way]() for _ in range(2)]
