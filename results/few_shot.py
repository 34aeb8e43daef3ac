"""Few-shot as tables: a row for each method, a column for each number of training images."""

from results.choices import Choices, over_what
from results.experiments import shots_curves
from results.metrics import heading
from results.rendering import Estimate, Table
from results.rows import Gaps, Method, expected_backbones, expected_seeds
from results.runs import Run


def shots_tables(runs: list[Run], choices: Choices) -> list[Table]:
    """A table for each dataset and metric, of the methods with two or more numbers of shots."""
    tables = []
    for dataset, lines in shots_curves(runs, choices.metrics[0]).items():
        numbers = sorted({n for points in lines.values() for n in points}, key=_last_if_all)
        everything = [run for points in lines.values() for m in points.values() for run in m.runs]
        for metric in choices.metrics:
            gaps = Gaps(expected_backbones(everything), expected_seeds(everything, choices.seeds))
            table = Table(f"{dataset}, few-shot, {heading(metric)}", ["method"], [])
            table.headers += [_heading(number) for number in numbers]
            problems: list[str] = []
            for label, points in lines.items():
                first = next(iter(points.values()))
                other = None if first.learns else first
                cells = [
                    _cell(points.get(n, other), n, metric, choices, gaps, problems) for n in numbers
                ]
                table.rows.append([label, *cells])
            what, *explained = choices.explain(over_what(gaps.backbones))
            notes = [what, *gaps.notes(), *dict.fromkeys(problems), *explained]
            table.notes = [*notes, "rows without training are the same for every number of shots"]
            tables.append(table)
    return tables


def _cell(
    method: Method | None,
    shots: int,
    metric: str,
    choices: Choices,
    gaps: Gaps,
    problems: list[str],
) -> Estimate | None:
    """A row's estimate with a number of shots; what it lacks goes into gaps and problems."""
    if method is None:
        return None
    if method.learns:
        gaps.count(method, f"{method.label}, {_heading(shots)}")
    bounds = choices.bounds(method, problems)
    return method.estimate(metric, bounds.get(metric), gaps.single)


def _heading(shots: int) -> str:
    return f"{shots} shot{'s' * (shots > 1)}" if shots > 0 else "all images"


def _last_if_all(shots: int) -> tuple[bool, int]:
    return shots < 1, shots
