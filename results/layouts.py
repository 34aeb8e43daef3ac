"""The same runs by backbone, by seed, on another dataset, and on base and new classes."""

from collections import defaultdict

from results.beside import halves_columns
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
    return [_base_to_new_table(task, both, choices) for task, both in halves_of(runs).items()]


def halves_of(runs: list[Run]) -> dict[Task, dict[str, list[Run]]]:
    """Task -> half of its classes -> runs, of the tasks that have runs of both halves, sorted.

    What learns nothing is the same for every number of shots: it is a row of each of their tables.
    """
    halves: dict[Task, dict[str, list[Run]]] = defaultdict(lambda: {half: [] for half in HALVES})
    for task, task_runs in tasks_of(runs).items():
        if task.subsample_classes in HALVES and not task.trained_on:
            halves[task._replace(subsample_classes="all")][task.subsample_classes] += task_runs
    few_shot = {task.dataset for task in halves if task.shots > 0}
    found = {}
    for task, both in sorted(halves.items()):
        for half, others in halves.get(task._replace(shots=-1), {}).items():
            if task.shots > 0:
                both[half] = both[half] + [run for run in others if not run.learns]
        trained = any(run.learns for half in HALVES for run in both[half])
        if all(both.values()) and (trained or task.dataset not in few_shot):
            found[task] = both
    return found


def _base_to_new_table(task: Task, both: dict[str, list[Run]], choices: Choices) -> Table:
    """The table of one task; ``both`` is half -> its runs."""
    runs = [run for half in HALVES for run in both[half]]
    by_half = {half: {m.label: m for m in methods_of(both[half])} for half in HALVES}
    methods = {label: method for found in by_half.values() for label, method in found.items()}
    gaps = Gaps(expected_backbones(runs), expected_seeds(runs, choices.seeds))
    rows = sorted(methods.values(), key=lambda method: method.order)
    papers = halves_columns(choices, task, gaps.backbones, rows)
    headers = [f"{part} {heading(m)}" for m in choices.metrics for part in (*HALVES, "HM")]
    headers += [text for paper in papers for text in paper.headings]
    table = Table(f"{task.title}, base to new", ["method", *headers], [])
    problems: list[str] = []
    cells: dict[str, dict[str, list[Estimate | None]]] = {half: {} for half in HALVES}
    for half in HALVES:
        for label in (method.label for method in rows):
            if method := by_half[half].get(label):
                cells[half][label] = _half_cells(method, half, choices, gaps, problems)
            else:
                gaps.rows["no runs"].append(f"{label} on {half} classes")
    nothing = [None] * len(choices.metrics)
    for method in rows:
        base, new = (cells[half].get(method.label, nothing) for half in HALVES)
        table.rows.append([method.label])
        for pair in zip(base, new, strict=True):
            table.rows[-1] += [*pair, harmonic_mean(*pair)]
        table.rows[-1] += [cell for paper in papers for cell in paper.cells(method)]
    what, *explained = choices.explain(over_what(gaps.backbones))
    table.notes = [f"{what}; HM is the harmonic mean of base and new", *gaps.notes(), *problems]
    table.notes += [*explained, *(note for paper in papers for note in paper.notes())]
    return table


def _half_cells(
    method: Method, half: str, choices: Choices, gaps: Gaps, problems: list[str]
) -> list[Estimate | None]:
    """A row's metrics on one half of the classes; what it lacks goes into gaps and problems."""
    said: list[str] = []
    bounds = choices.bounds(method, said)
    problems += [f"{half} classes: {problem}" for problem in said]
    gaps.count(method, f"{method.label} on {half} classes")
    return [method.estimate(m, bounds.get(m), gaps.single) for m in choices.metrics]


def harmonic_mean(base: Estimate | None, new: Estimate | None) -> Estimate | None:
    """Of two fractions; None where one of them is not known."""
    if base is None or new is None:
        return None
    total = base.value + new.value
    return Estimate(2 * base.value * new.value / total if total else 0.0)
