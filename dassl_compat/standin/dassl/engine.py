"""The training loop and its hooks."""

import datetime
import os
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from dassl.data import DataManager
from dassl.evaluation import build_evaluator
from dassl.utils import AverageMeter, MetricMeter, Registry, tolist_if_not
from torch import Tensor, nn
from tqdm import tqdm

from dassl_compat import checkpoints

TRAINER_REGISTRY = Registry("TRAINER")

Names = str | Sequence[str] | None


def build_trainer(cfg: Any) -> Any:
    """Build the trainer that ``cfg.TRAINER.NAME`` names."""
    return TRAINER_REGISTRY.build(cfg.TRAINER.NAME, cfg)


class TrainerBase:
    """Models with their optimizers and schedules, and the order of the hooks.

    ``train`` runs ``before_train``; ``before_epoch``, ``run_epoch`` and ``after_epoch`` for each
    epoch; and ``after_train``.
    """

    save_model = checkpoints.save_model
    load_model = checkpoints.load_model
    resume_model_if_exist = checkpoints.resume_model_if_exist

    def __init__(self) -> None:
        self._models: dict[str, nn.Module | None] = OrderedDict()
        self._optims: dict[str, torch.optim.Optimizer | None] = OrderedDict()
        self._scheds: dict[str, Any] = OrderedDict()
        self._writer: Any = None

    def register_model(
        self,
        name: str = "model",
        model: nn.Module | None = None,
        optim: torch.optim.Optimizer | None = None,
        sched: Any = None,
    ) -> None:
        """Name a model, so that it is saved, loaded, stepped and switched between modes."""
        if "_models" not in self.__dict__:
            raise AttributeError("call super().__init__() before register_model()")
        if name in self._models:
            raise ValueError(f"a model called {name!r} is already registered")
        self._models[name], self._optims[name], self._scheds[name] = model, optim, sched

    def get_model_names(self, names: Names = None) -> list[str]:
        """All registered names, or ``names`` after a check."""
        if names is None:
            return list(self._models)
        names = tolist_if_not(names)
        for name in names:
            if name not in self._models:
                raise ValueError(f"no model called {name!r}; there are {list(self._models)}")
        return names

    def set_model_mode(self, mode: str = "train", names: Names = None) -> None:
        """Switch models to ``train``; or to ``eval``, which ``test`` also names."""
        if mode not in ("train", "eval", "test"):
            raise KeyError(f"mode must be train, eval or test, not {mode!r}")
        for name in self.get_model_names(names):
            if (model := self._models[name]) is not None:
                model.train(mode == "train")

    def update_lr(self, names: Names = None) -> None:
        """Step the schedules once."""
        for name in self.get_model_names(names):
            if self._scheds[name] is not None:
                self._scheds[name].step()

    def detect_anomaly(self, loss: Tensor) -> None:
        """Raise FloatingPointError unless the loss is finite."""
        if not torch.isfinite(loss).all():
            raise FloatingPointError("Loss is infinite or NaN!")

    def init_writer(self, log_dir: str) -> None:
        """Open TensorBoard's event file, where the package is installed."""
        if self._writer is not None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            print("tensorboard is not installed: no event files are written")
            return
        print(f"Initialize tensorboard (log_dir={log_dir})")
        self._writer = SummaryWriter(log_dir=log_dir)

    def close_writer(self) -> None:
        """Close TensorBoard's event file."""
        if self._writer is not None:
            self._writer.close()

    def write_scalar(self, tag: str, scalar_value: Any, global_step: int | None = None) -> None:
        """Add one number to TensorBoard's event file."""
        if self._writer is not None:
            self._writer.add_scalar(tag, scalar_value, global_step)

    def train(self, start_epoch: int, max_epoch: int) -> None:
        """Run every epoch and the hooks around it."""
        self.start_epoch = start_epoch
        self.max_epoch = max_epoch
        self.before_train()
        # before_train may move start_epoch: a resumed run does.
        for epoch in range(self.start_epoch, self.max_epoch):
            self.epoch = epoch
            self.before_epoch()
            self.run_epoch()
            self.after_epoch()
        self.after_train()

    def before_train(self) -> None:
        """A hook."""

    def after_train(self) -> None:
        """A hook."""

    def before_epoch(self) -> None:
        """A hook."""

    def after_epoch(self) -> None:
        """A hook."""

    def run_epoch(self) -> None:
        """Train one epoch; ``TrainerX`` does it by batches."""
        raise NotImplementedError(f"{type(self).__name__} has no run_epoch()")

    def model_zero_grad(self, names: Names = None) -> None:
        """Clear the gradients of every optimizer."""
        for name in self.get_model_names(names):
            if (optim := self._optims[name]) is not None:
                optim.zero_grad()

    def model_backward(self, loss: Tensor) -> None:
        """Compute the gradients of a loss that must be finite."""
        self.detect_anomaly(loss)
        loss.backward()

    def model_update(self, names: Names = None) -> None:
        """Step every optimizer."""
        for name in self.get_model_names(names):
            if (optim := self._optims[name]) is not None:
                optim.step()

    def model_backward_and_update(self, loss: Tensor, names: Names = None) -> None:
        """One whole optimization step."""
        self.model_zero_grad(names)
        self.model_backward(loss)
        self.model_update(names)


