"""Write one HTML file that shows what finished runs found: no network, fit to print.

python report.py output/                    writes output/report.html
python report.py output/ --no-images        without pictures of the dataset: medical data is private
"""

import argparse
from pathlib import Path


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", nargs="?", default="output", help="where the runs are (default: output)")
    add("--output", help="the file (default: FOLDER/report.html)")
    add("--no-images", action="store_true", help="leave the dataset's pictures out")
    add("--root", help="folder that holds the datasets (default: each run's)")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)

    from reporting.report import make_report

    output = Path(args.output or Path(args.folder) / "report.html")
    page = make_report(args.folder, output, images=not args.no_images, root=args.root)
    print(f"{page} ({page.stat().st_size / 2**20:.1f} MB)")


if __name__ == "__main__":
    from core.errors import command_line

    command_line(main)()
