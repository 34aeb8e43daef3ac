"""Columns with a paper's figures beside ours, and in what its protocol differs.

A figure that comes from the same protocol (dataset, backbone, training images, schedule) may be
compared. Any other is marked, and a note says what differs.
"""

from collections.abc import Sequence

from results import paper, statistics
from results.choices import Choices
from results.metrics import heading
from results.paper import VIP, Paper, Printed
from results.rendering import Estimate
from results.rows import Method, Task

MARK = "*"
OWN = {"PROTOCOL": "own"}  # the options of a row that is trained as its own paper trains it


class PaperColumns:
    """The columns of one paper in a table.

    Args:
        tables: heading before the metric's, as "new", and the paper's table for it.
        task: what our runs were tested on.
        backbones: what our means are over.
        methods: the table's rows.
    """

    def __init__(
        self,
        source: Paper,
        tables: Sequence[tuple[str, Printed]],
        task: Task,
        backbones: Sequence[str],
        methods: Sequence[Method],
        metrics: Sequence[str],
    ) -> None:
        self.source, self.task, self.tables = source, task, tables
        self.columns = [
            (f"{part} {heading(metric)}".strip(), table, metric)
            for metric in metrics
            for part, table in tables
            if any(metric in figures for figures in table.figures.values())
        ]
        self.differing = differences(source, tables[0][1], task, backbones)
        own = {method.trainer for method in methods if method.options == OWN}
        self._own = own if source.schedule == "own" else set()
        self._shared: list[str] = []  # rows by the shared schedule, beside figures by another
        self._marked = False

    @property
    def headings(self) -> list[str]:
        name = "paper" if self.source.name == VIP else self.source.name
        return [f"{name} {text}" for text, _, _ in self.columns]

    def cells(self, method: Method) -> list[Estimate | None]:
        """The paper's figures for a row; None where it prints none or they are another row's."""
        if not self._is_row(method):
            return [None] * len(self.columns)
        mark = MARK if self.differing or self._differs(method) else None
        found = [table.estimate(method.trainer, metric, mark) for _, table, metric in self.columns]
        if any(found):
            self._marked = self._marked or mark is not None
            if self._differs(method):
                self._shared.append(method.label)
        return found

    def _is_row(self, method: Method) -> bool:
        """Whether the figure belongs beside this row of its method.

        A row trained by the paper's own schedule takes it from the plain row. ViP's "Supervised"
        starts from random weights; a row that starts from CLIP's is not it.
        """
        if method.trainer in self._own:
            return method.options == OWN
        starts = [str(value).lower() for value in method.options.values()]
        if method.trainer == "Supervised" and self.source.name == VIP:
            return starts == ["scratch"] or not starts
        return method.is_default

    def _differs(self, method: Method) -> bool:
        """Whether the row was trained by another schedule than the paper's.

        What learns nothing, or is fitted at once, has no schedule.
        """
        has_schedule = method.learns and not method.fitted_at_once
        return self.source.schedule == "own" and has_schedule and method.options != OWN

    def notes(self) -> list[str]:
        if self.source.name == VIP:
            lines = _vip_notes(self.task.dataset, self.tables[0][1])
        else:
            tables = ", ".join(dict.fromkeys(table.source for _, table in self.tables))
            where = ", ".join(filter(None, [self.source.citation, tables, self.source.link]))
            lines = [
                f"{self.source.name}: {where}; {', '.join(self.source.backbones)}, "
                f"{self.source.seeds} seeds"
            ]
        if self._marked:
            reasons = list(self.differing)
            if self._shared:
                reasons.append(
                    "the paper trains by its own schedule, and these rows by the shared one: "
                    + ", ".join(self._shared)
                )
            lines.append(
                f"{self.source.name}, figures with {MARK}: another protocol, not comparable: "
                + "; ".join(reasons)
            )
        return lines


def differences(source: Paper, printed: Printed, task: Task, backbones: Sequence[str]) -> list[str]:
    """In what a paper's table differs from our runs, a text each; which rows it has aside."""
    found = []
    if printed.mean_over:
        found.append(f"mean over {printed.mean_over}, here {task.dataset}")
    if others := [backbone for backbone in backbones if backbone not in source.backbones]:
        found.append(f"with {', '.join(source.backbones)}, here {', '.join(others)}")
    if printed.shots != task.shots:
        found.append(f"{_images(printed.shots)}, here {_images(task.shots)}")
    return found


def _images(shots: int) -> str:
    if shots < 1:
        return "all training images"
    return f"{shots} training image{'s' * (shots > 1)} a class"


def paper_columns(
    choices: Choices, task: Task, backbones: Sequence[str], methods: Sequence[Method]
) -> list[PaperColumns]:
    """The columns of every chosen paper that prints figures for a table of results."""
    return [
        PaperColumns(source, [("", printed)], task, backbones, methods, choices.metrics)
        for source in choices.papers
        if (printed := source.table_for(task.dataset, task.shots, task.subsample_classes))
    ]


def halves_columns(
    choices: Choices, task: Task, backbones: Sequence[str], methods: Sequence[Method]
) -> list[PaperColumns]:
    """The same for a table of base and new classes and their harmonic mean."""
    parts = {"base": "base", "new": "new", "HM": paper.HALVES_MEAN}
    found = []
    for source in choices.papers:
        tables = {
            part: table
            for part, classes in parts.items()
            if (table := source.table_for(task.dataset, task.shots, classes))
        }
        if tables:
            found.append(
                PaperColumns(
                    source, list(tables.items()), task, backbones, methods, choices.metrics
                )
            )
    return found


def _vip_notes(dataset: str, printed: Printed) -> list[str]:
    rival, lead = paper.margin(dataset)
    share = printed.estimate("ViP", "accuracy")
    n = printed.test_images
    lines = ["paper: ViT-B/16, ViT-L/14 and RN50, three seeds each"]
    if share and n:
        width = statistics.binomial_half_width(share.value, n)
        inside = "within" if lead < width else "outside"
        lines.append(
            f"the paper's ViP leads {rival} by {100 * lead:.2f} points of accuracy, which is "
            f"{inside} the 95 % half-width of {100 * width:.1f} points that {n} test images give "
            "one accuracy"
        )
    return lines
