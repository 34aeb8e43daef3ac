"""parse_results.py as a user calls it, and the plots it draws."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib.image
import pytest
from results_runs import write_run

import parse_results
from core.errors import command_line

ROOT = Path(__file__).parent.parent


@pytest.fixture
def parse(capsys, monkeypatch):
    """The command in this process: exit status, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["parse_results.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            command_line(parse_results.main)()
        captured = capsys.readouterr()
        return SimpleNamespace(
            returncode=stop.value.code or 0, stdout=captured.out, stderr=captured.err
        )

    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two methods, the zero-shot and knowledge experiments, two numbers of shots."""
    root = tmp_path_factory.mktemp("output")
    for seed in (1, 2, 3):
        for trainer, skill in (("CoOp", 1.0), ("ViP", 2.0)):
            write_run(root, trainer, seed=seed, skill=skill)
            for shots in (1, 16):
                options = {"DATASET.NUM_SHOTS": shots}
                write_run(root, trainer, seed=seed, shots=shots, options=options)
        options = {"TRAINER.VIP.SYMPTOMS": "symptoms/derm7pt_useless.json"}
        write_run(root, seed=seed, options=options)
    write_run(root, "ZeroshotCLIP")
    write_run(root, "ZeroshotCLIP", options={"TRAINER.ZEROSHOTCLIP.PROMPTS": "symptoms"})
    return root


def test_tables(runs, parse):
    done = parse(runs)
    assert done.returncode == 0 and not done.stderr
    assert "## derm7pt\n" in done.stdout and "## derm7pt, 16 shots a class" in done.stdout
    assert "| majority class" in done.stdout and "3 of 3" in done.stdout


@pytest.mark.parametrize(
    "options, told",
    [
        (["--paper", "--ci", "--metrics", "acc", "auroc"], "paper ACC"),
        (["--paper", "biomedcoop", "clipsvd"], "biomedcoop ACC"),
        (["--by", "seed"], "by seed"),
        (["--by", "backbone", "--ci"], "by backbone"),
        (["--format", "latex"], r"\begin{tabular}"),
        (["--format", "csv"], "table,method,ACC,ACC deviation,F1"),
        (["--cost"], "528,384"),
        (["--shots"], "1 shot |     16 shots |   all images |"),
        (["--zeroshot", "--paper"], "symptoms - names"),
        (["--knowledge"], "LLM-generated"),
        (["--compare", "ViP", "CoOp"], "McNemar"),
        (["--dataset", "derm7pt", "--backbone", "vit_b16"], "## derm7pt"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options(runs, parse, options, told):
    done = parse(runs, *options)
    assert done.returncode == 0, done.stderr
    assert told in done.stdout


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["nowhere"], "no such folder"),
        (["{empty}"], "no finished runs"),
        (["{runs}", "--dataset", "dtd"], "no runs of dataset dtd; there are derm7pt"),
        (["{runs}", "--backbone", "rn50"], "no runs of backbone rn50; there are vit_b16"),
        (["{runs}", "--compare", "ViP", "Nothing"], "there are:"),
        (["{runs}", "--paper", "vip", "nope"], "choose from biomedcoop, clipsvd, vip"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_is_one_line_and_status_2(runs, parse, tmp_path, arguments, told):
    done = parse(*(text.format(empty=tmp_path, runs=runs) for text in arguments))
    assert done.returncode == 2 and not done.stdout
    assert told in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["--paper"], ["--paper", "vip"]])
def test_a_folder_after_the_papers_is_no_paper(runs, parse, words):
    before, after = parse(runs, "--paper"), parse(*words, runs)
    assert after.returncode == 0 and after.stdout == before.stdout
    assert "paper ACC" in after.stdout


def test_an_experiment_without_runs_is_said(runs, parse):
    done = parse(runs, "--ablation")
    assert done.returncode == 0 and "--ablation: no runs" in done.stderr


@pytest.mark.parametrize(
    "arguments, names",
    [
        (["{runs}", "--plot"], ["zeroshot", "knowledge_derm7pt"]),
        (["--plot", "{runs}"], ["zeroshot", "knowledge_derm7pt"]),
        (["{runs}", "--plot", "shots"], ["shots_derm7pt"]),
    ],
    ids=["bars", "folder after --plot", "shots"],
)
def test_plots(runs, parse, arguments, names):
    """A PNG with something drawn on it, and a PDF, whose paths are printed."""
    done = parse(*(text.format(runs=runs) for text in arguments))
    assert done.returncode == 0, done.stderr
    paths = [runs / "plots" / f"{name}.{ending}" for name in names for ending in ("png", "pdf")]
    assert done.stdout.split() == [str(path) for path in paths]
    for png, pdf in zip(paths[::2], paths[1::2], strict=True):
        picture = matplotlib.image.imread(png)
        assert min(picture.shape[:2]) > 500 and picture[..., :3].std() > 0.05
        assert pdf.read_bytes().startswith(b"%PDF")


def test_a_table_and_its_plot_in_one_call(runs, parse):
    """As few_shot.sh calls it; --plot alone prints the paths alone."""
    done = parse(runs, "--shots", "--plot", "shots")
    assert done.returncode == 0 and not done.stderr
    assert "few-shot, ACC" in done.stdout and done.stdout.endswith("shots_derm7pt.pdf\n")


def test_nothing_to_draw_is_said(tmp_path, parse):
    write_run(tmp_path)
    for options in (["--plot"], ["--plot", "shots"]):
        done = parse(tmp_path, *options)
        assert done.returncode == 2 and "nothing to draw" in done.stderr


def test_as_a_program(tmp_path):
    command = [sys.executable, "parse_results.py", tmp_path / "nowhere"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
