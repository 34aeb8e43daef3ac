"""The scripts that make several runs: how they read their words, and what they start."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from core.errors import InputError
from scripts import base_to_new, compare, few_shot, run_seeds
from scripts.arguments import PAPER_BACKBONES
from scripts.jobs import Outcome

SCRIPTS = Path(__file__).parent.parent / "scripts"

# Every shell script that reads DATASET [BACKBONE ...], with the words before them.
SHELL = {
    "compare.sh": "-m scripts.compare --root /data",
    "few_shot.sh": "-m scripts.few_shot --root /data",
    "base_to_new.sh": "-m scripts.base_to_new --root /data",
    "benchmark.sh": "-m scripts.benchmark --root /data",
    "tune.sh": "-m scripts.tune --root /data",
    "run_seeds.sh": "-m scripts.run_seeds --root /data",
    "evaluate.sh": "-m scripts.evaluate --root /data",
    "vip/ablation.sh": "-m scripts.compare --root /data --experiment ablation",
    "vip/knowledge.sh": "-m scripts.compare --root /data --experiment knowledge",
    "vip/anchor.sh": "-m scripts.anchor --root /data",
    "zeroshot/main.sh": "-m scripts.compare --root /data --experiment zeroshot",
    "vip/main.sh": "-m scripts.run_seeds --root /data ViP",
    "vip/eval.sh": "-m scripts.evaluate --root /data --trainer ViP",
    "coop/main.sh": "-m scripts.run_seeds --root /data CoOp",
    "coop/eval.sh": "-m scripts.evaluate --root /data --trainer CoOp",
}


@pytest.fixture
def called(tmp_path):
    """``called(script, *words)``: the commands of a script whose Python only writes them down."""
    log, python = tmp_path / "log", tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$*" >>"{log}"\n')
    python.chmod(0o755)

    def run(script, *words):
        env = {**os.environ, "PYTHON": str(python), "DATA": "/data"}
        subprocess.run(["bash", SCRIPTS / script, *words], check=True, env=env)
        return log.read_text().splitlines()

    return run


@pytest.mark.parametrize("script", SHELL)
def test_a_shell_script_hands_its_words_on(called, script):
    """One Python command, which reads them all."""
    words = "derm7pt vit_b16 --seeds 1 -- OPTIM.LR 0.1"
    assert called(script, *words.split()) == [f"{SHELL[script]} {words}"]


def test_every_method_s_scripts_are_alike():
    """main.sh and eval.sh of each method call the two scripts that all share.

    VisionLLM alone has no eval.sh: nothing is trained that another dataset could test.
    """
    folders = {path for path in SCRIPTS.iterdir() if (path / "main.sh").exists()}
    for folder in folders - {SCRIPTS / "vision_llm"}:
        assert "evaluate.sh" in (folder / "eval.sh").read_text()
        main = (folder / "main.sh").read_text()
        assert "run_seeds.sh" in main or "launch.sh" in main


# The one parser: each script that shares it, as function(words) -> arguments.


@pytest.fixture
def started(monkeypatch):
    """The commands that scripts start, which here do nothing and succeed."""
    commands = []

    def call(command):
        commands.append(command)
        return 0

    def run(jobs, *_):
        for job in jobs:
            commands.append(job.command)
            yield Outcome(job, "trained")

    for script in (compare, few_shot, run_seeds):
        monkeypatch.setattr(script, "call", call)
    monkeypatch.setitem(compare.EXECUTORS, "local", run)
    # Nothing was written, so nothing has a record.
    monkeypatch.setattr(Outcome, "record", property(lambda self: self.status == "trained" or None))
    monkeypatch.setattr("scripts.progress._describe", lambda outcome: outcome.status)
    return commands


MAINS = {
    "compare": (compare.main, []),
    "few_shot": (few_shot.main, []),
    "run_seeds": (run_seeds.main, ["CoOp"]),
    "base_to_new": (base_to_new.main, ["CoOp"]),
    "ablation": (compare.main, ["--experiment", "ablation"]),
    "zeroshot": (compare.main, ["--experiment", "zeroshot"]),
}

ORDERS = [
    "{dataset} {backbone} OPTIM.MAX_EPOCH 2",
    "{dataset} {backbone} -- OPTIM.MAX_EPOCH 2",
    "{dataset} OPTIM.MAX_EPOCH 2 {backbone}",
    "OPTIM.MAX_EPOCH 2 {dataset} {backbone}",
    "{dataset} {backbone} OPTIM.MAX_EPOCH 2 -- PREC fp32",
    "{dataset} {backbone} PREC fp32 OPTIM.MAX_EPOCH 2",
    "{dataset} {backbone} OPTIM.MAX_EPOCH 2 --seeds 1",
]


@pytest.mark.parametrize("words", ORDERS)
def test_an_option_is_never_a_backbone(words):
    """By its form, with and without ``--``, before and after the other words."""
    args = compare.parse_args(words.format(dataset="derm7pt", backbone="tiny").split())

    assert (args.dataset, args.backbones) == ("derm7pt", ["tiny"])
    assert args.opts[args.opts.index("OPTIM.MAX_EPOCH") + 1] == "2"
    assert ("PREC" in args.opts) == ("PREC" in words)


@pytest.mark.parametrize("script", ["few_shot", "run_seeds", "base_to_new"])
def test_options_reach_every_run(toy, started, script, monkeypatch):
    """And one backbone stays one: the number of runs says so."""
    monkeypatch.setattr(few_shot.compare, "run_all", lambda args: started.append(vars(args)))
    main, first = MAINS[script]
    words = [str(toy / "toy.yaml"), str(toy / "random.yaml"), "OPTIM.MAX_EPOCH", "2"]
    main([*first, *words, "--seeds", "1", "2", "--root", str(toy / "data")])
    *runs, tables = started

    assert "parse_results.py" in " ".join(tables)
    if script == "few_shot":
        assert [args["opts"][2:] for args in runs] == [
            ["DATASET.NUM_SHOTS", str(n)] for n in (1, 2, 4, 8, 16)
        ]
        assert all(args["backbones"] == [words[1]] for args in runs)
        assert all(args["opts"][:2] == words[2:] for args in runs)
    else:
        trained = [command for command in runs if "train.py" in command[1]]
        assert len(trained) == 2
        assert all(command[command.index("OPTIM.MAX_EPOCH") + 1] == "2" for command in trained)


WRONG = [
    ("nowhere tiny", "there is no configs/datasets/nowhere.yaml"),
    ("derm7pt tinny", "there is no configs/backbones/tinny.yaml"),
    ("derm7pt tiny rn51", "there is no configs/backbones/rn51.yaml"),
    ("derm7pt tiny optim.max_epoch 2", "there is no configs/backbones/optim.max_epoch.yaml"),
    ("derm7pt tiny OPTIM.MAX_EPOCHS 2", "there is no setting OPTIM.MAX_EPOCHS; did you mean"),
    ("derm7pt tiny -- optim.max_epoch 2", "did you mean OPTIM.MAX_EPOCH?"),
    ("derm7pt tiny -- 2", "'2' is not a setting"),
    ("derm7pt tiny OPTIM.MAX_EPOCH", "'OPTIM.MAX_EPOCH' has no value"),
    ("derm7pt tiny OPTIM.MAX_EPOCH --seeds 1", "'OPTIM.MAX_EPOCH' has no value"),
    ("derm7pt tiny OPTIM.MAX_EPOCH 0", "OPTIM.MAX_EPOCH is 0; it should be at least 1"),
    ("derm7pt tiny DATALOADER.TRAIN_X.SAMPLER nope", "SAMPLER has no effect"),
    ("derm7pt tiny SEED 2", "SEED is not an option of a script; use --seeds"),
    ("derm7pt tiny OUTPUT_DIR x", "use --output"),
    ("derm7pt tiny --seeds -1", "should be from 0 to 4294967295"),
    ("derm7pt tiny --seeds 4294967296", "should be from 0 to 4294967295"),
    ("derm7pt tiny --seeds one", "should be a whole number"),
    ("derm7pt tiny --nope", "unrecognized arguments: --nope"),
    ("", "required: "),
]


@pytest.mark.parametrize("words", WRONG, ids=lambda pair: pair[0])
@pytest.mark.parametrize("script", MAINS)
def test_wrong_words_are_one_line_before_anything_starts(started, script, words):
    """The same for every script."""
    main, first = MAINS[script]
    given, message = words
    with pytest.raises(InputError) as raised:
        main([*first, *given.split()])

    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert not started


@pytest.mark.parametrize(
    ("script", "key", "value"),
    [("few_shot", "DATASET.NUM_SHOTS", "4"), ("base_to_new", "DATASET.SUBSAMPLE_CLASSES", "all")],
)
def test_what_a_script_chooses_itself_is_refused(started, script, key, value):
    main, first = MAINS[script]
    with pytest.raises(InputError, match=f"{script}.sh chooses {key} itself"):
        main([*first, "derm7pt", "tiny", key, value])
    assert not started


def test_seeds_come_from_the_environment_too(monkeypatch):
    monkeypatch.setenv("SEEDS", "4 5")
    assert compare.parse_args(["derm7pt"]).seeds == [4, 5]
    assert compare.parse_args(["derm7pt", "--seeds", "1", "1"]).seeds == [1]
    assert compare.parse_args(["derm7pt"]).backbones == list(PAPER_BACKBONES)


@pytest.mark.parametrize(
    "options, variant",
    [
        ([], "base"),
        (["OPTIM.LR", "0.1"], "base_OPTIM.LR_0.1"),
        (["PREC", "fp16"], "base_TRAINER.COOP.PREC_fp16"),
    ],
)
def test_base_to_new_names_its_folder_by_the_options(toy, started, options, variant):
    words = [str(toy / "toy.yaml"), str(toy / "random.yaml"), "--root", str(toy / "data")]
    base_to_new.main(["CoOp", *words, "--seeds", "1", *options])
    train, evaluate, _ = started
    folder = f"output/toy/CoOp/random/{variant}/seed1"

    assert train[train.index("--output-dir") + 1] == folder
    assert train[-2:] == ["DATASET.SUBSAMPLE_CLASSES", "base"]
    assert evaluate[1:5] == ["-m", "scripts.evaluate", folder, str(toy / "toy.yaml")]


def test_a_failing_run_leaves_the_others_and_is_named(toy, started, monkeypatch, capsys):
    def run(jobs, *_):
        for job in jobs:
            yield Outcome(job, "failed" if job.seed == 2 else "trained", "a reason")

    monkeypatch.setitem(compare.EXECUTORS, "local", run)
    words = [str(toy / "toy.yaml"), str(toy / "random.yaml"), "--root", str(toy / "data")]
    assert run_seeds.main(["ViP", *words]) == 1
    assert "2 trained, 1 failed\nfailed: a reason\n  ViP, random, seed 2" in capsys.readouterr().out
    assert len(started) == 1  # the table of the others


def test_what_prevents_every_run_is_one_line_before_anything_starts(toy, started):
    """A dataset that is not there, or weights."""
    words = [str(toy / "toy.yaml"), str(toy / "random.yaml"), "--root", str(toy / "data")]
    for main, first in (MAINS[name] for name in ("run_seeds", "base_to_new", "compare")):
        with pytest.raises(InputError, match="nowhere"):
            main([*first, *words, "DATASET.PATH", str(toy / "nowhere")])
        source = ["MODEL.BACKBONE.SOURCE", "a site"]
        with pytest.raises(InputError, match="there is no file or folder nothing.pt"):
            main([*first, *words, *source, "MODEL.BACKBONE.PATH", "nothing.pt"])
    assert not started


def test_zero_shot_is_run_once(toy, started):
    """Not again for each seed, number of shots or epochs: its folder is the same."""
    words = [str(toy / "toy.yaml"), str(toy / "random.yaml"), "--root", str(toy / "data")]

    def folders(*options):
        args = compare.parse_args([*words, "--methods", "ZeroshotCLIP", "CoOp", *options])
        jobs = compare.make_jobs(args, compare.chosen_rows(args))
        return [(job.row, job.folder) for job in jobs]

    plain, other = folders(), folders("DATASET.NUM_SHOTS", "4", "OPTIM.MAX_EPOCH", "2")
    zero = [[pair for pair in found if "Zeroshot" in pair[0]] for found in (plain, other)]
    assert zero[0] == zero[1] and len(zero[0]) == 2
    assert not set(plain) - set(zero[0]) & set(other)


def test_no_circle_among_the_scripts():
    """No module of scripts/ imports one that imports it back, late imports included."""
    imports = {}
    for path in SCRIPTS.glob("*.py"):
        names = re.findall(r"from scripts(?:\.(\w+))? import (\w+)", path.read_text())
        imports[path.stem] = {module or name for module, name in names}

    order = []
    while imports.keys() - set(order):
        free = [m for m in imports if m not in order and imports[m] <= set(order)]
        assert free, f"a circle among {imports.keys() - set(order)}"
        order += free
