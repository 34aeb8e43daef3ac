"""Every table there is, in the order in which it is shown.

To add one, write its function (runs, ``Choices``) -> tables, and add a ``Kind`` to ``KINDS``:
``parse_results.py`` and the report then know it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from core.errors import InputError
from results import (
    calibration_tables,
    conformal,
    cost,
    experiments,
    few_shot,
    finding_tables,
    layouts,
    meaning,
    method_tables,
    operating,
    over_datasets,
    patients,
)
from results.choices import LEVEL, Choices, OperatingPoint, share
from results.predictions import VALIDATION_FILE
from results.rendering import Table
from results.runs import Run


@dataclass(frozen=True)
class Value:
    """The value that an option takes.

    Attributes:
        field: the attribute of ``Choices`` that it sets.
        read: its text -> the value; raises InputError.
        names: how the help calls it.
        default: its text where the option is given without one; None: it must be given.
    """

    field: str
    read: Callable[[str], Any]
    names: str
    default: str | None = None


@dataclass(frozen=True)
class Kind:
    """A kind of table.

    Attributes:
        make: runs and choices -> the tables; none where the runs have nothing for it.
        section: its part of the report; "" for a table that the report does not show.
        option: its option of ``parse_results.py``; "" for a table shown without one. With a space,
            as in ``--by seed``, one of the values of an option.
        help: of the option.
        without: what is said where the option is given and there is no such table.
        value: what the option takes; None for an option without a value.
        multi_label: whether it is of the runs on several findings an image; others never see them.
    """

    make: Callable[[list[Run], Choices], list[Table]]
    section: str = ""
    option: str = ""
    help: str = ""
    without: str = ""
    value: Value | None = None
    multi_label: bool = False


def _combination(text: str) -> str:
    if text not in patients.WHAT:
        raise InputError(f"{text}: choose from {', '.join(patients.WHAT)}")
    return text


UNJUDGED = f"no run has predictions on validation images ({VALIDATION_FILE})"
EXPERIMENTS = "Ablation, knowledge, zero-shot"
KINDS = (
    Kind(method_tables.paper_tables, "Results"),
    Kind(finding_tables.finding_tables, "Results", multi_label=True),
    Kind(layouts.base_to_new_tables, "Results"),
    Kind(layouts.external_tables, "Results"),
    Kind(
        few_shot.shots_tables,
        "Results",
        "--shots",
        "few-shot: a column for each number of training images",
        "no runs of one method with two or more DATASET.NUM_SHOTS",
    ),
    Kind(
        experiments.ablation_tables,
        EXPERIMENTS,
        "--ablation",
        "the paper's Table 2",
        "no runs of Table 2",
    ),
    Kind(
        experiments.knowledge_tables,
        EXPERIMENTS,
        "--knowledge",
        "the paper's Fig. 5",
        "no ViP runs with other symptom files",
    ),
    Kind(
        experiments.zeroshot_tables,
        EXPERIMENTS,
        "--zeroshot",
        "the paper's Fig. 3 I",
        "no zero-shot runs",
    ),
    Kind(
        meaning.meaning_tables,
        EXPERIMENTS,
        "--meaning",
        "what symptoms still mean after training",
        "no ViP run whose symptoms explain.py has measured",
    ),
    Kind(
        cost.cost_tables,
        "Cost",
        "--cost",
        "time, memory and parameters",
        "no run recorded its cost",
    ),
    Kind(
        over_datasets.mean_tables,
        option="--mean",
        help="means over datasets: few-shot and base to new",
        without="no few-shot or base-to-new runs on two or more datasets",
    ),
    Kind(
        patients.patient_tables,
        option="--patients",
        help="metrics by patient, of the mean of the probabilities of a patient's images, or of "
        "the image in which the positive class is most probable; with the three options below, "
        "these are by patient",
        without="no run knows the patients of its test images",
        value=Value("patients", _combination, "{mean,max}", "mean"),
    ),
    Kind(
        operating.operating_tables,
        option="--operating",
        help="threshold of the positive class that reaches a rate on the validation images, and "
        "what it achieves on the test images",
        without=UNJUDGED,
        value=Value("operating", OperatingPoint.read, "{sensitivity,specificity}=RATE"),
    ),
    Kind(
        calibration_tables.calibration_tables,
        option="--calibration",
        help="calibration before and after temperature scaling on the validation images",
        without=UNJUDGED,
    ),
    Kind(
        conformal.conformal_tables,
        option="--conformal",
        help="sets of classes that hold the true one with a probability (default: "
        f"{LEVEL:g}), calibrated on the validation images",
        without=UNJUDGED,
        value=Value("level", share, "COVERAGE", str(LEVEL)),
    ),
    Kind(layouts.seed_tables, option="--by seed"),
    Kind(layouts.backbone_tables, option="--by backbone"),
)


def tables_of(kinds: Iterable[Kind], runs: list[Run], choices: Choices) -> list[Table]:
    """The tables of some kinds."""
    return [
        table
        for kind in kinds
        for table in kind.make([r for r in runs if r.multi_label == kind.multi_label], choices)
    ]
