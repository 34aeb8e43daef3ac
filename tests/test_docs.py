"""What the pages in docs/ tell a user to do works as they say."""

import re
import shutil
import subprocess
import sys

import pytest

from engine.config import load_cfg

CONTRACT = ("method.py", "prompts.py")
BLOCK = re.compile(r"^`([\w/.]+)`:\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page):
    """File name -> content of each block of a page that is said to be a file."""
    found = dict(BLOCK.findall(page.read_text(encoding="utf-8")))
    assert found
    return found


@pytest.fixture
def copy_of(checkout, tmp_path):
    """A checkout whose trainers, configs, symptoms and tests may be changed."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    changed = {"trainers", "engine", "configs", "symptoms", "tests"}
    for entry in checkout.iterdir():
        if entry.name in changed:
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(entry, folder / entry.name, ignore=ignored)
        elif entry.suffix == ".py":  # Python looks beside what a link points to
            shutil.copy(entry, folder)
        elif not entry.name.startswith(".") and entry.name not in ("data", "output"):
            (folder / entry.name).symlink_to(entry)
    return folder


def python(folder, *args):
    done = subprocess.run(
        [sys.executable, *map(str, args)], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_add_a_method(checkout, copy_of, toy, short):
    """Its file, its YAML and its test: then it trains, and is a row."""
    page = checkout / "docs" / "add_a_method.md"
    for name, content in blocks(page).items():
        path = copy_of / name
        assert not path.exists()
        path.write_text(content, encoding="utf-8")

    test = "tests/methods/test_zeroshot_probe.py"
    python(copy_of, "-m", "pytest", "-p", "no:cacheprovider", test)
    out = python(
        copy_of,
        *("-m", "scripts.compare", toy / "toy.yaml", toy / "random.yaml", "--root", toy / "data"),
        *("--methods", "ZeroshotProbe", "--seeds", "1", "--output", toy / "output", "--", *short),
    )

    assert "- ZeroshotProbe: It learns class features, not words" in out
    assert "1 trained" in out
    assert re.search(r"\| ZeroshotProbe", out)


def test_what_a_method_can_define_exists(checkout):
    """Each name in the page's tables is one of the contract, and each file says it."""
    text = (checkout / "docs" / "add_a_method.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \| (?:`(\w+\.py)`)? *\|$", text, re.MULTILINE)
    assert len(rows) >= 20
    contract = "".join((checkout / "engine" / name).read_text() for name in CONTRACT)
    for cell, file in rows:
        first = re.findall(r"`(?:data\.|raise )?(\w+)", cell)[0]
        assert re.search(rf"\b{first}\b", contract), first
        if file:
            assert re.search(rf"\b{first}\b", (checkout / "trainers" / file).read_text()), first


def test_the_readme_lists_the_folder_of_each_method(checkout):
    """Those that train and test a method; scripts/vision_llm asks."""
    text = (checkout / "README.md").read_text(encoding="utf-8")
    listed = re.search(r"The folders of the methods in `scripts/` are (.*?)\.\n", text, re.DOTALL)
    folders = {path.parent.name for path in checkout.glob("scripts/*/eval.sh")}

    assert sorted(re.findall(r"`(\w+)`", listed[1])) == sorted(folders)


def test_your_own_data(checkout, copy_of, toy, short):
    """Its folders, names and symptoms: then the card, and a comparison."""
    page = checkout / "docs" / "your_own_data.md"
    for name, content in blocks(page).items():
        (copy_of / name).write_text(content)
    data = toy / "data" / "mydata"
    for folder, kind in (("benign", "red"), ("malignant", "blue")):
        shutil.copytree(toy / "data" / "toy" / "train" / kind, data / folder)
    place = ["mydata", toy / "random.yaml", "--root", toy / "data"]

    card = python(
        copy_of,
        *("train.py", "--dataset", place[0], "--backbone", place[1], *place[2:]),
        *("--output-dir", toy / "run", "--no-train"),
    )
    out = python(
        copy_of,
        *("-m", "scripts.compare", *place, "--methods", "ViP", "CoOp", "--seeds", "1"),
        *("--output", toy / "output", "--", *short),
    )

    assert re.search(r"benign nevus +\d+ +\d+ +\d+\nmelanoma", card)
    assert not (toy / "run").exists()  # it was only looked
    assert "3 trained" in out


def test_step_6_names_the_folder_of_the_run(checkout, tmp_path):
    """With the page's own files, and without a pattern that a second variant would match too."""
    page = checkout / "docs" / "your_own_data.md"
    found = blocks(page)
    (tmp_path / "mydata.json").write_text(found["symptoms/mydata.json"])
    config = found["configs/datasets/mydata.yaml"] + f"  SYMPTOMS: {tmp_path / 'mydata.json'}\n"
    (tmp_path / "mydata.yaml").write_text(config)
    cfg, _ = load_cfg("ViP", str(tmp_path / "mydata.yaml"), "vit_b16")

    step = page.read_text(encoding="utf-8").split("## 6.")[1].split("\n## ")[0]
    (run,) = re.findall(r"^RUN=(\S+)$", step, re.MULTILINE)
    assert run == cfg.OUTPUT_DIR
    assert not re.search(r"[*?]|\$\(", step)


def test_settings_people_ask_for_exist(checkout):
    """Every KEY VALUE of the table is one that a run takes."""
    text = (checkout / "docs" / "your_own_data.md").read_text(encoding="utf-8")
    settings = dict(re.findall(r"`([A-Z]+\.[A-Z_.]+) (\S+)`", text))
    # The file of that setting is the user's.
    settings["TRAINER.VIP.SYMPTOMS"] = str(checkout / "symptoms" / "pneumonia.json")
    assert len(settings) >= 7
    for key, value in settings.items():
        trainer = "CoCoOp" if ".COCOOP." in key else "ViP"
        _, options = load_cfg(trainer, "derm7pt", "vit_b16", opts=[key, value])
        assert list(options) == [key]


@pytest.mark.parametrize("page", ["add_a_method.md", "your_own_data.md"])
def test_files_that_a_page_names_exist(checkout, page):
    text = (checkout / "docs" / page).read_text(encoding="utf-8")
    for name in re.findall(r"(?:bash |\]\(\.\./)((?:scripts|configs)/[\w/.]+)", text):
        assert (checkout / name).exists(), name
