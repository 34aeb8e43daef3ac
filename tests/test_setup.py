"""What the scripts run on: the supported Pythons, and requirements that agree with them."""

import os
import re
import subprocess
import sys

import pytest

SUPPORTED = range(10, 15)


def fake_python(folder, minor):
    """An executable that takes itself for Python 3.``minor``."""
    path = folder / f"fake3.{minor}"
    code = f"import sys; sys.version_info = (3, {minor}, 0); exec(sys.argv[1])"
    path.write_text(f"#!/usr/bin/env bash\nexec {sys.executable} -c '{code}' \"$2\"\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("minor", [9, *SUPPORTED, 15])
def test_scripts_take_the_supported_pythons(tmp_path, checkout, minor):
    name = fake_python(tmp_path, minor)
    found = subprocess.run(
        ["bash", "-c", "source scripts/setup.sh; find_python"],
        cwd=checkout,
        env=os.environ | {"NAME": str(name)},
        capture_output=True,
        text=True,
    )
    if minor in SUPPORTED:
        assert (found.returncode, found.stdout) == (0, f"{name}\n")
    else:
        assert found.returncode == 2 and found.stderr.startswith("error: no Python 3.10 to 3.14")
        assert found.stderr.count("\n") == 1


def test_readme_names_the_supported_pythons(checkout):
    first, last = SUPPORTED[0], SUPPORTED[-1]
    assert f"Python 3.{first} to 3.{last}," in (checkout / "README.md").read_text()


def test_every_requirement_has_a_tested_version(checkout):
    """Ray's is the cluster's. setuptools builds: PyTorch brings it, from Python 3.12 on."""
    names = re.findall(r'"([A-Za-z][\w-]*)>=', (checkout / "setup.py").read_text())
    tested = re.findall(r"^([\w-]+)==", (checkout / "constraints.txt").read_text(), re.M)
    assert len(names) > 20 and len(names) == len(set(names))
    lines = (checkout / "constraints.txt").read_text().splitlines()
    assert len(lines) == len(set(lines))
    assert set(names) - {"ray"} == set(tested) - {"setuptools"}


@pytest.mark.parametrize("status", [0, 1])
def test_uv_installs_where_it_is_and_pip_where_uv_fails(tmp_path, checkout, status):
    """uv may be unable to reach PyTorch's own index; PyPI's build is then installed by pip."""
    calls = tmp_path / "calls"
    for name, code in ("uv", status), ("python", 0):
        tool = tmp_path / name
        tool.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >>"{calls}"\nexit {code}\n')
        tool.chmod(0o755)
    found = subprocess.run(
        ["bash", "-c", 'source scripts/setup.sh; install_project "[dev]"'],
        cwd=checkout,
        env=os.environ
        | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": str(tmp_path / "python")},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0
    lines = calls.read_text().splitlines()
    assert lines[0].startswith("uv pip install") and "--torch-backend auto" in lines[0]
    assert all(line.endswith("--quiet -c constraints.txt .[dev]") for line in lines)
    assert [line.split()[0] for line in lines] == ["uv", "python"][: 1 + status]
    assert ("trying pip" in found.stderr) == bool(status)
