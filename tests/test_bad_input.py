"""Kinds of bad input, each tried on every command that shares the path.

Right is one line on standard error, exit status 2, no traceback, nothing half-written.
"""

import errno
import importlib
import io
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import explain
import predict
import report
import train
from core import errors, files
from core.arguments import positive_int, real_number, split_options, whole_number
from core.errors import InputError, command_line, naming
from core.files import atomic_write
from core.yaml_files import read_yaml
from engine.config import load_cfg
from engine.loading import read_config
from scripts import compare, evaluate

ROOT = Path(__file__).parent.parent

# Every command, as the words after `python`.
COMMANDS = {
    "train": ["train.py"],
    "predict": ["predict.py"],
    "explain": ["explain.py"],
    "app": ["app.py"],
    "report": ["report.py"],
    "parse_results": ["parse_results.py"],
    "compare": ["-m", "scripts.compare"],
    "few_shot": ["-m", "scripts.few_shot"],
    "run_seeds": ["-m", "scripts.run_seeds"],
    "base_to_new": ["-m", "scripts.base_to_new"],
    "tune": ["-m", "scripts.tune"],
    "benchmark": ["-m", "scripts.benchmark"],
    "evaluate": ["-m", "scripts.evaluate"],
    "symptoms.check": ["-m", "symptoms.check"],
    "symptoms.generate": ["-m", "symptoms.generate"],
    "vision_llm": ["-m", "vision_llm"],
    "average": ["-m", "scripts.average"],
    "anchor": ["-m", "scripts.anchor"],
    "backbones": ["-m", "backbones"],
    "backbones.pretrain": ["-m", "backbones.pretrain"],
    "datasets": ["-m", "datasets"],
    "datasets.contact_sheet": ["-m", "datasets.contact_sheet"],
    "benchmarks": ["-m", "benchmarks"],
    "benchmarks.versions": ["-m", "benchmarks.versions"],
    "benchmarks.arrays": ["-m", "benchmarks.arrays"],
    "benchmarks.comparisons": ["-m", "benchmarks.comparisons"],
    "benchmarks.large_sets": ["-m", "benchmarks.large_sets"],
}
FAST = ("train", "predict", "explain", "app", "report", "parse_results")  # --help without PyTorch
SLOW = [
    pytest.param(name, marks=pytest.mark.slow) if name not in FAST else name for name in COMMANDS
]
ENVIRONMENT = {**os.environ, "PYTHONWARNINGS": "ignore"}
ENVIRONMENT.pop("PYTHONUNBUFFERED", None)


def python(*words, **options):
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, **options)


def outcome(main, words, capsys):
    """Exit status and standard error of a command's main function."""
    with pytest.raises(SystemExit) as stopped:
        command_line(lambda: main([str(word) for word in words]))()
    return stopped.value.code, capsys.readouterr().err


def assert_one_line(status, printed, *words):
    assert status == 2
    assert printed.startswith("error: ") and printed.count("\n") == 1 and len(printed) < 1100
    for word in words:
        assert word in printed


# A closed pipe


def test_every_command_is_here_and_goes_through_command_line():
    """Whatever has a `__main__` part ends in ``command_line``, or hands on to what does."""
    entries = set()
    others = {".venv", "tests"}
    for path in (p for p in ROOT.rglob("*.py") if not others & set(p.relative_to(ROOT).parts)):
        text = path.read_text(encoding="utf-8")
        if 'if __name__ == "__main__":' in text:
            entries.add(path.relative_to(ROOT).with_suffix("").as_posix().replace("/", "."))
            end = text[text.index('if __name__ == "__main__":') :]
            assert "command_line(main)()" in end or "runpy.run_module(" in end, path
    known = {words[-1].removesuffix(".py") for words in COMMANDS.values()}
    moved = {
        "symptom_generator.check",
        "symptom_generator.generate",
        "reporting.check_dataset",
    }
    entries = {entry.removesuffix(".__main__") for entry in entries}
    assert entries - moved == known


