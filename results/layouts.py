"""The same runs by backbone, by seed, on another dataset, and on base and new classes."""

from collections import defaultdict

from results.choices import Choices, over_what
from results.method_tables import DOES_NOT_APPLY, estimates
from results.metrics import heading
from results.rendering import Estimate, Table
from results.rows import (
    Gaps,
    Method,
    Task,
    expected_backbones,
    expected_seeds,
    methods_of,
    precision_notes,
    tasks_of,
)
from results.runs import Run

HALVES = ("base", "new")  # of the classes


def backbone_tables(runs: list[Run], choices: Choices) -> list[Table]:
    """A row for each method and backbone: mean (deviation) over seeds."""
    tables = []
    for task, task_runs in tasks_of(runs).items():
        headers = ["method", "backbone", *choices.headings, "seeds"]
        table = Table(f"{task.title}, by backbone", headers, [], text_columns=2)
        gaps = Gaps(expected_backbones(task_runs), expected_seeds(task_runs, choices.seeds))
        for method in methods_of(task_runs):
            gaps.count(method)
            for backbone in method.backbones_of(gaps.backbones):
                cells: list
                if backbone in method.not_applying:
                    cells = [DOES_NOT_APPLY] * len(choices.metrics) + [""]
                elif backbone not in method.by_backbone:
                    cells = [None] * len(choices.metrics) + [""]
                else:
                    own = Method(method.by_backbone[backbone])
                    cells = estimates(own, choices, choices.bounds(own, table.notes), True)
                    cells.append(" ".join(str(run.seed) for run in own.runs))
                table.rows.append([method.label, backbone, *cells])
        what, *explained = choices.explain("mean (deviation, ddof 0) over seeds")
        table.notes += [what, *gaps.notes(), *precision_notes(task_runs), *explained]
        tables.append(table)
    return tables


def seed_tables(runs: list[Run], choices: Choices) -> list[Table]:
    """A row for each run."""
    tables = []
    for task, task_runs in tasks_of(runs).items():
        headers = ["method", "backbone", "seed", *choices.headings, "read from"]
        table = Table(f"{task.title}, by seed", headers, [], text_columns=2)
        for method in methods_of(task_runs):
            for run in method.runs:
                own = Method([run])
                bounds = choices.bounds(own, table.notes)
                cells = estimates(own, choices, bounds, over_seeds=False)
                table.rows.append([method.label, run.backbone, run.seed, *cells, run.origin])
        table.notes += choices.explain("one run a row")
        tables.append(table)
    return tables


def external_tables(runs: list[Run], choices: Choices) -> list[Table]:
    """One table of the runs tested on another dataset than they were trained on, if there are any.

    A method's row on each dataset.
    """
    external = {task: some for task, some in tasks_of(runs).items() if task.trained_on}
    if not external:
        return []
    headers = ["method", "tested on", *choices.headings, "runs"]
    table = Table("external tests", headers, [], text_columns=2)
    explained: list[str] = []
    for task, task_runs in external.items():
        gaps = Gaps(expected_backbones(task_runs), expected_seeds(task_runs, choices.seeds))
        for method in methods_of(task_runs):
            bounds = choices.bounds(method, table.notes)
            cells = estimates(method, choices, bounds, gaps.single)
            table.rows.append([method.label, task.title, *cells, gaps.count(method)])
        what, *explained = choices.explain(over_what(gaps.backbones))
        table.notes += [f"{task.title}: {note}" for note in [what, *gaps.notes()]]
    table.notes += explained
    return [table]


def base_to_new_tables(runs: list[Run], choices: Choices) -> list[Table]:
    """Metrics on base and new classes and their harmonic mean, for tasks that have both."""
    halves: dict[Task, dict[str, list[Run]]] = defaultdict(dict)
    for task, task_runs in tasks_of(runs).items():
        if task.subsample_classes in HALVES and not task.trained_on:
            halves[task._replace(subsample_classes="all")][task.subsample_classes] = task_runs
    return [
        _base_to_new_table(f"{task.title}, base to new", both, choices)
        for task, both in halves.items()
        if len(both) == len(HALVES)
    ]


def _base_to_new_table(title: str, both: dict[str, list[Run]], choices: Choices) -> Table:
    """The table of one task; ``both`` is half -> its runs."""
    parts = (*HALVES, "harmonic mean")
    columns = [f"{part} {heading(m)}" for m in choices.metrics for part in parts]
    table = Table(title, ["method", *columns], [])
    runs = [run for half in HALVES for run in both[half]]
    gaps = Gaps(expected_backbones(runs), expected_seeds(runs, choices.seeds))
    rows: dict[str, dict[str, dict[str, Estimate | None]]] = defaultdict(dict)
    problems: list[str] = []
    for half in HALVES:
        for method in methods_of(both[half]):
            said: list[str] = []
            bounds = choices.bounds(method, said)
            problems += [f"{half} classes: {problem}" for problem in said]
            gaps.count(method, f"{method.label} on {half} classes")
            rows[method.label][half] = {
                m: method.estimate(m, bounds.get(m), gaps.single) for m in choices.metrics
            }
    for label, found in rows.items():
        for half in HALVES:
            if half not in found:
                gaps.rows["no runs"].append(f"{label} on {half} classes")
        cells: list[Estimate | None] = []
        for metric in choices.metrics:
            base, new = (found.get(half, {}).get(metric) for half in HALVES)
            mean = Estimate(harmonic_mean(base.value, new.value)) if base and new else None
            cells += [base, new, mean]
        table.rows.append([label, *cells])
    what, *explained = choices.explain(over_what(gaps.backbones))
    table.notes = [what, *gaps.notes(), *problems, *explained]
    return table


def harmonic_mean(a: float, b: float) -> float:
    return 2 * a * b / (a + b) if a + b else 0.0
