"""Ask a run in the browser: drop in an image, see why, change the symptoms.

python app.py ViP/tiny                      a local page about one run; the seeds are one ensemble
python app.py RUN OTHER                     two runs, side by side
python app.py RUN --blind                   a reader study: label an image before you see the answer
python app.py RUN --no-browser --port 9000  only print the address, for example over ssh -L

The page is for this computer alone, and its address holds a secret token. Images that you drop into
it stay in memory. Research software, not a medical device.
"""

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from core.arguments import Parser, whole_number
from core.errors import InputError, command_line
from core.files import check_place
from results.named_runs import add_run_arguments, named_runs

EACH = "a run's folder, or a short name: synthderm/ViP/tiny, ViP/tiny; the folder of several seeds "
EACH += "is one ensemble"
INSTALL = "pip install '.[app]'"
LOOPBACK = "127.0.0.1"


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add_run_arguments(parser, several=EACH)
    add("--port", type=whole_number(0, 65535), default=8765, metavar="N",
        help="port to listen on; 0: any free one (default: 8765)")  # fmt: skip
    add("--host", default=LOOPBACK, metavar="ADDRESS",
        help="address to listen on (default: 127.0.0.1, this computer alone)")  # fmt: skip
    add("--no-browser", action="store_true", help="do not open a browser")
    add("--notes", metavar="FILE",
        help="CSV file of the readers' notes (default: beside the run)")  # fmt: skip
    add("--blind", action="store_true",
        help="hide the model's answer on an image until the reader has labelled it")  # fmt: skip
    add("--root", help="folder that holds the datasets (default: the run's)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    runs = [named_runs([name], args.latest, args.runs) for name in args.run]
    notes = Path(args.notes) if args.notes else None
    if notes:
        check_place(notes)

    if missing := [name for name in ("fastapi", "uvicorn") if find_spec(name) is None]:
        raise InputError(f"app.py needs {' and '.join(missing)}: {INSTALL}")

    # Late, so that --help does not wait for PyTorch.
    import trainers  # noqa: F401  (registers the methods)
    from webapp.serving import listen, serve
    from webapp.workbench import Workbench

    listener = listen(args.host, args.port)  # or an error, before a model is loaded
    workbench = Workbench.open(runs, root=args.root, notes=notes)
    serve(workbench, listener, blind=args.blind, browser=not args.no_browser)


if __name__ == "__main__":
    command_line(main)()
