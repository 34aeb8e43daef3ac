"""Beside the reference: a step of each method, text encoding, memory."""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backbones.backbone import Backbone
from backbones.encoders.token_tree import TreeTexts
from backbones.formats.openai import parts_of
from datasets.views import Views
from engine.prompts import ContextPrompts

from .bench import Bench, Row, middle, show
from .pairs import BATCH, QUICK_BATCH, SMALLER, a_step, pair
from .reference import embedded, encode
from .timing import Call, in_turns, peak_bytes, seconds
from .workload import METHODS, PICTURES, SHAPES, Workload, quiet, random_clip

PRECISIONS = "fp32", "amp"
_TOLD = {"reference": "reference", "first": "first run", "later": "later run"}


def reading(work: Workload, rounds: int) -> dict[str, float]:
    """Seconds to read a picture: its view as Dassl makes it and as we do, or its kept feature.

    Views are spread over the cores.
    """
    trainer = work.trainer("CoOp")
    made = trainer.dm.train_views()
    # Neither keeps a decoded image: a first run decodes in its first epoch alone.
    plain = Views(made.images, made.transform, made.seed)
    ours = Views(made.images, made.transform, made.seed, as_bytes=True)
    some = range(min(16, len(ours)))
    cores = torch.get_num_threads()
    torch.set_num_threads(1)
    ways: dict[str, Call] = {
        "reference": partial(_read, plain, some),
        "first": partial(_read, ours, some),
    }
    times = in_turns(ways, rounds)
    torch.set_num_threads(cores)
    read = {way: middle(values) / len(some) / cores for way, values in times.items()}
    with quiet():
        kept = seconds(lambda: list(trainer.frozen_features.batches(0, 1)), rounds)
    return read | {"later": kept / len(ours)}


def _read(views: Views, indices: Iterable[int]) -> list[Any]:
    return [views[0, i] for i in indices]


def steps(bench: Bench) -> None:
    """Seconds a step of every method, beside the reference."""
    for work, name in (
        (bench.vit, "ViT-B/16 at 224, random weights"),
        (bench.default(pictures=PICTURES), "embedded default"),
    ):
        # Where time is short, the image encoder is measured once and added to both.
        apart = work is bench.vit and bench.args.shared
        encoder = image_seconds(work, bench.rounds) if apart else 0.0
        read = reading(work, bench.rounds)
        rows, totals = [], dict.fromkeys(_TOLD, 0.0)
        # A step of the reference on ViT-B/16 takes 7 to 70 s.
        methods = METHODS if bench.args.full or work is not bench.vit else ("CoOp", "ViP")
        for method in methods:
            row = step_row(bench, work, method, read, encoder)
            for way, told in _TOLD.items():
                totals[way] += row[f"{told}, s/step"] * BATCH / row["batch"]
            rows.append(row)
        reads = ", ".join(f"{1e3 * value:.3g} ms {_TOLD[way]}" for way, value in read.items())
        note = (
            "A step: reading images or kept features, forward, backward, update. All together: "
            "every method does a step, the images are read and encoded once (first) or not at "
            f"all (later). Reading an image (a 64 x 64 PNG; later, an epoch of {work.pictures}): "
            f"{reads}."
        )
        if apart:
            note += (
                f" The image encoder, measured once and added to both: {encoder:.3g} s an image."
            )
        show(f"A step of each method, {name}", [*rows, together_row(totals, len(methods))], note)


def step_row(
    bench: Bench, work: Workload, method: str, read: dict[str, float], encoder: float
) -> Row:
    """A method's step in every way.

    Args:
        read: seconds to read a picture, by way.
        encoder: seconds to encode one, where that was measured apart; else 0.
    """
    batch = SMALLER.get(method, BATCH if bench.args.full or work is not bench.vit else QUICK_BATCH)
    ways = pair(work, method, batch, encoded=encoder > 0)
    heavy = work is bench.vit and method in ("CoCoOp", "BayesianPrompt")
    times = in_turns(ways, 1 if heavy else bench.rounds)
    times["reference"] += encoder * batch
    times["first"] += encoder * batch
    computing = middle(times["reference"] / times["later"])
    # A GPU computes while the cores read.
    whole = np.maximum if torch.cuda.is_available() else np.add
    row: Row = {"method": method, "batch": batch}
    for way, told in _TOLD.items():
        times[way] = whole(times[way], read[way] * batch)
        row[f"{told}, s/step"] = middle(times[way])
    for way in ("first", "later"):
        row[f"{way}, times faster"] = middle(times["reference"] / times[way])
    return row | {"later, not counting reading": computing}


