"""Train the small CLIPs on the drawn world from nothing, and say what they learned.

    python -m backbones.pretrain              # tiny_rn, then its students tiny and tiny_bert
    python -m backbones.pretrain --report     # how well each shipped model knows each attribute

What an interrupted run left in ``--work`` is taken up only by the sources that it was made with.
Images are drawn with all attributes alike: nothing tells a disease.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from core.arguments import help_first
from core.errors import InputError, command_line

FOLDER = Path(__file__).resolve().parent

# The file or folder of each model.
SHIPPED = {"tiny_rn": "tiny_rn.pt", "tiny": "tiny.pt", "tiny_bert": "tiny_bert"}


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m backbones.pretrain",
        description="Train the small CLIPs, or report what they learned.",
    )
    parser.add_argument(
        "--model", choices=list(SHIPPED), help="train only this one; tiny needs tiny_rn"
    )
    parser.add_argument("--steps", type=int)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("output/pretrain"),
        help="folder for drawn images and unfinished trainings; in it one for each state of "
        "the sources, so that a change of drawing, captions or training starts anew "
        "(default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the two checkpoints")
    parser.add_argument("--report", action="store_true")
    return parser


help_first(__name__, make_parser)

import numpy as np

from backbones import (
    captions,
    pretrain_bert,
    pretrain_bert_folder,
    pretrain_clip,
    pretrain_data,
    pretrain_losses,
    pretrain_training,
    token_table,
)
from backbones.device import usable_device
from backbones.encoders import blocks, text_transformer, vit
from backbones.pretrain_data import Data
from backbones.pretrain_report import report
from backbones.pretrain_training import Training
from core.files import fingerprint
from datasets import drawing, synthetic

# What a training depends on, beside the drawing and the captions' grammar.
SOURCES: tuple[ModuleType, ...] = (
    *(token_table, synthetic, captions, pretrain_data, pretrain_losses, pretrain_training),
    *(pretrain_clip, pretrain_bert, pretrain_bert_folder, text_transformer, vit, blocks),
    sys.modules[__name__],
)
# 22 and 34 minutes on two cores that others used as well; the BERT's are in its module.
STEPS = {"tiny_rn": 900, "tiny": 1900}
# What is trained for a model: an interrupted or finished run of the ResNet is taken up, also to
# teach the transformer; the BERT learns from the ResNet's file.
NEEDED = {
    "tiny_rn": ["tiny_rn"],
    "tiny": ["tiny_rn", "tiny"],
    "tiny_bert": ["tiny_bert"],
    None: ["tiny_rn", "tiny", "tiny_bert"],
}


def train(training: Training, work: Path, data: Data) -> None:
    """Train; goes on from ``work`` where an interrupted run left its state."""
    name, steps = training.name, training.steps
    state_file = work / f"{name}-{steps}.state"
    first, spent = training.load_state(state_file)
    began, losses = time.monotonic(), []
    for step in range(first, steps):
        losses.append(training.step(data, step))
        if (step + 1) % 100 == 0 or step + 1 == steps:
            seconds = spent + time.monotonic() - began
            training.save_state(state_file, step + 1, seconds)
            rate = (time.monotonic() - began) / (step + 1 - first)
            print(
                f"{name} {step + 1}/{steps} loss {np.mean(losses[-100:]):.4f} "
                f"{rate:.2f} s a step, {seconds / 60:.1f} min",
                flush=True,
            )


def work_folder(parent: Path) -> Path:
    """The folder below ``parent`` of what the drawing, the captions and the training now are."""
    drawn = sorted(Path(drawing.__file__).parent.glob("draw*.py"))
    files = [*drawn, captions.GRAMMAR, *(Path(str(module.__file__)) for module in SOURCES)]
    return parent / fingerprint([fingerprint(file.read_bytes()) for file in files])


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    args = make_parser().parse_args(argv)
    if args.steps is not None and args.steps < 1:
        raise InputError(f"--steps is {args.steps}; give 1 or more")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.report:
        paths = [args.out / name for name in SHIPPED.values() if (args.out / name).exists()]
        if not paths:
            names = " or ".join(SHIPPED.values())
            raise InputError(f"--out {args.out}: holds no {names} to report on")
        report(paths)
        return
    device = usable_device(args.device)
    if args.model == "tiny_bert" and not (args.out / SHIPPED["tiny_rn"]).exists():
        raise InputError(f"--out {args.out}: holds no tiny_rn.pt for tiny_bert to learn from")
    work = work_folder(args.work)
    work.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    data = Data(work)
    print(f"images drawn in {time.monotonic() - began:.0f} s", flush=True)
    teacher = None
    for name in NEEDED[args.model]:
        own = args.model in (name, None) and args.steps
        trainings: Sequence[Training]
        if name == "tiny_bert":
            shipped = pretrain_clip.load(args.out / SHIPPED["tiny_rn"])
            trainings = pretrain_bert.students(own or None, device, shipped, data, work)
        else:
            clip = pretrain_clip.CLIPTraining(name, own or STEPS[name], device, teacher)
            trainings, teacher = [clip], clip.model
        for training in trainings:
            train(training, work, data)
        trainings[-1].save(args.out)


if __name__ == "__main__":
    command_line(main)()
