"""The published name of the command in ``symptom_generator/generate.py``: write symptoms."""

import runpy

if __name__ == "__main__":
    runpy.run_module("symptom_generator.generate", run_name="__main__", alter_sys=True)
