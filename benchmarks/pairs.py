"""One method twice, ours and the reference, started alike."""

import os

import torch

from .reference import Reference
from .workload import METHODS, SHAPES, Workload

BATCH = 32
# Pictures of a step where the reference would keep more than most machines have.
SMALLER = {"BayesianPrompt": 4}


def pair(work, method, batch, encoded=False):
    """Our trainer in the middle of an epoch and the reference, started alike.

    Args:
        encoded: give the reference features as well, to time what is not the image encoder.

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
    if encoded:
        pictures = torch.randn(batch, clip_model.embed_dim, device=trainer.device)
    features = clip_model.encode_image(pictures)

    def later():
        trainer.forward_backward({"features": features, "label": label})

    if trainer.optim is None:
        trainer.set_model_mode("eval")

        @torch.no_grad()
        def later():
            trainer.model.from_features(features)
    else:
        trainer.set_model_mode("train")

    def first():
        clip_model.encode_image(pictures)
        later()

    return {
        "reference": lambda: reference.step(pictures, label),
        "first": first,
        "later": later,
    }


def a_step(folder, backbone, method, way):
    """Two steps of one side, to be run where their memory is measured."""
    torch.set_num_threads(os.cpu_count())
    work = Workload(folder, backbone, pictures=8)
    ways = pair(work, method, SMALLER.get(method, BATCH))
    return lambda: [ways[way]() for _ in range(2)]