def learning(bench: Bench) -> None:
    """Steps of methods that learn the image encoder, in fp32 and in mixed precision.

    Reading is not counted.
    """
    rows: list[Row] = []
    methods = ("MaPLe", "Supervised") if bench.args.full else ("MaPLe",)
    for work in (bench.vit, bench.default()):
        batch = BATCH if work is not bench.vit else QUICK_BATCH
        for method in methods:
            ways = {p: learning_step(work, method, p, batch) for p in PRECISIONS}
            times = in_turns(ways, bench.rounds)
            row: Row = {"backbone": work.backbone, "method": method, "batch": batch}
            row |= {f"{p}, s/step": middle(times[p]) for p in PRECISIONS}
            rows.append(row | {"times faster": middle(times["fp32"] / times["amp"])})
    show("Methods that learn the image encoder: fp32 and mixed precision", rows)


def learning_step(work: Workload, method: str, precision: str, batch: int) -> Call:
    """A step of a method that learns the image encoder, from views on the device."""
    trainer = work.trainer(method, f"TRAINER.{method.upper()}.PREC", precision)
    trainer.set_model_mode("train")
    side = SHAPES[work.backbone]["image_resolution"]
    views = torch.randn(batch, 3, side, side, device=trainer.device)
    label = torch.arange(batch, device=trainer.device) % len(work.classnames)
    return partial(trainer.forward_backward, {"img": views, "label": label})


def together_row(totals: dict[str, float], methods: int) -> Row:
    """Each of the methods does a step; ``totals`` are the sums of their seconds, by way."""
    # Only the first of the methods pays for the pictures: the comparison fills the store once.
    pictures = max(0.0, totals["first"] - totals["later"]) / methods
    filling = totals["later"] + pictures
    return {
        "method": "all together",
        "batch": BATCH,
        "reference, s/step": totals["reference"],
        "first run, s/step": filling,
        "later run, s/step": totals["later"],
        "first, times faster": totals["reference"] / filling,
        "later, times faster": totals["reference"] / totals["later"],
    }


def image_seconds(work: Workload, rounds: int) -> float:
    """Seconds of the image encoder for one picture of a batch of 8."""
    clip_model = work.trainer("CoOp").model.backbone
    side = clip_model.preprocessing.size
    x = torch.randn(8, 3, side, side, device=clip_model.device)
    return seconds(lambda: clip_model.encode_image(x), rounds) / 8


def text(bench: Bench) -> None:
    """The text encoder, forward and backward, beside one class at a time at full length."""
    rows = []
    for backbone, work in (("vit_b16", bench.vit), ("tiny", bench.default())):
        for what, classes in (
            ("symptoms", list(work.phrases.values())),
            ("class names", [[name] for name in work.classnames]),
        ):
            row: Row = {"backbone": backbone}
            rows.append(row | text_row(backbone, what, classes, bench.rounds))
    show("Text encoding, forward and backward, 4 learned tokens", rows)


def text_row(backbone: str, what: str, classes: Sequence[Sequence[str]], rounds: int) -> Row:
    """Encode the texts of ``classes``, which are symptoms or class names, as ``what`` says."""
    model = random_clip(backbone).requires_grad_(False)
    with quiet():
        frozen = Backbone(parts_of(random_clip(backbone)), "fp32")
    texts = [text for texts_of_class in classes for text in texts_of_class]
    prompts = ContextPrompts(frozen, texts, 4)
    inputs = prompts.inputs
    assert isinstance(inputs, TreeTexts)
    plain = [embedded(model, texts_of_class, 4) for texts_of_class in classes]
    ctx = prompts.ctx.detach().clone().requires_grad_(True)

    def ours() -> None:
        frozen.encode_text(inputs, prompts()).sum().backward()

    def theirs() -> None:
        features: list[Tensor] = [encode(model, *tokens, ctx) for tokens in plain]
        torch.cat(features).sum().backward()

    times = in_turns({"reference": theirs, "ours": ours}, rounds)
    row: Row = {"texts": f"{len(texts)} {what}"}
    row |= {"tokens": f"{77 * len(texts)} -> {len(inputs.x)}"}
    row |= {f"{way}, ms": 1e3 * middle(values) for way, values in times.items()}
    return row | {"times faster": middle(times["reference"] / times["ours"])}


def memory(bench: Bench) -> None:
    """How far two steps raise the memory, in a process of their own."""
    rows = []
    for backbone in ["vit_b16", "tiny"] if bench.args.full else ["tiny"]:
        # Of some tens of MB the allocator decides a third.
        repeats = max(3, bench.rounds) if backbone == "tiny" and bench.args.full else 1
        for method in METHODS if bench.args.full else ["CoCoOp", "ViP"]:
            row: Row = {"backbone": backbone, "method": method}
            for way in ("reference", "first", "later"):
                folder = str(bench.folder / f"memory-{backbone}-{method}-{way}")
                peaks = [peak_bytes(a_step, folder, backbone, method, way) for _ in range(repeats)]
                row[f"{way}, MB"] = middle(peaks) / 1e6
            rows.append(row)
    show("Peak memory of a step above what the models take", rows)
