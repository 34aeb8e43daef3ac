"""Options tuned on validation: what is tried, what is chosen, and how the tables say so."""

import csv
from types import SimpleNamespace

import pytest

import train
from core.errors import InputError
from engine.config import load_cfg, run_folder
from engine.method import METHODS
from results.record import read_record, write_record
from results.rows import methods_of
from results.runs import find_runs
from scripts import compare, tune
from scripts.jobs import Outcome


@pytest.fixture
def words(toy, short):
    """``words(*options)``: a command line that tunes KgCoOp on the toy dataset."""

    def build(*options, seeds=("1", "2")):
        return [
            *("KgCoOp", str(toy / "toy.yaml"), str(toy / "random.yaml")),
            *("--root", str(toy / "data"), "--output", str(toy / "output")),
            *("--seeds", *seeds, *options, *short, "OPTIM.MAX_EPOCH", "1"),
        ]

    return build


class Planted:
    """In the place of runs: leaves records whose validation accuracies are planted.

    Attributes:
        accuracies: the value of W in a command -> the validation accuracy; None: the run fails.
        commands: of the runs that were started.
    """

    def __init__(self, accuracies):
        self.accuracies, self.commands = accuracies, []

    def __call__(self, job, *_):
        if job.is_complete:
            return Outcome(job, "complete")
        self.commands.append(job.command)
        options = dict(zip(job.command[-2::-2], job.command[-1::-2], strict=False))
        weight = float(options["TRAINER.KGCOOP.W"])
        accuracy = self.accuracies[weight]
        if accuracy is None:
            return Outcome(job, "failed", "no memory")
        tuned = options.get("RUN.TUNED")
        job.folder.mkdir(parents=True)
        said = {"TRAINER.KGCOOP.W": str(weight)} if weight != 8 else {}
        said |= {"RUN.TUNED": tuned} if tuned else {}
        record = {"dataset": "toy", "trainer": "KgCoOp", "backbone": "random", "seed": job.seed}
        record |= {"options": said, "validation": {"accuracy": accuracy, "epoch": 1}}
        # The test accuracy is best where validation is worst.
        record |= {"metrics": {"accuracy": 1 - accuracy, "macro_f1": 0.5}}
        write_record(job.folder, record)
        (job.folder / "config.yaml").write_text("SEED: 1\n")
        return Outcome(job, "trained")


@pytest.fixture
def planted(monkeypatch):
    """``planted({1.0: 0.5, ...})``: no run is trained, no table printed."""
    monkeypatch.setattr(compare, "call", lambda command: 0)

    def plant(accuracies):
        runs = Planted(accuracies)
        monkeypatch.setitem(compare.EXECUTORS, "local", lambda jobs, *_: map(runs, jobs))
        return runs

    return plant


def test_the_best_on_validation_is_trained_with_every_seed(toy, words, planted, capsys):
    """The grid is tried with the first seed on validation images alone, then the best is a row."""
    runs = planted({1.0: 0.6, 2.0: 0.9, 4.0: 0.7, 8.0: 0.5})

    assert tune.main(words(seeds=("3", "4"))) == 0
    *search, first, second = runs.commands
    assert [command[command.index("--seed") + 1] for command in search] == ["3"] * 4
    assert all(" ".join(command).count("TEST.SPLIT val") == 1 for command in search)
    for command, seed in ((first, "3"), (second, "4")):
        assert "TEST.SPLIT" not in command and command[command.index("--seed") + 1] == seed
        assert " ".join(command).count("TRAINER.KGCOOP.W 2.0 RUN.TUNED W=2.0") == 1
    (method,) = methods_of(find_runs(toy / "output"))
    assert method.label == "KgCoOp (tuned on validation: W=2.0)"
    assert [run.seed for run in method.runs] == [3, 4]

    (table,) = (toy / "output" / "_tuning").rglob("tuning.csv")
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["W"], row["validation ACC"], row["chosen"]) for row in rows] == [
        *(("8.0", "0.5", ""), ("4.0", "0.7", ""), ("2.0", "0.9", "yes"), ("1.0", "0.6", "")),
    ]
    out = capsys.readouterr().out
    assert out.index("W=1.0,2.0,4.0,8.0") < out.index("4 runs") < out.index("chosen: W=2.0")
    assert "KgCoOp (tuned on validation: W=2.0), random, seed 4" in out


def test_of_equal_ones_the_nearest_to_the_defaults(words, planted):
    """W is 8 by default, so 4 is taken before 2."""
    runs = planted({1.0: 0.6, 2.0: 0.9, 4.0: 0.9, 8.0: 0.5})

    assert tune.main(words()) == 0
    assert "RUN.TUNED W=4.0" in " ".join(runs.commands[-1])


def test_combinations_are_sorted_by_their_distance_from_the_defaults(toy, words):
    """Numbers by their distance, other values in their order, the default first."""
    line = words("--grid", "W=1,16,8,1.0", "CLASS_TOKEN_POSITION=front,end")
    args = tune.parse_args(line)
    tried = tune.combinations(args, tune.grid_of("KgCoOp", args.grid))

    assert [tuple(values.values()) for values in tried] == [
        *((8.0, "end"), (8.0, "front"), (1.0, "end")),
        *((1.0, "front"), (16.0, "end"), (16.0, "front")),
    ]


