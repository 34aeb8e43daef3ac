"""Whole runs, how the cost grows, and somebody else's program beside them."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from engine.run import run
from results.record import Record, read_record

from .bench import Bench, Row, middle, show
from .checkout import time_checkout
from .pairs import BATCH, pair
from .timing import in_turns, once, seconds
from .workload import METHODS, PICTURES, Workload, quiet


def runs(bench: Bench) -> None:
    """Whole runs on the embedded default: the first fills the store, the second reads it."""
    work = bench.default(pictures=PICTURES)
    epochs = 3 if bench.args.quick else 10
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
    classes = {n: bench.default(n_cls=n, n_symptoms=4, pictures=n) for n in (2, 5, 10, 20, 50, 100)}
    rows = later_rows("classes", classes, ("ViP", "CoOp", "CoCoOp", "BayesianPrompt"), bench.rounds)
    show("Cost against classes, embedded default, 4 symptoms each", rows)
    symptoms = {n: bench.default(n_symptoms=n) for n in (4, 8, 16, 32)}
    rows = later_rows("symptoms", symptoms, ("ViP",), bench.rounds)
    show("Cost against symptoms of each of 2 classes, embedded default", rows)
    rows = []
    for times in (1, 2, 5, 10):
        work = bench.default(pictures=128 * times)
        row: Row = {"images": 128 * times}
        for order in ("first", "later"):
            cfg = work.cfg("ViP", "OPTIM.MAX_EPOCH", "2", output=order)
            with quiet():
                run(cfg)
            row[f"{order}, s/epoch"] = training_seconds(read_record(cfg.OUTPUT_DIR)) / 2
        rows.append(row)
    show("Cost against images, ViP, embedded default", rows)
    rows, so_far = [], 0.0
    work = bench.default(pictures=128)
    for n, method in enumerate(METHODS, 1):
        cfg = work.cfg(method, "OPTIM.MAX_EPOCH", "2", output=f"methods-{n}")
        with quiet():
            so_far += once(partial(run, cfg), time.perf_counter)
        rows.append({"methods": n, "the last": method, "seconds so far": so_far})
    show("Cost against methods, one after the other on one store, 2 epochs", rows)


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
