"""Text encoding and a later ViP step of two checkouts of this project, ViT-B/16, in turns.

    python -m benchmarks.versions ~/older-checkout

Each checkout works in a process of its own; processor time of one thread, so that a busy machine
counts for little.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent.parent
WAYS = ("text encoding", "later ViP step")


def work(checkout: str) -> None:
    """Answer each line of standard input, one of ``WAYS``, by its seconds."""
    sys.path[0] = checkout
    os.chdir(checkout)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import torch

    import trainers  # noqa: F401
    from benchmarks.timing import once, use_processor_time
    from benchmarks.workload import Workload

    use_processor_time()
    made = Workload(tempfile.mkdtemp(), "vit_b16", pictures=32)
    trainer = made.trainer("ViP", "FEATURES.KEEP", "False", "TRAINER.VIP.PREC", "fp32")
    trainer.set_model_mode("train")
    backbone = getattr(trainer.model, "backbone", None) or trainer.model.clip  # the older name
    encode = getattr(backbone, "encode_text", None) or backbone.encode_prompts
    prompts = trainer.model.learned.prompt_learner
    batch = {"features": torch.randn(32, 512), "label": torch.arange(32) % 2}
    ways = {
        WAYS[0]: lambda: encode(prompts.inputs, prompts()).sum().backward(),
        WAYS[1]: lambda: trainer.forward_backward(batch),
    }
    for way in ways.values():
        way()
    print("ready", file=out, flush=True)
    for line in sys.stdin:
        way = ways[line.strip()]
        print(sum(once(way) for _ in range(3)) / 3, file=out, flush=True)


def main() -> None:
    # Late: a worker imports the other checkout's modules of these names.
    from core.arguments import Parser, positive_int
    from core.errors import InputError

    parser = Parser(__doc__, prog="python -m benchmarks.versions")
    parser.add_argument("other", help="folder of another checkout of this project")
    parser.add_argument("--rounds", type=positive_int, default=15, help="repetitions (default: 15)")
    args = parser.parse_args()
    sides = {"other": str(Path(args.other).expanduser().resolve()), "this": str(HERE)}
    command = [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), "--work"]
    running = {
        side: subprocess.Popen(
            [*command, folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for side, folder in sides.items()
    }
    for side, process in running.items():
        if process.stdout.readline() != "ready\n":
            raise InputError(f"{sides[side]} does not run its benchmarks")
    times: dict[tuple[str, str], list[float]] = {(side, way): [] for side in sides for way in WAYS}
    for i in range(args.rounds):
        for way in WAYS:
            for side in list(sides) if i % 2 else list(sides)[::-1]:
                running[side].stdin.write(f"{way}\n")
                running[side].stdin.flush()
                times[side, way].append(float(running[side].stdout.readline()))
    for process in running.values():
        process.stdin.close()
    for way in WAYS:
        other, this = (1e3 * np.median(times[side, way]) for side in ("other", "this"))
        print(f"{way}: other {other:.1f} ms, this {this:.1f} ms, {this / other:.3f} times")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2])
    else:
        from core.errors import command_line

        command_line(main)()
