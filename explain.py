"""Explain the predictions of a run: what each symptom adds to the margin over the runner-up.

python explain.py RUN                                      the test images: a page and a table
python explain.py RUN/seed1 RUN/seed2                      several seeds of a run, as one ensemble
python explain.py RUN --images a.jpg folder/               your own images
python explain.py RUN --only incorrect --limit 20          the first 20 misclassified images
python explain.py RUN --versus OTHER                       correct here, incorrect there (Fig. 3 II)
python explain.py RUN --versus OTHER --only incorrect      the reverse (Fig. 4)
python explain.py RUN --drop "Redness or swelling around the spot" --add melanoma "blue-white veil"
python explain.py RUN --faithfulness                       do the explanations hold?
python explain.py RUN --localise                           do heat maps find the symptoms?
python explain.py RUN --words                              words nearest to the learned context
"""

import argparse
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.arguments import Parser, positive_int
from core.errors import InputError, command_line
from core.files import check_place
from results.named_runs import add_run_arguments, named_runs

if TYPE_CHECKING:  # imported late: --help starts without PyTorch
    import numpy as np

    from engine.ensemble import Ensemble
    from engine.loading import LoadedRun
    from explanations.selection import Chosen
    from reporting.explanation_items import Trust
    from reporting.explanation_page import Explained

