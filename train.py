"""Train and test one run: one method on one dataset with one backbone and one seed.

python train.py --trainer ViP --dataset derm7pt --backbone vit_b16 --seed 1 [KEY VALUE ...]
"""

import argparse
import sys
import time
from collections.abc import Collection, Sequence

STARTED = time.time()  # before the slow imports: they are part of a run's set-up

from core.arguments import Parser, not_negative_int, split_options, whole_number  # noqa: E402
from core.errors import InputError, command_line, naming  # noqa: E402


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--root", default="data", help="folder that holds the datasets (default: data)")
    add("--trainer", default="ViP", help="the method (default: ViP)")
    add("--dataset", default="", help="a file of configs/datasets, by its name: derm7pt")
    add("--backbone", default="", help="a file of configs/backbones, by its name: vit_b16")
    add("--dataset-config-file", default="", help="YAML file of a dataset, instead of --dataset")
    add("--config-file", default="", help="a YAML file merged after all others")
    add(
        "--seed",
        type=whole_number(0, 2**32 - 1),
        default=1,
        help="seed of initialisation, order, views and few-shot images (default: 1)",
    )
    add("--output-dir", default="", help="the run's folder (default: one below output/)")
    add("--resume", default="", help="continue from the checkpoints in this folder")
    add("--eval-only", action="store_true", help="test a saved model, by default the best epoch's")
    add("--model-dir", default="", help="the run that --eval-only tests (default: --output-dir)")
    add(
        "--load-epoch",
        type=not_negative_int,
        help="the epoch that --eval-only tests (default: the best)",
    )
    add("--no-train", action="store_true", help="build and check everything, then stop")
    parser.epilog = "Any setting may follow as KEY VALUE, for example OPTIM.LR 0.01."
    words, opts = split_options(sys.argv[1:] if argv is None else argv, _short_keys)
    args = parser.parse_args(words)
    args.opts = opts
    return args


def check_args(args: argparse.Namespace) -> None:
    """Reject arguments that are missing or have no effect together."""
    if not (args.dataset_config_file or args.dataset):
        raise InputError("which dataset? give --dataset, a name in configs/datasets")
    if not (args.backbone or args.config_file):
        raise InputError("which backbone? give --backbone, a name in configs/backbones")
    if args.resume and not args.output_dir:
        # Otherwise a run that began elsewhere would stand where the plain one belongs.
        raise InputError("--resume needs --output-dir, a folder for the resumed run")
    if not args.eval_only and (args.model_dir or args.load_epoch is not None):
        raise InputError("--model-dir and --load-epoch need --eval-only")


def main(argv: Sequence[str] | None = None, started: float = STARTED) -> None:
    args = parse_args(argv)
    check_args(args)

    # Late, so that --help does not wait for PyTorch.
    import trainers  # noqa: F401  (registers the methods)
    from engine.config import load_cfg
    from engine.run import run

    cfg, options = load_cfg(
        args.trainer,
        args.dataset_config_file or args.dataset,
        args.backbone,
        files=[args.config_file] if args.config_file else [],
        opts=[*args.opts, *(["RESUME", args.resume] if args.resume else [])],
        root=args.root,
        seed=args.seed,
        output_dir=args.output_dir,
    )
    with naming(cfg.OUTPUT_DIR):
        run(
            cfg,
            options,
            started=started,
            eval_only=args.eval_only,
            model_dir=args.model_dir,
            load_epoch=args.load_epoch,
            train=not args.no_train,
        )


def _short_keys() -> Collection[str]:
    import trainers  # noqa: F401  (registers the methods)
    from engine.config import short_keys

    return short_keys()


if __name__ == "__main__":
    command_line(main)()
