"""Predict images with a run: a CSV with the probability of each class.

python predict.py RUN --images a.jpg folder/ > predictions.csv
python predict.py ViP/tiny --images folder/            the run by a short name
python predict.py RUN/seed1 RUN/seed2 --images a.jpg   the mean of several seeds' probabilities
python predict.py RUN --images a.jpg                   the same of all seeds in the folder RUN

Of a run with several findings an image (DATASET.MULTI_LABEL) a column is the probability of a
finding, and the prediction is all findings that reach their thresholds, joined by "|".

The last column says whether an image is unlike the training images; then do not rely on its
prediction. It is empty where this cannot be measured.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from core.arguments import Parser
from core.errors import command_line
from core.files import atomic_write, check_place
from results.named_runs import add_run_arguments, named_runs

UNLIKE = "unlike training images"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add_run_arguments(parser, several=True)
    add = parser.add_argument
    add("--images", nargs="+", required=True, metavar="PATH", help="image files and folders")
    add("--root", help="folder that holds the datasets (default: the run's)")
    add("--output", metavar="FILE", help="the CSV file (default: standard output)")
    return parser.parse_intermixed_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.output:
        check_place(Path(args.output))

    # Late, so that --help does not wait for PyTorch.
    import trainers  # noqa: F401  (registers the methods)
    from datasets.pictures import pictures_at
    from engine.ensemble import load_ensemble
    from engine.out_of_distribution import training_distance

    chosen = pictures_at(args.images)
    paths = [path for path, _ in chosen]
    ensemble = load_ensemble(named_runs(args.run, args.latest, args.runs), root=args.root)
    probabilities = ensemble.predict(paths)
    distance = training_distance(ensemble.first)
    unlike = distance.unlike(ensemble.first.encode(paths)) if distance else None
    names = ensemble.findings or ensemble.classnames
    rows = [["picture", "prediction", *(f"p({name})" for name in names), UNLIKE]]
    predicted = ensemble.said_of(probabilities)
    for i, (path, name, row) in enumerate(zip(paths, predicted, probabilities, strict=True)):
        mark = "" if unlike is None else "yes" if unlike[i] else "no"
        rows.append([str(path), name, *(repr(float(p)) for p in row), mark])
    if args.output:
        with atomic_write(args.output) as file:
            csv.writer(file).writerows(rows)
        print(f"{len(chosen)} predictions are in {args.output}", file=sys.stderr)
    else:
        csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
    if distance and unlike is not None and unlike.any():
        print(
            f"{unlike.sum()} of {len(chosen)} images are unlike the training images. "
            f"{distance.describe()}",
            file=sys.stderr,
        )


if __name__ == "__main__":
    command_line(main)()
