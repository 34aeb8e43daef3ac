"""The published name of the command in ``symptom_generator/check.py``: check a symptom file."""

import runpy

if __name__ == "__main__":
    runpy.run_module("symptom_generator.check", run_name="__main__", alter_sys=True)
