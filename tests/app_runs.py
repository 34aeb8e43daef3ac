"""What the tests of the browser app's workbench share."""

import contextlib
import copy
import csv
import io

import predict
from webapp.workbench import Workbench


def opened(*folders, **options):
    """A workbench on runs of one seed each, or of several where a list is given."""
    runs = [list(one) if isinstance(one, list | tuple) else [one] for one in folders]
    return Workbench.open(runs, **options)


def state_of(bench, run="0"):
    """The run's symptoms as the page gets them, to be edited."""
    return copy.deepcopy(bench.about()["runs"][int(run)]["symptoms"])


def phrase(text, on=True, weight=1.0):
    return {"text": text, "on": on, "weight": weight}


def probabilities(answer):
    """Class name -> probability."""
    return {row["class"]: row["probability"] for row in answer["probabilities"]}


def predicted(folders, file):
    """What predict.py prints of one file: class name -> probability, and the mark."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        predict.main([*map(str, folders), "--images", str(file)])
    (row,) = csv.DictReader(io.StringIO(printed.getvalue()))
    found = {name[2:-1]: float(p) for name, p in row.items() if name.startswith("p(")}
    return found, row["unlike training images"]
