"""Test a finished run on another dataset, or on other classes of its own; nothing is trained.

The shell scripts call this: METHOD/eval.sh and base_to_new.sh.
"""

import argparse
import time
from pathlib import Path

STARTED = time.time()

import trainers  # noqa: E402, F401  (registers the methods)
from core.errors import InputError, command_line  # noqa: E402
from engine.config import load_cfg, symptom_file, variant_name  # noqa: E402
from engine.loading import read_config  # noqa: E402
from engine.method import METHODS  # noqa: E402
from engine.run import run  # noqa: E402
from results.record import find_record  # noqa: E402

# Of the dataset a run was trained on: a test leaves them as they were.
KEPT = ("NUM_SHOTS",)


def evaluation_cfg(folder, dataset, root, opts=(), output="output"):
    """The configuration that tests the run in ``folder`` on ``dataset``.

    All is the run's own but the dataset. Its symptoms are the run's too: the learned parameters
    belong to them.

    Returns:
        cfg, frozen; the run's options and those that ``opts`` change, as key -> value.

    Raises:
        InputError: the folder is no finished run, or the dataset or an option does not exist.
    """
    record = find_record(folder)
    cfg = read_config(folder, root)
    if not record or record.metrics is None:
        raise InputError(f"{folder}: the run did not end; train it first")
    trainer = cfg.TRAINER.NAME
    symptoms, own = symptom_file(cfg), f"TRAINER.{trainer.upper()}.SYMPTOMS"
    given = [own, str(symptoms)] if symptoms and own not in opts else []
    there, changed = load_cfg(trainer, dataset, opts=[*given, *opts], root=root)
    name, half = cfg.RUN.DATASET, cfg.DATASET.SUBSAMPLE_CLASSES
    kept = {key: cfg.DATASET[key] for key in KEPT}

    cfg.defrost()
    cfg.DATASET = there.DATASET.clone()
    cfg.DATASET.update(kept)
    cfg.RUN.DATASET = there.RUN.DATASET
    cfg.RUN.SYMPTOMS = there.RUN.SYMPTOMS
    cfg.merge_from_list([part for pair in changed.items() for part in pair])
    if given:
        changed.pop(own, None)  # no option of this test: the run's own
    options = {**record.options, **changed}
    origin = f"trained-on-{name}" + ("" if half == "all" else f"-{half}")
    variant = f"{variant_name(cfg, options)}_{origin}"
    cfg.OUTPUT_DIR = str(
        Path(output, cfg.RUN.DATASET, trainer, cfg.RUN.BACKBONE, variant, f"seed{cfg.SEED}")
    )
    cfg.freeze()
    return cfg, options


def main(argv=None):
    parser = argparse.ArgumentParser(prog="eval.sh", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("run", type=Path, help="a finished run's folder")
    add("dataset", help="a file of configs/datasets, by its name, or a YAML file")
    add("--trainer", choices=METHODS, help="the method that the run has to be of")
    add("--root", default="data", help="folder that holds the datasets")
    add("--output", default="output", help="folder that the results go to")
    add("opts", nargs="*", metavar="KEY value", help="settings of the test")
    args = parser.parse_intermixed_args(argv)
    cfg, options = evaluation_cfg(args.run, args.dataset, args.root, args.opts, args.output)
    if args.trainer and cfg.TRAINER.NAME != args.trainer:
        raise InputError(f"{args.run} is a run of {cfg.TRAINER.NAME}, not of {args.trainer}")
    run(cfg, options, started=STARTED, eval_only=True, model_dir=str(args.run))


if __name__ == "__main__":
    command_line(main)()
