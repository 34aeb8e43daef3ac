"""base_to_new.sh: which methods it runs, in which order, and what it prints."""

import shutil

import pytest

import train
from core.errors import InputError
from engine.method import METHODS
from results.record import read_record
from scripts import base_to_new, compare, evaluate
from scripts.base_to_new import learned_of_each_class
from scripts.jobs import Outcome


@pytest.fixture
def six(toy):
    """The toy dataset with four classes more: three are its base half, three its new one."""
    for split in ("train", "val", "test"):
        for name in ("green", "grey", "pink", "white"):
            shutil.copytree(
                toy / "data" / "toy" / split / "red", toy / "data" / "toy" / split / name
            )
    names = "[red, blue, green, grey, pink, white]"
    text = (toy / "toy.yaml").read_text().replace("[red, blue]", names)
    (toy / "toy.yaml").write_text(text)
    symptoms = "{" + ", ".join(f'"{n}": ["{n} like x", "y"]' for n in names[1:-1].split(", ")) + "}"
    (toy / "symptoms.json").write_text(symptoms)
    return toy


@pytest.fixture
def words(six, short):
    """``words(methods, *options)``: a command line for them on the six classes."""

    def build(methods, *options):
        return [
            *(str(six / "toy.yaml"), str(six / "random.yaml"), "--root", str(six / "data")),
            *("--output", str(six / "output"), "--seeds", "1", "2", "--methods", *methods),
            *(*short, "OPTIM.MAX_EPOCH", "1", *options),
        ]

    return build


@pytest.mark.parametrize(
    "name, options, keys",
    [
        ("CoOp", {}, []),
        ("CoOp", {"CSC": True}, ["ctx"]),
        ("ViP", {}, []),
        ("ViP", {"CSC": True}, ["prompt_learner.ctx"]),
        ("ZeroshotCLIP", {}, []),
        ("LinearProbe", {}, ["weight", "bias"]),
        ("Supervised", {}, None),
    ],
)
def test_what_has_nothing_for_new_classes(name, options, keys):
    found = learned_of_each_class(METHODS[name](**options))
    assert found == keys if keys is not None else found


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_whether_it_can_score_new_classes(name):
    assert isinstance(learned_of_each_class(METHODS[name]()), list)


def run_none(jobs, failing="nothing"):
    """A run_job that runs nothing; a job whose row starts with ``failing`` fails."""

    def run(job):
        jobs.append(job)
        if job.row.startswith(failing):
            return Outcome(job, "failed", "a reason")
        return Outcome(job, "trained")

    return run


@pytest.fixture
def started(monkeypatch):
    """The jobs that would run and the tables that would be printed; every job but KgCoOp's ends."""
    jobs, tables = [], []
    run = run_none(jobs, failing="KgCoOp")
    monkeypatch.setitem(compare.EXECUTORS, "local", lambda jobs, *_: map(run, jobs))
    monkeypatch.setattr(compare, "call", lambda command: tables.append(command) or 0)
    # Nothing was written, so nothing has a record.
    monkeypatch.setattr(Outcome, "record", property(lambda self: self.status == "trained" or None))
    monkeypatch.setattr("scripts.progress._describe", lambda outcome: outcome.status)
    return jobs, tables


def test_several_methods_are_trained_then_tested(words, started, capsys):
    jobs, tables = started
    status = base_to_new.main(words(["CoOp", "KgCoOp", "ZeroshotCLIP", "LinearProbe"]))
    names = [(job.row, job.seed) for job in jobs]
    out = capsys.readouterr().out

    base = [name for name in names if "base classes" in name[0]]
    new = [name for name in names if "new classes" in name[0]]
    assert names == base + new
    assert base == [
        ("ZeroshotCLIP, base classes", 1),
        ("ZeroshotCLIP (PROMPTS=symptoms), base classes", 1),
        ("CoOp, base classes", 1),
        ("KgCoOp, base classes", 1),
        ("CoOp, base classes", 2),
        ("KgCoOp, base classes", 2),
    ]
    assert [(row.replace("new", "base"), seed) for row, seed in new] == [
        name for name in base if "KgCoOp" not in name[0]
    ]
    assert "nothing for new classes: LinearProbe (weight, bias)" in out
    assert "failed: a reason" in out and status == 1
    assert len(tables) == 1


