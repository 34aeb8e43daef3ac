"""What every method shares: the step, the checkpoints, the model's choice, the evaluation."""

import csv
import math
import sys
import time
from pathlib import Path

import torch
from dassl.engine import TrainerX
from dassl.optim import build_lr_scheduler, build_optimizer
from dassl.utils import AverageMeter, MetricMeter, set_random_seed
from torch.nn import functional as F
from tqdm import tqdm

from backbones.clip_model import load_clip
from core.errors import InputError, as_input_error
from core.files import atomic_write
from dassl_compat.checkpoint_reader import read_checkpoint
from dassl_compat.checkpoints import BEST, EPOCH, POINTER, keep_last_epoch
from datasets.features import FrozenFeatures
from datasets.views import ViewManager
from engine.evaluation import Predictions, print_result
from engine.prompts import at_least_one
from symptoms import load_symptoms

HISTORY = ("epoch", "loss", "acc", "lr", "val_accuracy", "seconds")


def symptom_path(cfg):
    """The symptom file of a run: the method's option, else the dataset's, else by its name."""
    chosen = cfg.TRAINER[cfg.TRAINER.NAME.upper()].SYMPTOMS or cfg.DATASET.SYMPTOMS
    return Path(chosen or Path("symptoms") / f"{cfg.RUN.DATASET}.json")


class DoesNotApply(InputError):
    """The method is not defined for this backbone; the message says why."""