@pytest.mark.parametrize("command", SLOW)
@pytest.mark.parametrize("unbuffered", [False, True], ids=["buffered", "unbuffered"])
def test_a_closed_pipe_ends_quietly(command, unbuffered):
    """As in `... --help | true`: no traceback, no "Exception ignored", the status of SIGPIPE."""
    if unbuffered and command not in FAST:
        pytest.skip("one way is enough for the slow ones")
    reader, writer = os.pipe()
    os.close(reader)
    flags = ["-u"] if unbuffered else []
    process = subprocess.run(
        [sys.executable, *flags, *COMMANDS[command], "--help"],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=writer,
        stderr=subprocess.PIPE,
    )
    os.close(writer)

    assert process.stderr == b""
    # Unbuffered, argparse itself ignores that nobody reads its help, from Python 3.11 on.
    ignored = unbuffered and sys.version_info >= (3, 11)
    assert process.returncode == (0 if ignored else errors.CLOSED_PIPE)


def test_the_first_line_of_a_long_answer(toy_run, toy):
    """predict.py ... | head -1"""
    run = toy_run("CoOp")
    pictures = str(toy / "data" / "toy" / "test")
    command = f"{sys.executable} predict.py {run} --images {' '.join([pictures] * 400)} | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("picture,prediction,")
    assert done.returncode == errors.CLOSED_PIPE
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


def test_another_pipe_that_breaks_is_a_bug():
    """Only a reader that went away is quiet."""

    def main():
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        command_line(main)()


# Places for output


def test_an_output_place_that_is_in_the_way(toy, toy_run, toy_args, short, capsys, tmp_path):
    """A file where a folder is needed, or above it: every command says which."""
    (tmp_path / "file").write_text("mine")
    run = str(toy_run("ViP"))
    image = next((toy / "data").rglob("*.png"))
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        for main, words in (
            (train.main, ["--trainer", "ViP", *toy_args[:-1], place, *short]),
            (explain.main, [run, "--output-dir", place, "--images", image]),
        ):
            assert_one_line(*outcome(main, words, capsys), str(tmp_path / "file"))
    for main, words in (
        (predict.main, [run, "--images", image, "--output", tmp_path / "file" / "a.csv"]),
        (predict.main, [run, "--images", image, "--output", tmp_path]),
        (report.main, [Path(run).parent, "--output", tmp_path / "file" / "a.html", "--no-images"]),
    ):
        assert_one_line(*outcome(main, words, capsys), str(tmp_path))
    assert (tmp_path / "file").read_text() == "mine"
    assert [path.name for path in tmp_path.rglob(".*.tmp")] == []


