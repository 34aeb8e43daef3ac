"""One run, from its configuration to its folder of results."""

import contextlib
import errno
import io
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from dassl.engine import build_trainer
from dassl.utils import set_random_seed, setup_logger
from yacs.config import CfgNode as CN

import dassl_compat
from core.errors import InputError
from core.files import atomic_write, only_run_in
from core.processes import release_freed_memory
from dassl_compat.checkpoints import POINTER
from engine.config import differing_keys, symptom_file, variant_name
from engine.learned import find_checkpoint
from engine.method import METHODS, DoesNotApply
from engine.trainer import MethodTrainer, score_of
from results import predictions
from results.findings import FindingPredictions
from results.record import RESULTS, find_record, write_record
from results.settings import CONFIG, read_settings


def run(
    cfg: CN,
    options: dict[str, Any] | None = None,
    started: float | None = None,
    eval_only: bool = False,
    model_dir: str = "",
    load_epoch: int | None = None,
    train: bool = True,
) -> None:
    """Train (or go on training) and test one run; a complete one is left as it is.

    Args:
        cfg, options: what ``load_cfg`` returns.
        started: time.time() of the program's start, for the seconds of the set-up.
        eval_only: test the model saved in ``model_dir`` (default: the run's own folder), at
            ``load_epoch`` (default: the best). Nothing is written into a trained run's own folder.
        train: False stops once everything is built and checked.

    Raises:
        InputError: wrong input. A folder that this call made is removed again if the trainer could
            not be built; once it is, nothing that training wrote is ever removed.
        DoesNotApply: results.json says so too, for the tables.
    """
    started, options = started or time.time(), options or {}
    forget_peak_memory()
    folder = Path(cfg.OUTPUT_DIR)
    source = Path(model_dir or folder) if eval_only else None
    trainer: MethodTrainer | None
    with (
        _new_folder(folder) as keep,
        only_run_in(folder),
        _logged_to(folder),
        contextlib.ExitStack() as closing,
    ):
        set_random_seed(cfg.SEED)
        if source:
            trainer = _build_for_test(cfg, folder, source, load_epoch)
        else:
            trainer = _build_for_training(cfg, options, train)
        if trainer is None:
            return
        keep()
        closing.callback(trainer.close_writer)  # also of a run that fails
        cfg = trainer.cfg  # now with the backbone's preprocessing
        trainer.seconds["setup"] = time.time() - started
        if source and folder.resolve() == source.resolve():
            trainer.test()
            return
        _write_config(cfg)
        if not source:
            trainer.train()
        _finish(trainer, options, folder, trained_in=source)


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[Callable[[], None]]:
    """Make a run's folder; one that was not there goes again unless ``keep`` is called or
    results.json says that the method does not apply.
    """
    kept = not _make_folder(folder)

    def keep() -> None:
        nonlocal kept
        kept = True

    try:
        yield keep
    finally:
        if not kept and not (folder / RESULTS).exists():
            _remove(folder)


def _make_folder(folder: Path) -> bool:
    """Make the run's folder; whether it was not there."""
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"{folder} cannot be created ({error.strerror}); give another --output-dir"
        ) from error
    return made


def _build_for_training(cfg: CN, options: dict[str, Any], train: bool) -> MethodTrainer | None:
    """The trainer of a run; None where there is nothing to train."""
    folder = Path(cfg.OUTPUT_DIR)
    _refuse_another(cfg, folder)
    if record := find_record(folder):
        if record.does_not_apply:
            raise DoesNotApply(record.does_not_apply)
        print(f"{folder} is complete; delete it to run it again")
        return None
    try:
        trainer = build_trainer(cfg)
    except DoesNotApply as error:
        if train:
            _write_config(cfg)
            reason = {"metrics": None, "does_not_apply": str(error)}
            write_record(folder, _identity(cfg, options) | reason)
        raise
    own = folder / trainer.method.checkpoint_name / POINTER
    if cfg.RESUME and trainer.max_epoch and not own.exists():
        find_checkpoint(Path(cfg.RESUME), trainer.method)  # here, before anything is written
    if not train:
        print("All checks passed; nothing was trained (--no-train)")
        return None
    return trainer


def _build_for_test(cfg: CN, folder: Path, source: Path, load_epoch: int | None) -> MethodTrainer:
    """The trainer with the model of the run in ``source``, to be tested in ``folder``."""
    trainer = build_trainer(cfg)
    trainer.load_model(str(source), epoch=load_epoch)
    if folder.resolve() != source.resolve():
        if (folder / trainer.method.checkpoint_name).is_dir():
            raise InputError(
                f"{folder} holds a trained run; give another --output-dir for this test"
            )
        _refuse_another(cfg, folder)
    return trainer


def _refuse_another(cfg: CN, folder: Path) -> None:
    """A folder is one run's: what another configuration left there is never written over."""
    config = folder / CONFIG
    if config.exists() and (keys := differing_keys(cfg, config)):
        raise InputError(
            f"{folder} holds a run with another {', '.join(keys)}; "
            "give another --output-dir, or delete that folder"
        )


