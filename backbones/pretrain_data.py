"""What the small CLIPs learn from: drawn images, their captions, the attributes in both."""

import random
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from clip.simple_tokenizer import SimpleTokenizer
from torch import Tensor
from torch.nn import functional as F

from backbones import captions
from backbones.backbone import CLIP_MEAN as MEAN
from backbones.backbone import CLIP_STD as STD
from core.files import atomic_write
from core.processes import end_worker_with_parent
from datasets import synthetic
from datasets.synthetic import World

PICTURES = {"SynthDerm": 24000, "SynthChest": 12000}
BATCH = {"SynthDerm": 128, "SynthChest": 64}
LONGEST = 56  # tokens of a caption in training
STRANGERS = 256  # rows for words that no caption uses, drawn afresh at every step
TRAIN_SEED, HELD_OUT_SEED = 1, 2

Attributes = Mapping[str, str]  # of an image: value by attribute name
VALUES = [
    (world.name, attribute.name, value)
    for world in synthetic.WORLDS
    for attribute in world.attributes
    for value in attribute.values
]
GROUPS = [  # the places of an attribute's values
    [i for i, (world_name, name, _) in enumerate(VALUES) if (world_name, name) == key]
    for key in dict.fromkeys((world_name, name) for world_name, name, _ in VALUES)
]


class Vocabulary:
    """The tokens that captions use, numbered without gaps: words, strangers, start, end."""

    def __init__(self) -> None:
        self.tokenizer = SimpleTokenizer()
        encode = self.tokenizer.encode
        assert not captions.DISEASE_WORDS.intersection(captions.words())
        words = sorted({token for word in captions.words() for token in encode(word)})
        ends = [self.tokenizer.encoder[end] for end in ("<|startoftext|>", "<|endoftext|>")]
        self.rows = len(self.tokenizer.encoder)
        self.n_words = len(words)
        self.ids = words + ends
        self.place = {token: i for i, token in enumerate(words)}
        self.start, self.end = self.n_words + STRANGERS, self.n_words + STRANGERS + 1

    def __len__(self) -> int:
        return self.n_words + STRANGERS + 2

    def encode(self, text: str) -> list[int]:
        return [self.place[token] for token in self.tokenizer.encode(text)]

    def is_stranger(self) -> slice:
        return slice(self.n_words, self.n_words + STRANGERS)

    def kept(self) -> list[int]:
        """Places of the rows to keep, in the order of ``ids``."""
        return [*range(self.n_words), self.start, self.end]


def _draw(task: tuple[int, int, int, int, str | None]) -> tuple[np.ndarray, list[dict[str, str]]]:
    world_index, seed, first, last, classname = task
    world = synthetic.WORLDS[world_index]
    drawn = [synthetic.picture(world, seed, i, classname) for i in range(first, last)]
    return np.stack([pixels for pixels, _ in drawn]), [attributes for _, attributes in drawn]


def draw_pictures(
    world: World, seed: int, n: int, classname: str | None = None
) -> tuple[Tensor, list[dict[str, str]]]:
    """[n, 3, 64, 64] uint8 and the pictures' attributes; two processes draw where it pays."""
    at = synthetic.WORLDS.index(world)
    tasks = [(at, seed, i, min(i + 500, n), classname) for i in range(0, n, 500)]
    if len(tasks) > 1:
        with ProcessPoolExecutor(2, initializer=end_worker_with_parent) as pool:
            parts = list(pool.map(_draw, tasks))
    else:
        parts = [_draw(task) for task in tasks]
    pixels = torch.from_numpy(np.concatenate([p for p, _ in parts])).permute(0, 3, 1, 2)
    return pixels.contiguous(), [attributes for _, part in parts for attributes in part]


def normalise(pixels: Tensor) -> Tensor:
    """uint8 [n, 3, 64, 64] to what CLIP's picture tower reads."""
    mean = torch.tensor(MEAN, device=pixels.device)[:, None, None]
    deviation = torch.tensor(STD, device=pixels.device)[:, None, None]
    return (pixels.float() / 255 - mean) / deviation


def augment(x: Tensor, is_lesion: Tensor, rng: np.random.Generator) -> Tensor:
    """Flip, crop and shade every picture, and turn lesions by quarters; one resampling.

    Nothing that a caption says changes: captions never name a side.
    """
    n = len(x)
    turn = torch.tensor(rng.integers(0, 4, n) * (np.pi / 2)) * is_lesion
    flip = torch.tensor(rng.choice((-1.0, 1.0), n))
    cropped = rng.random(n) < 0.6
    zoom = torch.tensor(np.where(cropped, rng.uniform(0.62, 1.0, n), 1.0))
    shift = torch.tensor(rng.uniform(-1, 1, (n, 2))) * (1 - zoom)[:, None]
    theta = torch.stack(
        (
            torch.stack((turn.cos() * zoom * flip, -turn.sin() * zoom, shift[:, 0]), 1),
            torch.stack((turn.sin() * zoom * flip, turn.cos() * zoom, shift[:, 1]), 1),
        ),
        1,
    ).float()
    grid = F.affine_grid(theta, list(x.shape), align_corners=False).to(x.device)
    x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    shade = torch.tensor(rng.normal(0, 0.08, (n, 3, 1, 1)), dtype=torch.float32, device=x.device)
    return x + torch.where(is_lesion.to(x.device)[:, None, None, None] > 0, shade, shade[:, :1])


