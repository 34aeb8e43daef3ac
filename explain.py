"""Explain the predictions of a run: how each symptom contributes to the logits of an image.

python explain.py RUN                                      the test images: PNGs, a table, a page
python explain.py RUN --images a.jpg folder/               your own images
python explain.py RUN --only incorrect --limit 20          the first 20 misclassified images
python explain.py RUN --versus OTHER                       correct here, incorrect there (Fig. 3 II)
python explain.py RUN --versus OTHER --only incorrect      the reverse (Fig. 4)
python explain.py RUN --drop "Redness or swelling around the spot" --add melanoma "blue-white veil"
python explain.py RUN --faithfulness                       how faithful are the explanations?
python explain.py RUN --localise                           do heat maps find the symptoms?
python explain.py RUN --words                              words nearest to the learned context
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.arguments import Parser, positive_int
from results.named_runs import add_run_arguments, named_run

if TYPE_CHECKING:  # imported late: --help starts without PyTorch
    import numpy as np

    from engine.loading import LoadedRun
    from explanations.explanation import Explanation
    from explanations.selection import Chosen
    from reporting.explanation_page import Explained

SPLITS = {"train": "training", "val": "validation", "test": "test"}
EARLIER = {"wrong": "incorrect", "right": "correct"}  # earlier names of --only's choices
PRINTED = 20  # images whose predictions are printed


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add_run_arguments(parser)
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
    add("--faithfulness", action="store_true", help="measure how faithful the explanations are: "
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
    args.run = named_run(args.run, args.latest, args.runs)
    if args.versus:
        args.versus = named_run(args.versus, args.latest, args.runs)

    from explanations.what_if import merge_of
    from trainers import load_run

    run = load_run(args.run, root=args.root)
    if args.words:
        return print_words(run)
    merge_of(run)  # or an error, before anything is encoded
    folder = Path(args.output_dir or Path(args.run) / "explanations")
    if args.localise:
        return measure_localisation(args, run, folder)
    if args.faithfulness:
        return measure_faithfulness(args, run, folder)
    return explain_images(args, run, folder)


def check_args(args: argparse.Namespace) -> None:
    """Reject options that have no effect together."""
    from core.errors import InputError

    questions = [f"--{q}" for q in ("words", "faithfulness", "localise") if getattr(args, q)]
    if len(questions) > 1:
        raise InputError(f"{' and '.join(questions)} cannot be combined; give one of them")
    if args.pairs and not args.faithfulness:
        raise InputError("--pairs has no effect without --faithfulness")
    choices = ["only", "versus", "limit", "drop", "add"]
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


def explain_images(args: argparse.Namespace, run: "LoadedRun", folder: Path) -> None:
    from explanations.what_if import with_symptoms
    from reporting.explanation_page import write_explanations

    chosen, encode = candidates(args, run)
    changed = with_symptoms(run, args.drop, args.add) if args.drop or args.add else None
    other = OtherRun(args.versus, run, chosen) if args.versus else None
    features = encode()
    index, selection = select(args, chosen, run.logits(features).argmax(axis=1), other)
    print(selection)
    if not index:
        return
    others = [other.line(i) for i in index] if other else []
    explained = explain_chosen(run, changed, [chosen[i] for i in index], features[index])
    explained = replace(explained, others=others, selection=selection, change=describe_change(args))
    page = write_explanations(folder, explained)
    print_verdicts(explained)
    report_drift(run, folder)
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

    def __init__(self, folder: str, run: "LoadedRun", chosen: Sequence["Chosen"]) -> None:
        from core.errors import InputError
        from trainers import load_run

        self.run = load_run(folder)
        if self.run.classnames != run.classnames:
            raise InputError(
                f"{folder} has the classes {', '.join(self.run.classnames)}, {run.folder} has "
                f"{', '.join(run.classnames)}: the two runs cannot be compared"
            )
        self.probabilities = self.run.predict(
            [image.path for image in chosen], progress="predicting with the other run"
        )

    @property
    def prediction(self) -> "np.ndarray":
        """[n] labels."""
        return self.probabilities.argmax(axis=1)

    def line(self, i: int) -> str:
        name, probability = self.run.classnames[self.prediction[i]], self.probabilities[i].max()
        return f"{self.run.cfg.TRAINER.NAME} predicted {name}, {100 * probability:.1f} %"


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


def explain_chosen(
    run: "LoadedRun", changed: "LoadedRun | None", chosen: Sequence["Chosen"], features: Any
) -> "Explained":
    """The explanations of the chosen images, whose features are [n, d]."""
    from core.errors import InputError
    from explanations.words import nearest_words
    from reporting.explanation_page import Explained

    try:
        words = nearest_words(run)
    except InputError:  # zero-shot, or the context switched off
        words = None
    return Explained(
        run=run,
        chosen=chosen,
        explanation=explained_by(run, features),
        changed=explained_by(changed, features) if changed else None,
        words=words,
    )


def explained_by(run: "LoadedRun", features: Any) -> "Explanation":
    from explanations.explanation import explain_features
    from explanations.standardise import standard

    return explain_features(run, features, standard(run))


def describe_change(args: argparse.Namespace) -> str:
    parts = [f"without “{phrase}”" for phrase in args.drop]
    parts += [f"{name} with “{phrase}”" for name, phrase in args.add]
    return ", ".join(parts)


def print_verdicts(explained: "Explained") -> None:
    from explanations.drawing import verdict

    for i, image in enumerate(explained.chosen[:PRINTED]):
        line = f"{image.name}: {verdict(explained.explanation, i, image.truth)}"
        if explained.changed:
            line += f"; what if: {verdict(explained.changed, i, image.truth)}"
        print(line)
    if len(explained.chosen) > PRINTED:
        print(f"... and {len(explained.chosen) - PRINTED} more")


def report_drift(run: "LoadedRun", folder: Path) -> None:
    """What training left of every symptom's meaning; ``drift.csv`` holds the same."""
    from explanations.drift import COLUMNS, lines, meaning_drift, rows, warning
    from reporting.explanation_page import write_rows

    records = meaning_drift(run)
    if records is None:
        return
    print(
        "Meaning of the symptoms after training: rank correlation of the similarities to the "
        f"untrained and to the trained symptom, {records[0].images} training images [95 % interval]"
    )
    print("\n".join(f"  {line}" for line in lines(records)))
    if text := warning(records):
        print(text)
    write_rows(folder / "drift.csv", COLUMNS, rows(records))


