"""Files that were edited, cut or overwritten: named, skipped, and no harm to what is whole."""

import json

import pytest
from results_runs import write_run

import parse_results
import report
from core.errors import InputError
from results.record import FORMAT, RESULTS, Record, find_record, read_record, write_record
from results.runs import find_runs

WHOLE = "the whole one"  # a dataset that no test damages


def with_entries(**entries):
    def damage(path):
        path.write_text(json.dumps(json.loads(path.read_text()) | entries))

    return damage


def with_text(text):
    return lambda path: path.write_text(text)


def with_bytes(content):
    return lambda path: path.write_bytes(content)


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def replace(old, new):
    return lambda path: path.write_text(path.read_text().replace(old, new))


BINARY = with_bytes(bytes(range(256)) * 40)
RESULTS_DAMAGE = {
    "half-written": halve,
    "binary": BINARY,
    "empty": with_text(""),
    "null": with_text("null"),
    "a list": with_text("[1, 2]"),
    "nested": with_text("[" * 100_000),
    "surrogate": with_entries(device="\ud800"),
    "seed NaN": with_entries(seed=float("nan")),
    "seed text": with_entries(seed="1"),
    "seed null": with_entries(seed=None),
    "dataset list": with_entries(dataset=["derm7pt"]),
    "dataset path": with_entries(dataset="../../derm7pt"),
    "trainer number": with_entries(trainer=7),
    "backbone null": with_entries(backbone=None),
    "metrics text": with_entries(metrics="0.8"),
    "metrics NaN": with_entries(metrics={"accuracy": float("nan"), "macro_f1": 0.5}),
    "metrics infinite": with_entries(metrics={"accuracy": float("inf"), "macro_f1": 0.5}),
    "metrics percent": with_entries(metrics={"accuracy": 81.1, "macro_f1": 77.3}),
    "metric NaN": with_entries(metrics={"accuracy": 0.5, "macro_f1": 0.5, "auroc": float("nan")}),
    "metric text": with_entries(metrics={"accuracy": 0.5, "macro_f1": 0.5, "auroc": "high"}),
    "metrics true": with_entries(metrics={"accuracy": True, "macro_f1": 0.5}),
    "options list": with_entries(options=["OPTIM.LR"]),
    "option null": with_entries(options={"OPTIM.LR": None}),
    "classnames text": with_entries(classnames="melanoma"),
    "classnames numbers": with_entries(classnames=[1, 2]),
    "counts text": with_entries(class_counts={"train": {"melanoma": "many"}}),
    "counts negative": with_entries(class_counts={"test": {"melanoma": -1}}),
    "seconds null": with_entries(seconds={"train": None}),
    "seconds NaN": with_entries(seconds={"train": float("nan")}),
    "memory text": with_entries(peak_memory_bytes="much"),
    "versions list": with_entries(versions=["torch"]),
    "shots text": with_entries(shots="all"),
    "validation list": with_entries(validation=[0.5]),
    "positive of no class": with_entries(positive="nothing"),
    "later format": with_entries(format=99),
}
CONFIG_DAMAGE = {
    "half-written": with_text("TRAINER: {NAME: [Vi"),
    "binary": BINARY,
    "empty": with_text(""),
    "a number": with_text("7"),
    "a list": with_text("- 1\n- 2\n"),
    "not a number": with_text("OPTIM: {LR: .nan}\n"),
    "keys with dots": with_text("A: 1\nA.B: 2\n"),
    "keys of lists": with_text("? [1]\n: 2\n"),
    "a date": with_text("SEED: 2026-01-01\n"),
    "an object": with_text("SEED: !!python/object/apply:os.getcwd []\n"),
    "nested": with_text("[" * 100_000),
    "many aliases": with_text(
        "a: &a [1]\n"
        + "".join(
            f"{x}: &{x} [{', '.join([f'*{y}'] * 9)}]\n"
            for y, x in zip("abcdefghi", "bcdefghij", strict=True)
        )
    ),
}
PREDICTIONS_DAMAGE = {
    "half-written": halve,
    "binary": BINARY,
    "empty": with_text(""),
    "another header": replace("picture,label", "a,b"),
    "another class": replace("nevus", "mole"),
    "NaN": lambda path: path.write_text(_with_probability(path, "nan")),
    "infinite": lambda path: path.write_text(_with_probability(path, "inf")),
    "above one": lambda path: path.write_text(_with_probability(path, "1.7")),
    "a text": lambda path: path.write_text(_with_probability(path, "high")),
    "a very long cell": lambda path: path.write_text(_with_probability(path, "1" * 200_000)),
}
HISTORY_DAMAGE = {
    "binary": BINARY,
    "text": with_text("epoch,loss,val_accuracy\n1,low,high\n"),
    "ragged": with_text("epoch,loss,val_accuracy\n1\n2\n"),
}
LOG_DAMAGE = {
    "binary": BINARY,
    "900 %": with_text("=> result\n* accuracy: 900.0%\n* macro_f1: 77.3%\n"),
    "F1 of 200 %": with_text("=> result\n* accuracy: 80.0%\n* macro_f1: 200%\n"),
    "two points": with_text("=> result\n* accuracy: 81.1.1%\n"),
}
TABLES = {
    "tables": ["--ci", "--paper"],
    "by seed": ["--by", "seed"],
    "by backbone": ["--by", "backbone"],
    "experiments": ["--ablation", "--knowledge", "--zeroshot", "--cost"],
    "compare": ["--compare", "ViP", "CoOp"],
}


