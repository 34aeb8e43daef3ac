"""A RUN on a command line: a folder, or a short name."""

import json
import os

import pytest

import explain
import predict
from core.errors import InputError
from results.named_runs import named_run
from scripts import evaluate


@pytest.fixture
def output(tmp_path):
    """Runs of two methods, one of them with two variants; the names of their folders."""
    folder = tmp_path / "output"
    rows = [("CoOp", "default"), ("ViP", "symptoms-0123456789ab")]
    rows.append(("CoOp", "N_CTX=8"))
    for when, (trainer, variant) in enumerate(rows):
        for seed in (1, 2):
            place = folder / "synthderm" / trainer / "tiny" / variant / f"seed{seed}"
            place.mkdir(parents=True)
            options = {"TRAINER.COOP.N_CTX": "8"} if "N_CTX" in variant else {}
            record = {"format": 1, "dataset": "synthderm", "trainer": trainer, "backbone": "tiny"}
            record |= {"seed": seed, "variant": variant, "options": options}
            record |= {"metrics": {"accuracy": 0.5, "macro_f1": 0.5}}
            (place / "results.json").write_text(json.dumps(record))
            os.utime(place / "results.json", (when * 10 + seed, when * 10 + seed))
    return folder


@pytest.mark.parametrize(
    ("name", "latest", "found"),
    [
        ("ViP/tiny", False, "ViP/tiny/symptoms-0123456789ab/seed1"),
        ("vip", False, "ViP/tiny/symptoms-0123456789ab/seed1"),
        ("synthderm/ViP/tiny", False, "ViP/tiny/symptoms-0123456789ab/seed1"),
        ("ViP/tiny/seed2", False, "ViP/tiny/symptoms-0123456789ab/seed2"),
        ("ViP/tiny", True, "ViP/tiny/symptoms-0123456789ab/seed2"),
        ("CoOp/tiny/default", False, "CoOp/tiny/default/seed1"),
        ("CoOp", True, "CoOp/tiny/N_CTX=8/seed2"),
    ],
)
def test_short_names(output, name, latest, found):
    """Parts of a run's folder without hashes; seed 1 stands for the seeds of one run."""
    assert named_run(name, latest, output) == output / "synthderm" / found


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CoOp/tiny", "matches 4 runs; choose one of .*N_CTX=8/seed1"),
        ("MaPLe", "CoOp/tiny, ViP"),
    ],
)
def test_a_name_of_several_runs_or_none_lists_the_candidates(output, name, message):
    with pytest.raises(InputError, match=message):
        named_run(name, root=output)


def test_a_folder_is_itself(output, tmp_path):
    """Also one of a run that did not end, and one that is not there."""
    assert named_run(str(tmp_path), root=output) == tmp_path
    assert str(named_run("nowhere", root=tmp_path / "none")) == "nowhere"


@pytest.mark.parametrize("command", [predict, explain, evaluate])
def test_every_command_that_wants_a_run_takes_a_name(output, command, monkeypatch):
    words = ["CoOp/tiny", "--runs", str(output)]
    words += {predict: ["--images", "a.png"], explain: [], evaluate: ["synthderm"]}[command]
    monkeypatch.setattr("datasets.pictures.pictures_at", lambda paths: [])
    with pytest.raises(InputError, match="CoOp/tiny matches 4 runs"):
        command.main(words)
