"""What users wait for in two checkouts of this project, in turns.

    python -m benchmarks.versions ~/older-checkout
    python -m benchmarks.versions ~/older-checkout --ways first-tiny MaPLe Supervised

Each checkout works in a process of its own; processor time of one thread, so that a busy machine
counts for little.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
EPOCH = 64  # images of an epoch on the embedded default
# Way -> what it is.
WAYS = {
    "text": "text encoding, ViT-B/16",
    "later": "later ViP step, ViT-B/16",
    "first": "views and features of 32 images, ViT-B/16, after the first epoch",
    "first-tiny": f"views and features of {EPOCH} images, embedded default, after the first epoch",
    "views": f"views of {EPOCH} images, embedded default, after the first epoch",
    **{
        method: f"{method}, epoch of {EPOCH} images and validation, embedded default"
        for method in ("MaPLe", "PromptSRC", "CLIPLoRA", "CLIPSVD", "Supervised")
    },
}


def work(checkout: str) -> None:
    """Answer each line of standard input, one of ``WAYS``, by its seconds."""
    sys.path[0] = checkout
    os.chdir(checkout)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()
    import trainers  # noqa: F401
    from benchmarks.timing import once, use_processor_time

    use_processor_time()
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        way = _call(line.strip())
        print(sum(once(way) for _ in range(3)) / 3, file=out, flush=True)


@cache
def _call(way: str) -> Callable[[], object]:
    """What ``way`` measures; it was called once."""
    if way in ("text", "later"):
        call = _text_or_later(way)
    elif way in ("first", "first-tiny", "views"):
        call = _first_run(way)
    else:
        call = _epoch(way)
    call()
    return call


def _trainer(backbone: str, method: str, pictures: int) -> Any:
    from benchmarks.workload import Workload

    made = Workload(tempfile.mkdtemp(), backbone, pictures=pictures)
    own = ["FEATURES.KEEP", "False", "DATALOADER.NUM_WORKERS", "0"]
    trainer = made.trainer(method, *own, f"TRAINER.{method.upper()}.PREC", "fp32")
    trainer.set_model_mode("train")
    return trainer


def _text_or_later(way: str) -> Callable[[], object]:
    import torch

    trainer = _trainer("vit_b16", "ViP", 32)
    backbone = trainer.model.backbone
    prompts = trainer.model.learned.prompt_learner
    batch = {"features": torch.randn(32, 512), "label": torch.arange(32) % 2}
    if way == "text":
        return lambda: backbone.encode_text(prompts.inputs, prompts()).sum().backward()
    return lambda: trainer.forward_backward(batch)


def _first_run(way: str) -> Callable[[], object]:
    trainer = _trainer(*(("vit_b16", "ViP", 32) if way == "first" else ("tiny", "ViP", EPOCH)))
    features, views = trainer.frozen_features, trainer.dm.train_views()
    if way == "views":
        return lambda: [views[0, i] for i in range(len(views))]
    return lambda: features.of_epoch(0, 2)


def _epoch(method: str) -> Callable[[], object]:
    trainer = _trainer("tiny", method, EPOCH)
    trainer.max_epoch, trainer.epoch = 1000, 0

    def epoch() -> None:
        trainer.run_epoch()
        trainer.predict("val")

    return epoch


def main() -> None:
    # Late: a worker imports the other checkout's modules of these names.
    from core.arguments import Parser, positive_int
    from core.errors import InputError

    parser = Parser(__doc__, prog="python -m benchmarks.versions")
    parser.add_argument("other", help="folder of another checkout of this project")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=["text", "later"])
    parser.add_argument("--rounds", type=positive_int, default=15, help="repetitions (default: 15)")
    args = parser.parse_args()

    import numpy as np  # here: --help does not wait for it

    sides = {"other": str(Path(args.other).expanduser().resolve()), "this": str(HERE)}
    command = [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), "--work"]
    place = tempfile.TemporaryDirectory(prefix="vip-versions-")
    running = {
        side: subprocess.Popen(
            [*command, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "TMPDIR": place.name},
        )
        for side, folder in sides.items()
    }
    for side, process in running.items():
        if process.stdout.readline() != "ready\n":
            raise InputError(f"{sides[side]} does not run its benchmarks")
    times: dict[tuple[str, str], list[float]] = {
        (side, way): [] for side in sides for way in args.ways
    }
    for i in range(args.rounds):
        for way in args.ways:
            for side in list(sides) if i % 2 else list(sides)[::-1]:
                running[side].stdin.write(f"{way}\n")
                running[side].stdin.flush()
                times[side, way].append(float(running[side].stdout.readline()))
    for process in running.values():
        process.communicate()
    place.cleanup()
    for way in args.ways:
        other, this = (1e3 * np.median(times[side, way]) for side in ("other", "this"))
        print(f"{WAYS[way]}: other {other:.1f} ms, this {this:.1f} ms, {this / other:.3f} times")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2])
    else:
        from core.errors import command_line

        command_line(main)()