def indicators(world_name: str, attributes: Attributes) -> list[bool]:
    """Which of ``VALUES`` a picture has; of an opacity that is not there, no zone."""
    seen = {a: v for a, v in attributes.items() if captions.can_be_said(a, attributes)}
    return [w == world_name and seen.get(a) == value for w, a, value in VALUES]


def stated(world_name: str, facts: captions.Facts) -> list[bool]:
    """Which of ``VALUES`` belong to an attribute that ``facts`` speaks of."""
    return [w == world_name and a in facts for w, a, _ in VALUES]


def allowed(world_name: str, facts: captions.Facts) -> list[bool]:
    """Which of ``VALUES`` a picture may have for a caption with these facts to be true."""
    return [w == world_name and (a not in facts or value in facts[a]) for w, a, value in VALUES]


def short_caption(
    vocabulary: Vocabulary, world: World, attributes: Attributes, rng: random.Random
) -> tuple[str, list[int], captions.Facts]:
    """A caption of at most ``LONGEST`` tokens, these tokens, and the facts that it states."""
    while True:
        text, facts = captions.caption(world, attributes, rng)
        row = vocabulary.encode(text)
        if len(row) <= LONGEST:
            return text, row, facts


def caption_batch(
    vocabulary: Vocabulary, batch: Sequence[tuple[World, Attributes]], rng: random.Random
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Captions for [(world, attributes)].

    Returns:
        compact tokens [n, length], their ends [n], the values allowed [n, values], the values of
        the attributes that are spoken of [n, values].
    """
    rows, permitted, spoken = [], [], []
    for world, attributes in batch:
        _, row, facts = short_caption(vocabulary, world, attributes, rng)
        # Strange words, before the caption (as a learned context will stand) or anywhere in it.
        if rng.random() < 0.35:
            row = [_stranger(vocabulary, rng) for _ in range(rng.randint(1, 6))] + row
        if rng.random() < 0.2:
            for _ in range(rng.randint(1, 3)):
                row.insert(rng.randint(0, len(row)), _stranger(vocabulary, rng))
        rows.append([vocabulary.start, *row, vocabulary.end])
        permitted.append(allowed(world.name, facts))
        spoken.append(stated(world.name, facts))
    length = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    ends = torch.tensor([len(row) - 1 for row in rows])
    return tokens, ends, torch.tensor(permitted), torch.tensor(spoken)


def _stranger(vocabulary: Vocabulary, rng: random.Random) -> int:
    return vocabulary.n_words + rng.randrange(STRANGERS)


class Images(NamedTuple):
    """Some training images.

    Attributes:
        pixels: [n, 3, 64, 64] uint8. shown: the world and the attributes of each.
        has: [n, values], which of ``VALUES`` each has. is_lesion: [n], 1 or 0.
        chosen: of each world in the order of ``WORLDS``, which of its training images these are.
    """

    pixels: Tensor
    shown: list[tuple[World, Attributes]]
    has: Tensor
    is_lesion: Tensor
    chosen: dict[str, np.ndarray]


class Data:
    """Training pictures of both worlds, drawn once and kept as bytes."""

    def __init__(self, work: Path) -> None:
        self.pixels: dict[str, Tensor] = {}
        self.indicators: dict[str, Tensor] = {}
        self.attributes: dict[str, list[dict[str, str]]] = {}
        for world in synthetic.WORLDS:
            kept = work / f"{world.name}.pictures"  # an interrupted run needn't draw again
            if not kept.exists():
                with atomic_write(kept, "wb") as file:
                    torch.save(draw_pictures(world, TRAIN_SEED, PICTURES[world.name]), file)
            pixels, attributes = torch.load(kept, weights_only=True)
            self.pixels[world.name], self.attributes[world.name] = pixels, attributes
            self.indicators[world.name] = torch.tensor(
                [indicators(world.name, a) for a in attributes]
            )

    def batch(self, rng: np.random.Generator, sizes: Mapping[str, int] = BATCH) -> Images:
        """``sizes`` images of each world, one world after the other."""
        chosen = {
            world.name: rng.integers(0, len(self.pixels[world.name]), sizes[world.name])
            for world in synthetic.WORLDS
        }
        shown: list[tuple[World, Attributes]] = [
            (world, self.attributes[world.name][i])
            for world in synthetic.WORLDS
            for i in chosen[world.name]
        ]
        return Images(
            torch.cat([self.pixels[name][at] for name, at in chosen.items()]),
            shown,
            torch.cat([self.indicators[name][at] for name, at in chosen.items()]),
            torch.tensor([world.name == "SynthDerm" for world, _ in shown]).float(),
            chosen,
        )