class SimpleTrainer(TrainerBase):
    """Data, validation, checkpoints and the final test around ``build_model`` and ``run_epoch``."""

    model: nn.Module  # of ``build_model``

    def __init__(self, cfg: Any) -> None:
        super().__init__()
        self.check_cfg(cfg)
        self.cfg = cfg
        self.device = torch.device("cuda" if cfg.USE_CUDA and torch.cuda.is_available() else "cpu")
        self.start_epoch = self.epoch = 0
        self.max_epoch = cfg.OPTIM.MAX_EPOCH
        self.output_dir = cfg.OUTPUT_DIR
        self.build_data_loader()
        self.build_model()
        self.evaluator = build_evaluator(cfg, lab2cname=self.lab2cname)
        self.best_result = -float("inf")

    def check_cfg(self, cfg: Any) -> None:
        """For a method to reject settings that it cannot work with."""

    def build_data_loader(self) -> None:
        """Read the dataset and make its loaders."""
        dm = DataManager(self.cfg)
        self.dm: Any = dm  # another manager, in a trainer that builds its own
        self.train_loader_x = dm.train_loader_x
        self.train_loader_u = dm.train_loader_u
        self.val_loader = dm.val_loader
        self.test_loader = dm.test_loader
        self.num_classes = dm.num_classes
        self.num_source_domains = dm.num_source_domains
        self.lab2cname = dm.lab2cname

    def build_model(self) -> None:
        """Make ``self.model`` and register what learns, with its optimizer and schedule."""
        raise NotImplementedError(f"{type(self).__name__} has no build_model()")

    def train(self) -> None:  # type: ignore[override]  # Dassl's own signature
        """Train from the start, or from where an interrupted run stopped."""
        super().train(self.start_epoch, self.max_epoch)

    def before_train(self) -> None:
        self.start_epoch = self.resume_model_if_exist(self.cfg.RESUME or self.output_dir)
        self.init_writer(os.path.join(self.output_dir, "tensorboard"))
        # The time that after_train prints is this process's alone.
        self.time_start = time.time()

    def after_train(self) -> None:
        print("Finish training")
        if not self.cfg.TEST.NO_TEST:
            if self.cfg.TEST.FINAL_MODEL == "best_val":
                print("Deploy the model with the best val performance")
                self.load_model(self.output_dir)
            else:
                print("Deploy the last-epoch model")
            self.test()
        elapsed = datetime.timedelta(seconds=round(time.time() - self.time_start))
        print(f"Elapsed: {elapsed}")
        self.close_writer()

    def after_epoch(self) -> None:
        done = self.epoch + 1
        frequency = self.cfg.TRAIN.CHECKPOINT_FREQ
        if not self.cfg.TEST.NO_TEST and self.cfg.TEST.FINAL_MODEL == "best_val":
            result = self.test(split="val")
            if result > self.best_result:
                self.best_result = result
                self.save_model(
                    self.epoch, self.output_dir, val_result=result, model_name=checkpoints.BEST
                )
        if done == self.max_epoch or (frequency > 0 and done % frequency == 0):
            self.save_model(self.epoch, self.output_dir)
        checkpoints.keep_last_epoch(self)

    @torch.no_grad()
    def test(self, split: str | None = None) -> float:
        """Evaluate on a split (TEST.SPLIT unless given) and return the first metric.

        A dataset without validation images is evaluated on its test split instead.
        """
        self.set_model_mode("eval")
        self.evaluator.reset()
        split = split or self.cfg.TEST.SPLIT
        data_loader = self.val_loader if split == "val" else None
        if data_loader is None:
            split, data_loader = "test", self.test_loader
        print(f"Evaluate on the *{split}* set")
        for batch in tqdm(data_loader):
            input, label = self.parse_batch_test(batch)
            self.evaluator.process(self.model_inference(input), label)
        results = self.evaluator.evaluate()
        for name, value in results.items():
            self.write_scalar(f"{split}/{name}", value, self.epoch)
        return next(iter(results.values()))

    def model_inference(self, input: Tensor) -> Tensor:
        """Logits [batch, n_cls] of a batch of images."""
        return self.model(input)

    def parse_batch_test(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Images and labels on the device."""
        return batch["img"].to(self.device), batch["label"].to(self.device)

    def get_current_lr(self, names: Names = None) -> float:
        """The rate of the first model's first parameter group."""
        optim: Any = self._optims[self.get_model_names(names)[0]]
        return optim.param_groups[0]["lr"]


class TrainerX(SimpleTrainer):
    """Trains on labelled data: a method defines ``forward_backward(batch)``, a dict of numbers."""

    def forward_backward(self, batch: dict[str, Any]) -> Mapping[str, float | Tensor]:
        """One optimization step; returns what the log shows."""
        raise NotImplementedError(f"{type(self).__name__} has no forward_backward()")

    def parse_batch_train(self, batch: dict[str, Any]) -> tuple[Tensor, ...]:
        """Images, labels and domains on the device."""
        return tuple(batch[key].to(self.device) for key in ("img", "label", "domain"))

    def run_epoch(self) -> None:
        self.set_model_mode("train")
        losses, batch_time, data_time = MetricMeter(), AverageMeter(), AverageMeter()
        self.num_batches = len(self.train_loader_x)
        end = time.time()
        for batch_idx, batch in enumerate(self.train_loader_x):
            self.batch_idx = batch_idx
            data_time.update(time.time() - end)
            losses.update(self.forward_backward(batch))
            batch_time.update(time.time() - end)

            every = self.cfg.TRAIN.PRINT_FREQ
            if (batch_idx + 1) % every == 0 or self.num_batches < every:
                self._print_progress(losses, batch_time, data_time)
            step = self.epoch * self.num_batches + self.batch_idx
            for name, meter in losses.meters.items():
                self.write_scalar(f"train/{name}", meter.avg, step)
            self.write_scalar("train/lr", self.get_current_lr(), step)
            end = time.time()

    def _print_progress(
        self, losses: MetricMeter, batch_time: AverageMeter, data_time: AverageMeter
    ) -> None:
        """The line that people's log parsers read."""
        done = self.batch_idx + 1
        left = self.num_batches - done + (self.max_epoch - self.epoch - 1) * self.num_batches
        eta = datetime.timedelta(seconds=int(batch_time.avg * left))
        print(
            f"epoch [{self.epoch + 1}/{self.max_epoch}] batch [{done}/{self.num_batches}] "
            f"time {batch_time.val:.3f} ({batch_time.avg:.3f}) "
            f"data {data_time.val:.3f} ({data_time.avg:.3f}) "
            f"{losses} lr {self.get_current_lr():.4e} eta {eta}"
        )
