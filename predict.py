"""Predict images with a run: a CSV with the probability of each class.

python predict.py RUN --images a.jpg folder/ > predictions.csv
python predict.py ViP/tiny --images folder/            the run by a short name
"""

import argparse
import csv
import sys
from collections.abc import Sequence

from core.arguments import Parser
from core.errors import command_line
from core.files import atomic_write
from results.named_runs import add_run_arguments, named_run


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add_run_arguments(parser)
    add = parser.add_argument
    add("--images", nargs="+", required=True, metavar="PATH", help="image files and folders")
    add("--output", metavar="FILE", help="the CSV file (default: standard output)")
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)

    # Late, so that --help does not wait for PyTorch.
    from datasets.pictures import pictures_at
    from trainers import load_run

    chosen = pictures_at(args.images)
    run = load_run(named_run(args.run, args.latest, args.runs))
    probabilities = run.predict([path for path, _ in chosen])
    rows = [["picture", "prediction", *(f"p({name})" for name in run.classnames)]]
    for (path, _), row in zip(chosen, probabilities, strict=True):
        name = run.classnames[row.argmax()]
        rows.append([str(path), name, *(repr(float(p)) for p in row)])
    if args.output:
        with atomic_write(args.output) as file:
            csv.writer(file).writerows(rows)
        print(f"{len(chosen)} predictions are in {args.output}", file=sys.stderr)
    else:
        csv.writer(sys.stdout, lineterminator="\n").writerows(rows)


if __name__ == "__main__":
    command_line(main)()
