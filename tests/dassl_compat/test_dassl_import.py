"""Which Dassl is imported, and what importing costs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dassl_compat

ROOT = Path(__file__).resolve().parents[2]


def python(code, path, cwd):
    """Run ``code`` with ``path`` on Python's path; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path))},
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_other_code_needs_only_the_folder_on_its_path(tmp_path):
    """As unmodified code of the CoOp family runs; torchvision comes with it."""
    told = python(
        "from dassl.engine import TRAINER_REGISTRY, TrainerX; import dassl, torchvision\n"
        "import importlib.util\n"
        "print(dassl.__file__, importlib.util.find_spec('trainers'))",
        [ROOT / "dassl_compat" / "standin"],
        tmp_path,
    )
    assert told == [str(ROOT / "dassl_compat" / "standin" / "dassl" / "__init__.py"), "None"]


def test_importing_the_layer_alone_is_cheap(tmp_path):
    told = python("import dassl_compat, sys; print('torch' in sys.modules)", [ROOT], tmp_path)
    assert told == ["False"]


def fake_dassl(folder):
    (folder / "dassl").mkdir()
    (folder / "dassl" / "__init__.py").write_text("print('installed')\n")


def test_an_installed_dassl_is_preferred(tmp_path):
    fake_dassl(tmp_path)
    told = python(
        "import dassl_compat; print(dassl_compat.USING_INSTALLED_DASSL)", [tmp_path, ROOT], tmp_path
    )
    assert told == ["True"]


def test_the_installed_one_is_fixed_once_and_when_imported(tmp_path):
    fake_dassl(tmp_path)
    told = python(
        "import dassl_compat.installed_dassl\n"
        "dassl_compat.installed_dassl.apply_fixes = lambda: print('fixed')\n"
        "import dassl, dassl",
        [tmp_path, ROOT],
        tmp_path,
    )
    assert told == ["installed", "fixed"]
    late = python(
        "import sys, types\n"
        "import dassl\n"
        "fixes = types.SimpleNamespace(apply_fixes=lambda: print('fixed'))\n"
        "sys.modules['dassl_compat.installed_dassl'] = fixes\n"
        "import dassl_compat",
        [tmp_path, ROOT],
        tmp_path,
    )
    assert late == ["installed", "fixed"]


@pytest.mark.skipif(not dassl_compat.USING_INSTALLED_DASSL, reason="no Dassl is installed")
def test_fixing_twice_changes_nothing():
    import dassl.engine.trainer as engine

    from dassl_compat import checkpoints, installed_dassl

    before = engine.SimpleTrainer.after_epoch
    installed_dassl.apply_fixes()

    assert engine.SimpleTrainer.after_epoch is before
    assert engine.save_checkpoint is checkpoints.save_checkpoint
    assert engine.nn.DataParallel("model") == "model"
    assert engine.nn.Linear
