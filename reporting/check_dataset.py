"""Find copies in a dataset: files of the same bytes, and images that look the same.

python -m datasets check pneumonia [KEY VALUE ...]

Prints their number, and writes a page that shows them side by side and a list of the images to
leave out: set DATASET.EXCLUDE_FILE to it. Of copies, one in test is kept before one in val, and
that before one in train; a test image is never left out. The page contains images: treat it as
the data itself.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.arguments import Parser, help_first, split_options, whole_number
from core.errors import InputError, command_line
from datasets.copy_settings import BITS, NEAR


def make_parser() -> Parser:
    parser = Parser(__doc__, prog="python -m datasets")
    parser.add_argument("command", choices=["check"])
    parser.add_argument("name", metavar="NAME", help="a file of configs/datasets, by its name")
    parser.add_argument("--root", default="", help="folder that holds the datasets (default: data)")
    parser.add_argument(
        "--near",
        type=whole_number(0, BITS // 4),
        default=NEAR,
        metavar="DISTANCE",
        help=f"bits of {BITS} in which the hashes of copies differ at most (default: {NEAR})",
    )
    parser.add_argument("--exact", action="store_true", help="only files of the same bytes")
    parser.add_argument(
        "--output-dir", type=Path, help="where page and list go (default: output/check/NAME)"
    )
    return parser


help_first(__name__, make_parser)

from dassl.data.datasets import DATASET_REGISTRY

import trainers  # noqa: F401  (registers the methods)
from core.files import atomic_write, check_place
from datasets.copies import Copies, find_copies
from datasets.dicom import Rendering, rendering_of
from datasets.pictures import Picture, read_picture
from datasets.splits import SPLITS
from engine.config import load_cfg
from reporting.pages import thumbnail, write_page

ANY_METHOD, ANY_BACKBONE = "CoOp", "tiny"  # only the dataset's settings count
MOST_GROUPS = 300  # on the page
MOST_IMAGES = 12  # of a group, on the page


@dataclass(frozen=True)
class Found:
    """The copies in a dataset.

    Attributes:
        pictures: all images. sides: of each image its split. groups: of indexes, those in two
            splits first. left_out: indexes. rendering: how DICOM files are shown.
    """

    pictures: list[Picture]
    sides: list[str]
    copies: Copies
    groups: list[list[int]]
    left_out: list[int]
    rendering: Rendering

    def is_exact(self, group: Sequence[int]) -> bool:
        return len({self.copies.files[image] for image in group}) == 1

    def in_two_splits(self, group: Sequence[int]) -> bool:
        return len({self.sides[image] for image in group}) > 1

    def in_two_classes(self, group: Sequence[int]) -> bool:
        return len({self.pictures[image].classname for image in group}) > 1


def main(argv: Sequence[str] | None = None) -> None:
    words, opts = split_options(_words(argv))
    args = make_parser().parse_args(words)
    if other := next((key for key in opts[::2] if not key.startswith("DATASET.")), None):
        raise InputError(f"{other} has no effect here; only settings of DATASET have")
    folder = args.output_dir or Path("output", "check", Path(args.name).stem)
    check_place(folder, folder=True)
    cfg, _ = load_cfg(ANY_METHOD, args.name, ANY_BACKBONE, opts=opts, root=args.root)
    found = find(cfg, None if args.exact else args.near)
    print("\n".join(summary(found)))
    for path in (write_list(found, folder), _write_page(found, args.name, folder)):
        print(f"written: {path}")


def _words(argv: Sequence[str] | None) -> Sequence[str]:
    return sys.argv[1:] if argv is None else argv


def find(cfg: Any, distance: int | None) -> Found:
    """The copies among all images of the dataset that ``cfg`` names, used or not."""
    known = DATASET_REGISTRY.get(cfg.DATASET.NAME)
    dataset = type(known.__name__, (known,), {"refuses_duplicates": False})(cfg)
    pictures = [picture for side in SPLITS for picture in dataset.split[side]]
    sides = [side for side in SPLITS for _ in dataset.split[side]]
    rendering = rendering_of(cfg.DATASET)
    copies = find_copies(pictures, dataset.duplicates, distance, rendering)
    side_of = {picture.id: side for picture, side in zip(pictures, sides, strict=True)}
    groups = copies.groups()
    groups.sort(key=lambda group: (len({sides[image] for image in group}) == 1, group))
    return Found(pictures, sides, copies, groups, copies.left_out(pictures, side_of), rendering)


def summary(found: Found) -> list[str]:
    """What was found, in lines."""
    lines = []
    for name, exact in (("exact copies", True), ("near copies", False)):
        groups = [group for group in found.groups if found.is_exact(group) == exact]
        lines.append(
            f"{name}: {len(groups):,} groups of {sum(map(len, groups)):,} images; in two splits: "
            f"{sum(map(found.in_two_splits, groups)):,}; in two classes: "
            f"{sum(map(found.in_two_classes, groups)):,}"
        )
    of = Counter(found.sides[image] for image in found.left_out)
    parts = ", ".join(f"{of[side]:,} of {side}" for side in SPLITS if of[side])
    lines.append(f"to leave out: {len(found.left_out):,} images{f' ({parts})' if parts else ''}")
    return lines


def write_list(found: Found, folder: Path) -> Path:
    """Write the images to leave out, as DATASET.EXCLUDE_FILE reads them."""
    path = folder / "exclude.txt"
    with atomic_write(path) as file:
        file.write("# Copies of images that are kept; for DATASET.EXCLUDE_FILE.\n")
        file.writelines(f"{found.pictures[image].id}\n" for image in found.left_out)
    return path


def _write_page(found: Found, name: str, folder: Path) -> Path:
    return write_page(
        folder / "copies.html",
        "copies.html.jinja",
        title=Path(name).stem,
        lines=summary(found),
        groups=[_shown(found, group) for group in found.groups[:MOST_GROUPS]],
        n_groups=len(found.groups),
        bits=BITS,
    )


def _shown(found: Found, group: Sequence[int]) -> dict[str, Any]:
    """A group as the page has it."""
    left_out = set(found.left_out)
    cards = []
    for image in group[:MOST_IMAGES]:
        picture = found.pictures[image]
        data, size = thumbnail(read_picture(picture.impath, rendering=found.rendering))
        cards.append(
            {
                "data": data,
                "size": size,
                "id": picture.id,
                "side": found.sides[image],
                "classname": picture.classname,
                "distance": found.copies.distance(group[0], image),
                "left_out": image in left_out,
            }
        )
    return {
        "kind": "Exact copies" if found.is_exact(group) else "Near copies",
        "two_splits": found.in_two_splits(group),
        "two_classes": found.in_two_classes(group),
        "cards": cards,
        "more": len(group) - len(cards),
    }


if __name__ == "__main__":
    command_line(main)()
