"""Train and test a method on Dassl's engine: steps, checkpoints, choice of the epoch."""

import csv
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import AverageMeter, MetricMeter, set_random_seed
from torch import Tensor
from tqdm import tqdm

from backbones.backbone import Backbone
from backbones.loading import backbone_of, weights_key, with_preprocessing
from core.errors import InputError, as_input_error
from core.files import atomic_write
from core.processes import keep_freed_memory
from dassl_compat.checkpoints import (
    BEST,
    POINTER,
    keep_last_epoch,
    random_state,
    set_random_state,
)
from datasets.features import FrozenFeatures
from datasets.views import KeptViews, ViewManager, read_dataset
from engine.balance import balanced_weights, check_balance, check_unbalanced
from engine.config import method_of, read_symptoms, symptom_file
from engine.labels import finding_logits, has_findings, labels_of, share_correct
from engine.learned import check_backbone, find_checkpoint, load_checkpoint
from engine.method import (
    METHODS,
    DoesNotApply,
    FitData,
    LabelledFeatures,
    Method,
    Output,
    PromptedModel,
)
from engine.reuse import reuse
from results.findings import (
    FindingPredictions,
    best_thresholds,
    finding_figures,
    finding_lines,
    macro_auroc,
)
from results.metrics import figures, log_lines
from results.predictions import Predictions
from symptoms import Symptoms

HISTORY = ("epoch", "loss", "acc", "lr", "val_accuracy", "seconds")