def _with_probability(path, value):
    head, first, *rest = path.read_text().splitlines()
    cells = first.split(",")
    return "\n".join([head, ",".join([*cells[:3], value, *cells[4:]]), *rest]) + "\n"


@pytest.fixture
def output(tmp_path):
    """Two methods and two seeds on two datasets, one of which is to be damaged."""
    root = tmp_path / "output"
    for dataset in ("derm7pt", WHOLE):
        for seed in (1, 2):
            for trainer in ("CoOp", "ViP"):
                folder = write_run(root, trainer, dataset, seed=seed, n=30)
                (folder / "history.csv").write_text(
                    "epoch,loss,acc,lr,val_accuracy,seconds\n1,0.7,50,0.1,0.5,1\n2,0.6,60,0.1,,1\n"
                )
    return root


def spoiled(output, name):
    """The file ``name`` of the one run that is damaged."""
    return output / "derm7pt" / "ViP" / "vit_b16" / "default" / "seed2" / name


def parsed(output, options, monkeypatch, capsys):
    """What parse_results.py prints with each set of options; it must not fail."""
    monkeypatch.setattr("sys.argv", ["parse_results.py", str(output), *options])
    parse_results.main()
    return capsys.readouterr()


@pytest.mark.parametrize(
    ("kind", "options"),
    [(kind, "by seed") for kind in RESULTS_DAMAGE]
    + [(kind, options) for kind in ("binary", "seed NaN") for options in TABLES],
)
def test_a_damaged_results_file_takes_no_table_down(output, kind, options, monkeypatch, capsys):
    path = spoiled(output, RESULTS)
    RESULTS_DAMAGE[kind](path)
    printed = parsed(output, TABLES[options], monkeypatch, capsys)
    (line,) = printed.err.splitlines()[:1]
    assert line.startswith(str(path)) and line.endswith("skipped") and len(line) < 500
    assert WHOLE in printed.out


@pytest.mark.parametrize("damage", CONFIG_DAMAGE.values(), ids=CONFIG_DAMAGE)
def test_a_damaged_configuration_is_named_once_where_it_is_read(
    output, damage, monkeypatch, capsys
):
    """Its run stays in the tables; what the settings would have said is left out."""
    path = spoiled(output, "config.yaml")
    damage(path)
    for options in ("by seed", "experiments", "compare"):
        printed = parsed(output, TABLES[options], monkeypatch, capsys)
        lines = [line for line in printed.err.splitlines() if str(path) in line]
        assert len(lines) == (options != "by seed")
        assert all(line.endswith("skipped") and len(line) < 500 for line in lines)
    assert "settings not compared, because there is no config.yaml: vit_b16 seed 2" in printed.out


@pytest.mark.parametrize("damage", PREDICTIONS_DAMAGE.values(), ids=PREDICTIONS_DAMAGE)
def test_damaged_predictions_leave_a_note(output, damage, monkeypatch, capsys):
    """The table keeps the metrics of results.json; the interval or the pair is left out."""
    damage(spoiled(output, "predictions.csv"))
    for options, told in ((TABLES["tables"], "no interval"), (TABLES["compare"], "left out")):
        printed = parsed(output, options, monkeypatch, capsys)
        (note,) = [x for x in printed.out.splitlines() if str(spoiled(output, "pred")) in x]
        assert told in note and len(note) < 500


