"""The published name of the command in ``reporting/check_dataset.py``: find copies in a dataset."""

import runpy

if __name__ == "__main__":
    runpy.run_module("reporting.check_dataset", run_name="__main__", alter_sys=True)
