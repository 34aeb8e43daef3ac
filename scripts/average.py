"""Average the class probabilities of several runs, and measure the result as one run.

python -m scripts.average RUN RUN ... [--output-dir FOLDER]

The runs must have predicted the same images of the same classes; their backbones and methods may
differ. So CheXzero's checkpoints are used: one zero-shot run for each file, and the mean of their
probabilities (Tiu et al., Nature Biomedical Engineering 2022). The folder is a run's: the tables
and comparisons of `parse_results.py` list it beside the others, with AVERAGED=number of runs.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from core.arguments import Parser, help_first
from core.errors import InputError, command_line
from results.named_runs import add_run_arguments, named_runs


def make_parser() -> Parser:
    parser = Parser(__doc__, prog="python -m scripts.average")
    add_run_arguments(parser, several=True)
    parser.add_argument(
        "--output-dir",
        type=Path,
        help="folder of the result (default: averaged-N beside the first run)",
    )
    return parser


help_first(__name__, make_parser)

import numpy as np

from results.metrics import figures, log_lines
from results.predictions import FILE, VALIDATION_FILE, Predictions, align
from results.record import RESULTS, read_record, write_record
from results.runs import Run


def main(argv: Sequence[str] | None = None) -> None:
    args = make_parser().parse_args(argv)
    folders = named_runs(args.run, args.latest, args.runs)
    if len(folders) < 2:
        raise InputError(f"{folders[0]} is one run; name two or more")
    if len(set(folders)) < len(folders):
        raise InputError("a run is named twice; name each run once")
    output = args.output_dir or folders[0].parent / f"averaged-{len(folders)}"
    if (output / RESULTS).exists():
        raise InputError(f"{output} already holds a run; choose another --output-dir")
    runs = [Run(read_record(folder), folder) for folder in folders]
    predictions = average(runs, Run.predictions)
    val = None
    if all(run.has_validation_predictions for run in runs):
        val = average(runs, Run.validation_predictions)
    found = figures(predictions)
    output.mkdir(parents=True, exist_ok=True)
    predictions.write(output / FILE)
    if val is not None:
        val.write(output / VALIDATION_FILE)
    record = runs[0].record
    entries = record.model_dump(exclude_unset=True, exclude={"format", "metrics"})
    options = {**record.options, "AVERAGED": str(len(folders))}
    variant = f"{record.variant}_AVERAGED={len(folders)}".removeprefix("default_")
    entries |= {"metrics": found, "options": options, "variant": variant}
    entries["validation"] = {"accuracy": val.accuracy if val is not None else None}
    write_record(output, entries)
    print("\n".join(log_lines(predictions, found)))
    print(f"The mean of {len(folders)} runs is in {output}")


def average(runs: Sequence[Run], predictions_of: Callable[[Run], Predictions]) -> Predictions:
    """The mean of the probabilities of finished runs, on their test or validation images.

    Raises:
        InputError: a run is not finished, or they are not of the same images and classes.
    """
    try:
        aligned = align([predictions_of(run) for run in runs])
    except ValueError as error:
        folders = ", ".join(str(run.folder) for run in runs)
        raise InputError(f"{folders}: {error}") from None
    mean = np.mean([each.probabilities for each in aligned], axis=0)
    return replace(aligned[0], probabilities=mean, predicted=mean.argmax(axis=1))


if __name__ == "__main__":
    command_line(main)()
