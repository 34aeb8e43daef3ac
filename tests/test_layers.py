"""What the import contract of pyproject.toml cannot see: single files, scripts and entries.

import-linter checks packages alone, so the command lines that are single files (``train.py``) and
``scripts/``, which is not a package, are checked here, late imports included.
"""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
TOP = {"benchmarks", "scripts"}  # rooms of the topmost layer
SINGLE_FILES = {path.stem for path in ROOT.glob("*.py")} - {"setup"}
PACKAGES = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
ENTRIES = {
    "symptoms/generate": "symptom_generator.generate",
    "symptoms/check": "symptom_generator.check",
    "datasets/__main__": "reporting.check_dataset",
}


def imported(path):
    """The dotted names that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = path.relative_to(ROOT).parts[: -node.level] if node.level else ()
            stem = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{stem}.{alias.name}" for alias in node.names)


def contract():
    """The settings of import-linter."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]


def test_every_package_has_its_layer():
    """A new package has to be put in its place."""
    (layers,) = (c["layers"] for c in contract()["contracts"] if c["type"] == "layers")
    placed = [name.strip() for layer in layers for name in layer.split("|")]

    assert sorted(placed) == sorted(PACKAGES)
    assert sorted(contract()["root_packages"]) == sorted(PACKAGES)


def test_the_contract_has_no_exceptions():
    for settings in contract()["contracts"]:
        assert not {key for key in settings if "ignore" in key or key.startswith("exclude")}


@pytest.mark.parametrize("package", sorted(PACKAGES - TOP))
def test_no_package_imports_a_command_line(package):
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / package).rglob("*.py")
        for name in imported(path)
        if name.split(".")[0] in SINGLE_FILES | TOP
    }
    assert found == set()


def test_command_lines_and_scripts_have_no_circle():
    files = {path.stem: path for path in ROOT.glob("*.py")}
    files |= {f"scripts.{path.stem}": path for path in (ROOT / "scripts").glob("*.py")}

    def module(name):
        """The one of ``files`` that an import names; a script imports its neighbours bare too."""
        two = ".".join(name.split(".")[:2])
        first = name.split(".")[0]
        return next((m for m in (two, first, f"scripts.{first}") if m in files), None)

    graph = {
        name: {module(other) for other in imported(path)} - {None, name}
        for name, path in files.items()
    }
    assert any(graph.values())  # else nothing was found to check
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names a circle


@pytest.mark.parametrize("entry", ENTRIES)
def test_entries_of_low_rooms_are_thin(entry):
    """They start a command of a higher layer by its name; the package itself imports none."""
    path = ROOT / f"{entry}.py"

    assert list(imported(path)) == ["runpy"]
    assert ENTRIES[entry] in path.read_text()
    assert (ROOT / ENTRIES[entry].replace(".", "/")).with_suffix(".py").is_file()


@pytest.mark.parametrize("entry", ENTRIES)
def test_entries_of_low_rooms_start_their_command(entry):
    module = entry.replace("/", ".").removesuffix(".__main__")
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    name = entry.rpartition("/")[2]
    assert f"{name}.py" in done.stdout or f"python -m {module}" in done.stdout


@pytest.mark.parametrize("package", ["core", "dassl_compat", "symptoms"])
def test_the_lowest_rooms_are_cheap_to_import(package):
    """They import neither torch nor NumPy, so a wrong flag is told at once."""
    code = f"import sys, {package}; print({{'torch', 'numpy', 'dassl'}} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"


def test_the_page_on_the_layers_names_files_that_exist():
    page = (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"\b[a-z_]+/[a-z_]+\.py\b", page))

    assert len(named) > 10
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []
    layers = re.search(r"```\n(.*?)```", page, re.DOTALL).group(1)
    assert set(re.findall(r"\b([a-z_]+)/", layers)) == PACKAGES | TOP
