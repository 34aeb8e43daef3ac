"""Every table there is, in the order in which it is shown.

To add one, write its function (runs, ``Choices``) -> tables, and add a ``Kind`` to ``KINDS``:
``parse_results.py`` and the report then know it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from results import cost, experiments, few_shot, layouts, meaning, method_tables, over_datasets
from results.choices import Choices
from results.rendering import Table
from results.runs import Run


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
    """

    make: Callable[[list[Run], Choices], list[Table]]
    section: str = ""
    option: str = ""
    help: str = ""
    without: str = ""


EXPERIMENTS = "Ablation, knowledge, zero-shot"
KINDS = (
    Kind(method_tables.paper_tables, "Results"),
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
    Kind(layouts.seed_tables, option="--by seed"),
    Kind(layouts.backbone_tables, option="--by backbone"),
)


def tables_of(kinds: Iterable[Kind], runs: list[Run], choices: Choices) -> list[Table]:
    """The tables of some kinds."""
    return [table for kind in kinds for table in kind.make(runs, choices)]