# --faithfulness


def measure_faithfulness(args: argparse.Namespace, run: "LoadedRun", folder: Path) -> None:
    from explanations.explanation import explain_features

    chosen, encode = candidates(args, run)
    features = encode()
    explanation = explain_features(run, features, None)
    report_order(run, features, explanation, folder)
    report_attributes(args, run, explanation, [image.name for image in chosen], folder)
    report_drift(run, folder)
    print(f"Tables and plots are in {folder}", file=sys.stderr)


def report_order(run: "LoadedRun", features: Any, explanation: "Explanation", folder: Path) -> None:
    """Deletion and insertion of symptoms in order of contribution."""
    from explanations.faithfulness import curves, summary
    from explanations.faithfulness_plots import draw_faithfulness
    from explanations.what_if import merge_of
    from reporting.explanation_page import save_png, write_rows

    model, _ = merge_of(run)
    found = curves(model, features, explanation.prediction)
    rows = [summary(curve) for curve in found.values()]
    if not rows:
        print("No predicted class has two or more symptoms, so there is no order to test.")
        return
    print(
        f"{rows[0]['pictures']} images. Symptoms of the predicted class are removed (deletion) or "
        "added (insertion) one by one, and one always remains. Area between the curve by "
        "contribution and the curve in random order, mean over images [95 % interval]:"
    )
    for row in rows:
        print(
            f"  {row['measure']:10}{row['gain']:+.3f} logits [{row['low']:+.3f}, "
            f"{row['high']:+.3f}]; above zero for {100 * row['sooner']:.0f} % of the images"
        )
    write_rows(folder / "faithfulness.csv", list(rows[0]), rows)
    save_png(draw_faithfulness(found, rows), folder / "faithfulness.png")


def report_attributes(
    args: argparse.Namespace,
    run: "LoadedRun",
    explanation: "Explanation",
    names: Sequence[str],
    folder: Path,
) -> None:
    """AUC of single symptoms against the attributes that the dataset records."""
    from explanations.attributes import PAIRS, attribute_areas, read_pairs, true_attributes
    from explanations.faithfulness_plots import draw_areas
    from reporting.explanation_page import save_png, write_rows

    truth = {} if args.images else true_attributes(run.dataset)
    if not truth:
        print("The true attributes of these images are not known, so single symptoms have no AUC.")
        return
    path = Path(args.pairs or PAIRS / f"{run.cfg.RUN.DATASET}.json")
    areas = attribute_areas(explanation, names, truth, read_pairs(path), path)
    for row in areas:
        auc = "-"
        if row["auc"] is not None:
            auc = f"{row['auc']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        print(f"  AUC {auc}  {row['class']}: {row['symptom']} | {row['attribute']}")
    paired = {row["symptom"].casefold() for row in areas}
    phrases = [p for symptoms in explanation.phrases.values() for p in symptoms]
    rest = [phrase for phrase in phrases if phrase.casefold() not in paired]
    if rest:
        print(f"  without an attribute in {path}: {'; '.join(rest)}")
    if areas:
        write_rows(folder / "attributes.csv", list(areas[0]), areas)
        save_png(draw_areas(areas), folder / "attributes.png")


# --localise


def measure_localisation(args: argparse.Namespace, run: "LoadedRun", folder: Path) -> None:
    """Pointing game and share of the heat on each symptom, beside two baselines."""
    from explanations.localisation import localisation, table_of
    from reporting.explanation_page import write_rows
    from results.rendering import render

    found = localisation(run, args.split)
    if not found:
        print(f"No {SPLITS[args.split]} image shows a symptom that has a place.")
        return
    print(render(table_of(found, f"{run.name}: {SPLITS[args.split]} images")))
    rows = [one.row() for one in found]
    write_rows(folder / "localisation.csv", list(rows[0]), rows)
    print(f"The table is in {folder / 'localisation.csv'}", file=sys.stderr)


if __name__ == "__main__":
    from core.errors import command_line

    command_line(main)()