def test_compare_names_a_place_that_is_in_the_way(toy, short, capfd):
    """In the line of each run, with the reason."""
    (toy / "file").write_text("")
    words = [toy / "toy.yaml", toy / "random.yaml", "--root", toy / "data", "--seeds", "1"]
    words += ["--methods", "CoOp", "--output", toy / "file" / "output", *short]

    assert compare.main([str(word) for word in words]) == 1
    printed = capfd.readouterr().out
    assert f"{toy / 'file'}" in printed and "Traceback" not in printed


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("moment", ["replace", "fsync", "mkstemp", "mkdir"])
def test_a_failed_write_names_its_path(monkeypatch, tmp_path, code, moment, capsys):
    """Whatever step fails, and although the system names another file or none."""

    def refuse(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    owner = {"mkdir": Path, "mkstemp": files.tempfile}.get(moment, files.os)
    path = tmp_path / "folder" / "answers.csv"

    def write(words):
        with monkeypatch.context() as patch:
            patch.setattr(owner, moment, refuse)
            with atomic_write(path) as file:
                file.write("half")

    assert_one_line(*outcome(write, [], capsys), str(path))
    assert not list(tmp_path.rglob("*.csv")) + list(tmp_path.rglob("*.tmp"))


def test_a_write_that_names_no_file_gets_the_run_s_folder(capsys):
    """A log on a full disk, say."""

    def log(words):
        with naming("output/run"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert_one_line(*outcome(log, [], capsys), "output/run: the disk is full")


@pytest.mark.parametrize("name", ["mkdir", "replace"])
def test_a_run_on_a_read_only_mount(monkeypatch, toy_args, short, capsys, name):
    """Folder, checkpoints and results: one line that names the place."""

    def refuse(self, *args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(*((Path, name) if name == "mkdir" else (files.os, name)), refuse)
    status, printed = outcome(train.main, ["--trainer", "CoOp", *toy_args, *short], capsys)
    assert_one_line(status, printed, "Read-only file system")


def test_a_repeated_run_on_a_read_only_mount_names_its_lock(monkeypatch, toy_run, toy_args, capsys):
    run = toy_run("CoOp")

    def refuse(self, *args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(run / ".lock"))

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    words = ["--trainer", "CoOp", *toy_args[:-1], run]
    assert_one_line(*outcome(train.main, words, capsys), str(run), "Read-only file system")
    assert (run / "results.json").exists()


# Files that could run


EVIL = "import pathlib\npathlib.Path({mark!r}).touch()\ncfg = {{}}\n"


@pytest.fixture
def evil(tmp_path):
    """``evil(name)``: a Python file under that name, which leaves a mark if it ever runs."""
    mark = tmp_path / "it-ran"

    def make(name):
        path = tmp_path / name
        path.write_text(EVIL.format(mark=str(mark)))
        return path

    yield make
    assert not mark.exists()


@pytest.mark.parametrize("ending", [".py", ".pyc", "", ".txt", ".json", ".yaml", ".yml"])
def test_a_python_file_is_never_run_as_a_configuration(evil, toy, toy_args, short, capsys, ending):
    """For the trainer, the dataset and the backbone; also under a YAML file's name."""
    path = evil(f"evil{ending}")
    words = ["--trainer", "CoOp", *toy_args, *short]
    assert_one_line(*outcome(train.main, [*words, "--config-file", path], capsys), "evil")
    for flag in ("--dataset-config-file", "--dataset", "--backbone"):
        assert_one_line(*outcome(train.main, [*words, flag, path], capsys), "evil")
    for places in ([path, toy / "random.yaml"], [toy / "toy.yaml", path]):
        assert_one_line(*outcome(compare.main, places, capsys), "evil")


TAGS = [
    "!!python/object/apply:os.system ['touch {mark}']",
    "!!python/object/new:os.system ['touch {mark}']",
    "!!python/name:os.system",
    "!!python/module:os",
]


@pytest.mark.parametrize("tag", TAGS)
def test_yaml_that_builds_objects_is_refused(toy, toy_run, tmp_path, tag):
    """In a configuration given and in a run's own."""
    mark = tmp_path / "it-ran"
    path = tmp_path / "config.yaml"
    path.write_text("OPTIM:\n  LR: " + tag.format(mark=mark) + "\n")
    places = str(toy / "toy.yaml"), str(toy / "random.yaml")
    with pytest.raises(InputError, match="could not determine a constructor"):
        load_cfg("CoOp", *places, files=[path])
    with pytest.raises(InputError, match="not the configuration of a run"):
        read_config(tmp_path)
    assert not mark.exists()


class _Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("way", ["weights", "checkpoint", "resume"])
def test_a_pickle_that_runs_is_refused(toy, toy_run, toy_args, short, tmp_path, capsys, way):
    """As a backbone, as a published checkpoint and as one to resume from."""
    mark, run = tmp_path / "it-ran", tmp_path / "theirs"
    words = ["--trainer", "CoOp", *toy_args, *short]
    buffer = io.BytesIO()
    torch.save({"state_dict": _Evil(mark)}, buffer)
    (run / "prompt_learner").mkdir(parents=True)
    for content in (buffer.getvalue(), pickle.dumps(_Evil(mark))):
        (toy / "evil.pt").write_bytes(content)
        (run / "prompt_learner" / "model.pth.tar-1").write_bytes(content)
        (run / "prompt_learner" / "checkpoint").write_text("model.pth.tar-1\n")
        given = {
            "weights": ["MODEL.BACKBONE.PATH", toy / "evil.pt"],
            "checkpoint": ["--eval-only", "--model-dir", run, "--load-epoch", "1"],
            "resume": ["--resume", run],
        }[way]
        status, printed = outcome(train.main, [*words, *given], capsys)
        assert status == 2 and "Traceback" not in printed
        assert not mark.exists()


def test_text_of_a_user_is_never_a_template(toy_run, tmp_path):
    """A class, symptom or file name goes into a page as text; braces and tags stay as they are."""
    from reporting import pages

    source = Path(pages.__file__).read_text()
    assert "autoescape=True" in source and "from_string" not in source


def test_an_option_is_read_as_a_literal_and_no_more(toy, tmp_path):
    mark = tmp_path / "it-ran"
    places = str(toy / "toy.yaml"), str(toy / "random.yaml")
    code = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    with pytest.raises(InputError, match="OPTIM.LR is .*; it should be a number"):
        load_cfg("CoOp", *places, opts=["OPTIM.LR", code])
    assert not mark.exists()


# YAML


HOSTILE = {
    "deep nesting": ("OPTIM: " + "[" * 100_000, "nested too deeply"),
    "deep mappings": ("{a: " * 100_000, "nested too deeply"),
    "aliases": ("a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nd: [*c,*c]\n", "line 2: aliases"),
    "a key twice": (
        "OPTIM:\n  LR: 0.1\nOPTIM:\n  LR: 0.2\n",
        "line 3: the key OPTIM is given",
    ),
    "a list": ("- a\n- b\n", "should hold settings"),
    "a text": ("just words\n", "should hold settings"),
    "a tab": ("OPTIM:\n\tLR: 1\n", "line 2"),
    "not closed": ("OPTIM: [1, 2\n", "line 2"),
    "numbers for keys": ("1: 2\n", "should hold settings"),
    "half a surrogate": ('DATASET:\n  CSV: "\\ud800"\n', "plain text"),
    "a null character": ('DATASET:\n  CSV: "a\\0b"\n', "plain text"),
    "an impossible date": ("OPTIM:\n  LR: 2026-02-30\n", "not valid YAML"),
    "a long key": ("A" * 1000 + ": 1\n", "there is no setting AAAA"),
    "a long value": ("OPTIM:\n  NAME: " + "a" * 1_000_000 + "\n", "OPTIM.NAME is 'aaa"),
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("flag", ["--config-file", "--dataset", "--backbone"])
def test_hostile_yaml_is_one_line(toy, toy_args, short, capsys, what, flag):
    """Wherever a configuration is given; the line names the file."""
    text, message = HOSTILE[what]
    (toy / "hostile.yaml").write_text(text)
    words = ["--trainer", "CoOp", *toy_args, *short, flag, toy / "hostile.yaml"]
    assert_one_line(*outcome(train.main, words, capsys), "hostile.yaml", message)
    assert not (toy / "run").exists()


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x80abc", b"OPTIM: \x00"])
def test_a_binary_file_is_no_yaml(toy, content):
    (toy / "binary.yaml").write_bytes(content)
    with pytest.raises(InputError, match=r"binary\.yaml: is not"):
        read_yaml(toy / "binary.yaml")


def test_a_folder_named_as_yaml(toy):
    (toy / "folder.yaml").mkdir()
    with pytest.raises(InputError, match=r"folder\.yaml: cannot be read \(Is a directory\)"):
        read_yaml(toy / "folder.yaml")


@pytest.mark.parametrize("text", ["", "[[[", "TRAINER: 3", "TRAINER:\n  NAME: nope", "\x00"])
def test_a_run_s_damaged_configuration_is_one_line(toy_run, tmp_path, capsys, text):
    (tmp_path / "config.yaml").write_text(text)
    for main, words in (
        (predict.main, [tmp_path, "--images", ROOT]),
        (explain.main, [tmp_path]),
        (evaluate.main, [tmp_path, "synthderm"]),
    ):
        status, printed = outcome(main, words, capsys)
        assert status == 2 and "Traceback" not in printed


# Arguments


@pytest.mark.parametrize("command", FAST)
def test_an_argument_that_is_not_text(command):
    """A byte that is not UTF-8: one line, whichever argument it is."""
    done = python(*COMMANDS[command], b"\xff\xfe", "--images", "x")
    assert_one_line(done.returncode, done.stderr.decode(), "is not valid UTF-8")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("benchmarks.__main__", ["--rounds", "-1"]),
        ("benchmarks.__main__", ["--rounds", "0"]),
        ("benchmarks.__main__", ["--rounds", "1.5"]),
        ("train", ["--seed", "-1"]),
        ("train", ["--seed", "4294967296"]),
        ("train", ["--load-epoch", "-1"]),
        ("explain", ["RUN", "--limit", "0"]),
        ("scripts.compare", ["synthderm", "--gpus-per-run", "-1"]),
        ("scripts.compare", ["synthderm", "--gpus-per-run", "nan"]),
        ("scripts.compare", ["synthderm", "--seeds", "4294967296"]),
        ("scripts.few_shot", ["synthderm", "--seeds", "-1"]),
        ("scripts.run_seeds", ["ViP", "synthderm", "--seeds", "-1"]),
        ("scripts.base_to_new", ["CoOp", "synthderm", "--seeds", "1e3"]),
        ("scripts.tune", ["KgCoOp", "synthderm", "tiny", "--max-runs", "0"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_a_number_out_of_range_names_its_argument(command, words, capsys):
    main = importlib.import_module(command).main
    assert_one_line(*outcome(main, words, capsys), words[-2], words[-1], "should be")


@pytest.mark.parametrize(
    ("convert", "good", "bad"),
    [
        (positive_int, ["1", "10"], ["0", "-1", "1.0", "x", "", "9" * 5000]),
        (whole_number(0, 5), ["0", "5"], ["-1", "6", "nan"]),
        (real_number(least=0), ["0", "1e-3"], ["-1", "nan", "inf", "1e999", "x"]),
        (real_number(above=0, most=1), ["0.1", "1"], ["0", "1.1"]),
    ],
)
def test_types_of_arguments(convert, good, bad):
    from argparse import ArgumentTypeError

    for text in good:
        assert convert(text) == float(text)
    for text in bad:
        with pytest.raises(ArgumentTypeError, match="should be") as raised:
            convert(text)
        assert len(str(raised.value)) < 150


@pytest.mark.parametrize(
    ("words", "others", "opts"),
    [
        ("a OPTIM.LR 1", "a", "OPTIM.LR 1"),
        ("a OPTIM.LR -1 b", "a b", "OPTIM.LR -1"),
        ("a -- OPTIM.LR 1 PREC fp32", "a", "OPTIM.LR 1 PREC fp32"),
        ("a PREC fp32", "a", "PREC fp32"),
        ("HAM10000 x", "HAM10000 x", ""),
        ("HAM.yaml DATASET.CSV_COLUMNS.path image", "HAM.yaml", "DATASET.CSV_COLUMNS.path image"),
        ("a --flag b OPTIM.LR 1 --other", "a --flag b --other", "OPTIM.LR 1"),
    ],
)
def test_keys_are_known_by_their_form(words, others, opts):
    found = split_options(words.split(), lambda: {"PREC"})
    assert found == (others.split(), opts.split())


def test_training_that_diverges_says_which_setting_to_lower(toy_args, short, capsys):
    words = ["--trainer", "CoOp", *toy_args, *short, "OPTIM.LR", "1e30"]
    assert_one_line(*outcome(train.main, words, capsys), "lower OPTIM.LR")


def test_a_floating_point_error_of_dassl_does_too(capsys):
    """As its own detect_anomaly raises it."""

    def main(words):
        raise FloatingPointError("Loss is infinite or NaN!")

    assert_one_line(*outcome(main, [], capsys), "Loss is infinite or NaN; lower OPTIM.LR")


def test_a_message_is_never_a_page(capsys):
    def main(words):
        raise InputError("a phrase: " + "x" * 1_000_000 + "\nand more")

    assert_one_line(*outcome(main, [], capsys), "a phrase: xxx")
