"""Does an explanation depend on the weights? Shuffle them and compare.

An explanation that stays the same when what it explains is destroyed does not explain it. The
elements of each tensor are shuffled, in turn, of the learned context, of the learned merge prompt
or concept weights, and of the whole backbone; nothing is trained. The evidence of the symptoms in
each image, for the classes that the intact run predicts, is then compared by Spearman's rank
correlation with what it was: 1 means that the explanation did not change, about 0 that nothing of
it is left. The margins of the predictions are compared likewise, over the images. An explanation
fails the test if it stays while the predictions change. It may stay where they do too: then the run
does not depend on what was shuffled.

Adebayo et al., NeurIPS 2018, https://arxiv.org/abs/1810.03292.
"""

import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from engine.loading import LoadedRun
from engine.symptom_model import SymptomModel

from .contributions import contributions
from .evidence import Evidence, evidence_of
from .explanation import softmax
from .reference import reference_from
from .what_if import merge_of

TIMES = 3  # shuffles of each part
IMAGES = 100  # to explain, and of the training images, for their mean
CHANGED = 0.5  # a mean rank correlation below it
STAYS = "both mostly stay: the run hardly depends on it"
FAILS = "FAILS: the explanations stay, the predictions change"
PASSES = "passes: the explanations change"


def randomisation(
    run: LoadedRun, images: Sequence[Any], training: Sequence[Any], seed: int = 0
) -> list[dict[str, Any]]:
    """How much explanations change when parts of a run are shuffled.

    Args:
        run: an explainable run; it does not change.
        images: to explain. training: training images. Both as ``LoadedRun.encode`` takes them; the
            first ``IMAGES`` of each are used.

    Returns:
        rows of dicts: part ("learned context", "merge prompt", "concept weights", "backbone"),
            correlation (of the explanations, mean over images and shuffles), low and high (of the
            shuffles' means), margins (correlation of the margins, mean over shuffles), verdict,
            pictures.

    Raises:
        InputError: the run is not explainable.
    """
    model, _ = merge_of(run)
    images, training = list(images)[:IMAGES], list(training)[:IMAGES]
    features, reference = run.encode(images), run.encode(training)
    before = _evidence(model, features, reference)
    order = np.argsort(-softmax(before.logits), axis=1, kind="stable")
    one, rival = order[:, 0], order[:, 1]
    rows = []
    for part, shuffle in _parts(model):
        pairs = []
        for time in range(TIMES):
            other = shuffle(run, torch.Generator().manual_seed(seed + time))
            if other.model.backbone is not model.backbone:  # it encodes images differently
                changed = _evidence(other.model, other.encode(images), other.encode(training))
            else:
                changed = _evidence(other.model, features, reference)
            margins = spearman(*(_margin(e, one, rival) for e in (before, changed)))
            pairs.append((_correlation(model, before, changed, one, rival), margins))
        rows.append({"part": part, **_row(np.array(pairs)), "pictures": len(images)})
    return rows


def _row(pairs: np.ndarray) -> dict[str, Any]:
    """What [shuffles, 2] correlations, of explanations and of margins, say."""
    correlation, margins = map(float, pairs.mean(axis=0))
    return {
        "correlation": correlation,
        "low": float(pairs[:, 0].min()),
        "high": float(pairs[:, 0].max()),
        "margins": margins,
        "verdict": verdict(correlation, margins),
    }


def verdict(explanations: float, margins: float) -> str:
    """What two rank correlations, of the explanations and of the predictions, say of a part."""
    if explanations < CHANGED:
        return PASSES
    return FAILS if margins < CHANGED else STAYS


Shuffle = Callable[[LoadedRun, torch.Generator], LoadedRun]


def _parts(model: SymptomModel) -> Iterator[tuple[str, Shuffle]]:
    """(part, function that gives the run with it shuffled)."""
    names = [name for name, _ in model.learned.named_parameters()]
    learned = {
        "learned context": [n for n in names if n.split(".")[-1] == "ctx"],
        "merge prompt": [n for n in names if n.startswith(("attn.", "token."))],
        "concept weights": [n for n in names if n == "weights"],
    }
    for part, own in learned.items():
        if own:
            yield part, functools.partial(_with_learned_shuffled, names=own)
    yield "backbone", _with_backbone_shuffled


def _with_learned_shuffled(
    run: LoadedRun, generator: torch.Generator, names: Sequence[str]
) -> LoadedRun:
    """The run with these learned tensors shuffled."""
    model, symptoms = merge_of(run)
    other = run.reading(symptoms)
    with torch.no_grad():
        for name, parameter in other.model.learned.named_parameters():
            if name in names:
                parameter.copy_(_shuffled(parameter, generator))
    return other


def _with_backbone_shuffled(run: LoadedRun, generator: torch.Generator) -> LoadedRun:
    """The run on a copy of its backbone whose weights are shuffled."""
    backbone = copy.deepcopy(run.model.backbone)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.copy_(_shuffled(parameter, generator))
    return run.on_backbone(backbone)


def _shuffled(tensor: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.randperm(tensor.numel(), generator=generator).to(tensor.device)
    return tensor.flatten()[order].reshape(tensor.shape)


def _evidence(model: Any, features: Tensor, training: Tensor) -> Evidence:
    reference = reference_from(model, contributions(model, training))
    return evidence_of(model, contributions(model, features), reference)


def _correlation(
    model: SymptomModel, before: Evidence, after: Evidence, one: np.ndarray, rival: np.ndarray
) -> float:
    """Mean over images of the rank correlation of both classes' symptoms.

    Where both classes read the same symptoms, each counts with its part of the margin.
    """
    mask = model.mask.cpu().numpy()

    def signed(e: Evidence, i: int, c: int, r: int) -> np.ndarray:
        own, other = e.symptom[i, c][mask[c]], -e.symptom[i, r][mask[r]]
        return own + other if model.shared else np.concatenate([own, other])

    return float(
        np.mean(
            [
                spearman(signed(before, i, c, r), signed(after, i, c, r))
                for i, (c, r) in enumerate(zip(one, rival, strict=True))
            ]
        )
    )


def _margin(evidence: Evidence, one: np.ndarray, rival: np.ndarray) -> np.ndarray:
    rows = np.arange(len(one))
    return evidence.logits[rows, one] - evidence.logits[rows, rival]


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Rank correlation; 0 where the values of one do not vary: nothing of the order is left."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])
