"""What a trained small CLIP knows of each attribute of the drawn world."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from clip.model import CLIP
from clip.simple_tokenizer import SimpleTokenizer
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from backbones import TOKENS, captions, expand_token_table
from backbones.formats.openai import clip_of
from backbones.pretrain_data import HELD_OUT_SEED, Attributes, draw_pictures, normalise
from datasets import synthetic
from datasets.synthetic import World


def load(path: Path, seed: int | None = None) -> CLIP:
    """A checkpoint as a model in fp32, the unused rows drawn with ``seed``."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    return clip_of(expand_token_table(state, seed))


def tokenize(texts: Sequence[str]) -> Tensor:
    """[n, 77] of OpenAI's token ids."""
    tokenizer = SimpleTokenizer()
    tokens = torch.zeros(len(texts), 77, dtype=torch.long)
    for i, text in enumerate(texts):
        row = [tokenizer.encoder["<|startoftext|>"], *tokenizer.encode(text)]
        row.append(tokenizer.encoder["<|endoftext|>"])
        tokens[i, : len(row)] = torch.tensor(row)
    return tokens


@torch.no_grad()
def image_features(model: CLIP, pixels: Tensor, chunk: int = 200) -> Tensor:
    """[n, d] at norm 1, of uint8 pixels."""
    parts = [model.encode_image(normalise(part)) for part in pixels.split(chunk)]
    return F.normalize(torch.cat(parts), dim=-1)


@torch.no_grad()
def text_features(model: CLIP, texts: Sequence[str]) -> Tensor:
    """[n, d] at norm 1."""
    return F.normalize(model.encode_text(tokenize(texts)), dim=-1)


def attribute_aucs(
    model: CLIP, world: World, pixels: Tensor, attributes: Sequence[Attributes]
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


def names_accuracy(path: Path, world: World, seeds: int = 20, n: int = 200) -> list[float]:
    """Balanced accuracy of zero-shot by class names, for each seed of the untrained rows."""
    model = load(path)
    drawn = [draw_pictures(world, HELD_OUT_SEED + 1, n, c)[0] for c in world.prior]
    images, truth = image_features(model, torch.cat(drawn)), np.repeat(np.arange(len(drawn)), n)
    state = torch.load(path, map_location="cpu", weights_only=True)
    accuracies = []
    for seed in range(seeds):
        model.token_embedding.weight.data = expand_token_table(state, seed)[TOKENS]
        texts = text_features(model, [f"a photo of a {c}." for c in world.prior])
        accuracies.append(balanced_accuracy_score(truth, (images @ texts.t()).argmax(1).numpy()))
    return accuracies


def report(paths: Sequence[Path], n: int = 2000) -> None:
    """Print the table of AUCs and what the names of the classes tell."""
    for path in paths:
        model = load(path)
        size = path.stat().st_size / 2**20
        print(f"\n{path.name}, {size:.1f} MB")
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
            accuracies = names_accuracy(path, world)
            print(
                f"{world.name} by names, balanced accuracy over {len(accuracies)} seeds of the "
                f"untrained rows: {np.mean(accuracies):.3f} (deviation {np.std(accuracies):.3f})"
            )
