"""A small run's input, and the words of the commands that make it."""

import json

import numpy as np
import torch
from PIL import Image

TOY_SYMPTOMS = {
    "red": ["warm color like blood", "the color of a tomato", "no blue at all"],
    "blue": ["cold color like the sea", "the color of the sky"],
}


def make_toy(folder, model):
    """Write a small run's input: pictures of two classes, a random CLIP, and their YAML files."""
    rng = np.random.default_rng(0)
    for split, count in {"train": 10, "val": 4, "test": 6}.items():
        for label, name in enumerate(TOY_SYMPTOMS):
            below = folder / "data" / "toy" / split / name
            below.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 140, (40, 40, 3), dtype=np.uint8)
                pixels[..., 2 * label] += 60
                Image.fromarray(pixels).save(below / f"{i}.png")
    torch.save(model.state_dict(), folder / "clip.pt")
    (folder / "symptoms.json").write_text(json.dumps(TOY_SYMPTOMS))
    (folder / "toy.yaml").write_text(
        "DATASET:\n  NAME: ImageFolder\n  PATH: toy\n  CLASSNAMES: [red, blue]\n"
        f"  SYMPTOMS: {folder / 'symptoms.json'}\n"
    )
    (folder / "random.yaml").write_text(
        f"MODEL:\n  BACKBONE:\n    PATH: {folder / 'clip.pt'}\n"
        "INPUT:\n  SIZE: (32, 32)\n  INTERPOLATION: bicubic\n"
        "  PIXEL_MEAN: [0.48145466, 0.4578275, 0.40821073]\n"
        "  PIXEL_STD: [0.26862954, 0.26130258, 0.27577711]\n"
    )
    return folder


def words_of(toy, output):
    """The words of a command line for a run on ``toy``, but for the trainer's."""
    return [
        *("--root", str(toy / "data"), "--dataset", str(toy / "toy.yaml")),
        *("--backbone", str(toy / "random.yaml"), "--output-dir", str(output)),
    ]


SHORT = [
    "OPTIM.MAX_EPOCH",
    "3",
    "DATALOADER.TRAIN_X.BATCH_SIZE",
    "8",
    "DATALOADER.NUM_WORKERS",
    "0",
]
