"""What a file or folder of weights is, and whether its encoders agree about drawn images.

The measure: images are drawn whose visual attributes are known, and for each attribute the backbone
chooses among sentences, one for each value. The mean negative log-probability of the true sentence
is compared with that under another preprocessing and under another activation, image by image: if
another one does better by more than 5 % with all of a 99 % bootstrap interval, the present one is
suspicious. Drawn images are not medical images; a backbone that cannot read them at all gives a
figure near that of guessing, which says nothing about the rest.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from clip.model import QuickGELU
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.functional import InterpolationMode, resize

from backbones import captions
from backbones.backbone import CLIP_MEAN, CLIP_STD, Backbone
from backbones.numerics import cosine_logits
from datasets import synthetic
from datasets.synthetic import World

SEED = 77  # of the drawn images
N_IMAGES = 100  # of each world
BLIND = 0.95  # of a guesser's loss: above it the images are not read at all
WORTH = 0.05  # a smaller gain, as a share of the loss, is none: sharper logits give as much
# Means and deviations that medical and general backbones are published with.
PREPROCESSINGS = {
    "CLIP's": (CLIP_MEAN, CLIP_STD),
    "ImageNet's": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "0.5 and 0.5": ((0.5,) * 3, (0.5,) * 3),
    "CheXzero's": ((0.398,) * 3, (0.327,) * 3),
}


class Reading(NamedTuple):
    """How well a backbone reads the drawn images in one setting.

    Attributes:
        loss: mean negative log-probability of the true sentence, in nats.
        better: loss less that in the setting of the file, with a 99 % interval; None for that one.
    """

    setting: str
    loss: float
    better: tuple[float, float, float] | None


class Signs(NamedTuple):
    """``readings``, the first in the backbone's own setting; ``guessing``: a guesser's loss."""

    readings: list[Reading]
    guessing: float
    activation_cosine: float

    @property
    def is_blind(self) -> bool:
        """Whether the drawn images cannot be read in any of the settings."""
        return min(reading.loss for reading in self.readings) > BLIND * self.guessing

    @property
    def suspicions(self) -> list[str]:
        """A sentence for each setting that reads the images better than the backbone's own."""
        return [
            f"SUSPICIOUS: with {reading.setting} the drawn images are read better (loss "
            f"{reading.loss:.3f} in place of {self.readings[0].loss:.3f}): check it"
            for reading in self.readings
            if reading.better is not None
            and reading.better[2] < -WORTH * self.readings[0].loss
            and reading.loss < BLIND * self.guessing
        ]


def signs_of_life(backbone: Backbone, n_images: int = N_IMAGES) -> Signs:
    """Read drawn images in the backbone's own setting and in others."""
    worlds = [Drawn(backbone, world, n_images) for world in synthetic.WORLDS]
    other = with_other_activation(backbone)
    own = backbone.preprocessing
    settings: list[tuple[str, Backbone, Sequence[float], Sequence[float]]] = [
        ("its own settings", backbone, own.mean, own.std),
        ("the other activation", other, own.mean, own.std),
    ]
    settings += [
        (f"{name} mean and deviation", backbone, mean, std)
        for name, (mean, std) in PREPROCESSINGS.items()
        if not np.allclose([*mean, *std], [*own.mean, *own.std], atol=2e-3)
    ]
    readings: list[Reading] = []
    first = np.zeros(0)
    for name, model, mean, std in settings:
        losses = np.concatenate([world.losses(model, mean, std) for world in worlds])
        if not readings:
            first = losses
        difference = interval(losses - first) if readings else None
        readings.append(Reading(name, float(losses.mean()), difference))
    images = worlds[0].prepared(own.mean, own.std)[:16]
    cosine = F.cosine_similarity(backbone.encode_image(images), other.encode_image(images)).mean()
    guessing = float(np.mean([world.guessing for world in worlds]))
    return Signs(readings, guessing, float(cosine))


class Drawn:
    """Images of one world at the backbone's size, and the sentences that could be true of them."""

    def __init__(self, backbone: Backbone, world: World, n: int) -> None:
        self.world = world
        drawn = [synthetic.picture(world, SEED, i) for i in range(n)]
        pixels = torch.from_numpy(np.stack([image for image, _ in drawn])).permute(0, 3, 1, 2)
        side = backbone.preprocessing.size
        mode = InterpolationMode.BICUBIC
        self.images = resize(pixels.float() / 255, [side, side], mode, antialias=True)
        self.attributes = [attributes for _, attributes in drawn]
        self.sentences: dict[Backbone, dict[str, Tensor]] = {}
        sizes = [len(values) for values in captions.HELD_OUT[world.name].values()]
        self.guessing = float(np.mean(np.log(sizes)))

    def prepared(self, mean: Sequence[float], std: Sequence[float]) -> Tensor:
        """[n, 3, size, size], normalised."""
        shape = (3, 1, 1)
        return (self.images - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)

    @torch.no_grad()
    def losses(self, backbone: Backbone, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
        """[n] negative log-probability of the true sentences of each image, over its attributes."""
        parts = self.prepared(mean, std).split(16)
        images = torch.cat([backbone.encode_image(part) for part in parts])
        if backbone not in self.sentences:
            self.sentences[backbone] = self._read_sentences(backbone)
        columns = []
        for name, features in self.sentences[backbone].items():
            logits = cosine_logits(images, features, backbone.logit_scale)
            columns.append(self._of_attribute(name, logits.log_softmax(1).cpu().numpy()))
        return np.nanmean(np.stack(columns), axis=0)

    def _read_sentences(self, backbone: Backbone) -> dict[str, Tensor]:
        """Attribute -> [values, d] features, each the mean of a value's sentences."""
        read = {}
        for name, values in captions.HELD_OUT[self.world.name].items():
            of_values = [
                F.normalize(backbone.encode_text(backbone.prepare(list(texts))), dim=-1).mean(0)
                for texts in values.values()
            ]
            read[name] = torch.stack(of_values)
        return read

    def _of_attribute(self, name: str, chances: np.ndarray) -> np.ndarray:
        """[n] of [n, values] log-probabilities; NaN where nothing can be said of the attribute."""
        values = captions.HELD_OUT[self.world.name][name]
        places = {value: i for i, value in enumerate(values)}
        return np.array(
            [
                -chances[i, places[a[name]]]
                if captions.can_be_said(name, a) and a[name] in places
                else np.nan
                for i, a in enumerate(self.attributes)
            ]
        )


def interval(differences: np.ndarray, draws: int = 2000) -> tuple[float, float, float]:
    """Mean and 99 % bootstrap interval over images."""
    rng = np.random.default_rng(0)
    means = differences[rng.integers(0, len(differences), (draws, len(differences)))].mean(1)
    low, high = np.quantile(means, (0.005, 0.995))
    return float(differences.mean()), float(low), float(high)


def activations(module: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """Parent, attribute and name of each activation of a transformer."""
    for parent in module.modules():
        for name, child in parent.named_children():
            if isinstance(child, QuickGELU):
                yield parent, name, "quick_gelu"
            elif isinstance(child, nn.GELU):
                yield parent, name, "gelu" if child.approximate == "none" else "gelu_tanh"


def with_other_activation(backbone: Backbone) -> Backbone:
    """A copy that shares the weights and has GELU in place of QuickGELU, and the reverse."""
    memo = {id(p): p for p in (*backbone.parameters(), *backbone.buffers())}
    other = copy.deepcopy(backbone, memo)
    for parent, name, known in list(activations(other)):
        setattr(parent, name, nn.GELU() if known == "quick_gelu" else QuickGELU())
    return other
