"""The training of the two small CLIPs of OpenAI's kind: ``tiny_rn``, and ``tiny``, its student.

The ResNet learns with the text tower, by the symmetric contrastive loss on images and captions. A
caption is often true of several images of a batch, so the target is spread over all that it is true
of. Left to this alone, attributes are discovered one after the other, each after a long wait; so
for the first part of the training one linear head, which is then thrown away, has to read the
attributes from an image's features and the stated ones from a caption's. The transformer then
learns with the text tower frozen, from captions and from the ResNet's features.
"""

import copy
import math
import random
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from clip.model import CLIP, convert_weights
from torch import Tensor
from torch.nn import functional as F

from backbones.formats.openai import clip_of
from backbones.pretrain_data import (
    TRAIN_SEED,
    VALUES,
    Data,
    Vocabulary,
    augment,
    caption_batch,
    normalise,
)
from backbones.pretrain_losses import asked_of, contrastive_loss, naming_loss
from backbones.pretrain_training import Training
from backbones.token_table import IDS, ROWS, SEED, STD, TOKENS, USED
from backbones.weights import read_weights
from core.files import atomic_write
from datasets import drawing

VISION: dict[str, dict[str, Any]] = {  # the image tower's layers, width, patch
    "tiny_rn": {"vision_layers": (1, 1, 2, 1), "vision_width": 24, "vision_patch_size": None},
    "tiny": {"vision_layers": 4, "vision_width": 128, "vision_patch_size": 8},
}
EMBED_DIM, TEXT_WIDTH, TEXT_LAYERS, CONTEXT = 96, 128, 3, 77
LEARNING_RATE = {"tiny_rn": 1.5e-3, "tiny": 1e-3}


def new_model(name: str, vocabulary_size: int) -> CLIP:
    return CLIP(
        embed_dim=EMBED_DIM,
        image_resolution=drawing.SIZE,
        **VISION[name],
        context_length=CONTEXT,
        vocab_size=vocabulary_size,
        transformer_width=TEXT_WIDTH,
        transformer_heads=TEXT_WIDTH // 64,
        transformer_layers=TEXT_LAYERS,
    )


def encode_text(model: CLIP, tokens: Tensor, ends: Tensor) -> Tensor:
    """Text features of compact tokens, in three parts by length: short captions cost little."""
    order = ends.argsort()
    features = []
    for part in order.tensor_split(3):
        x = model.token_embedding(tokens[part, : int(ends[part].max()) + 1])
        x = x + model.positional_embedding[: x.shape[1]]
        x = model.transformer(x.permute(1, 0, 2))  # [length, n, width]
        x = x[ends[part], torch.arange(len(part), device=x.device)]
        features.append(model.ln_final(x) @ model.text_projection)
    return torch.cat(features)[order.argsort()]


def temperature(step: int, steps: int) -> float:
    """exp(logit_scale): from CLIP's starting 14 to the 100 that CLIP ends at, by a fixed course."""
    return 14.3 * (100 / 14.3) ** min(1.0, max(0.0, (step / steps - 0.3) / 0.5))


class Batch(NamedTuple):
    """What one step learns from.

    Attributes:
        x: [n, 3, 64, 64] augmented images. has: [n, values] of ``VALUES``, what they show.
        tokens, ends, permitted, spoken: as ``caption_batch`` gives them.
    """

    x: Tensor
    has: Tensor
    tokens: Tensor
    ends: Tensor
    permitted: Tensor
    spoken: Tensor


