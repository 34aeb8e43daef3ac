"""Train and test one run: one method on one dataset with one backbone and one seed.

python train.py --trainer ViP --dataset derm7pt --backbone vit_b16 --seed 1 [KEY value ...]
"""

import argparse
import time

STARTED = time.time()  # before the slow imports: they are part of a run's set-up


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--root", default="data", help="folder that holds the datasets (default: data)")
    add("--trainer", default="ViP", help="the method (default: ViP)")
    add("--dataset", default="", help="a file of configs/datasets, by its name: derm7pt")
    add("--backbone", default="", help="a file of configs/backbones, by its name: vit_b16")
    add("--dataset-config-file", default="", help="a dataset's YAML file, in place of --dataset")
    add("--config-file", default="", help="a YAML file merged after all others")
    add("--seed", type=int, default=1, help="initialisation, order, views and few-shot choice")
    add("--output-dir", default="", help="the run's folder (default: one below output/)")
    add("--resume", default="", help="go on from the checkpoints in this folder")
    add("--eval-only", action="store_true", help="test a saved model, by default the best epoch's")
    add("--model-dir", default="", help="the run that --eval-only tests (default: --output-dir)")
    add("--load-epoch", type=int, help="the epoch that --eval-only tests")
    add("--no-train", action="store_true", help="build and check everything, then stop")
    add("opts", nargs=argparse.REMAINDER, metavar="KEY value", help="settings of the configuration")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)

    import trainers  # noqa: F401  (registers the methods)
    from core.errors import InputError
    from engine.config import load_cfg
    from engine.run import run

    dataset = args.dataset_config_file or args.dataset
    if not dataset:
        raise InputError("which dataset? give --dataset, a name in configs/datasets")
    if not (args.backbone or args.config_file):
        raise InputError("which backbone? give --backbone, a name in configs/backbones")
    if args.resume and not args.output_dir:
        # Else a run that began elsewhere would stand where the plain one belongs.
        raise InputError("--resume goes with --output-dir, a folder for the run that goes on")
    if not args.eval_only and (args.model_dir or args.load_epoch is not None):
        raise InputError("--model-dir and --load-epoch go with --eval-only")
    cfg, options = load_cfg(
        args.trainer,
        dataset,
        args.backbone,
        files=[args.config_file] if args.config_file else [],
        opts=[*args.opts, *(["RESUME", args.resume] if args.resume else [])],
        root=args.root,
        seed=args.seed,
        output_dir=args.output_dir,
    )
    run(
        cfg,
        options,
        started=STARTED,
        eval_only=args.eval_only,
        model_dir=args.model_dir,
        load_epoch=args.load_epoch,
        train=not args.no_train,
    )


if __name__ == "__main__":
    from core.errors import command_line

    command_line(main)()