SPLITS = {"train": "training", "val": "validation", "test": "test"}
EARLIER = {"wrong": "incorrect", "right": "correct"}  # earlier names of --only's choices
PRINTED = 20  # images whose predictions are printed


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add_run_arguments(parser, several=True)
    add("--images", nargs="+", metavar="PATH",
        help="image files and folders to explain, instead of a split")  # fmt: skip
    add("--split", default="test", choices=tuple(SPLITS), help="split to explain (default: test)")
    add("--only", choices=("incorrect", "correct"), type=lambda word: EARLIER.get(word, word),
        help="only the images that the run classifies incorrectly, or correctly")  # fmt: skip
    add("--versus", metavar="OTHER_RUN", help="only the images that RUN classifies correctly and "
        "OTHER_RUN incorrectly; with --only incorrect, the reverse")  # fmt: skip
    add("--limit", type=positive_int, metavar="N", help="at most N images")
    add("--drop", action="append", default=[], metavar="PHRASE",
        help="also show the predictions without this symptom; repeatable")  # fmt: skip
    add("--add", action="append", default=[], nargs=2, metavar=("CLASS", "PHRASE"),
        help="also show the predictions with this symptom; repeatable")  # fmt: skip
    add("--figures", action="store_true", help="also draw each explanation as a figure (PNG)")
    add("--faithfulness", action="store_true", help="measure whether the explanations hold: "
        "tables and plots")  # fmt: skip
    add("--pairs", metavar="FILE", help="pairs of symptom and attribute for --faithfulness "
        "(default: symptoms/attribute_pairs/<dataset>.json)")  # fmt: skip
    add("--localise", action="store_true", help="measure how well heat maps find the symptoms, "
        "where the dataset is drawn: a table")  # fmt: skip
    add("--words", action="store_true", help="print the words nearest to the learned context")
    add("--root", help="folder that holds the datasets (default: the run's)")
    add("--output-dir", help="output folder (default: RUN/explanations)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    check_args(args)
    folders = named_runs(args.run, args.latest, args.runs)

    import trainers  # noqa: F401  (registers the methods)
    from engine.ensemble import load_ensemble
    from explanations.what_if import merge_of

    ensemble = load_ensemble(folders, root=args.root)
    if args.words:
        return print_words(ensemble.first)
    merge_of(ensemble.first)  # or an error, before anything is encoded
    shared = folders[0] if len(folders) == 1 else folders[0].parent
    folder = Path(args.output_dir or shared / "explanations")
    check_place(folder, folder=True)
    if args.localise:
        return measure_localisation(args, ensemble, folder)
    if args.faithfulness:
        return measure_faithfulness(args, ensemble, folder)
    return explain_images(args, ensemble, folder)


def check_args(args: argparse.Namespace) -> None:
    """Reject options that have no effect together."""

    questions = [f"--{q}" for q in ("words", "faithfulness", "localise") if getattr(args, q)]
    if len(questions) > 1:
        raise InputError(f"{' and '.join(questions)} cannot be combined; give one of them")
    if args.pairs and not args.faithfulness:
        raise InputError("--pairs has no effect without --faithfulness")
    choices = ["only", "versus", "limit", "drop", "add", "figures"]
    choices += [] if args.faithfulness else ["images"]
    given = [f"--{name}" for name in choices if getattr(args, name)]
    if questions and given:
        raise InputError(
            f"{', '.join(given)} cannot be combined with {questions[0]}; leave out one"
        )


def print_words(run: "LoadedRun") -> None:
    from explanations.words import nearest_words

    words = nearest_words(run)
    for row in words.rows:
        token = f"{row['token']}:" if row["rank"] == 1 else ""
        print(
            f"{token:12}{row['word']:20}distance {row['distance']:.3f}  cosine {row['cosine']:+.3f}"
        )
    print(words.caution)


# Explanations of single images


def explain_images(args: argparse.Namespace, ensemble: "Ensemble", folder: Path) -> None:
    from explanations.explanation import explain_seeds
    from explanations.reliability import reliability
    from explanations.what_if import with_symptoms
    from reporting.drift import report_drift
    from reporting.explanation_items import warning_of
    from reporting.explanation_page import write_explanations

    chosen, encode = candidates(args, ensemble.first)
    other = OtherRun(args, ensemble, chosen) if args.versus else None
    changed = None
    if args.drop or args.add:
        changed = [with_symptoms(run, args.drop, args.add) for run in ensemble.runs]
    features = encode()
    prediction = ensemble.probabilities(features).mean(axis=0).argmax(axis=1)
    index, selection = select(args, chosen, prediction, other)
    print(selection)
    if not index:
        return
    explained = explain_chosen(ensemble, [chosen[i] for i in index], features[index])
    explained = replace(
        explained,
        changed=explain_seeds(changed, features[index]) if changed else None,
        changed_reliability=reliability(changed) if changed else None,
        others=[other.line(i) for i in index] if other else [],
        selection=selection,
        change=describe_change(args),
        figures=args.figures,
    )
    page = write_explanations(folder, explained)
    print_lines(report_drift(explained.trust.reliability, folder))
    if changed and (text := warning_of(explained.changed_reliability)):
        print(f"What if: {text}")
    print_verdicts(explained)
    print(f"Open {page}; the numbers are in {folder / 'explanations.csv'}")


def candidates(
    args: argparse.Namespace, run: "LoadedRun"
) -> tuple[list["Chosen"], Callable[[], Any]]:
    """The images to choose from, and a function that encodes them all."""
    from explanations.selection import pictures_at, pictures_of_split

    if not args.images:
        return pictures_of_split(run, args.split), lambda: run.features(args.split)
    # A file's name may not be valid text; what is written to files and pages must be.
    chosen = [
        replace(image, name=os.fsencode(image.name).decode("utf-8", "backslashreplace"))
        for image in pictures_at(args.images, run.classnames)
    ]
    return chosen, lambda: run.encode([image.path for image in chosen])


class OtherRun:
    """The predictions of the run that --versus names, on the same images."""

    def __init__(
        self, args: argparse.Namespace, ensemble: "Ensemble", chosen: Sequence["Chosen"]
    ) -> None:
        from engine.ensemble import load_ensemble

        self.run = load_ensemble(named_runs([args.versus], args.latest, args.runs))
        if self.run.classnames != ensemble.classnames:
            raise InputError(
                f"{self.run.first.folder} has the classes {', '.join(self.run.classnames)}, "
                f"{ensemble.first.folder} has {', '.join(ensemble.classnames)}: "
                "the two runs cannot be compared"
            )
        self.probabilities = self.run.predict([image.path for image in chosen])

    @property
    def prediction(self) -> "np.ndarray":
        """[n] labels."""
        return self.probabilities.argmax(axis=1)

    def line(self, i: int) -> str:
        name, probability = self.run.classnames[self.prediction[i]], self.probabilities[i].max()
        return f"{self.run.first.cfg.TRAINER.NAME} predicted {name}, {100 * probability:.1f} %"


def select(
    args: argparse.Namespace,
    chosen: Sequence["Chosen"],
    prediction: "np.ndarray",
    other: OtherRun | None,
) -> tuple[list[int], str]:
    """The indices of the images to explain, and a sentence that says which they are."""
    from explanations.selection import with_outcome

    index = with_outcome(chosen, prediction, args.only, other.prediction if other else None)
    shown = index[: args.limit]
    images = "given" if args.images else SPLITS[args.split]
    text = f"{len(index)} of {len(chosen)} {images} images"
    if other:
        this, that = "correctly", "incorrectly"
        if args.only == "incorrect":
            this, that = that, this
        text += f" are classified {this} by this run and {that} by {other.run.name}"
    elif args.only:
        text += f" are classified {args.only}ly"
    return shown, text + (f"; {len(shown)} shown." if len(shown) < len(index) else ".")


def explain_chosen(ensemble: "Ensemble", chosen: Sequence["Chosen"], features: Any) -> "Explained":
    """The explanations of the chosen images, whose features are [n, d]."""
    from explanations.explanation import explain_seeds
    from explanations.words import nearest_words
    from reporting.explanation_page import Explained

    try:
        words = nearest_words(ensemble.first)
    except InputError:  # zero-shot, or the context switched off
        words = None
    trust = trust_of(ensemble)
    return Explained(
        ensemble=ensemble,
        chosen=chosen,
        explanation=explain_seeds(ensemble.runs, features),
        trust=trust,
        distances=trust.distance.of(features) if trust.distance else None,
        words=words,
    )


def trust_of(ensemble: "Ensemble") -> "Trust":
    """Calibration, reliability of the symptoms, and what tells unlike images."""
    from engine.out_of_distribution import training_distance
    from explanations.reliability import reliability
    from reporting.explanation_items import Trust

    distance = training_distance(ensemble.first)
    return Trust(ensemble.calibration(), reliability(ensemble.runs), distance)


def describe_change(args: argparse.Namespace) -> str:
    parts = [f"without “{phrase}”" for phrase in args.drop]
    parts += [f"{name} with “{phrase}”" for name, phrase in args.add]
    return ", ".join(parts)


def print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def print_verdicts(explained: "Explained") -> None:
    from explanations.wording import verdict

    for i, image in enumerate(explained.chosen[:PRINTED]):
        mark = "unlike the training images; " if explained.unlike(i) else ""
        line = f"{image.name}: {mark}{verdict(explained.explanation, i, image.truth)}"
        if explained.changed:
            line += f"; what if: {verdict(explained.changed, i, image.truth)}"
        print(line)
    if len(explained.chosen) > PRINTED:
        print(f"... and {len(explained.chosen) - PRINTED} more")


# --faithfulness


def measure_faithfulness(args: argparse.Namespace, ensemble: "Ensemble", folder: Path) -> None:
    from explanations.explanation import explain_seeds
    from reporting import faithfulness as parts
    from reporting.drift import report_drift

    chosen, encode = candidates(args, ensemble.first)
    features = encode()
    explanation = explain_seeds(ensemble.runs, features)
    names, paths = [image.name for image in chosen], [image.path for image in chosen]
    trust = trust_of(ensemble)
    sections = (
        report_drift(trust.reliability, folder),
        parts.report_order(ensemble, features, explanation, folder),
        parts.report_randomisation(ensemble, paths, folder),
        parts.report_attributes(
            ensemble, explanation, names, folder, args.pairs, known=not args.images
        ),
        parts.report_confidence(ensemble, explanation, [image.truth for image in chosen], trust),
    )
    print_lines(itertools.chain(*sections))
    print(f"Tables and plots are in {folder}", file=sys.stderr)


# --localise


def measure_localisation(args: argparse.Namespace, ensemble: "Ensemble", folder: Path) -> None:
    """Pointing game and share of the heat on each symptom, beside two baselines."""
    from explanations.localisation import localisation, table_of
    from reporting.explanation_page import write_rows
    from results.rendering import render

    if len(ensemble) > 1:
        raise InputError(f"--localise takes a single run; {len(ensemble)} are given")
    run = ensemble.first
    found = localisation(run, args.split)
    if not found:
        print(f"No {SPLITS[args.split]} image shows a symptom that has a place.")
        return
    print(render(table_of(found, f"{run.name}: {SPLITS[args.split]} images")))
    rows = [one.row() for one in found]
    write_rows(folder / "localisation.csv", list(rows[0]), rows)
    print(f"The table is in {folder / 'localisation.csv'}", file=sys.stderr)


if __name__ == "__main__":
    command_line(main)()