class CLIPTraining(Training):
    """The training of model ``name``: the model, the head that reads attributes, the optimiser.

    With a ``teacher``, its text tower is taken and frozen, and its image features are matched.
    """

    def __init__(
        self, name: str, steps: int, device: torch.device, teacher: CLIP | None = None
    ) -> None:
        super().__init__(name, steps, device)
        self.teacher, self.peak = teacher, LEARNING_RATE[name]
        self.vocabulary = Vocabulary()
        torch.manual_seed(TRAIN_SEED)
        self.model = new_model(name, len(self.vocabulary)).to(device)
        if teacher is not None:
            visual = {k: v for k, v in self.model.state_dict().items() if k.startswith("visual.")}
            self.model.load_state_dict(teacher.state_dict() | visual, strict=False)
            teacher.eval()
        self.head = torch.nn.Linear(EMBED_DIM, len(VALUES)).to(device)
        self.trained = {"model": self.model, "head": self.head}
        learned = [
            p
            for k, p in self.model.named_parameters()
            if k != "logit_scale" and (teacher is None or k.startswith("visual."))
        ]
        self.optimise([*learned, *self.head.parameters()])

    def save_state(self, path: Path, step: int, seconds: float) -> None:
        with torch.no_grad():
            self.model.logit_scale.fill_(math.log(self.scale(step - 1)))
        super().save_state(path, step, seconds)

    def scale(self, step: int) -> float:
        """exp(logit_scale) at this step."""
        return temperature(step, self.steps) if self.teacher is None else 100.0

    def batch(self, data: Data, step: int) -> Batch:
        """Images and captions of this step; it seeds all that the step draws."""
        rng = np.random.default_rng([TRAIN_SEED, len(self.name), step])
        torch.manual_seed(step)
        images = data.batch(rng)
        captions_rng = random.Random(int(rng.integers(2**62)))
        captioned = caption_batch(self.vocabulary, images.shown, captions_rng)
        return Batch(
            augment(normalise(images.pixels.to(self.device)), images.is_lesion, rng),
            images.has.to(self.device),
            *(tensor.to(self.device) for tensor in captioned),
        )

    def features(self, batch: Batch, step: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Of the images, of their captions and, with a teacher, its own of the images at norm 1."""
        # Half precision for speed; the last quarter settles in fp32.
        half, target = step < 0.75 * self.steps, None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            x = batch.x.contiguous(memory_format=torch.channels_last)
            images = self.model.visual(x)
            with torch.set_grad_enabled(self.teacher is None):
                texts = encode_text(self.model, batch.tokens, batch.ends)
            if self.teacher is not None:
                with torch.no_grad():
                    target = F.normalize(self.teacher.visual(x).float(), dim=-1)
        return images.float(), texts.float(), target

    def loss(self, data: Data, step: int) -> Tensor:
        """Contrastive, and beside it what the head reads wrongly or what the teacher sees."""
        batch = self.batch(data, step)
        with torch.no_grad():
            self.model.token_embedding.weight[self.vocabulary.is_stranger()].normal_(std=STD)
        self.model.train()
        images, texts, target = self.features(batch, step)
        true = (batch.has.float() @ (~batch.permitted).float().t()) == 0
        loss = contrastive_loss(images, texts, self.scale(step), true)
        if target is not None:
            matched = F.normalize(images, dim=-1)
            return 0.3 * loss + 20 * (1 - (matched * target).sum(-1)).mean()
        if step < 0.7 * self.steps:
            x, y = (12 * F.normalize(f, dim=-1) for f in (images, texts))
            loss = loss + 4 * naming_loss(self.head(x), batch.has, asked_of(batch.has))
            loss = loss + 4 * naming_loss(self.head(y), batch.permitted, batch.spoken)
        return loss

    def save(self, folder: Path) -> None:
        save(self.model.eval(), folder / f"{self.name}.pt")


def load(path: Path) -> CLIP:
    """A checkpoint as the clip package's model, in fp32 and with the whole token table."""
    return clip_of(read_weights(path).tensors)


def save(model: CLIP, path: Path) -> None:
    """Write OpenAI's keys in half precision, with only the rows of tokens that captions use."""
    vocabulary = Vocabulary()
    model = copy.deepcopy(model)
    convert_weights(model)  # biases too, as OpenAI's files have it
    state = {k: v.detach().cpu() for k, v in model.state_dict().items()}
    state[USED] = state.pop(TOKENS)[vocabulary.kept()]
    state = {k: v.half() if v.is_floating_point() and v.ndim >= 2 else v for k, v in state.items()}
    state |= {
        IDS: torch.tensor(vocabulary.ids, dtype=torch.int32),
        ROWS: torch.tensor(vocabulary.rows),
        SEED: torch.tensor(TRAIN_SEED),
    }
    with atomic_write(path, "wb") as file:
        torch.save(state, file)
