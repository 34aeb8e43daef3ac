"""Test a finished run on another dataset, or on other classes of its own; nothing is trained.

METHOD/eval.sh and base_to_new.sh call this. Where the other dataset has other names for the same
classes, map them with --classes "benign nevus=nevus" melanoma=mel
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.arguments import Parser, help_first, split_options
from core.errors import InputError, command_line, naming, shortened
from results.named_runs import add_run_arguments, named_run

STARTED = time.time()


def make_parser() -> Parser:
    parser = Parser(__doc__, prog="eval.sh")
    add = parser.add_argument
    add_run_arguments(parser)
    add("dataset", help="a file of configs/datasets, by its name, or a YAML file")
    add(
        "--classes",
        nargs="+",
        default=[],
        metavar="TRAINED=OTHER",
        help="name of a class in the run, and its name in the dataset",
    )
    add("--trainer", help="require a run of this method")
    add("--root", default="data", help="folder that holds the datasets (default: data)")
    add("--output", default="output", help="folder for the results (default: output)")
    return parser


help_first(__name__, make_parser)

import trainers  # noqa: F401  (makes dassl importable and registers the methods)

# isort: split
from dassl.data.datasets import DATASET_REGISTRY, build_dataset
from yacs.config import CfgNode as CN

from engine.config import (
    load_cfg,
    method_of,
    short_keys,
    symptom_file,
    symptoms_fingerprint,
    trainer_name,
    variant_name,
)
from engine.loading import read_config
from engine.run import run
from results.record import find_record
from symptoms import SymptomFile

# Of the dataset a run was trained on: a test leaves them as they were.
KEPT = ("NUM_SHOTS",)


def evaluation_cfg(
    folder: Path,
    dataset: str,
    root: str,
    opts: Sequence[str] = (),
    output: str = "output",
    classes: Sequence[str] = (),
) -> tuple[CN, dict[str, Any]]:
    """The configuration that tests the run in ``folder`` on ``dataset``.

    All is the run's own but the dataset. Its symptoms are the run's too: the learned parameters
    belong to them.

    Args:
        classes: ``TRAINED=OTHER`` pairs, for classes that ``dataset`` names otherwise.

    Returns:
        cfg, frozen; the run's options and those that ``opts`` change, as key -> value.

    Raises:
        InputError: the folder is not a finished run, the dataset or an option does not exist, or
            the run does not know the dataset's classes.
    """
    record = find_record(folder)
    cfg = read_config(folder, root)
    if not record or record.metrics is None:
        raise InputError(f"{folder}: the run is not complete; train it first")
    own = _own_symptoms(cfg, opts)
    there, changed = load_cfg(cfg.TRAINER.NAME, dataset, opts=[*own, *opts], root=root)
    if classes:
        there = _renamed(there, record.classnames, classes)
    else:
        _check_classes(there, record.classnames, folder)
    origin = origin_of(cfg)
    cfg.defrost()
    _take_dataset(cfg, there, changed)
    options = record.options | {k: v for k, v in changed.items() if k not in own}
    cfg.OUTPUT_DIR = str(output_folder(cfg, options, output, origin))
    cfg.freeze()
    return cfg, options


def _own_symptoms(cfg: CN, opts: Sequence[str]) -> list[str]:
    """The option that keeps the run's own symptoms, which is not one of this test's."""
    symptoms, key = symptom_file(cfg), f"TRAINER.{cfg.TRAINER.NAME.upper()}.SYMPTOMS"
    return [key, str(symptoms)] if symptoms and key not in opts else []


def origin_of(cfg: CN) -> str:
    """What the folder of a test says of the run that it tests."""
    half = cfg.DATASET.SUBSAMPLE_CLASSES
    return f"trained-on-{cfg.RUN.DATASET}" + ("" if half == "all" else f"-{half}")


def _take_dataset(cfg: CN, there: CN, changed: dict[str, Any]) -> None:
    """Give ``cfg`` the dataset of ``there``, but for what is ``KEPT``, and the changed options."""
    kept = {key: cfg.DATASET[key] for key in KEPT}
    cfg.DATASET = there.DATASET.clone()
    cfg.DATASET.update(kept)
    cfg.RUN.DATASET = there.RUN.DATASET
    cfg.merge_from_list([part for pair in changed.items() for part in pair])
    # Whether it reads symptoms is said by the run's own options.
    cfg.RUN.SYMPTOMS = symptoms_fingerprint(cfg)


def output_folder(cfg: CN, options: Mapping[str, Any], output: str | Path, origin: str) -> Path:
    """The folder of a test, with the options of the run and of the test."""
    variant = f"{variant_name(cfg, options)}_{origin}"
    seed = f"seed{cfg.SEED}"
    return Path(output, cfg.RUN.DATASET, cfg.TRAINER.NAME, cfg.RUN.BACKBONE, variant, seed)


# Classes under other names


def class_names(cfg: CN) -> list[str]:
    """All classes of a configuration's dataset, in the order of their labels."""
    if cfg.DATASET.NAME not in DATASET_REGISTRY.registered_names():
        return []  # said when the run builds it
    with contextlib.redirect_stdout(None):
        return list(build_dataset(cfg).all_classnames)


