"""What a trained small CLIP knows of each attribute of the drawn world."""

import itertools
import random
import string
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from backbones import captions
from backbones.backbone import Backbone
from backbones.loading import load_backbone
from backbones.pretrain_data import HELD_OUT_SEED, Attributes, draw_pictures, normalise
from backbones.token_table import TOKENS, expand_token_table
from datasets import synthetic
from datasets.synthetic import World


def image_features(model: Backbone, pixels: Tensor, chunk: int = 200) -> Tensor:
    """[n, d] at norm 1, of uint8 pixels."""
    parts = [model.encode_image(normalise(part)) for part in pixels.split(chunk)]
    return F.normalize(torch.cat(parts), dim=-1)


@torch.no_grad()
def text_features(model: Backbone, texts: Sequence[str]) -> Tensor:
    """[n, d] at norm 1."""
    return F.normalize(model.encode_text(model.prepare(texts)), dim=-1)


def attribute_aucs(
    model: Backbone, world: World, pixels: Tensor, attributes: Sequence[Attributes]
) -> dict[str, tuple[float, float, float]]:
    """How well held-out wordings tell an attribute's values apart, picture by picture.

    For two values, the score is the cosine with a wording of the one less that with a wording of
    the other; the AUC is that of this score on pictures that have the one or the other.

    Returns:
        {attribute: (mean AUC over pairs of single wordings, the worst such pair, the AUC with the
        wordings of a value averaged)}, each the mean over pairs of values but the worst.
    """
    images = image_features(model, pixels)
    result = {}
    for name, values in captions.HELD_OUT[world.name].items():
        scores = {v: images @ text_features(model, list(t)).t() for v, t in values.items()}
        single, ensemble = [], []
        asked = np.array([captions.can_be_said(name, a) for a in attributes])
        for one, other in itertools.combinations(values, 2):
            has_one = np.array([a[name] == one for a in attributes])
            has_other = np.array([a[name] == other for a in attributes])
            use = (has_one | has_other) & asked
            truth = has_one[use]
            for s in scores[one].t():
                for t in scores[other].t():
                    single.append(roc_auc_score(truth, (s - t).numpy()[use]))
            mean = scores[one].mean(1) - scores[other].mean(1)
            ensemble.append(roc_auc_score(truth, mean.numpy()[use]))
        result[name] = (float(np.mean(single)), float(np.min(single)), float(np.mean(ensemble)))
    return result


class ByNames:
    """Zero-shot classification of ``n`` images of each class of ``world``, by names of the classes.

    No caption names a disease, so what a text encoder makes of a class name is accidental.
    """

    def __init__(self, path: Path, world: World, n: int = 200) -> None:
        self.path, self.world = path, world
        self.model = load_backbone(path=str(path))
        drawn = [draw_pictures(world, HELD_OUT_SEED + 1, n, name)[0] for name in world.prior]
        self.images = image_features(self.model, torch.cat(drawn))
        self.truth = np.repeat(np.arange(len(drawn)), n)

    def accuracy(self, names: Sequence[str] = ()) -> float:
        """Balanced accuracy by ``names``; by the classes' own if empty."""
        texts = text_features(self.model, [f"a photo of a {n}." for n in names or self.world.prior])
        predicted = (self.images @ texts.t()).argmax(1)
        return float(balanced_accuracy_score(self.truth, predicted.numpy()))

    def with_other_rows(self, seeds: int = 20) -> list[float]:
        """Accuracy by the classes' names, for each seed of a checkpoint's untrained rows."""
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        table = self.model.text.token_embedding
        accuracies = []
        for seed in range(seeds):
            table.weight.data = expand_token_table(state, seed)[TOKENS]
            accuracies.append(self.accuracy())
        return accuracies

    def with_invented_names(self, draws: int = 20) -> list[float]:
        """Accuracy by names of random letters, each as long as the class's own."""
        rng = random.Random(0)
        return [
            self.accuracy(
                ["".join(rng.choices(string.ascii_lowercase, k=len(c))) for c in self.world.prior]
            )
            for _ in range(draws)
        ]


def report(paths: Sequence[Path], n: int = 2000) -> None:
    """Print the table of AUCs and what the names of the classes tell."""
    for path in paths:
        model = load_backbone(path=str(path))
        files = path.iterdir() if path.is_dir() else [path]
        print(f"\n{path.name}, {sum(file.stat().st_size for file in files) / 2**20:.1f} MB")
        print(
            f"{'world':<11}{'attribute':<13}{'one wording':>12}{'worst pair':>12}{'averaged':>10}"
        )
        single, averaged = [], []
        for world in synthetic.WORLDS:
            pixels, attributes = draw_pictures(world, HELD_OUT_SEED, n)
            for name, auc in attribute_aucs(model, world, pixels, attributes).items():
                print(f"{world.name:<11}{name:<13}{auc[0]:>12.3f}{auc[1]:>12.3f}{auc[2]:>10.3f}")
                single.append(auc[0])
                averaged.append(auc[2])
        print(f"{'mean':<24}{np.mean(single):>12.3f}{'':>12}{np.mean(averaged):>10.3f}")
        print(f"{'least':<24}{np.min(single):>12.3f}{'':>12}{np.min(averaged):>10.3f}")
        for world in synthetic.WORLDS:
            print(_said_by_names(ByNames(path, world)))


def _said_by_names(asked: ByNames) -> str:
    if asked.path.is_dir():  # every piece of a word is trained
        accuracies = asked.with_invented_names()
        what = f"{asked.accuracy():.3f}; over {len(accuracies)} draws of invented names"
    else:
        accuracies = asked.with_other_rows()
        what = f"over {len(accuracies)} seeds of the untrained rows"
    return (
        f"{asked.world.name} by names, balanced accuracy {what}: {np.mean(accuracies):.3f} "
        f"(deviation {np.std(accuracies):.3f})"
    )
