"""Look at the drawn world: sheets of its images, and the best accuracy that it allows.

python -m datasets.contact_sheet --sheet sheet.png
"""

import argparse
import errno
from collections.abc import Sequence
from pathlib import Path

from core.arguments import help_first
from core.errors import InputError, command_line


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m datasets.contact_sheet",
        description="Print the best accuracy that the drawn world allows; write contact sheets.",
    )
    parser.add_argument(
        "--sheet", type=Path, help="image file; sheet.png becomes sheet-<world>.png"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the images (default: 0)")
    return parser


help_first(__name__, make_parser)

from PIL import Image, ImageDraw

from datasets import synthetic
from datasets.drawing import SIZE
from datasets.synthskin import SKIN


def contact_sheet(
    world: synthetic.World, seed: int, rows: int = 4, columns: int = 6, scale: int = 2
) -> Image.Image:
    """Images with their attributes written under them, as a PIL image, to check by eye."""
    names = [attribute.name for attribute in world.attributes]
    width, height = SIZE * scale + 8, SIZE * scale + 12 * len(names) + 10
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    pen = ImageDraw.Draw(sheet)
    for i in range(rows * columns):
        pixels, attributes = synthetic.picture(world, seed, i)
        left, top = i % columns * width, i // columns * height
        drawn = Image.fromarray(pixels).resize((SIZE * scale,) * 2, Image.Resampling.NEAREST)
        sheet.paste(drawn, (left, top))
        for line, name in enumerate(names):
            text = f"{name}: {attributes[name]}"
            pen.text((left, top + SIZE * scale + 2 + 11 * line), text, fill="black")
    return sheet


def main(argv: Sequence[str] | None = None) -> None:
    args = make_parser().parse_args(argv)
    if args.seed < 0:
        raise InputError(f"--seed is {args.seed}; give 0 or more")
    for world in (*synthetic.WORLDS, SKIN):
        best = synthetic.bayes_accuracy(world)
        print(
            f"{world.name}: best accuracy from the attributes {best:.4f}, "
            f"always the more frequent class {max(world.prior.values()):.4f}"
        )
        if args.sheet:
            print(save(contact_sheet(world, args.seed), args.sheet, world.name))


def save(sheet: Image.Image, path: Path, name: str) -> Path:
    path = path.with_name(f"{path.stem}-{name}{path.suffix}")
    try:
        sheet.save(path)
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(f"--sheet: {path} cannot be written ({error})") from None
    return path


if __name__ == "__main__":
    command_line(main)()
