"""The training of ``tiny_bert``, a small CLIP of BiomedCLIP's kind, which learns from ``tiny_rn``.

A vision transformer as timm has it and a BERT, in open_clip's folder. Each tower learns alone, in
the teacher's joint space: its features follow the teacher's of the same image or caption, and the
contrastive loss pairs them with the teacher's features of the other kind. The model is loaded as a
user's folder is, with random weights, and its encoders are trained as they stand.

Every text is in WordPiece, so no word is without trained rows. Words that no caption holds and
random contexts are put into captions while the teacher reads the caption alone: what no caption
speaks of should change little. Captions with words left out are read too, by both.

The shipped weights were trained in several stretches, each with the learning rate of a training of
its own length (images: 1200 and 2400 steps; texts: 1000, 1200, 2000 and 1600), and until step 800
the words put into captions were random letters alone.
"""

import functools
import random
import re
import string
from abc import ABC
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from clip.model import CLIP
from torch import Tensor, nn
from torch.nn import functional as F

from backbones import captions
from backbones.backbone import Backbone
from backbones.loading import load_backbone
from backbones.pretrain_bert_folder import (
    SCALE,
    fresh_tensors,
    known_pieces,
    trained_tensors,
    write_folder,
)
from backbones.pretrain_clip import EMBED_DIM, encode_text
from backbones.pretrain_data import (
    TRAIN_SEED,
    VALUES,
    Data,
    Vocabulary,
    allowed,
    augment,
    normalise,
    short_caption,
)
from backbones.pretrain_losses import asked_of, contrastive_loss, naming_loss
from backbones.pretrain_training import Training
from backbones.texts import POSITIONS
from backbones.tokenizers import clip_token_ids, clip_tokenizer
from core.files import atomic_write

BATCH = {"SynthDerm": 64, "SynthChest": 32}
NAMED_FROM = 0.5  # of the steps: from then on a linear head has to read the attributes too
THINNED_FROM = 0.5  # of the steps: until then texts are whole captions


@functools.cache
def strange_words() -> list[str]:
    """Words of CLIP's vocabulary that no caption holds and that name no disease."""
    known = {*captions.words(), *captions.DISEASE_WORDS}
    words = (word.removesuffix("</w>") for word in clip_tokenizer().encoder if "</w>" in word)
    return sorted(word for word in words if re.fullmatch("[a-z]{3,9}", word) and word not in known)


def with_strange_words(text: str, rng: random.Random) -> str:
    """``text``, or now and then with one to three words that no caption holds put into it."""
    words = text.split()
    if len(text) < 200 and rng.random() < 0.4:
        for _ in range(rng.randint(1, 3)):
            letters = rng.choices(string.ascii_lowercase, k=rng.randint(2, 9))
            word = rng.choice(strange_words()) if rng.random() < 0.8 else "".join(letters)
            words.insert(rng.choice((0, rng.randint(0, len(words)))), word)
    return " ".join(words)


def thinned(text: str, rng: random.Random) -> str:
    """``text`` without some of its words."""
    share = rng.uniform(0.1, 0.6)
    words = text.split()
    return " ".join(word for word in words if rng.random() > share) or words[0]


class Lesson(NamedTuple):
    """What one step learns from.

    Attributes:
        images: [n, 3, 64, 64], augmented. texts: n captions, with strange words in some.
        of_images, of_texts: [n, d] the teacher's features of the images and captions alone, norm 1.
        has: [n, values] of ``VALUES``, what the images show.
        true: [n, n], whether a caption is true of an image.
    """

    images: Tensor
    texts: list[str]
    of_images: Tensor
    of_texts: Tensor
    has: Tensor
    true: Tensor


class Student(Training, ABC):
    """The training of one tower of ``model``: ``part`` is image or text.

    Args:
        targets: the teacher's features of each world's training images.

    Attributes:
        usual_steps: of the shipped weights.
    """

    part: str
    usual_steps: int
    peak = 1e-3

    def __init__(
        self,
        model: Backbone,
        pieces: list[str],
        steps: int,
        teacher: CLIP,
        targets: dict[str, Tensor],
    ) -> None:
        super().__init__(f"tiny_bert_{self.part}", steps, model.device)
        self.model, self.teacher, self.targets = model, teacher.to(model.device), targets
        self.vocabulary, self.pieces = Vocabulary(), pieces
        tower: nn.Module = getattr(model, self.part).requires_grad_(True)
        self.trained = {"tower": tower}
        self.optimise(tower.parameters())

    def lesson(self, data: Data, step: int) -> tuple[Lesson, random.Random]:
        """The lesson of this step, and what draws what else is random in it."""
        rng = np.random.default_rng([TRAIN_SEED, len(self.name), step])
        torch.manual_seed(step)
        images = data.batch(rng, BATCH)
        x = augment(normalise(images.pixels.to(self.device)), images.is_lesion, rng)
        words_rng = random.Random(int(rng.integers(2**62)))
        texts, plain, permitted = [], [], []
        for world, attributes in images.shown:
            text, _, facts = short_caption(self.vocabulary, world, attributes, words_rng)
            texts.append(with_strange_words(text, words_rng))
            plain.append(text)
            permitted.append(allowed(world.name, facts))
        true = (images.has.float() @ (~torch.tensor(permitted)).float().t()) == 0
        of_images = torch.cat([self.targets[name][at] for name, at in images.chosen.items()])
        of_texts, has = self.read_by_teacher(plain), images.has.to(self.device)
        lesson = Lesson(x, texts, of_images, of_texts, has, true.to(self.device))
        return lesson, words_rng

    @torch.no_grad()
    def read_by_teacher(self, texts: Sequence[str]) -> Tensor:
        """[n, d] at norm 1."""
        start, end = self.vocabulary.ids[-2:]
        rows = [[start, *ids, end] for ids in clip_token_ids(texts)]
        length = max(map(len, rows))
        tokens = torch.tensor([[*row, *[0] * (length - len(row))] for row in rows])
        ends = torch.tensor([len(row) - 1 for row in rows])
        features = encode_text(self.teacher, tokens.to(self.device), ends.to(self.device))
        return F.normalize(features, dim=-1)

    def save(self, folder: Path) -> None:
        write_folder(folder / "tiny_bert", trained_tensors(self.model), self.pieces)


