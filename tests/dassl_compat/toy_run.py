"""A dataset of drawn images, a tiny trainer, and a command that trains it.

    python toy_run.py FOLDER [EPOCH BATCH: where the process dies]

Prints every loss in full, so that two runs can be compared to the last bit.
"""

import os
import sys
from pathlib import Path

import dassl_compat  # noqa: F401  (makes dassl importable, so it comes first)

# isort: split
import numpy as np
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.engine import TRAINER_REGISTRY, TrainerX, build_trainer
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import set_random_seed
from PIL import Image
from torch import nn
from torch.nn import functional as F

COLOURS = ("red", "green", "blue")
SIZES = {"train": 21, "val": 9, "test": 11}


@DATASET_REGISTRY.register()
class DrawnColours(DatasetBase):
    """Noise with a little more of one colour."""

    def __init__(self, cfg):
        root = Path(cfg.DATASET.ROOT)
        rng = np.random.default_rng(0)
        splits = {split: self.draw(root, split, n, rng) for split, n in SIZES.items()}
        train = self.generate_fewshot_dataset(splits["train"], num_shots=cfg.DATASET.NUM_SHOTS)
        super().__init__(train_x=train, val=splits["val"], test=splits["test"])

    def draw(self, root, split, count, rng):
        items = []
        for i in range(count):
            label = i % len(COLOURS)
            pixels = rng.integers(0, 200, (20, 24, 3), dtype=np.uint8)
            pixels[..., label] += 30
            path = root / f"{split}{i}.png"
            if not path.exists():
                root.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
            items.append(Datum(str(path), label, 0, COLOURS[label]))
        return items


@TRAINER_REGISTRY.register()
class ToyTrainer(TrainerX):
    """Two small models, so that their checkpoints have to agree."""

    dies_at = None  # (epoch, batch), before that batch

    def die(self):
        raise KeyboardInterrupt

    def build_model(self):
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Dropout(0.1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.head = nn.Linear(4, self.num_classes)
        self.model = nn.Sequential(self.body, self.head)
        for name, model in (("body", self.body), ("head", self.head)):
            optim = build_optimizer(model, self.cfg.OPTIM)
            self.register_model(name, model, optim, build_lr_scheduler(optim, self.cfg.OPTIM))

    def forward_backward(self, batch):
        if (self.epoch, self.batch_idx) == self.dies_at:
            self.die()
        image, label, _ = self.parse_batch_train(batch)
        logits = self.model(image)
        loss = F.cross_entropy(logits, label)
        self.model_backward_and_update(loss)
        if self.batch_idx + 1 == self.num_batches:
            self.update_lr()
        print(f"loss {self.epoch} {self.batch_idx} {loss.item()!r}")
        return {"loss": loss.item(), "acc": compute_accuracy(logits, label)[0].item()}


def toy_cfg(folder, *options):
    cfg = get_cfg_default()
    cfg.merge_from_list(
        [
            *("OUTPUT_DIR", str(Path(folder) / "run"), "SEED", 3, "USE_CUDA", False),
            *("DATASET.ROOT", str(Path(folder) / "data"), "DATASET.NAME", "DrawnColours"),
            *("TRAINER.NAME", "ToyTrainer", "TEST.FINAL_MODEL", "best_val"),
            *("INPUT.SIZE", (12, 12), "INPUT.INTERPOLATION", "bicubic"),
            *("INPUT.TRANSFORMS", ("random_resized_crop", "random_flip", "normalize")),
            *("OPTIM.NAME", "sgd", "OPTIM.LR", 0.05, "OPTIM.MAX_EPOCH", 4),
            *("OPTIM.LR_SCHEDULER", "cosine", "OPTIM.WARMUP_EPOCH", 1),
            *("OPTIM.WARMUP_TYPE", "constant", "TRAIN.PRINT_FREQ", 2),
            *("DATALOADER.NUM_WORKERS", 0, "DATALOADER.TRAIN_X.BATCH_SIZE", 4),
            *options,
        ]
    )
    return cfg


def toy_trainer(folder, *options):
    cfg = toy_cfg(folder, *options)
    set_random_seed(cfg.SEED)
    return build_trainer(cfg)


if __name__ == "__main__":
    trainer = toy_trainer(sys.argv[1])
    if len(sys.argv) > 2:
        trainer.dies_at = tuple(map(int, sys.argv[2:]))
        trainer.die = lambda: os._exit(9)  # as kill -9: nothing is flushed or closed
    trainer.train()
