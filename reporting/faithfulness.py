"""How faithful explanations are: tables and plots as files, and the lines that say it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.ensemble import Ensemble
from explanations.attributes import PAIRS, attribute_areas, read_pairs, true_attributes
from explanations.drift import similarities
from explanations.explanation import Explanation, explain_features
from explanations.faithfulness import (
    PASSED,
    Curves,
    Scored,
    curves,
    mean_curves,
    summary,
    word_scores,
)
from explanations.faithfulness_plots import draw_areas, draw_faithfulness
from explanations.randomisation import randomisation
from explanations.reference import reference_of
from explanations.what_if import merge_of
from results.predictions import Predictions

from .explanation_items import Trust
from .explanation_page import save_png, write_rows
from .measures import calibration_error


def report_order(
    ensemble: Ensemble, features: Any, explanation: Explanation, folder: Path
) -> Iterator[str]:
    """Deletion and insertion in the order of the words; writes faithfulness.csv and .png.

    Args:
        features: [n, d] of the images of ``explanation``.
    """
    found = _curves(ensemble, features, explanation)
    if found is None:
        yield "Deletion and insertion need the training images, which are missing."
        return
    rows = [summary(curve) for curve in found.values()]
    yield (
        f"{rows[0]['pictures']} images. Symptoms are deleted (replaced by their average) or "
        "inserted one by one, in the order of what the image shows by their words. Area between "
        "this curve and the one in random order, as a share of the area of the explanation's own "
        f"order [95 % interval]; passed if the interval is above {PASSED:g}:"
    )
    for row in rows:
        yield (
            f"  {row['measure']:10}{row['share']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}] "
            f"{'passed' if row['passed'] else 'FAILED'}; area {row['gain']:+.3f} log-odds, above "
            f"zero for {100 * row['sooner']:.0f} % of the images"
        )
    if not rows[0]["passed"]:
        yield (
            "  FAILED means: the model does not use the symptoms as their words say. Do not "
            "interpret its explanations by the words."
        )
    write_rows(folder / "faithfulness.csv", list(rows[0]), rows)
    save_png(draw_faithfulness(found, rows), folder / "faithfulness.png")


def _curves(
    ensemble: Ensemble, features: Any, explanation: Explanation
) -> dict[str, Curves] | None:
    """The curves of an ensemble, a mean over its seeds; None without training images."""
    found = []
    for run in ensemble.runs:
        reference = reference_of(run)
        if reference is None:
            return None
        model, _ = merge_of(run)
        words = word_scores(*(similarities(model, f)[0] for f in (features, run.features("train"))))
        parts = explain_features(run, features, reference).parts
        scored = Scored(model, parts, reference, words)
        found.append(curves(scored, explanation.prediction, explanation.rival))
    return mean_curves(found)


def report_randomisation(ensemble: Ensemble, images: Sequence[Any], folder: Path) -> Iterator[str]:
    """Whether explanations depend on the weights of the first seed; writes randomisation.csv."""
    run = ensemble.first
    training = [picture.impath for picture in run.pictures("train")]
    # Every class has its images among the first, whatever the order of the splits.
    draw = np.random.default_rng(0).permutation
    rows = randomisation(
        run, [images[i] for i in draw(len(images))], [training[i] for i in draw(len(training))]
    )
    yield (
        "Weights shuffled (Adebayo et al. 2018): rank correlation of explanations before and after "
        f"[range over shuffles], and of predictions; {rows[0]['pictures']} images, {run.name}:"
    )
    for row in rows:
        yield (
            f"  {row['part']:16}explanations {row['correlation']:+.2f} [{row['low']:+.2f}, "
            f"{row['high']:+.2f}], predictions {row['margins']:+.2f}: {row['verdict']}"
        )
    write_rows(folder / "randomisation.csv", list(rows[0]), rows)


def report_confidence(
    ensemble: Ensemble, explanation: Explanation, labels: Sequence[int | None], trust: Trust
) -> Iterator[str]:
    """How well calibrated the confidence is, and how often an image is falsely marked as unlike.

    Args:
        labels: [n] true labels; None where not known.
    """
    calibration = trust.calibration
    if calibration is not None:
        text = (
            f"Confidence: temperature {calibration.temperature:.2f}, fitted on "
            f"{calibration.images} validation images"
        )
        truth = [label for label in labels if label is not None]
        if len(truth) == len(labels):
            before, after = (
                calibration_error(predicted(ensemble, p, truth))
                for p in (explanation.probabilities, calibration.apply(explanation.probabilities))
            )
            text += (
                f"; expected calibration error of these {len(truth)} images {before:.3f} before, "
                f"{after:.3f} after"
            )
        yield text
    if trust.distance is not None:
        yield trust.distance.describe()


def predicted(ensemble: Ensemble, probabilities: np.ndarray, labels: Sequence[int]) -> Predictions:
    """Probabilities [n, n_cls] of images with known labels, as ``Predictions``."""
    names = np.arange(len(labels)).astype(str)
    predictions = probabilities.argmax(axis=1)
    return Predictions(
        names, np.array(labels), predictions, probabilities, tuple(ensemble.classnames)
    )


def report_attributes(
    ensemble: Ensemble,
    explanation: Explanation,
    names: Sequence[str],
    folder: Path,
    pairs: str | None = None,
    known: bool = True,
) -> Iterator[str]:
    """AUC of single symptoms against recorded attributes; writes attributes.csv and .png.

    Args:
        names: ids of the images. pairs: the file of pairs; None for the dataset's own.
        known: whether the images are the dataset's.
    """
    run = ensemble.first
    truth = true_attributes(run.dataset) if known else {}
    if not truth:
        yield "The true attributes of these images are not known, so single symptoms have no AUC."
        return
    path = Path(pairs or PAIRS / f"{run.cfg.RUN.DATASET}.json")
    areas = attribute_areas(explanation, names, truth, read_pairs(path), path)
    for row in areas:
        auc = "-"
        if row["auc"] is not None:
            auc = f"{row['auc']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        yield f"  AUC {auc}  {row['class']}: {row['symptom']} | {row['attribute']}"
    paired = {row["symptom"].casefold() for row in areas}
    phrases = [
        phrase
        for c, symptoms in enumerate(explanation.phrases.values())
        for j, phrase in enumerate(symptoms)
        if explanation.has(c, j)
    ]
    rest = [phrase for phrase in phrases if phrase.casefold() not in paired]
    if rest:
        yield f"  without an attribute in {path}: {'; '.join(rest)}"
    if areas:
        write_rows(folder / "attributes.csv", list(areas[0]), areas)
        save_png(draw_areas(areas), folder / "attributes.png")
