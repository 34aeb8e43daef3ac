"""Whole runs, how the cost grows, and somebody else's program beside them."""

import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from core.errors import InputError
from engine.config import ROOT
from engine.run import run
from results.record import Record, read_record
from scripts.parsers import PAPER_BACKBONES

from .bench import Bench, Row, middle, show
from .checkout import time_checkout
from .pairs import BATCH, pair
from .timing import Call, in_turns, once, peak_bytes, seconds
from .workload import METHODS, PICTURES, Workload, quiet


def runs(bench: Bench) -> None:
    """Whole runs on the embedded default: the first fills the store, the second reads it."""
    work = bench.default(pictures=PICTURES)
    epochs = 10 if bench.args.full else 3
    rows = []
    for method in [*METHODS, "LinearProbe", "MaPLe", "Supervised"]:
        # A store of its own, as if no other method had run before.
        store = str(bench.folder / f"store-{method}")
        own = ["FEATURES.DIR", store, "OPTIM.MAX_EPOCH", str(epochs)]
        row: Row = {"method": method}
        for order in ("first", "later"):
            cfg = work.cfg(method, *own, output=f"{method}-{order}")
            with quiet():
                start = time.perf_counter()
                run(cfg)
                total = time.perf_counter() - start
            trained = training_seconds(read_record(cfg.OUTPUT_DIR))
            row[f"{order}, s/epoch"] = trained / epochs if trained else None
            row[f"{order}, s in all"] = total
        rows.append(row)
    note = (
        f"{PICTURES} images for training, {PICTURES // 4} each for validation and test; {epochs} "
        "epochs; fp32. MaPLe and Supervised change the image encoder, so every run of theirs reads "
        "and encodes."
    )
    show("Whole runs, embedded default", rows, note)


def training_seconds(record: Record) -> float:
    """Seconds of training and of encoding what it trained on; 0 where nothing is learned."""
    if not record.trainable_parameters:
        return 0.0
    encoding = [u.seconds for name, u in (record.features or {}).items() if name[:5] == "train"]
    return record.seconds["train"] + sum(encoding)


def sweeps(bench: Bench) -> None:
    """How the cost of a later step grows, on the embedded default."""
    classes = {n: bench.default(n_cls=n, n_symptoms=4, pictures=n) for n in (2, 10, 50, 100, 200)}
    rows = later_rows("classes", classes, ("ViP", "CoOp", "CoCoOp", "BayesianPrompt"), bench.rounds)
    show("Cost against classes, embedded default, 4 symptoms each", rows)
    symptoms = {n: bench.default(n_symptoms=n) for n in (4, 16, 32, 64)}
    rows = later_rows("symptoms", symptoms, ("ViP",), bench.rounds)
    show("Cost against symptoms of each of 2 classes, embedded default", rows)
    rows = image_rows(bench, (1_000, 10_000, 112_120))
    note = "A quarter as many images each for validation and test; later: medians of three runs."
    show("Cost against images, ViP, embedded default", rows, note)
    rows, so_far = [], 0.0
    work = bench.default(pictures=128)
    for n, method in enumerate(METHODS, 1):
        cfg = work.cfg(method, "OPTIM.MAX_EPOCH", "2", output=f"methods-{n}")
        with quiet():
            so_far += once(partial(run, cfg), time.perf_counter)
        rows.append({"methods": n, "the last": method, "seconds so far": so_far})
    show("Cost against methods, one after the other on one store, 2 epochs", rows)


def image_rows(bench: Bench, counts: Sequence[int]) -> list[Row]:
    """Runs of one epoch on as many training images: its seconds, and the memory of the run.

    Later runs take turns: one measurement can be several times off when something else runs.
    """
    seconds_of: dict[tuple[int, str], list[float]] = defaultdict(list)
    peaks: dict[tuple[int, str], list[float]] = defaultdict(list)
    first = [(images, "first") for images in counts]
    for images, order in [*first, *3 * [(images, "later") for images in counts]]:
        folder, number = bench.folder / f"images-{images}", len(peaks[images, order])
        peak = peak_bytes(_whole_run, str(folder), images, f"{order}-{number}")
        seconds_of[images, order].append(
            training_seconds(read_record(folder / f"{order}-{number}"))
        )
        peaks[images, order].append(peak / 1e6)
    rows = []
    for images in counts:
        row: Row = {"images": images}
        for order in ("first", "later"):
            row[f"{order}, s/epoch"] = middle(seconds_of[images, order])
            row[f"{order}, MB"] = middle(peaks[images, order])
        rows.append(row)
    return rows


def _whole_run(folder: str, images: int, output: str) -> Call:
    """A run of one epoch, to be run where its memory is measured."""
    work = Workload(folder, "tiny", pictures=images)
    cfg = work.cfg("ViP", "OPTIM.MAX_EPOCH", "1", output=output)

    def whole() -> None:
        with quiet():
            run(cfg)

    return whole


def later_rows(
    column: str, workloads: dict[int, Workload], methods: Sequence[str], rounds: int
) -> list[Row]:
    """A row for each workload: milliseconds of a later step of each method."""
    rows = []
    for value, work in workloads.items():
        row: Row = {column: value}
        for method in methods:
            later = pair(work, method, BATCH)["later"]
            row[f"{method}, ms/step"] = 1e3 * seconds(later, rounds)
        rows.append(row)
    return rows


# Training images of the paper's two datasets.
PAPER_SETS = {"Derm7pt": PICTURES, "Pneumonia": 4710}


def comparison(bench: Bench) -> None:
    """The paper's comparison: its methods, three backbones, three seeds, as a user starts it."""
    rows: list[Row] = []
    total = 0.0
    for name, pictures in PAPER_SETS.items():
        folder = bench.folder / f"comparison-{name}"
        for backbone in PAPER_BACKBONES:  # one dataset, and a file of settings for each backbone
            work = Workload(folder, backbone, pictures=pictures, large=True)
        files = [str(folder / f"{backbone}.yaml") for backbone in PAPER_BACKBONES]
        command = [sys.executable, "-m", "scripts.compare", str(work.folder / "made.yaml"), *files]
        command += ["--methods", "paper", "--output", str(folder / "output")]
        start = time.perf_counter()
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise InputError(f"{name}: the comparison failed: {done.stdout.strip()[-300:]}")
        minutes = (time.perf_counter() - start) / 60
        rows.append({"dataset": name, "training images": pictures, "minutes": minutes})
        total += minutes
    rows.append({"dataset": "both", "minutes": total})
    note = (
        "Random weights of the backbones' true sizes; grey JPEGs of 2000 x 1500; a quarter as many "
        "images each for validation and test."
    )
    show("The paper's methods on three backbones, three seeds", rows, note)


def checkout(bench: Bench) -> None:
    """Somebody else's CoOp, as it is, in a process of its own."""
    work = bench.vit
    theirs = time_checkout(Path(bench.args.checkout), bench.folder / "checkout", work.classnames)
    ours = pair(work, "CoOp", BATCH)
    times = in_turns({way: ours[way] for way in ("first", "later")}, bench.rounds)
    rows: list[Row] = [
        {"program": "the checkout's CoOp, with reading images", "s/step": theirs[1]},
        {"program": "the checkout's CoOp", "s/step": theirs[0]},
    ]
    for way, values in times.items():
        row: Row = {"program": f"ours, {way} run", "s/step": middle(values)}
        rows.append(row | {"times faster": theirs[0] / middle(values)})
    show("Beside another checkout: CoOp, ViT-B/16, 2 classes, batches of 32, fp32", rows)