def _check_classes(cfg: CN, trained: Sequence[str], folder: Path) -> None:
    """Raise InputError if the run learned or reads something of each class, and lacks one here."""
    if path := symptom_file(cfg):
        known = list(SymptomFile.read(path).phrases)
    elif method_of(cfg).per_class():
        known = list(trained)
    else:  # what it learned belongs to no class
        return
    names = class_names(cfg)
    missing = [name for name in names if name not in known]
    if missing:
        raise InputError(
            f"{cfg.RUN.DATASET} has the classes {', '.join(names)}, and {folder} was trained on "
            f"{', '.join(trained)}; if these are the same classes under other names, map them: "
            f'--classes "{trained[0]}={missing[0]}"'
        )


def _renamed(cfg: CN, trained: Sequence[str], pairs: Sequence[str]) -> CN:
    """The configuration with the dataset's classes under the names that the run knows."""
    names = class_names(cfg)
    known = {name.casefold(): name for name in trained}
    others = {name.casefold(): name for name in names}
    new_names = dict(zip(names, names, strict=True))
    for pair in pairs:
        ours, _, theirs = (part.strip().casefold() for part in pair.partition("="))
        if ours not in known:
            raise InputError(
                f"--classes {shortened(pair)}: the run was trained on {', '.join(trained)}; give "
                "TRAINED=OTHER"
            )
        if theirs not in others:
            raise InputError(
                f"--classes {shortened(pair)}: {cfg.RUN.DATASET} has the classes "
                f"{', '.join(names)}; give TRAINED=OTHER"
            )
        new_names[others[theirs]] = known[ours]
    if len(set(new_names.values())) < len(names):
        raise InputError(
            f"--classes: two classes of {cfg.RUN.DATASET} would have the same name: "
            f"{', '.join(new_names.values())}; map each to another class of the run"
        )
    cfg = cfg.clone()
    cfg.defrost()
    if not DATASET_REGISTRY.get(cfg.DATASET.NAME).class_aliases and not cfg.DATASET.CLASS_FOLDERS:
        cfg.DATASET.CLASS_FOLDERS = names  # its folders keep the names that they have
    cfg.DATASET.CLASSNAMES = list(new_names.values())
    cfg.freeze()
    return cfg


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    words, opts = split_options(sys.argv[1:] if argv is None else argv, short_keys)
    args = make_parser().parse_intermixed_args(words)
    args.opts = opts
    return args


def main(argv: Sequence[str] | None = None, started: float = STARTED) -> None:
    args = parse_args(argv)
    if args.trainer:
        args.trainer = trainer_name(args.trainer)
    folder = named_run(args.run, args.latest, args.runs)
    cfg, options = evaluation_cfg(
        folder, args.dataset, args.root, args.opts, args.output, args.classes
    )
    if args.trainer and cfg.TRAINER.NAME != args.trainer:
        raise InputError(f"{folder} is a run of {cfg.TRAINER.NAME}, not of {args.trainer}")
    with naming(cfg.OUTPUT_DIR):
        run(cfg, options, started=started, eval_only=True, model_dir=str(folder))


if __name__ == "__main__":
    command_line(main)()
