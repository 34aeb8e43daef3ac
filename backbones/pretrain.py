"""Train the two small CLIPs on the drawn world from nothing, and say what they learned.

    python -m backbones.pretrain              # tiny_rn, then tiny, which learns from it
    python -m backbones.pretrain --report     # how well each shipped file knows each attribute

What an interrupted run left in ``--work`` is taken up only by the sources that it was made with.

The ResNet learns first, with the text tower, by the symmetric contrastive loss on pictures and
captions. A caption is often true of several pictures of a batch, so the target is spread over all
that it is true of. Left to this alone, attributes are discovered one after the other, each after a
long wait; so for the first part of the training one linear head, which is then thrown away, has to
read the attributes from a picture's features and the stated ones from a caption's. The transformer
then learns with the text tower frozen, from captions and from the ResNet's features. Pictures are
drawn with all attributes alike: nothing tells a disease.
"""

import argparse
import copy
import math
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from clip.model import CLIP, convert_weights
from torch import Tensor
from torch.nn import functional as F

import backbones
from backbones import IDS, ROWS, SEED, STD, TOKENS, USED, captions, pretrain_data
from backbones.device import usable_device
from backbones.pretrain_data import (
    GROUPS,
    TRAIN_SEED,
    VALUES,
    Data,
    Vocabulary,
    augment,
    caption_batch,
    normalise,
)
from backbones.pretrain_report import report
from core.errors import InputError, command_line
from core.files import atomic_write, fingerprint
from datasets import drawing, synthetic

FOLDER = Path(__file__).resolve().parent

VISION: dict[str, dict[str, Any]] = {  # the picture tower's layers, width, patch
    "tiny_rn": {"vision_layers": (1, 1, 2, 1), "vision_width": 24, "vision_patch_size": None},
    "tiny": {"vision_layers": 4, "vision_width": 128, "vision_patch_size": 8},
}
EMBED_DIM, TEXT_WIDTH, TEXT_LAYERS, CONTEXT = 96, 128, 3, 77
# 22 and 34 minutes on two cores that others used as well.
STEPS = {"tiny_rn": 900, "tiny": 1900}
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


def contrastive_loss(
    image_features: Tensor, text_features: Tensor, scale: float, true: Tensor
) -> Tensor:
    """Symmetric cross-entropy; the target is even over the pairs that are ``true`` [n, m]."""
    logits = scale * F.normalize(image_features, dim=-1) @ F.normalize(text_features, dim=-1).t()
    true = true.float()
    by_picture = -(logits.log_softmax(1) * true / true.sum(1, keepdim=True)).sum(1)
    by_caption = -(logits.log_softmax(0) * true / true.sum(0, keepdim=True)).sum(0)
    return (by_picture.mean() + by_caption.mean()) / 2


def naming_loss(scores: Tensor, permitted: Tensor, asked: Tensor) -> Tensor:
    """Cross-entropy of a linear head that names attributes.

    Args:
        scores: [n, values], of ``VALUES``.
        permitted: [n, values], the values that are right; several may be.
        asked: [n, values], where the value's attribute is asked at all.

    Returns:
        the mean over what is asked.
    """
    losses = []
    for group in GROUPS:
        rows = asked[:, group[0]].bool()
        if rows.any():
            chances = scores[rows][:, group].log_softmax(1)
            chances = chances.masked_fill(~permitted[rows][:, group], -torch.inf)
            losses.append(-chances.logsumexp(1))
    return torch.cat(losses).mean()


def learning_rate(step: int, steps: int, peak: float) -> float:
    if step < 100:
        return peak * (step + 1) / 100
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - 100) / max(1, steps - 100))))


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