class MethodTrainer(TrainerX):
    """Trains the model of the method that ``cfg.TRAINER.NAME`` names, on Dassl's engine.

    Attributes:
        method: the ``Method``. model: its ``PromptedModel``. backbone: what both are built on.
        classnames: in the order of the labels; of several findings an image, the findings and then
            the absence of each. findings: those, none for one class an image.
        symptoms: ``Symptoms``, None where none are read.
        history: one list of the values of ``HISTORY`` for each epoch.
    """

    method: Method
    model: PromptedModel
    backbone: Backbone
    classnames: list[str]
    findings: list[str]
    symptoms: Symptoms | None
    predictions: Predictions | FindingPredictions
    metrics: dict[str, Any]

    # -- building -------------------------------------------------------------------------------

    def build_data_loader(self) -> None:
        cfg = self.cfg
        key = cfg.DATASET.dump(), cfg.SEED
        # Before the weights, which take longer.
        dataset = reuse("dataset", key, lambda: read_dataset(cfg))
        self.findings = list(dataset.findings)
        _check_findings(self.cfg.TRAINER.NAME, self.findings)
        if self.findings:
            check_unbalanced(self.cfg)
        set_random_seed(self.cfg.SEED)
        made_of, device = (weights_key(cfg), str(self.device), cfg.SEED), self.device
        self.backbone = reuse("backbone", made_of, lambda: backbone_of(cfg, device), copied=True)
        # A method starts behind the draws of its backbone, whatever is built in between.
        self._start = random_state()
        self.cfg = with_preprocessing(self.cfg, self.backbone)
        self.dm = ViewManager(self.cfg, dataset)
        self.train_loader_x = self.dm.train_loader_x
        self.train_loader_u = None
        self.val_loader = self.dm.val_loader
        self.test_loader = self.dm.test_loader
        self.num_classes = self.dm.num_classes
        self.num_source_domains = self.dm.num_source_domains
        self.lab2cname = self.dm.lab2cname

    def build_model(self) -> None:
        cfg = self.cfg
        set_random_state(self._start)
        self.method = method_of(cfg)
        check_balance(cfg, self.method)
        self.classnames = list(self.dm.dataset.classnames)
        self.symptoms = None
        if path := symptom_file(cfg):
            others = set(self.dm.dataset.all_classnames) - set(self.classnames)
            self.symptoms = read_symptoms(path, self.classnames, others, bool(self.findings))
        backbone = self.backbone
        self.model = self.method.build(backbone, self.classnames, self.symptoms).to(self.device)
        if cfg.TRAIN.CLASS_WEIGHTS == "balanced":
            labels = [image.label for image in self.dm.dataset.train_x]
            self.model.class_weights = balanced_weights(labels, self.num_classes).to(self.device)
        self._build_optimizer()
        half = backbone.precision in ("amp", "fp16")
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=half and self.device.type == "cuda"
        )
        self.history: list[list] = []
        self.best_epoch: int | None = None
        self.seconds = {"encode": 0.0, "train": 0.0, "validate": 0.0, "test": 0.0}
        self.frozen_features = None
        self._val_views = KeptViews(self.val_loader)  # images are read again after every epoch
        if not self.method.learns_image_encoder:
            self.frozen_features = FrozenFeatures(cfg, self.dm, self.model.image_encoder)

    def _build_optimizer(self) -> None:
        self.optim = self.sched = None
        if self.trainable_parameters:
            with as_input_error("OPTIM"):
                groups = self.model.parameter_groups(self.cfg.OPTIM.LR)
                self.optim = build_optimizer(groups, self.cfg.OPTIM)
                self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
        if not self.trainable_parameters:
            self.max_epoch = 0  # nothing to learn: straight to the test
        elif self.method.fitted_at_once:
            self.max_epoch = 1
        print(f"trainable parameters: {self.trainable_parameters:,}")
        name = self.method.checkpoint_name
        self.register_model(name, self.model.learned, self.optim, self.sched)

    @property
    def trainable_parameters(self) -> int:
        """How many numbers learn."""
        return sum(p.numel() for p in self.model.learned.parameters() if p.requires_grad)

    # -- the step -------------------------------------------------------------------------------

    def output_of(self, batch: dict) -> tuple[Output, Tensor]:
        """The model's ``Output`` for a batch of images or of kept features, and the labels."""
        label = batch["label"].to(self.device, non_blocking=True)
        if "features" in batch:
            features = batch["features"].to(self.device, non_blocking=True)
            return self.model.from_features(features, label), label
        images = self.dm.scale(batch["img"].to(self.device, non_blocking=True))
        return self.model(images, label), label

    def forward_backward(self, batch: dict) -> dict[str, Tensor]:
        """One step; returns the sum of the losses and the accuracy in percent.

        Both stay on the device: reading a number would let a GPU wait in every step.
        """
        (logits, losses), label = self.output_of(batch)
        loss: Any = sum(losses.values())
        assert self.optim is not None  # something learns, or there were no step
        self.optim.zero_grad()
        self.model.backward(losses, self.scaler.scale)
        if self.model.max_gradient_norm is not None:
            self.scaler.unscale_(self.optim)
            learned = self.model.learned.parameters()
            torch.nn.utils.clip_grad_norm_(learned, self.model.max_gradient_norm)
        self.scaler.step(self.optim)
        self.scaler.update()
        return {"loss": loss.detach(), "acc": 100 * share_correct(logits, label)}

    @property
    def feature_use(self) -> dict[str, dict[str, float]] | None:
        """Set of views -> images, encoded and seconds; None where the image encoder learns."""
        return self.frozen_features.use if self.frozen_features else None

    def encoding_seconds(self) -> float:
        """What encoding image features took until now."""
        return sum(use["seconds"] for use in (self.feature_use or {}).values())

    def add_seconds(self, phase: str, start: float, encoding: float) -> None:
        """Count the time since ``start`` for a phase, and that of encoding images apart from it.

        Args:
            encoding: what ``encoding_seconds`` gave at the start.
        """
        encoding = self.encoding_seconds() - encoding
        self.seconds["encode"] += encoding
        self.seconds[phase] += time.time() - start - encoding

    # -- an epoch -------------------------------------------------------------------------------

    def before_train(self) -> None:
        if self.max_epoch:
            # A run that began with --resume and was cut goes on from its own last epoch.
            own = (Path(self.output_dir) / self.method.checkpoint_name / POINTER).exists()
            start = self.output_dir if own else self.cfg.RESUME or self.output_dir
            self.start_epoch = self.resume_model_if_exist(start)
            self.init_writer(str(Path(self.output_dir) / "tensorboard"))
        self.time_start = time.time()

    def batches(self) -> Any:
        """The epoch's batches: of features where the image encoder is frozen, else of images."""
        if self.frozen_features:
            return self.frozen_features.batches(self.epoch, self.max_epoch)
        keep_freed_memory()
        self.train_loader_x.batch_sampler.epoch = self.epoch
        return self.train_loader_x

    def run_epoch(self) -> None:
        start, encoding = time.time(), self.encoding_seconds()
        if self.method.fitted_at_once:
            loss, acc, lr = self.fit()
        else:
            lr = self.get_current_lr()
            loss, acc = self.train_steps()
        self.model.end_epoch(self.epoch + 1, self.max_epoch)
        self.epoch_summary = {
            "epoch": self.epoch + 1,
            "loss": loss,
            "acc": acc,
            "lr": lr,
            "seconds": time.time() - start,
        }
        self.add_seconds("train", start, encoding)
        if not self.method.fitted_at_once:
            self.update_lr()

    def train_steps(self) -> tuple[float, float]:
        """Train on the epoch's batches; returns their mean loss and accuracy in percent."""
        self.set_model_mode("train")
        batches = self.batches()
        self.num_batches = len(batches)
        losses, batch_time, data_time = MetricMeter(), AverageMeter(), AverageMeter()
        end = time.time()
        bar = tqdm(
            batches,
            desc=f"epoch {self.epoch + 1}/{self.max_epoch}",
            leave=False,
            disable=not sys.stderr.isatty(),
        )
        summaries: list[dict[str, Tensor]] = []  # of the steps that no number was read of yet
        for self.batch_idx, batch in enumerate(bar):
            data_time.update(time.time() - end)
            summaries.append(self.forward_backward(batch))
            batch_time.update(time.time() - end)
            if self.is_time_to_print:
                self._read(summaries, losses)
                self._print_progress(losses, batch_time, data_time)
            end = time.time()
        self._read(summaries, losses)
        return losses.meters["loss"].avg, losses.meters["acc"].avg

    def _read(self, summaries: list[dict[str, Tensor]], losses: MetricMeter) -> None:
        """Move the steps' figures into ``losses``.

        Raises:
            InputError: a loss is not finite.
        """
        for summary in summaries:
            losses.update(summary)
            if not math.isfinite(value := losses.meters["loss"].val):
                raise InputError(
                    f"the loss became {value} in epoch {self.epoch + 1}; lower OPTIM.LR (now "
                    f"{self.cfg.OPTIM.LR:g}), or set the method's PREC to fp32"
                )
        summaries.clear()

    @property
    def is_time_to_print(self) -> bool:
        """Every ``TRAIN.PRINT_FREQ`` batches; in a shorter epoch, every batch."""
        every = self.cfg.TRAIN.PRINT_FREQ
        return self.num_batches < every or (self.batch_idx + 1) % every == 0

    def _print_progress(
        self, losses: MetricMeter, batch_time: AverageMeter, data_time: AverageMeter
    ) -> None:
        """The line that parsers of Dassl's logs read."""
        done = self.batch_idx + 1
        left = self.num_batches - done + (self.max_epoch - self.epoch - 1) * self.num_batches
        eta = time.strftime("%H:%M:%S", time.gmtime(batch_time.avg * left))
        print(
            f"epoch [{self.epoch + 1}/{self.max_epoch}] batch [{done}/{self.num_batches}] "
            f"time {batch_time.val:.3f} ({batch_time.avg:.3f}) "
            f"data {data_time.val:.3f} ({data_time.avg:.3f}) "
            f"{losses} lr {self.get_current_lr():.4e} eta {eta}"
        )

    def fit(self) -> tuple[float, float, None]:
        """Fit the model to the kept features; returns the loss and accuracy on them, and no rate.

        Raises:
            InputError: a class has no training image.
        """
        assert self.frozen_features is not None
        train = self.labelled_features("train")
        if not has_findings(train.label):
            present = set(train.label.tolist())
            if missing := set(range(self.num_classes)) - present:
                raise InputError(f"class {self.classnames[min(missing)]!r} has no training image")
        val = self.labelled_features("val") if self.dm.dataset.val else None
        self.method.fit(self.model, FitData(train, val, self.augmented_features))
        with torch.no_grad():
            logits, losses = self.model.from_features(train.features, train.label)
        loss: Any = sum(losses.values())
        return loss.item(), 100 * share_correct(logits, train.label).item(), None

    def labelled_features(self, split: str) -> LabelledFeatures:
        """The features of a split's test views, and their labels."""
        images = self.dm.dataset.train_x if split == "train" else getattr(self.dm.dataset, split)
        features = self.frozen_features.of_split(split).to(self.device)
        return LabelledFeatures(features, labels_of(images).to(self.device))

    def augmented_features(self, passes: int) -> Tensor:
        """[passes, n, d] features of the training views of as many epochs."""
        epochs = [self.frozen_features.of_epoch(epoch, passes) for epoch in range(passes)]
        return torch.stack(epochs).to(self.device)

    @property
    def chosen_by(self) -> str:
        """What of the validation images chooses the epoch: a word for the logs."""
        return "auroc" if self.findings else "accuracy"

    def predictions_of(self, split: str) -> Predictions | FindingPredictions:
        """``predict``, or ``predict_findings`` where an image has several findings."""
        return self.predict_findings(split) if self.findings else self.predict(split)

    def after_epoch(self) -> None:
        epoch = self.epoch + 1
        best_val = self.cfg.TEST.FINAL_MODEL == "best_val"
        score = score_of(self.predictions_of("val")) if self.dm.dataset.val and best_val else None
        summary = self.epoch_summary | {"val_accuracy": score}
        self.history.append([summary[name] for name in HISTORY])
        for name, value in zip(self.history_columns, self.history[-1], strict=True):
            if name not in ("epoch", "seconds") and value is not None:
                self.write_scalar(f"train/{name}", value, epoch)
        if score is not None:
            print(
                f"epoch [{epoch}/{self.max_epoch}] validation {self.chosen_by} {100 * score:.4f}%"
            )
            if score > self.best_result:
                self.best_result, self.best_epoch = score, epoch
                self.save_model(self.epoch, self.output_dir, val_result=score, model_name=BEST)
        # Best before last: killed between the two, the epoch is done again and says the same.
        every = self.cfg.TRAIN.CHECKPOINT_FREQ
        if epoch == self.max_epoch or (every > 0 and epoch % every == 0):
            self.save_model(self.epoch, self.output_dir, val_result=score)
        keep_last_epoch(self)
        self.write_history()

    @property
    def history_columns(self) -> tuple[str, ...]:
        """``HISTORY``, with the name of what chooses the epoch."""
        return tuple(name.replace("val_accuracy", f"val_{self.chosen_by}") for name in HISTORY)

    def write_history(self) -> None:
        """Write history.csv: an epoch a line, in the units of ``HISTORY``."""
        with atomic_write(Path(self.output_dir) / "history.csv") as file:
            csv.writer(file).writerows([self.history_columns, *self.history])

    def after_train(self) -> None:
        if self.history:  # again: a run cut just before the last line resumes here
            self.write_history()
        print("Finish training")
        if self.max_epoch and self.cfg.TEST.FINAL_MODEL == "best_val" and self.best_epoch:
            print(f"Deploy the model of epoch {self.best_epoch}, the best on validation")
            self.load_model(self.output_dir)
        self.close_writer()

    # -- checkpoints ----------------------------------------------------------------------------

    def resume_state(self) -> dict[str, Any]:
        """What a checkpoint holds besides the model, for a resumed run to end in the same bits."""
        return {
            "classnames": self.classnames,
            "backbone": self.model.backbone.fingerprint,
            "text_encoder": self.model.backbone.text.kind,
            "best_epoch": self.best_epoch,
            "history": self.history,
            "seconds": self.seconds,
            "features": self.feature_use,
            "scaler": self.scaler.state_dict(),
        }

    def load_resume_state(self, state: dict[str, Any]) -> None:
        check_backbone(state, self.model, self.output_dir)
        self.best_epoch = state["best_epoch"]
        # A checkpoint of an older version counted no encoding.
        self.history, self.seconds = state["history"], {"encode": 0.0, **state["seconds"]}
        if self.frozen_features:
            self.frozen_features.use = state.get("features") or {}
        self.scaler.load_state_dict(state["scaler"])

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load what ``epoch`` learned, by default the best epoch, else the last.

        Raises:
            InputError: there is no such checkpoint, or it belongs to another model.
        """
        if not self.trainable_parameters:
            return
        path = find_checkpoint(Path(directory), self.method, epoch)
        self.best_epoch = load_checkpoint(path, self.method, self.model, self.classnames)
        print(f"Loaded {path} (epoch {self.best_epoch})")

    # -- evaluation -----------------------------------------------------------------------------

    def predict(self, split: str) -> Predictions:
        """Predictions on ``val`` or ``test``, in the order of the split's images."""
        probabilities = self.logits(split).double().softmax(dim=1).numpy()
        dataset = self.dm.dataset
        images = getattr(dataset, split)
        return Predictions.of(images, probabilities, self.classnames, dataset.positive)

    def predict_findings(self, split: str) -> FindingPredictions:
        """The same of several findings an image."""
        probabilities = finding_logits(self.logits(split).double()).sigmoid().numpy()
        images = getattr(self.dm.dataset, split)
        return FindingPredictions.of(images, probabilities, self.findings)

    @torch.no_grad()
    def logits(self, split: str) -> Tensor:
        """[n, n_cls] fp32 logits of a split's images, on the CPU; counts the seconds."""
        start, encoding = time.time(), self.encoding_seconds()
        self.set_model_mode("eval")
        logits = torch.cat([batch.float() for batch in self._logits(split)]).cpu()
        self.add_seconds("validate" if split == "val" else "test", start, encoding)
        return logits

    def _logits(self, split: str) -> Iterator[Tensor]:
        """Logits of a split's test views, batch by batch."""
        if self.frozen_features:
            size = self.cfg.DATALOADER.TEST.BATCH_SIZE
            for features in self.frozen_features.of_split(split).to(self.device).split(size):
                yield self.model.from_features(features).logits
            return
        loader = getattr(self, f"{split}_loader")
        for views in self._val_views if split == "val" else (batch["img"] for batch in loader):
            yield self.model(self.dm.scale(views.to(self.device, non_blocking=True))).logits

    def test(self, split: str | None = None) -> float:
        """Evaluate on a split (default ``TEST.SPLIT``); prints Dassl's lines, returns percent."""
        split = split or self.cfg.TEST.SPLIT
        print(f"Evaluate on the *{split}* set")
        if self.findings:
            return self._test_findings(split)
        self.predictions = found = self.predict(split)
        self.metrics = figures(found)
        print("\n".join(log_lines(found, self.metrics)))
        return 100 * self.metrics["accuracy"]

    def _test_findings(self, split: str) -> float:
        """``test`` of several findings an image, with thresholds chosen on validation."""
        val = self.predict_findings("val") if self.dm.dataset.val else None
        self.predictions = found = self.predict_findings(split)
        self.metrics = finding_figures(found, None if val is None else best_thresholds(val))
        print("\n".join(finding_lines(found, self.metrics)))
        return 100 * (self.metrics["macro_auroc"] or 0)


def score_of(found: Predictions | FindingPredictions) -> float | None:
    """What chooses the epoch: the accuracy, or the macro AUROC of several findings.

    None where no finding has both values.
    """
    return macro_auroc(found) if isinstance(found, FindingPredictions) else found.accuracy


def _check_findings(trainer: str, findings: list[str]) -> None:
    """Raise DoesNotApply for a method that is defined for one class an image."""
    if findings and not METHODS[trainer].multi_label:
        others = ", ".join(name for name, method in METHODS.items() if method.multi_label)
        raise DoesNotApply(
            f"{trainer} is defined for one class an image, and DATASET.MULTI_LABEL gives an image "
            f"several findings; choose one of {others}"
        )


def register_with_dassl() -> None:
    """Make every method a trainer that Dassl builds by name: ``build_trainer(cfg)``."""
    known = TRAINER_REGISTRY.registered_names()
    for name, method in METHODS.items():
        if name not in known:
            trainer = type(name, (MethodTrainer,), {"__doc__": method.__doc__})
            TRAINER_REGISTRY.register()(trainer)
