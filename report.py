"""Write one HTML page with all results of finished runs; it needs no network and can be printed.

python report.py output/                    writes output/report.html
python report.py output/ --no-images        without images of the dataset: medical data is private
"""

import argparse
from collections.abc import Sequence
from pathlib import Path


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", nargs="?", default="output", help="folder that holds the runs (default: output)")
    add("--output", help="output file (default: FOLDER/report.html)")
    add("--no-images", action="store_true", help="leave out the images of the dataset")
    add("--root", help="folder that holds the datasets (default: each run's)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)

    from reporting.report import make_report

    output = Path(args.output or Path(args.folder) / "report.html")
    page = make_report(args.folder, output, images=not args.no_images, root=args.root)
    print(f"{page} ({page.stat().st_size / 2**20:.1f} MB)")


if __name__ == "__main__":
    from core.errors import command_line

    command_line(main)()
