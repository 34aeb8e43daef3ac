"""Train a method with every seed on a dataset, then print the table of what is there.

METHOD/main.sh call this. A complete run is left as it is and an interrupted one is resumed, so the
same command may be given again.
"""

from collections.abc import Sequence
from pathlib import Path

from core.arguments import Parser, help_first
from core.errors import command_line
from scripts.parsers import add_executor_arguments, script_parser


def make_parser() -> Parser:
    parser = script_parser("main.sh", __doc__, first="trainer")
    add_executor_arguments(parser)
    return parser


help_first(__name__, make_parser)

from engine.config import trainer_name
from scripts import compare
from scripts.arguments import parse_script
from scripts.jobs import call, interrupt_on_sigterm, tables_command


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_script(make_parser(), argv)
    outcomes = compare.run_jobs(args, compare.make_jobs(args, [(trainer_name(args.trainer), [])]))
    if any(outcome.record for outcome in outcomes):
        print()
        call(tables_command(args.output / Path(args.dataset).stem))
    return compare.exit_status(outcomes)


if __name__ == "__main__":
    interrupt_on_sigterm()
    command_line(main)()
