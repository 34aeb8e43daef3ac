"""Pictures, backbones and trainers to measure with, made on the spot."""

import contextlib
import io
import json
import os
from collections.abc import Iterable
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from yacs.config import CfgNode

import trainers  # noqa: F401  (registers the methods; mends what importing clip and dassl needs)

# isort: split
from clip.model import CLIP
from dassl.engine import build_trainer

from backbones.formats.openai import clip_of
from backbones.weights import read_weights
from engine.config import load_cfg
from symptoms import read_symptom_file

SHAPES: dict[str, dict[str, Any]] = {
    "vit_b16": dict(
        embed_dim=512, image_resolution=224, vision_layers=12, vision_width=768,
        vision_patch_size=16, transformer_width=512, transformer_heads=8, transformer_layers=12,
    ),
    "vit_l14": dict(
        embed_dim=768, image_resolution=224, vision_layers=24, vision_width=1024,
        vision_patch_size=14, transformer_width=768, transformer_heads=12, transformer_layers=12,
    ),
    "rn50": dict(
        embed_dim=1024, image_resolution=224, vision_layers=(3, 4, 6, 3), vision_width=64,
        vision_patch_size=None, transformer_width=512, transformer_heads=8, transformer_layers=12,
    ),
    # The embedded default's, for where its file is not there.
    "tiny": dict(
        embed_dim=96, image_resolution=64, vision_layers=4, vision_width=128,
        vision_patch_size=8, transformer_width=128, transformer_heads=2, transformer_layers=3,
    ),
}  # fmt: skip

MOST_FILMS = 128  # of a split that differ; the others are the same files under other names
PICTURES = 346  # of the embedded default's training split

# Row of a table -> trainer and options. All have a frozen image encoder.
METHODS: dict[str, tuple[str, list[str]]] = {
    "ZeroshotCLIP names": ("ZeroshotCLIP", []),
    "ZeroshotCLIP symptoms": ("ZeroshotCLIP", ["PROMPTS", "symptoms"]),
    "CoOp": ("CoOp", []),
    "KgCoOp": ("KgCoOp", []),
    "CoCoOp": ("CoCoOp", []),
    "BayesianPrompt": ("BayesianPrompt", []),
    "ViP": ("ViP", []),
    "ViP, no context": ("ViP", ["CONTEXT", "False"]),
    "ViP, mean": ("ViP", ["MERGE", "mean"]),
    "ViP, max": ("ViP", ["MERGE", "max"]),
}


def grey_film(rng: np.random.Generator, width: int = 2000, height: int = 1500) -> Image.Image:
    """A grey picture as large and as smooth as a chest film, with its grain."""
    coarse = rng.integers(0, 256, (height // 125, width // 125), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    grain = rng.normal(0, 2, (height, width))
    return Image.fromarray((np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8))


def _numbered(texts: Iterable[str], n: int) -> list[str]:
    """n texts: these, then the same again behind numbers, so that they share no beginning."""
    texts = list(texts)
    every = (f"{i} {text}" if i else text for i in count() for text in texts)
    return [*islice(every, n)]


class Workload:
    """A dataset and a backbone in a folder.

    Args:
        folder: an empty folder. backbone: a key of ``SHAPES``.
        n_cls: classes. n_symptoms: of each class; None: as many as Derm7pt's classes have.
        pictures: of training; a quarter of them again for validation, and for the test.
        large: whether pictures are grey JPEGs of 2000 x 1500, or small colour PNGs.
    """

    def __init__(
        self,
        folder: str | Path,
        backbone: str,
        n_cls: int = 2,
        n_symptoms: int | None = None,
        pictures: int = 64,
        large: bool = False,
        seed: int = 0,
    ) -> None:
        self.folder = Path(folder)
        self.backbone = backbone
        self.large = large
        self.pictures = pictures
        self.folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed)
        known, _ = read_symptom_file("symptoms/derm7pt.json")
        self.classnames = _numbered(list(known), n_cls)
        lists = [entry["phrases"] for entry in known.values()]
        counts = [n_symptoms or len(lists[c % len(lists)]) for c in range(n_cls)]
        phrases = iter(_numbered(chain(*lists), sum(counts)))
        pairs = zip(self.classnames, counts, strict=True)
        self.phrases = {name: [*islice(phrases, n)] for name, n in pairs}
        if not (self.folder / "data").exists():  # a second process finds those of the first
            made = {"train": pictures, "val": pictures // 4, "test": pictures // 4}
            self._write_pictures(made, rng)
        self._write("symptoms.json", self.phrases)
        dataset = {
            "NAME": "ImageFolder",
            "PATH": str(self.folder / "data"),
            "CLASSNAMES": self.classnames,
            "SYMPTOMS": str(self.folder / "symptoms.json"),
            "ALLOW_DUPLICATES": large,
        }
        self._write("made.yaml", {"DATASET": dataset})
        self.weights = Path("backbones") / f"{backbone}.pt"
        if not self.weights.exists():
            self.weights = self.folder / f"{backbone}.pt"
            torch.save(random_clip(backbone).half().state_dict(), self.weights)
        side = SHAPES[backbone]["image_resolution"]
        model = {"BACKBONE": {"NAME": backbone, "PATH": str(self.weights)}}
        self._write(f"{backbone}.yaml", {"MODEL": model, "INPUT": {"SIZE": [side, side]}})

    def _write_pictures(self, counts: dict[str, int], rng: np.random.Generator) -> None:
        """A folder for each split and class; every class has a picture in every split."""
        for split, n in counts.items():
            for i in range(max(n, len(self.classnames))):
                name = self.classnames[i % len(self.classnames)]
                path = self.folder / "data" / split / name / f"{i}"
                path.parent.mkdir(parents=True, exist_ok=True)
                if self.large and i >= MOST_FILMS:  # a film takes a tenth of a second to draw
                    other = self.classnames[i % MOST_FILMS % len(self.classnames)]
                    film = path.parent.parent / other / f"{i % MOST_FILMS}.jpg"
                    os.link(film, path.with_suffix(".jpg"))
                elif self.large:
                    grey_film(rng).save(path.with_suffix(".jpg"), quality=90)
                else:
                    pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(path.with_suffix(".png"))

    def _write(self, name: str, value: Any) -> None:
        (self.folder / name).write_text(json.dumps(value))  # which is YAML too

    def cfg(self, method: str, *opts: str, output: str = "run") -> CfgNode:
        """The configuration of a row of ``METHODS``."""
        trainer, own = METHODS.get(method, (method, []))
        words = [f"TRAINER.{trainer.upper()}.{w}" if i % 2 == 0 else w for i, w in enumerate(own)]
        return load_cfg(
            trainer,
            str(self.folder / "made.yaml"),
            str(self.folder / f"{self.backbone}.yaml"),
            opts=[*words, "FEATURES.DIR", str(self.folder / "features"), *opts],
            output_dir=str(self.folder / output),
        )[0]

    def plain_clip(self) -> CLIP:
        """The backbone in fp32 as a model of the clip package."""
        return clip_of(read_weights(self.weights).tensors)

    def trainer(self, method: str, *opts: str) -> Any:
        """A trainer, built and silent."""
        with quiet():
            return build_trainer(self.cfg(method, *opts))


def random_clip(backbone: str) -> CLIP:
    """CLIP with random weights."""
    torch.manual_seed(0)
    model = CLIP(context_length=77, vocab_size=49408, **SHAPES[backbone])
    with torch.no_grad():
        model.logit_scale.fill_(4.6052)
    return model.eval()


def quiet() -> contextlib.AbstractContextManager[Any]:
    return contextlib.redirect_stdout(io.StringIO())
