"""Train ViP plainly and anchored on right and on wrong symptoms; print what they still mean.

The symptoms are the dataset's own and those of the files beside them, as in vip/knowledge.sh. After
training, the drift of every symptom's meaning is measured on the training images, as explain.py
does, and kept in the run's folder. The weight is chosen by the validation accuracy in the table.
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from core.arguments import Parser, help_first, real_number
from core.errors import command_line
from scripts.parsers import add_executor_arguments, script_parser

KINDS = ("right", "incorrect", "useless", "out_of_domain", "swapped", "random_words")


def make_parser() -> Parser:
    parser = script_parser("anchor.sh", __doc__)
    add = parser.add_argument
    add(
        "--weights",
        nargs="+",
        type=real_number(least=0),
        metavar="WEIGHT",
        help="weights of the anchor, a row each (default: that of the method's anchored row)",
    )
    add("--kinds", nargs="+", choices=KINDS, help="kinds of symptoms (default: all that exist)")
    add_executor_arguments(parser)
    return parser


help_first(__name__, make_parser)

from explanations.drift import COLUMNS, meaning_drift, rows
from reporting.explanation_page import write_rows
from results.meaning import FILE
from scripts import compare
from scripts.arguments import parse_script
from scripts.experiments import Row, knowledge_rows
from scripts.jobs import Outcome, interrupt_on_sigterm
from trainers import load_run
from trainers.vip import ANCHOR


def anchor_rows(dataset: str, weights: Sequence[float], kinds: Sequence[str] | None) -> list[Row]:
    """ViP with each kind of symptoms: plain, and anchored with each weight."""
    plain = [
        (trainer, options)
        for trainer, options in knowledge_rows(dataset)
        if kinds is None or any(_is_kind(options, kind) for kind in kinds)
    ]
    anchored = [
        (trainer, [*options, "TRAINER.VIP.ANCHOR", f"{weight:g}"])
        for weight in weights
        for trainer, options in plain
    ]
    return [*plain, *anchored]


def _is_kind(options: Sequence[str], kind: str) -> bool:
    file = Path(options[-1]).stem if options else ""
    return file.endswith(f"_{kind}") if kind != "right" else not options


def measure_drift(outcomes: Iterable[Outcome], root: str) -> None:
    """Write what the symptoms of each complete run still mean into its folder."""
    for outcome in outcomes:
        folder = outcome.job.folder
        if folder is None or outcome.record is None or (folder / FILE).is_file():
            continue
        if (records := meaning_drift(load_run(folder, root=root))) is not None:
            write_rows(folder / FILE, COLUMNS, rows(records))


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    return parse_script(make_parser(), argv, decided=["TRAINER.VIP.ANCHOR", "TRAINER.VIP.SYMPTOMS"])


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    chosen = anchor_rows(args.dataset, args.weights or [ANCHOR], args.kinds)
    outcomes = compare.run_rows(args, chosen)
    measure_drift(outcomes, args.root)
    compare.print_tables(args, [["--meaning", "--ci"]])
    return compare.exit_status(outcomes)


if __name__ == "__main__":
    interrupt_on_sigterm()
    command_line(main)()
