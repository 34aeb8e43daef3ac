"""The clip package imports whatever setuptools is installed, and where none is."""

import subprocess
import sys

import pytest

# As if there were no module of that name, or one that holds more.
WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "setuptools":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
sys.path[:] = [p for p in sys.path if not p.endswith("site-packages")] + [{folder!r}]
"""


@pytest.fixture
def site_packages_without_setuptools(tmp_path):
    """All that is installed but setuptools and its pkg_resources."""
    from pathlib import Path

    import torch

    installed = Path(torch.__file__).parent.parent
    for entry in installed.iterdir():
        if not entry.name.startswith(("setuptools", "pkg_resources", "_distutils_hack")):
            (tmp_path / entry.name).symlink_to(entry)
    return tmp_path


def test_clip_imports_without_pkg_resources(site_packages_without_setuptools, checkout):
    """As with setuptools 81 and later, which removed it, or on a Python that brings none."""
    program = WITHOUT.format(folder=str(site_packages_without_setuptools))
    program += "import dassl_compat, clip, pkg_resources\n"
    program += "print(clip.available_models()[0], pkg_resources.__file__)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], cwd=checkout, capture_output=True, text=True
    )

    assert done.returncode == 0, done.stderr
    name, file = done.stdout.split()
    assert name == "RN50"
    assert file.startswith(str(checkout))


def test_an_installed_pkg_resources_comes_first(tmp_path, checkout):
    (tmp_path / "pkg_resources.py").write_text("packaging = 'installed'\n")
    program = f"import sys; sys.path.insert(1, {str(tmp_path)!r})\n"
    program += "import dassl_compat, pkg_resources; print(pkg_resources.packaging)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=checkout, capture_output=True, text=True
    )

    assert done.stdout == "installed\n", done.stderr