def test_each_job_has_its_half_and_the_tested_run_is_the_trained(words, started, six):
    jobs, _ = started
    base_to_new.main(words(["CoOp"], "DATASET.NUM_SHOTS", "4"))
    train, test = jobs[0], jobs[2]

    assert train.command[-2:] == ["DATASET.SUBSAMPLE_CLASSES", "base"]
    assert test.command[-2:] == ["DATASET.SUBSAMPLE_CLASSES", "new"]
    assert str(train.folder) in test.command
    assert "NUM_SHOTS_4" in str(train.folder)


def test_no_method_for_new_classes_is_one_line(words, started):
    with pytest.raises(InputError, match="none of the methods can score new classes") as raised:
        base_to_new.main(words(["LinearProbe"]))
    assert "LinearProbe (weight, bias)" in str(raised.value) and "\n" not in str(raised.value)
    assert started == ([], [])


@pytest.mark.parametrize(
    "methods, options, message",
    [
        (["VPT"], [], "--methods VPT: neither a method of this experiment"),
        (["CoOp"], ["OPTIM.LRR", "1"], "there is no setting OPTIM.LRR"),
        (["CoOp"], ["OPTIM.LR", "-1"], "OPTIM.LR is -1"),
        (["CoOp"], ["MERGE", "mean"], "none of these methods has a setting MERGE"),
        (["CoOp"], ["DATASET.SUBSAMPLE_CLASSES", "all"], "base_to_new.sh chooses"),
    ],
)
def test_wrong_words_are_one_line(words, started, methods, options, message):
    with pytest.raises(InputError, match=message):
        base_to_new.main(words(methods, *options))
    assert started == ([], [])


def test_one_method_that_has_nothing_for_new_classes_is_one_line(six):
    data = [str(six / "toy.yaml"), str(six / "random.yaml"), "--root", str(six / "data")]
    with pytest.raises(InputError, match="new classes: LinearProbe .weight, bias."):
        base_to_new.main(["LinearProbe", *data])


@pytest.mark.slow
def test_a_true_run_ends_in_the_table_and_is_not_run_again(words, six, capfd):
    """Both halves of each method in one table; the second time every run is complete."""
    line = words(["CoOp", "ZeroshotCLIP", "ViP"])
    line[line.index("--seeds") + 2 : line.index("--methods")] = []
    assert base_to_new.main(line) == 0
    first = capfd.readouterr().out
    times = {p: p.stat().st_mtime_ns for p in (six / "output").rglob("results.json")}
    assert base_to_new.main(line) == 0
    second = capfd.readouterr().out

    assert len(times) == 10  # two rows of ZeroshotCLIP and of ViP, one of CoOp; two halves
    halves = {read_record(path.parent).subsample_classes for path in times}
    assert halves == {"base", "new"}
    assert times == {p: p.stat().st_mtime_ns for p in (six / "output").rglob("results.json")}
    assert "5 complete" in second
    table = first[first.index("base to new") :]
    assert [line for line in table.splitlines() if line.startswith("| ")][0].split() == (
        "| method | base ACC | new ACC | HM ACC | base F1 | new F1 | HM F1 |".split()
    )
    assert table == second[second.index("base to new") :]
    assert "no runs" not in table


@pytest.mark.parametrize(
    "trainer, options, value",
    [
        ("ViP", ["TRAINER.VIP.ANCHOR", "3"], "3.0"),
        ("ZeroshotCLIP", ["TRAINER.ZEROSHOTCLIP.PROMPTS", "symptoms"], "symptoms"),
    ],
)
def test_the_folder_of_a_test_is_the_one_that_it_writes(six, short, trainer, options, value):
    """What tells a complete test from one to be made looks where the test leaves its results."""
    args = base_to_new.parse_args(
        [
            *(str(six / "toy.yaml"), str(six / "random.yaml"), "--root", str(six / "data")),
            *("--output", str(six / "output"), "--methods", trainer, *short),
        ],
        several=True,
    )
    base, new = base_to_new.make_pair(args, trainer, options, args.backbones[0], 1)
    train.main(base.command[2:])
    evaluate.main(new.command[3:])

    record = read_record(new.folder)
    assert record.subsample_classes == "new" and record.options[options[0]] == value
    assert "symptoms-" in new.folder.parent.name
    again = base_to_new.make_pair(args, trainer, options, args.backbones[0], 1)
    assert [job.is_complete for job in again] == [True, True]
