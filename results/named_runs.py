"""A RUN on a command line: a folder, or a short name such as ViP/tiny."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from core.errors import InputError

NAMES = "a run's folder, or a short name: synthderm/ViP/tiny, ViP/tiny/seed2"
SEVERAL = f"{NAMES}; several seeds of a run, or the folder that holds them, are one ensemble"
SEED_FOLDER = re.compile(r"seed(\d+)")


def add_run_arguments(parser: argparse.ArgumentParser, several: bool | str = False) -> None:
    """Add the arguments that name a run, or ``several``: RUN, --latest and --runs.

    Args:
        several: whether several seeds of a run may be named; or what several names mean.
    """
    add = parser.add_argument
    if several:
        add("run", nargs="+", metavar="RUN", help=SEVERAL if several is True else several)
    else:
        add("run", help=NAMES)
    add(
        "--latest",
        action="store_true",
        help="of several runs with this name, take the one that finished last",
    )
    add(
        "--runs",
        default="output",
        metavar="FOLDER",
        help="folder in which short names are looked up (default: output)",
    )


def named_run(name: str, latest: bool = False, root: str | Path = "output") -> Path:
    """The folder of the run that ``name`` matches.

    Args:
        name: a folder, which may hold a run that did not end; or parts of a run's folder below
            ``root``, in their order. Of the seeds of one run, seed 1 is taken.
        latest: of several runs with this name take the one that ended last.

    Raises:
        InputError: no run or several have this name; lists the candidates.
    """
    path = Path(name)
    if path.exists() or path.is_absolute() or not Path(root).is_dir() or not name.strip("./"):
        return path  # whoever opens it says what is wrong with it
    # Here, so that --help does not wait for NumPy.
    from results.runs import find_run, latest_run

    if latest:
        return latest_run(name, root)
    try:
        return find_run(name, root)
    except InputError as error:
        try:
            return find_run(f"{name}/seed1", root)
        except InputError:
            raise error from None


def named_runs(
    names: Sequence[str], latest: bool = False, root: str | Path = "output"
) -> list[Path]:
    """The folders of the runs that ``names`` match, as ``named_run`` finds each.

    A folder that is not a run itself but holds seed1, seed2, ... stands for all of these runs.
    """
    return [folder for name in names for folder in _seeds(named_run(name, latest, root))]


def _seeds(folder: Path) -> list[Path]:
    from results.settings import CONFIG

    if (folder / CONFIG).exists() or not folder.is_dir():
        return [folder]
    seeds = {
        int(found.group(1)): path
        for path in folder.iterdir()
        if (found := SEED_FOLDER.fullmatch(path.name)) and (path / CONFIG).exists()
    }
    return [seeds[seed] for seed in sorted(seeds)] or [folder]
