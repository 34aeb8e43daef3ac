"""Predict images with a run: a CSV with the probability of each class.

python predict.py RUN --images a.jpg folder/ > predictions.csv
"""

import argparse
import csv
import sys
from collections.abc import Sequence


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="folder of a run, of any method")
    parser.add_argument("--images", nargs="+", required=True, help="image files and folders")
    parser.add_argument("--output", help="the CSV file (default: standard output)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)

    from core.files import atomic_write
    from datasets.pictures import pictures_at
    from trainers import load_run

    chosen = pictures_at(args.images)
    run = load_run(args.run)
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
    from core.errors import command_line

    command_line(main)()
