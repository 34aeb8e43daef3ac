"""Which rows a comparison has: sets of methods, and schedules of methods' own papers."""

import shutil

import pytest
from results_runs import write_run

import trainers  # noqa: F401  (registers the methods)
from core.errors import InputError
from engine import config
from engine.method import METHODS
from results.choices import Choices
from results.method_tables import paper_tables
from results.runs import find_runs
from scripts import compare, run_seeds
from scripts.experiments import is_in, method_rows, rows_of

OWN = "# Its paper trains 100 epochs with batch 4 (Nobody, 2030, section 4).\nOPTIM:\n  LR: 0.5\n"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A copy of configs/ in which CoOp alone has a schedule of its own."""
    configs = tmp_path / "configs"
    shutil.copytree(config.CONFIGS, configs)
    shutil.rmtree(configs / "trainers" / "own", ignore_errors=True)
    (configs / "trainers" / "own").mkdir()
    (configs / "trainers" / "own" / "CoOp.yaml").write_text(OWN)
    for module in (config, compare):
        monkeypatch.setattr(module, "CONFIGS", configs)
    return configs


def rows(*words):
    return compare.chosen_rows(compare.parse_args(["synthderm", "tiny", *words]))


def names(found):
    return {trainer for trainer, _ in found}


def in_set(name):
    return {trainer for trainer, method in METHODS.items() if name in method.sets}


# Sets


def test_the_default_is_the_papers_methods_and_the_strong_that_take_seconds():
    quick = {name for name in in_set("strong") if METHODS[name].fitted_at_once}
    assert names(rows()) == in_set("paper") | quick
    assert "LinearProbe" in quick


@pytest.mark.parametrize(
    "words, expected",
    [
        (["paper"], lambda: in_set("paper")),
        (["strong"], lambda: in_set("strong")),
        (["all"], lambda: set(METHODS)),
        (["PAPER"], lambda: in_set("paper")),
        (["coop"], lambda: {"CoOp"}),
        (["strong", "ViP"], lambda: in_set("strong") | {"ViP"}),
    ],
)
def test_methods_takes_sets_and_names_in_any_case(words, expected):
    assert names(rows("--methods", *words)) == expected()


def test_a_method_of_no_set_is_run_by_its_name_and_in_all(monkeypatch):
    monkeypatch.setattr(METHODS["MaPLe"], "sets", ())
    assert not is_in("MaPLe", []) and not is_in("MaPLe", ["paper", "strong"])
    assert is_in("MaPLe", ["maple"]) and is_in("MaPLe", ["all"])


def test_rows_follow_the_places_of_their_methods():
    places = [METHODS[trainer].place for trainer, _ in method_rows("derm7pt")]
    assert places == sorted(places)


def test_every_row_of_a_method_is_run_with_its_options():
    assert rows_of("ZeroshotCLIP") == [
        ("ZeroshotCLIP", []),
        ("ZeroshotCLIP", ["TRAINER.ZEROSHOTCLIP.PROMPTS", "symptoms"]),
    ]


def test_a_set_without_a_method_of_the_experiment_is_one_line():
    with pytest.raises(InputError, match="strong: no method of this experiment is in it; it has"):
        rows("--experiment", "ablation", "--methods", "strong")


def test_an_experiment_keeps_all_its_rows_without_methods():
    assert len(rows("--experiment", "ablation")) == 6
    assert len(rows("--experiment", "ablation", "--methods", "paper")) == 6


# Schedules of methods' own papers


def test_a_method_with_its_own_schedule_has_a_row_of_it(own):
    found = rows("--methods", "CoOp", "KgCoOp")
    assert found == [("CoOp", []), ("CoOp", ["PROTOCOL", "own"]), ("KgCoOp", [])]


def test_protocol_own_runs_each_such_method_once_and_names_the_others(own, capsys):
    found = rows("--methods", "CoOp", "KgCoOp", "ViP", "PROTOCOL", "own")
    assert found == [("CoOp", [])]
    assert "left out, with no schedule of their own: KgCoOp, ViP" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["PROTOCOL", "shared"], "PROTOCOL own PROTOCOL shared".split()])
def test_protocol_shared_leaves_the_own_rows_out(own, words):
    assert rows("--methods", "CoOp", *words) == [("CoOp", [])]


def test_protocol_own_alone_is_the_same_run_as_the_row(own, toy):
    """The row of a comparison and PROTOCOL own share a folder: it is trained once."""
    base = [str(toy / "toy.yaml"), str(toy / "random.yaml"), "--root", str(toy / "data")]
    base += ["--seeds", "1", "--methods", "CoOp"]
    jobs = {}
    for words in ([], ["PROTOCOL", "own"]):
        args = compare.parse_args([*base, *words])
        jobs[bool(words)] = compare.make_jobs(args, compare.chosen_rows(args))
    plain, row = jobs[False]

    assert row.row == "CoOp (PROTOCOL=own)" and row.folder.parent.name == "PROTOCOL=own"
    assert [job.folder for job in jobs[True]] == [row.folder] != [plain.folder]
    assert jobs[True][0].command == row.command


def test_the_own_schedule_changes_the_settings_and_is_the_only_option(own):
    cfg, options = config.load_cfg("CoOp", "derm7pt", "tiny", opts=["PROTOCOL", "own"])
    shared, _ = config.load_cfg("CoOp", "derm7pt", "tiny")
    assert (cfg.OPTIM.LR, shared.OPTIM.LR) == (0.5, 0.001)
    assert options == {"PROTOCOL": "own"}


def test_an_option_changes_the_own_schedule(own):
    opts = ["OPTIM.LR", "0.25", "PROTOCOL", "own"]
    cfg, options = config.load_cfg("CoOp", "derm7pt", "tiny", opts=opts)
    assert cfg.OPTIM.LR == 0.25
    assert options == {"PROTOCOL": "own", "OPTIM.LR": 0.25}


@pytest.mark.parametrize(
    "main, words, message",
    [
        (compare.main, ["--methods", "ViP", "KgCoOp"], "none of these methods has a schedule"),
        (compare.main, ["--experiment", "ablation"], "none of these methods has a schedule"),
        (run_seeds.main, ["ViP"], "ViP has no schedule of its own here .there is no file configs/"),
    ],
    ids=["compare", "ablation", "main.sh"],
)
def test_protocol_own_without_a_file_is_one_line(own, main, words, message):
    first = words if main is run_seeds.main else []
    rest = [] if first else words
    with pytest.raises(InputError, match=f"PROTOCOL own: {message}") as raised:
        main([*first, "derm7pt", "tiny", "PROTOCOL", "own", *rest])
    assert "\n" not in str(raised.value)


def test_another_protocol_is_one_line(own):
    with pytest.raises(InputError, match="PROTOCOL is 'theirs'; it should be 'shared' or 'own'"):
        compare.main(["derm7pt", "tiny", "--methods", "CoOp", "PROTOCOL", "theirs"])


def test_a_wrong_file_names_itself(own):
    (own / "trainers" / "own" / "CoOp.yaml").write_text("OPTIM:\n  LRR: 0.5\n")
    with pytest.raises(InputError, match="own/CoOp.yaml: there is no setting OPTIM.LRR"):
        compare.main(["derm7pt", "tiny", "--methods", "CoOp"])


def test_the_reason_of_each_schedule_is_printed(own, capsys):
    compare.print_settings(rows("--methods", "CoOp", "KgCoOp"))
    shared, _, others = capsys.readouterr().out.partition("(PROTOCOL own, ")
    assert "- CoOp: nothing" in shared and "- KgCoOp: Its context starts from" in shared
    assert others.splitlines()[1:] == [
        "- CoOp: Its paper trains 100 epochs with batch 4 (Nobody, 2030, section 4)."
    ]

    compare.print_settings([("CoOp", [])], ["PROTOCOL", "own"])
    assert "100 epochs" in capsys.readouterr().out
    compare.print_settings([("KgCoOp", [])])
    assert "PROTOCOL own" not in capsys.readouterr().out


def test_the_row_stands_beside_the_plain_one(tmp_path):
    for trainer in ("ViP", "CoCoOp", "CoOp", "ZeroshotCLIP"):
        write_run(tmp_path, trainer)
    write_run(tmp_path, "CoOp", options={"PROTOCOL": "own"})
    (table,) = paper_tables(find_runs(tmp_path), Choices())
    assert [row[0] for row in table.rows[1:]] == [
        "ZeroshotCLIP",
        "CoOp",
        "CoOp (PROTOCOL=own)",
        "CoCoOp",
        "ViP",
    ]


@pytest.mark.parametrize("trainer", [name for name in METHODS if config.has_own_protocol(name)])
def test_every_own_schedule_says_its_source_and_is_loaded(trainer):
    """A file of configs/trainers/own has a comment, and settings that there are."""
    assert compare.comment_of(config.own_protocol(trainer))
    cfg, _ = config.load_cfg(trainer, "derm7pt", "tiny", opts=["PROTOCOL", "own"])
    assert cfg.PROTOCOL == "own"
