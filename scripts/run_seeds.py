"""Train a method with every seed on a dataset, then print the table of what is there.

METHOD/main.sh call this. A complete run is left as it is and an interrupted one is resumed, so the
same command may be given again.
"""

from collections.abc import Sequence
from pathlib import Path

from core.arguments import Parser, help_first
from core.errors import command_line
from scripts.parsers import script_parser


def make_parser() -> Parser:
    return script_parser("main.sh", __doc__, first="trainer")


help_first(__name__, make_parser)

from engine.config import load_cfg, run_folder, trainer_name
from scripts.arguments import parse_script
from scripts.jobs import call, interrupt_on_sigterm, tables_command, train_command


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_script(make_parser(), argv)
    trainer = trainer_name(args.trainer)
    commands = []
    for backbone in args.backbones:
        for seed in args.seeds:
            cfg, options = load_cfg(
                trainer, args.dataset, backbone, opts=args.opts, root=args.root, seed=seed
            )
            folder = args.output / run_folder(cfg, options)
            commands.append(train_command(args, trainer, backbone, seed, folder, args.opts))
    commands.append(tables_command(args.output / Path(args.dataset).stem))
    for command in commands:
        if status := call(command):
            return status
    return 0


if __name__ == "__main__":
    interrupt_on_sigterm()
    command_line(main)()