def test_complete_runs_are_kept_and_failed_ones_tried_again(toy, words, planted, capsys):
    """Nothing is chosen before every combination has a result."""
    planted({1.0: 0.6, 2.0: None, 4.0: 0.7, 8.0: 0.5})
    assert tune.main(words()) == 1
    assert "nothing is chosen" in capsys.readouterr().out
    assert find_runs(toy / "output") == []
    again = planted({2.0: 0.1, 4.0: 0.8})  # of 4, the first result stands

    assert tune.main(words()) == 0
    assert len(again.commands) == 1 + 2
    assert "W=2.0" not in " ".join(again.commands[-1])
    assert "chosen: W=4.0" in capsys.readouterr().out


def test_a_tuned_run_is_not_an_untuned_one_with_the_same_options(toy):
    """Other folders, other rows; a value that is the default is named all the same."""
    place = (str(toy / "toy.yaml"), str(toy / "random.yaml"))
    folders, runs = [], toy / "output"
    for opts in ([], ["W", "8"], ["RUN.TUNED", "W=8.0"], ["W", "2"]):
        cfg, options = load_cfg("KgCoOp", *place, opts=opts)
        folders.append(run_folder(cfg, options))
        if opts != ["W", "8"]:
            record = {"dataset": "toy", "trainer": "KgCoOp", "backbone": "random", "seed": 1}
            record |= {"options": {k: str(v) for k, v in options.items()}}
            (runs / folders[-1]).mkdir(parents=True)
            metrics = {"accuracy": 0.5, "macro_f1": 0.5}
            write_record(runs / folders[-1], record | {"metrics": metrics})

    assert folders[0] == folders[1] != folders[2]
    assert [method.label for method in methods_of(find_runs(runs))] == [
        *("KgCoOp", "KgCoOp (W=2.0)", "KgCoOp (tuned on validation: W=8.0)"),
    ]


def test_options_that_were_not_tuned_stay_apart_in_the_name(toy):
    """What the user gave stands as ever; what was tuned follows."""
    options = {
        "TRAINER.KGCOOP.N_CTX": "8",
        "TRAINER.KGCOOP.W": "2.0",
        "RUN.TUNED": "W=2.0,CLASS_TOKEN_POSITION=end",
    }
    texts = tune.compare.option_texts("KgCoOp", options)
    assert texts == ["N_CTX=8", "tuned on validation: W=2.0, CLASS_TOKEN_POSITION=end"]


def test_real_runs(toy, words, monkeypatch):
    """Runs of train.py: those of the search are tested on validation images, the chosen on test."""
    monkeypatch.setattr(compare, "call", lambda command: 0)

    def in_process(job, *_):
        train.main(job.command[2:])
        return Outcome(job, "trained")

    monkeypatch.setitem(compare.EXECUTORS, "local", lambda jobs, *_: map(in_process, jobs))
    assert tune.main(words("--grid", "W=1,2", seeds=["1"])) == 0

    searched = [read_record(p.parent) for p in (toy / "output/_tuning").rglob("results.json")]
    assert {(run.split, run.options["TRAINER.KGCOOP.W"]) for run in searched} == {
        *(("val", "1.0"), ("val", "2.0")),
    }
    assert all(run.metrics.accuracy == run.validation.accuracy for run in searched)
    (chosen,) = find_runs(toy / "output")
    assert chosen.record.split == "test" and chosen.options["RUN.TUNED"].startswith("W=")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: ["CoOp", *w[1:]], "CoOp has no grid of options to tune; give one, as in --grid"),
        (lambda w: [*w, "--grid", "X=1"], "KgCoOp has no option 'X'; choose of PREC, N_CTX"),
        (lambda w: [*w, "--grid", "W="], "--grid 'W=': has no values; give W=1,2,4"),
        (lambda w: [*w, "--grid", "W=1,-1"], "KGCOOP.W is -1.0; it should be at least 0"),
        (lambda w: [*w, "W", "3"], "W is in the grid; leave it out"),
        (lambda w: [*w, "TRAINER.KGCOOP.W", "3"], "TRAINER.KGCOOP.W is in the grid"),
        (lambda w: [*w, "--max-runs", "3"], "has 4 combinations, more than --max-runs 3"),
        (lambda w: [*w[:3], "tiny", *w[3:]], "takes one backbone"),
        (lambda w: [*w[:2], *w[3:]], "takes one backbone"),
        (lambda w: [*w, "TEST.SPLIT", "val"], "tune.sh chooses TEST.SPLIT itself"),
        (lambda w: [*w, "RUN.TUNED", "W=1"], "RUN.TUNED is not an option of a script; use tune.sh"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(toy, words, planted, change, message):
    runs = planted({})
    with pytest.raises(InputError, match="(?s)" + message.replace(".", r"\.")):
        tune.main(change(words()))

    assert not runs.commands and not (toy / "output").exists()


def test_without_validation_images_nothing_starts(toy, words, planted, monkeypatch):
    runs = planted({})
    monkeypatch.setattr(tune, "read_dataset", lambda cfg: SimpleNamespace(val=[]))
    with pytest.raises(InputError, match="it has no validation images to choose options with"):
        tune.main(words())

    assert not runs.commands and not (toy / "output").exists()


@pytest.mark.parametrize("name", METHODS)
def test_every_method_s_own_grid_is_of_its_options(name):
    """And small enough to be searched without further words."""
    runs = 1
    for option, values in METHODS[name].GRID.items():
        assert len(set(values)) == len(values) > 1
        runs *= len(values)
        for value in values:
            METHODS[name](**{option: value})
    assert runs <= 64