class PromptTrainer(TrainerX):
    """A method that learns beside a frozen CLIP. A subclass says only what is new in it.

    A subclass gives ``DEFAULTS``, its options under ``TRAINER.<NAME>``, ``build_prompted_clip`` and
    ``compute_loss`` where it is not cross-entropy.
    """

    DEFAULTS = {}
    SHARED_DEFAULTS = {"PREC": "fp16"}  # fp32, fp16 (fp32 on a CPU), amp or bf16
    model_name = "prompt_learner"  # the folder and key of its checkpoints
    image_encoder_frozen = True  # then a batch may carry features in place of pictures

    # -- what a method gives --------------------------------------------------------------------

    @classmethod
    def symptom_file(cls, cfg):
        """The symptom file that a run with ``cfg`` reads; None for a method without symptoms."""
        return None

    def build_prompted_clip(self, clip_model, classnames):
        """The model to train: a ``PromptedModel``.

        Raises:
            DoesNotApply: if the method is not defined for this backbone.
        """
        raise NotImplementedError

    def compute_loss(self, logits, label):
        """Scalar loss of a batch: logits [batch, n_cls], label [batch]."""
        return F.cross_entropy(logits, label)

    def adapt_state_dict(self, state_dict):
        """Rename or drop what checkpoints of other implementations hold beyond ours."""
        # The fixed token embeddings follow from the class names.
        return {k: v for k, v in state_dict.items() if not k.endswith(("_prefix", "_suffix"))}

    def per_class(self):
        """Keys of the learned state whose rows are the classes, in their order."""
        return ()

    def new_class_row(self, key, rows):
        """The row of a class that training did not see; None where the method defines none.

        Args:
            key: one of ``per_class()``. rows: its tensor, one row a trained class.
        """
        return None

    # -- building -------------------------------------------------------------------------------

    @property
    def method_cfg(self):
        return self.cfg.TRAINER[self.cfg.TRAINER.NAME.upper()]

    def check_cfg(self, cfg):
        if cfg.TEST.FINAL_MODEL not in ("best_val", "last_step"):
            raise InputError(
                f"TEST.FINAL_MODEL is {cfg.TEST.FINAL_MODEL!r}; choose best_val or last_step"
            )
        if cfg.TEST.SPLIT not in ("val", "test"):
            raise InputError(f"TEST.SPLIT is {cfg.TEST.SPLIT!r}; choose val or test")
        loading = cfg.DATALOADER
        if loading.NUM_WORKERS < 0:
            raise InputError(f"DATALOADER.NUM_WORKERS is {loading.NUM_WORKERS}; give 0 or more")
        at_least_one(
            **{
                "TRAIN.PRINT_FREQ": cfg.TRAIN.PRINT_FREQ,
                "DATALOADER.TRAIN_X.BATCH_SIZE": loading.TRAIN_X.BATCH_SIZE,
                "DATALOADER.TEST.BATCH_SIZE": loading.TEST.BATCH_SIZE,
            }
        )

    def build_data_loader(self):
        self.dm = ViewManager(self.cfg)
        self.train_loader_x = self.dm.train_loader_x
        self.train_loader_u = None
        self.val_loader = self.dm.val_loader
        self.test_loader = self.dm.test_loader
        self.num_classes = self.dm.num_classes
        self.num_source_domains = self.dm.num_source_domains
        self.lab2cname = self.dm.lab2cname

    def build_model(self):
        cfg = self.cfg
        # Here, so that nothing built before changes what a method starts from.
        set_random_seed(cfg.SEED)
        self.classnames = list(self.dm.dataset.classnames)
        path = self.symptom_file(cfg)
        others = set(self.dm.dataset.all_classnames) - set(self.classnames)
        self.symptoms = load_symptoms(path, self.classnames, others) if path else None
        clip_model = load_clip(cfg, self.device)
        self.backbone_fingerprint = clip_model.fingerprint
        self.model = self.build_prompted_clip(clip_model, self.classnames)
        self.model.to(self.device)
        learned = [p for p in self.model.learned.parameters() if p.requires_grad]
        self.trainable_parameters = sum(p.numel() for p in learned)
        print(f"trainable parameters: {self.trainable_parameters:,}")
        self.optim = self.sched = None
        if learned:
            with as_input_error("OPTIM"):
                self.optim = build_optimizer(learned, cfg.OPTIM)
                self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        else:
            self.max_epoch = 0  # nothing to learn: straight to the test
        self.register_model(self.model_name, self.model.learned, self.optim, self.sched)
        half = self.model.clip.precision in ("amp", "fp16")
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=half and self.device.type == "cuda"
        )
        self.history = []
        self.best_epoch = None
        self.seconds = {"train": 0.0, "validate": 0.0, "test": 0.0}
        self.frozen_features = None
        if self.image_encoder_frozen:
            self.frozen_features = FrozenFeatures(cfg, self.dm, self.model.clip)

    # -- the step -------------------------------------------------------------------------------

    def parse_batch_train(self, batch):
        """The batch's pictures [batch, 3, H, W], or their features [batch, d], and labels."""
        label = batch["label"].to(self.device, non_blocking=True)
        if "features" in batch:
            return batch["features"].to(self.device, non_blocking=True), label
        return self.dm.scale(batch["img"].to(self.device, non_blocking=True)), label

    def forward_backward(self, batch):
        x, label = self.parse_batch_train(batch)
        logits = self.model(x)
        loss = self.compute_loss(logits, label)
        value = loss.item()
        if not math.isfinite(value):  # as detect_anomaly, which would wait for the device once more
            raise FloatingPointError("Loss is infinite or NaN!")
        self.optim.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optim)
        self.scaler.update()
        right = (logits.argmax(dim=1) == label).float().mean()
        return {"loss": value, "acc": 100 * right.item()}

    # -- an epoch -------------------------------------------------------------------------------

    def before_train(self):
        if self.max_epoch:
            # A run that began with --resume and was cut goes on from its own last epoch.
            own = (Path(self.output_dir) / self.model_name / POINTER).exists()
            start = self.output_dir if own else self.cfg.RESUME or self.output_dir
            self.start_epoch = self.resume_model_if_exist(start)
            self.init_writer(str(Path(self.output_dir) / "tensorboard"))
        self.time_start = time.time()

    def batches(self):
        """The epoch's batches: of features where the image encoder is frozen, else of pictures."""
        if self.frozen_features:
            return self.frozen_features.batches(self.epoch, self.max_epoch)
        self.train_loader_x.batch_sampler.epoch = self.epoch
        return self.train_loader_x

    def run_epoch(self):
        start = time.time()
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
        for self.batch_idx, batch in enumerate(bar):
            data_time.update(time.time() - end)
            summary = self.forward_backward(batch)
            batch_time.update(time.time() - end)
            losses.update(summary)
            done = self.batch_idx + 1
            if (
                done % self.cfg.TRAIN.PRINT_FREQ == 0
                or self.num_batches < self.cfg.TRAIN.PRINT_FREQ
            ):
                left = self.num_batches - done
                left += (self.max_epoch - self.epoch - 1) * self.num_batches
                eta = time.strftime("%H:%M:%S", time.gmtime(batch_time.avg * left))
                print(
                    f"epoch [{self.epoch + 1}/{self.max_epoch}] batch [{done}/{self.num_batches}] "
                    f"time {batch_time.val:.3f} ({batch_time.avg:.3f}) "
                    f"data {data_time.val:.3f} ({data_time.avg:.3f}) "
                    f"{losses} lr {self.get_current_lr():.4e} eta {eta}"
                )
            end = time.time()
        self.epoch_summary = {
            "epoch": self.epoch + 1,
            **{name: losses.meters[name].avg for name in ("loss", "acc")},
            "lr": self.get_current_lr(),
            "seconds": time.time() - start,
        }
        self.seconds["train"] += self.epoch_summary["seconds"]
        self.update_lr()

    def after_epoch(self):
        epoch = self.epoch + 1
        best_val = self.cfg.TEST.FINAL_MODEL == "best_val"
        val_accuracy = self.predict("val").accuracy if self.dm.dataset.val and best_val else None
        summary = self.epoch_summary | {"val_accuracy": val_accuracy}
        self.history.append([summary[name] for name in HISTORY])
        for name in ("loss", "acc", "lr", "val_accuracy"):
            if summary[name] is not None:
                self.write_scalar(f"train/{name}", summary[name], epoch)
        if val_accuracy is not None:
            print(f"epoch [{epoch}/{self.max_epoch}] validation accuracy {100 * val_accuracy:.4f}%")
            if val_accuracy > self.best_result:
                self.best_result, self.best_epoch = val_accuracy, epoch
                self.save_model(
                    self.epoch, self.output_dir, val_result=val_accuracy, model_name=BEST
                )
        # Best before last: killed between the two, the epoch is done again and says the same.
        every = self.cfg.TRAIN.CHECKPOINT_FREQ
        if epoch == self.max_epoch or (every > 0 and epoch % every == 0):
            self.save_model(self.epoch, self.output_dir, val_result=val_accuracy)
        keep_last_epoch(self)
        self.write_history()

    def write_history(self):
        """Write history.csv: an epoch a line, in the units of ``HISTORY``."""
        with atomic_write(Path(self.output_dir) / "history.csv") as file:
            csv.writer(file).writerows([HISTORY, *self.history])

    def after_train(self):
        if self.history:  # again: a run cut just before the last line resumes here
            self.write_history()
        print("Finish training")
        if self.max_epoch and self.cfg.TEST.FINAL_MODEL == "best_val" and self.best_epoch:
            print(f"Deploy the model of epoch {self.best_epoch}, the best on validation")
            self.load_model(self.output_dir)
        self.close_writer()

    # -- checkpoints ----------------------------------------------------------------------------

    def resume_state(self):
        """What a checkpoint holds besides the model, for a resumed run to end in the same bits."""
        return {
            "classnames": self.classnames,
            "backbone": self.backbone_fingerprint,
            "best_epoch": self.best_epoch,
            "history": self.history,
            "seconds": self.seconds,
            "scaler": self.scaler.state_dict(),
        }

    def load_resume_state(self, state):
        self.check_backbone(state, self.output_dir)
        self.best_epoch = state["best_epoch"]
        self.history, self.seconds = state["history"], state["seconds"]
        self.scaler.load_state_dict(state["scaler"])

    def load_model(self, directory, epoch=None):
        """Load what ``epoch`` learned, by default the best epoch, else the last.

        Raises:
            InputError: if there is no such checkpoint, or it belongs to another model.
        """
        if not self.trainable_parameters:
            return
        folder = Path(directory) / self.model_name
        if epoch is not None:
            path = folder / EPOCH.format(epoch)
        elif (folder / BEST).exists():
            path = folder / BEST
        elif (folder / POINTER).exists():
            path = folder / (folder / POINTER).read_text().strip()
        else:
            raise InputError(f"{folder} holds no checkpoint; is {directory} a trained {self.name}?")
        checkpoint = read_checkpoint(path)
        state = checkpoint.get("resume_state", {})
        self.check_backbone(state, path)
        self.load_learned(checkpoint["state_dict"], path, state.get("classnames"))
        self.best_epoch = checkpoint["epoch"]
        print(f"Loaded {path} (epoch {checkpoint['epoch']})")

    def check_backbone(self, state, where):
        """Refuse to put what was learned beside one CLIP on another; old files do not tell."""
        if state.get("backbone", self.backbone_fingerprint) != self.backbone_fingerprint:
            raise InputError(
                f"{where}: trained on other weights of {self.cfg.RUN.BACKBONE} than there are now; "
                "bring those back, or delete the run's folder"
            )

    @property
    def name(self):
        return self.cfg.TRAINER.NAME

    def load_learned(self, state_dict, path, classnames=None):
        """Load learned tensors strictly; says in one line what does not fit.

        Args:
            classnames: the classes that the model was trained on, where the file tells.
        """
        state_dict = self.adapt_state_dict(dict(state_dict))
        for key in self.per_class():
            if key in state_dict:
                state_dict[key] = self._rows_of_classes(key, state_dict[key], classnames, path)
        try:
            self.model.learned.load_state_dict(state_dict)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{path} does not fit this {self.name}: {reason}") from error

    def _rows_of_classes(self, key, rows, classnames, path):
        """Put a tensor's rows into the order of this run's classes."""
        if classnames is None:  # another implementation's file: of these classes, or of others
            classnames = self.classnames if len(rows) == self.num_classes else [None] * len(rows)
        known = dict(zip(classnames, rows, strict=True))
        new = [name for name in self.classnames if name not in known]
        if new:
            row = self.new_class_row(key, rows)
            if row is None:
                raise InputError(
                    f"{path}: {self.name} learned {key} for each of its classes, and has none for "
                    f"{', '.join(new)}; test it on the classes it was trained on"
                )
            known |= dict.fromkeys(new, row)
            print(f"{', '.join(new)}: not among the trained classes, {key} is {row.norm():g} there")
        return torch.stack([known[name] for name in self.classnames])

    # -- evaluation -----------------------------------------------------------------------------

    @torch.no_grad()
    def predict(self, split):
        """Predictions on ``val`` or ``test``, in the order of the split's pictures.

        Returns:
            ``Predictions``.
        """
        start = time.time()
        self.set_model_mode("eval")
        logits = torch.cat(
            [self.model(x.to(self.device)).float().cpu() for x in self.inputs(split)]
        )
        phase = "validate" if split == "val" else "test"
        self.seconds[phase] += time.time() - start
        pictures = getattr(self.dm.dataset, split)
        return Predictions(pictures, logits.double().softmax(dim=1).numpy(), self.classnames)

    def inputs(self, split):
        """Batches of a split's test views; of their features where the image encoder is frozen."""
        if self.frozen_features:
            return self.frozen_features.of_split(split).split(self.cfg.DATALOADER.TEST.BATCH_SIZE)
        loader = getattr(self, f"{split}_loader")
        return (self.dm.scale(batch["img"].to(self.device)) for batch in loader)

    def test(self, split=None):
        """Evaluate on a split (default ``TEST.SPLIT``); prints Dassl's lines, returns percent."""
        split = split or self.cfg.TEST.SPLIT
        print(f"Evaluate on the *{split}* set")
        self.predictions = self.predict(split)
        metrics = self.predictions.metrics()
        print_result(self.predictions, metrics)
        return 100 * metrics["accuracy"]
