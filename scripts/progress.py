"""What a comparison prints of its runs: how each ended, the time left, and a summary."""

import re
import shutil
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence

from results.record import Record
from scripts.jobs import Job, Outcome

EPOCH = re.compile(r"epoch \[(\d+)/(\d+)\]")


class Progress:
    """Print how each run ended, and how long the others may take."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.left = set(jobs)
        self.total = len(jobs)
        self.seconds: dict[
            tuple[str, str], list[float]
        ] = {}  # (row, backbone) -> seconds of each run
        self.at_a_time = 1  # runs side by side; 0: unknown, so no time left is said
        self.live = sys.stderr.isatty()

    def show(self, lines: Mapping[Job, str]) -> None:
        """Show the epochs of the runs under way, where someone is looking.

        Args:
            lines: job -> the line that its run printed of an epoch last.
        """
        said = [
            f"{job.name}: epoch {match[1]} of {match[2]}"
            for job, line in lines.items()
            if (match := EPOCH.match(line))
        ]
        if self.live and said:
            place = self.total - len(self.left) + 1
            text = f"[{place}/{self.total}] {'; '.join(said)}"
            columns = shutil.get_terminal_size().columns - 1  # a second row would not be cleared
            print(f"\r\033[K{text[:columns]}", end="", file=sys.stderr, flush=True)

    def ended(self, outcome: Outcome) -> None:
        job = outcome.job
        self.left.discard(job)
        took = outcome.seconds
        if outcome.status == "complete" and outcome.record and outcome.record.seconds:
            took = outcome.record.seconds["total"]
        if outcome.status in ("trained", "complete"):
            self.seconds.setdefault((job.row, job.backbone), []).append(took)
        if self.live:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
        print(
            f"[{self.total - len(self.left)}/{self.total}] {job.name}: {_describe(outcome)}"
            f"{self.time_left()}",
            flush=True,
        )

    def time_left(self) -> str:
        """The expected time of the remaining runs, from those of their row, backbone, or any."""
        left = [job for job in self.left if not job.is_complete and not job.problem]
        if not left or not self.seconds or not self.at_a_time:
            return ""
        return f"; about {duration(sum(map(self.expected, left)) / self.at_a_time)} left"

    def expected(self, job: Job) -> float:
        known = self.seconds.get((job.row, job.backbone))
        known = known or [
            s
            for (_, backbone), all_of in self.seconds.items()
            for s in all_of
            if backbone == job.backbone
        ]
        return statistics.mean(known or [s for all_of in self.seconds.values() for s in all_of])


def _describe(outcome: Outcome) -> str:
    if text := _figure(outcome.record):
        took = f", {duration(outcome.seconds)}" if outcome.status == "trained" else " (complete)"
        return text + took
    return f"{outcome.status}: {outcome.reason}"


def _figure(record: Record | None) -> str:
    """The first figure of a run; "" where it has none."""
    if record and record.metrics:
        return f"ACC {100 * record.metrics.accuracy:.2f} %"
    if record and record.finding_metrics:
        return f"macro AUROC {100 * (record.finding_metrics.macro_auroc or 0):.2f} %"
    return ""


def duration(seconds: float) -> str:
    """3725 -> "1 h 2 min", 75 -> "1 min 15 s", 8 -> "8 s"."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


STATUSES = ("trained", "complete", "failed", "does not apply")  # in the order of the last lines


def print_end(outcomes: Iterable[Outcome]) -> None:
    """Print how many runs ended in each way, and why some failed, each reason once."""
    counts = dict.fromkeys(STATUSES, 0)
    reasons: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes:
        counts[outcome.status] += 1
        if outcome.status in ("failed", "does not apply"):
            key = outcome.status, outcome.reason
            reasons.setdefault(key, []).append(outcome.job.name)
    print("\n" + ", ".join(f"{n} {status}" for status, n in counts.items() if n))
    for (status, reason), names in reasons.items():
        print(f"{status}: {reason}")
        for name in names:
            print(f"  {name}")