@pytest.mark.parametrize("damage", LOG_DAMAGE.values(), ids=LOG_DAMAGE)
def test_a_damaged_log_is_skipped(output, damage, monkeypatch, capsys):
    folder = output / "derm7pt" / "CoOp" / "vit_b16_ep50" / "seed1"
    folder.mkdir(parents=True)
    damage(folder / "log.txt")
    printed = parsed(output, [], monkeypatch, capsys)
    (line,) = printed.err.splitlines()
    assert line.startswith(str(folder)) and line.endswith("skipped")
    assert "900" not in printed.out


REPORT_DAMAGE = {
    RESULTS: {kind: RESULTS_DAMAGE[kind] for kind in ("binary", "seed NaN", "options list")},
    "config.yaml": CONFIG_DAMAGE,
    "predictions.csv": {kind: PREDICTIONS_DAMAGE[kind] for kind in ("binary", "NaN", "empty")},
    "history.csv": HISTORY_DAMAGE,
}


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        pytest.param(name, damage, id=f"{name}-{kind}")
        for name, kinds in REPORT_DAMAGE.items()
        for kind, damage in kinds.items()
    ],
)
def test_the_report_is_written_all_the_same(output, name, damage):
    """It names what it left out, but for a history, which is only missing from a curve."""
    damage(spoiled(output, name))
    report.main([str(output)])
    text = (output / "report.html").read_text()
    assert WHOLE in text
    below = spoiled(output, name).relative_to(output)
    assert str(below) in text or name == "history.csv"


@pytest.mark.parametrize("damage", RESULTS_DAMAGE.values(), ids=RESULTS_DAMAGE)
def test_reading_one_record_is_an_input_error(output, damage):
    damage(spoiled(output, RESULTS))
    with pytest.raises(InputError, match=RESULTS) as error:
        read_record(spoiled(output, ""))
    assert "\n" not in str(error.value)


def test_a_run_without_a_whole_record_has_to_end_again(output, capsys):
    """But for the record of a later version, which nothing may write over."""
    folder = spoiled(output, "")
    assert find_record(folder) == read_record(folder)
    with_entries(format=99)(folder / RESULTS)
    with pytest.raises(InputError, match="format 99; this version reads 1 and 2"):
        find_record(folder)
    halve(folder / RESULTS)
    assert find_record(folder) is None and "half-written" in capsys.readouterr().out
    (folder / RESULTS).unlink()
    assert find_record(folder) is None and not capsys.readouterr().out


def test_an_older_record_is_still_read(tmp_path):
    """Format 1: no positive class, no features; a training run named by a dictionary."""
    folder = write_run(tmp_path, format=1, trained_on={"dataset": "synthderm"})
    entries = json.loads((folder / RESULTS).read_text())
    for name in ("positive", "training_split_counts"):
        del entries[name]
    (folder / RESULTS).write_text(json.dumps(entries))
    record = read_record(folder)
    assert (record.format, record.positive, record.features) == (1, None, None)
    assert record.trained_on == "synthderm"
    (run,) = find_runs(tmp_path)
    assert run.place == 90 and run.seeded and run.learns


def test_a_record_is_written_whole_or_not_at_all(tmp_path):
    """A NaN is refused by name; what is written is read back, and of the schema."""
    entries = json.loads((write_run(tmp_path / "a") / RESULTS).read_text())
    record = write_record(tmp_path, entries)
    assert read_record(tmp_path) == record and record.format == FORMAT
    assert json.loads((tmp_path / RESULTS).read_text()).keys() <= Record.model_fields.keys()
    before = (tmp_path / RESULTS).read_bytes()
    entries["metrics"]["auroc"] = float("nan")
    with pytest.raises(InputError, match="metrics.auroc"):
        write_record(tmp_path, entries)
    assert (tmp_path / RESULTS).read_bytes() == before


def test_one_class_alone_is_not_tabled(tmp_path, monkeypatch, capsys):
    """Half of two classes is one class, which every method predicts correctly."""
    write_run(tmp_path)
    metrics = {"accuracy": 1.0, "macro_f1": 1.0}
    for half, name in (("base", "melanoma"), ("new", "nevus")):
        write_run(
            tmp_path,
            options={"DATASET.SUBSAMPLE_CLASSES": half},
            subsample_classes=half,
            classnames=[name],
            metrics=metrics,
            predictions=False,
        )
    for options in ([], ["--by", "seed"], ["--by", "backbone"]):
        printed = parsed(tmp_path, options, monkeypatch, capsys)
        assert "1.0000" not in printed.out
        assert printed.err.count("its only class is") == 2
    report.main([str(tmp_path)])
    text = (tmp_path / "report.html").read_text()
    assert "1.0000" not in text and "its only class is" in text