class Training:
    """The training of model ``name``: the model, the head that reads attributes, the optimiser.

    With a ``teacher``, its text tower is taken and frozen, and its picture features are matched.
    """

    def __init__(
        self, name: str, steps: int, device: torch.device, teacher: CLIP | None = None
    ) -> None:
        self.name, self.steps, self.device, self.teacher = name, steps, device, teacher
        self.vocabulary = Vocabulary()
        torch.manual_seed(TRAIN_SEED)
        self.model = new_model(name, len(self.vocabulary)).to(device)
        if teacher is not None:
            visual = {k: v for k, v in self.model.state_dict().items() if k.startswith("visual.")}
            self.model.load_state_dict(teacher.state_dict() | visual, strict=False)
            teacher.eval()
        self.head = torch.nn.Linear(EMBED_DIM, len(VALUES)).to(device)
        self.learned = [
            p
            for k, p in self.model.named_parameters()
            if k != "logit_scale" and (teacher is None or k.startswith("visual."))
        ]
        self.learned += self.head.parameters()
        groups = [
            {"params": [p for p in self.learned if p.ndim >= 2], "weight_decay": 0.02},
            {"params": [p for p in self.learned if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98))

    def load_state(self, path: Path) -> tuple[int, float]:
        """Take up what an interrupted run left, if anything: its steps and seconds."""
        if not path.exists():
            return 0, 0.0
        state = torch.load(path, map_location=self.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.head.load_state_dict(state["head"])
        self.optimiser.load_state_dict(state["optimiser"])
        return state["step"], state["seconds"]

    def save_state(self, path: Path, step: int, seconds: float) -> None:
        """Keep the state after ``step`` steps, which took ``seconds``."""
        with torch.no_grad():
            self.model.logit_scale.fill_(math.log(self.scale(step - 1)))
        state = {
            "model": self.model.state_dict(),
            "head": self.head.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": step,
            "seconds": seconds,
        }
        with atomic_write(path, "wb") as file:
            torch.save(state, file)

    def scale(self, step: int) -> float:
        """exp(logit_scale) at this step."""
        return temperature(step, self.steps) if self.teacher is None else 100.0

    def batch(self, data: Data, step: int) -> Batch:
        """Images and captions of this step; it seeds all that the step draws."""
        rng = np.random.default_rng([TRAIN_SEED, len(self.name), step])
        torch.manual_seed(step)
        pixels, batch, has, is_lesion = data.batch(rng)
        captioned = caption_batch(self.vocabulary, batch, random.Random(int(rng.integers(2**62))))
        return Batch(
            augment(normalise(pixels.to(self.device)), is_lesion, rng),
            has.to(self.device),
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

    def loss(self, batch: Batch, step: int) -> Tensor:
        """Contrastive, and beside it what the head reads wrongly or what the teacher sees."""
        images, texts, target = self.features(batch, step)
        true = (batch.has.float() @ (~batch.permitted).float().t()) == 0
        loss = contrastive_loss(images, texts, self.scale(step), true)
        if target is not None:
            matched = F.normalize(images, dim=-1)
            return 0.3 * loss + 20 * (1 - (matched * target).sum(-1)).mean()
        if step < 0.7 * self.steps:
            x, y = (12 * F.normalize(f, dim=-1) for f in (images, texts))
            of_world = torch.cat(
                [batch.has[:, g].any(1, keepdim=True).expand(-1, len(g)) for g in GROUPS], 1
            )
            loss = loss + 4 * naming_loss(self.head(x), batch.has, of_world)
            loss = loss + 4 * naming_loss(self.head(y), batch.permitted, batch.spoken)
        return loss

    def step(self, data: Data, step: int) -> float:
        """Take one step; returns its loss."""
        batch = self.batch(data, step)
        with torch.no_grad():
            self.model.token_embedding.weight[self.vocabulary.is_stranger()].normal_(std=STD)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(step, self.steps, LEARNING_RATE[self.name])
        self.model.train()
        loss = self.loss(batch, step)
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.learned, 1.0)
        self.optimiser.step()
        return loss.item()


def train(
    name: str,
    steps: int,
    device: torch.device,
    work: Path,
    data: Data,
    teacher: CLIP | None = None,
) -> CLIP:
    """Train model ``name``; goes on from ``work`` where an interrupted run left its state.

    With a ``teacher``, its text tower is taken and frozen, and its picture features are matched.
    """
    training = Training(name, steps, device, teacher)
    state_file = work / f"{name}-{steps}.state"
    first, spent = training.load_state(state_file)
    began, losses = time.monotonic(), []
    for step in range(first, steps):
        losses.append(training.step(data, step))
        if (step + 1) % 100 == 0 or step + 1 == steps:
            seconds = spent + time.monotonic() - began
            training.save_state(state_file, step + 1, seconds)
            rate = (time.monotonic() - began) / (step + 1 - first)
            print(
                f"{name} {step + 1}/{steps} loss {np.mean(losses[-100:]):.4f} "
                f"{rate:.2f} s a step, {seconds / 60:.1f} min",
                flush=True,
            )
    return training.model.eval()


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


def work_folder(parent: Path) -> Path:
    """The folder below ``parent`` of what the drawing, the captions and the training now are."""
    drawn = sorted(Path(drawing.__file__).parent.glob("draw*.py"))
    modules: tuple[str | Path, ...] = (
        synthetic.__file__,
        *drawn,
        captions.__file__,
        pretrain_data.__file__,
        backbones.__file__,
        __file__,
    )
    return parent / fingerprint([fingerprint(Path(module).read_bytes()) for module in modules])


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m backbones.pretrain",
        description="Train the small CLIPs, or report what they learned.",
    )
    parser.add_argument(
        "--model", choices=list(VISION), help="train only this one; tiny needs tiny_rn"
    )
    parser.add_argument("--steps", type=int)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("output/pretrain"),
        help="folder for drawn images and unfinished trainings; in it one for each state of "
        "the sources, so that a change of drawing, captions or training starts anew "
        "(default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the two checkpoints")
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args(argv)
    if args.steps is not None and args.steps < 1:
        raise InputError(f"--steps is {args.steps}; give 1 or more")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.report:
        paths = [args.out / f"{name}.pt" for name in VISION if (args.out / f"{name}.pt").exists()]
        if not paths:
            names = " or ".join(f"{name}.pt" for name in VISION)
            raise InputError(f"--out {args.out}: holds no {names} to report on")
        report(paths)
        return
    device = usable_device(args.device)
    work = work_folder(args.work)
    work.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    data = Data(work)
    print(f"images drawn in {time.monotonic() - began:.0f} s", flush=True)
    teacher = None
    # An interrupted or finished run of the ResNet is taken up, also to teach the transformer.
    for name in ["tiny_rn"] if args.model == "tiny_rn" else ["tiny_rn", "tiny"]:
        own = args.model in (name, None) and args.steps
        teacher = train(name, own or STEPS[name], device, work, data, teacher)
        save(teacher, args.out / f"{name}.pt")


if __name__ == "__main__":
    command_line(main)()
