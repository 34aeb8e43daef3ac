"""What the tables share: options, workloads, and how a table is printed."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from .workload import Workload

Row = dict[str, Any]  # of a table: column -> value


class Bench:
    """The options, and the workloads that several tables share."""

    def __init__(self, args: argparse.Namespace, folder: str | Path) -> None:
        self.args = args
        self.folder = Path(folder)
        self.rounds = args.rounds or (3 if args.full else 1)
        self.vit = Workload(self.folder / "vit", "vit_b16", pictures=8)

    def large(self) -> Workload:
        """ViT-B/16 and large grey JPEGs."""
        n = 128 if self.args.full else 64
        return Workload(self.folder / "large", "vit_b16", pictures=n, large=True)

    def default(self, **options: int) -> Workload:
        """The embedded default, as it is or with other numbers of classes, symptoms or pictures."""
        name = "-".join(f"{key}{value}" for key, value in options.items()) or "plain"
        return Workload(self.folder / f"default-{name}", "tiny", **options)  # type: ignore[arg-type]


def show(title: str, rows: Sequence[Row], note: str = "") -> None:
    print(f"\n### {title}\n")
    print(tabulate(rows, headers="keys", tablefmt="github", floatfmt=".4g"))
    if note:
        print(f"\n{note}")
    print(flush=True)


def middle(values: Iterable[float]) -> float:
    """The median; of an even number, the greater of the two in the middle."""
    ordered = sorted(values)
    return float(ordered[len(ordered) // 2])