def _finish(
    trainer: MethodTrainer,
    options: dict[str, Any],
    folder: Path,
    trained_in: Path | None = None,
) -> None:
    """Test the model, then write the predictions and, last, results.json."""
    validation = None
    if trainer.dm.dataset.val:
        on_validation = trainer.predictions_of("val")
        on_validation.write(folder / predictions.VALIDATION_FILE)
        validation = score_of(on_validation)
    trainer.test()
    trainer.predictions.write(folder / predictions.FILE)
    write_record(folder, _results(trainer, options, validation, trained_in))
    print(f"Results are in {folder}")
    if trained_in is None and trainer.trainable_parameters:
        print(f"Learned parameters are in {folder / trainer.method.checkpoint_name}")


def _write_config(cfg: CN) -> None:
    with atomic_write(Path(cfg.OUTPUT_DIR) / CONFIG) as file:
        file.write(cfg.dump())


def _identity(cfg: CN, options: dict[str, Any]) -> dict[str, Any]:
    """Which run it is: what the tables sort by."""
    method = METHODS[cfg.TRAINER.NAME]
    return {
        "dataset": cfg.RUN.DATASET,
        "trainer": cfg.TRAINER.NAME,
        "backbone": cfg.RUN.BACKBONE,
        "place": method.place,
        "seeded": method.seeded,
        "fitted_at_once": method.fitted_at_once,
        "variant": variant_name(cfg, options),
        "options": {key: str(value) for key, value in options.items()},
        "seed": cfg.SEED,
        "split": cfg.TEST.SPLIT,
        "shots": cfg.DATASET.NUM_SHOTS,
        "subsample_classes": cfg.DATASET.SUBSAMPLE_CLASSES,
        **({"multi_label": True} if cfg.DATASET.MULTI_LABEL else {}),
    }


def _results(
    trainer: MethodTrainer,
    options: dict[str, Any],
    validation: float | None,
    trained_in: Path | None,
) -> dict[str, Any]:
    cfg, dataset, seconds = trainer.cfg, trainer.dm.dataset, trainer.seconds
    symptoms = trainer.symptoms
    cuda = trainer.device.type == "cuda"
    per_epoch = len(trainer.train_loader_x) * cfg.DATALOADER.TRAIN_X.BATCH_SIZE
    seen = len(trainer.history) * min(per_epoch, len(dataset.train_x))
    busy = seconds["train"] if seen else seconds["test"]
    results = {
        **_identity(cfg, options),
        "classnames": trainer.classnames,
        **_figures(trainer, validation),
        "class_counts": dataset.class_counts,
        "training_split_counts": dataset.counts_of(dataset.split["train"]),
        "seconds": {**seconds, "total": sum(seconds.values())},
        "features": trainer.feature_use,
        "pictures_per_second": (seen or len(trainer.predictions)) / max(busy, 1e-9),
        "peak_memory_bytes": {
            "gpu": torch.cuda.max_memory_allocated() if cuda else None,
            "cpu": peak_memory(),
        },
        "trainable_parameters": trainer.trainable_parameters,
        "precision": trainer.model.backbone.precision,
        "device": torch.cuda.get_device_name() if cuda else platform.processor() or "cpu",
        "versions": versions(),
        "backbone_fingerprint": trainer.model.backbone.fingerprint,
        "backbone_notes": trainer.model.backbone.notes,
        "split_fingerprint": dataset.split_fingerprint,
        "symptom_file": str(symptom_file(cfg)) if symptoms else None,
        "symptom_fingerprint": symptoms.fingerprint if symptoms else None,
    }
    if trained_in is not None:
        with contextlib.suppress(InputError, KeyError):
            results["trained_on"] = read_settings(trained_in / CONFIG)["RUN.DATASET"]
    return results


def _figures(trainer: MethodTrainer, validation: float | None) -> dict[str, Any]:
    """The entries that tell one class an image from several findings."""
    said = {"validation": {trainer.chosen_by: validation, "epoch": trainer.best_epoch}}
    if isinstance(trainer.predictions, FindingPredictions):
        return {"metrics": None, "finding_metrics": trainer.metrics, **said}
    return {"positive": trainer.predictions.positive, "metrics": trainer.metrics, **said}


def versions() -> dict[str, str]:
    """What a result depends on besides its configuration: name -> version."""
    names = {"torch": "torch", "torchvision": "torchvision", "numpy": "numpy", "pillow": "pillow"}
    found = {"python": platform.python_version()}
    for name, package in names.items():
        found[name] = metadata.version(package)
    for package in ("clip-anytorch", "clip"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found["clip"] = f"{package} {metadata.version(package)}"
            break
    found["dassl"] = "installed" if dassl_compat.USING_INSTALLED_DASSL else "built in"
    return found


def forget_peak_memory() -> None:
    """Measure peaks from here on: an earlier run of this process may have had a higher one.

    What the process keeps for its next run (engine/reuse.py) counts in every peak.
    """
    release_freed_memory()
    with contextlib.suppress(OSError):  # Linux alone; elsewhere the peak is the process's
        Path("/proc/self/clear_refs").write_text("5")
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> int:
    """Bytes of memory that this process had at most, since ``forget_peak_memory``."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


@contextlib.contextmanager
def _logged_to(folder: Path) -> Iterator[None]:
    """Copy what is printed to log.txt, and give stdout back at the end."""
    stdout = sys.stdout
    setup_logger(str(folder))
    log = sys.stdout
    # Dassl's logger writes to the stdout there was when it was imported.
    log.console = stdout
    try:
        yield
    finally:
        sys.stdout = stdout
        log.file.close()
        # And when it is dropped it closes it.
        log.console = io.StringIO()


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for parent in folder.parents:
        try:
            parent.rmdir()  # only an empty one goes
        except OSError:
            return