class ImageStudent(Student):
    part = "image"
    usual_steps = 2400

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        torch.manual_seed(TRAIN_SEED)
        self.head = nn.Linear(EMBED_DIM, len(VALUES)).to(self.device)  # thrown away in the end
        self.trained["head"] = self.head
        self.optimise([*self.learned, *self.head.parameters()])

    def loss(self, data: Data, step: int) -> Tensor:
        """Matches the teacher's features of the images; contrastive with those of the captions."""
        lesson, _ = self.lesson(data, step)
        seen = self.model.image.tower(lesson.images)
        contrast = contrastive_loss(seen, lesson.of_texts, SCALE, lesson.true)
        loss = 0.3 * contrast + 20 * (1 - F.cosine_similarity(seen, lesson.of_images)).mean()
        if step < NAMED_FROM * self.steps:
            return loss
        scores = self.head(12 * F.normalize(seen, dim=-1))
        return loss + 4 * naming_loss(scores, lesson.has, asked_of(lesson.has))


class TextStudent(Student):
    part = "text"
    usual_steps = 1600

    def loss(self, data: Data, step: int) -> Tensor:
        """Matches the teacher's features of the captions; contrastive with those of the images."""
        lesson, rng = self.lesson(data, step)
        texts, target = lesson.texts, lesson.of_texts
        if step >= THINNED_FROM * self.steps:
            parts = [thinned(text, rng) for text in texts]
            texts, target = [*texts, *parts], torch.cat([target, self.read_by_teacher(parts)])
        read = self.encode(texts, rng)
        contrast = contrastive_loss(lesson.of_images, read[: len(lesson.texts)], SCALE, lesson.true)
        return 0.3 * contrast + 20 * (1 - F.cosine_similarity(read, target)).mean()

    def encode(self, texts: Sequence[str], rng: random.Random) -> Tensor:
        """[n, d], in four parts by length; each reads a random context, or none."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        features = []
        for part in np.array_split(order, 4):
            n_ctx, position = rng.choice((0, 0, 2, 4, 8)), rng.choice(POSITIONS)
            prepared = self.model.text.prepare([texts[i] for i in part], n_ctx, position)
            std = 0.02 * 10 ** rng.random()
            learned = std * torch.randn(
                1, len(prepared.sources), self.model.text_width, device=self.device
            )
            features.append(self.model.text.encode(prepared, learned if n_ctx else None))
        return torch.cat(features)[torch.tensor(order).argsort()]


def students(
    steps: int | None, device: torch.device, teacher: CLIP, data: Data, work: Path
) -> list[Training]:
    """The trainings of both towers of one model, which begins as a folder in ``work``.

    Neither needs the other, so that two processes may train one each in the same ``work``.
    """
    pieces = known_pieces(work)
    write_folder(work / "tiny_bert", fresh_tensors(), pieces)
    model = load_backbone(path=str(work / "tiny_bert"), device=device)
    targets = _features_of(teacher, data, device, work / "tiny_bert.features")
    return [
        kind(model, pieces, steps or kind.usual_steps, teacher, targets)
        for kind in (ImageStudent, TextStudent)
    ]


@torch.no_grad()
def _features_of(teacher: CLIP, data: Data, device: torch.device, kept: Path) -> dict[str, Tensor]:
    """The teacher's features, at norm 1, of each world's images as they are drawn."""
    if not kept.exists():
        teacher.eval()
        found = {
            name: torch.cat(
                [
                    teacher.encode_image(normalise(part.to(device))).cpu()
                    for part in pixels.split(200)
                ]
            )
            for name, pixels in data.pixels.items()
        }
        with atomic_write(kept, "wb") as file:
            torch.save({name: F.normalize(part, dim=-1) for name, part in found.items()}, file)
    return torch.load(kept, map_location=device, weights_only=True)
