"""The table of what symptoms still mean: it is read from files, averaged and sorted as it says."""

import csv
import json

import numpy as np
import pytest
from results_runs import write_run

import parse_results
from core.errors import InputError
from explanations.drift import AttributeArea, SymptomDrift, rows
from reporting.explanation_page import write_rows
from results.choices import Choices
from results.meaning import COLUMNS, FILE, meaning_tables, read_meaning
from results.runs import find_runs
from scripts import anchor
from trainers.vip import ANCHOR


def drifts(correlation, verdict, areas=((0.9, 0.3),)):
    """Two symptoms, the first with attributes of these AUCs before and after."""
    found = tuple(
        AttributeArea(f"a{i}", 300, 100, (before, 0.8, 1.0), (after, 0.2, 0.4))
        for i, (before, after) in enumerate(areas)
    )
    return [
        SymptomDrift("melanoma", "dots", 300, correlation, 0.0, 1.0, verdict, found),
        SymptomDrift("nevus", "even", 300, 1.0, 1.0, 1.0, "kept"),
    ]


def write_drift(folder, records):
    write_rows(folder / FILE, COLUMNS, rows(records))


def test_a_symptom_with_two_attributes_counts_once(tmp_path):
    """In the correlation; each attribute counts in the mean AUC."""
    write_drift(tmp_path, drifts(-0.5, "reversed", [(0.9, 0.3), (0.7, 0.1)]))

    found = read_meaning(tmp_path / FILE)

    assert found == pytest.approx((0.25, 0.5, 0.8, 0.2))
    write_drift(tmp_path, drifts(-0.5, "reversed", []))
    assert read_meaning(tmp_path / FILE)[2:] == (None, None)


@pytest.mark.parametrize(
    "text, message",
    [
        ("class,symptom\na,b\n", "has no column 'images'"),
        (",".join(COLUMNS) + "\n", "holds no symptom"),
        (",".join(COLUMNS) + "\n" + "a,b,3,high" + "," * 11 + "\n", "something else than numbers"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, text, message):
    path = tmp_path / "drift.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_meaning(path)


def test_the_table_has_a_row_for_each_kind_and_weight(tmp_path):
    """In the order of Fig. 5, plain before anchored; runs without a measurement are left out."""
    swapped = {"TRAINER.VIP.SYMPTOMS": "symptoms/derm7pt_swapped.json"}
    anchored = {"TRAINER.VIP.ANCHOR": "16.0"}
    for options, correlation in (({}, 0.9), (swapped, -0.5), (swapped | anchored, 0.8)):
        for seed in (1, 2, 3):
            folder = write_run(
                tmp_path, options=options, seed=seed, validation={"accuracy": 0.1 * seed}
            )
            write_drift(folder, drifts(correlation + 0.01 * seed, "kept"))
    write_run(tmp_path, options=anchored)

    (table,) = meaning_tables(find_runs(tmp_path), Choices())

    assert [row[:2] for row in table.rows] == [
        ["LLM-generated", "ViP"],
        ["classes swapped (ours)", "ViP"],
        ["classes swapped (ours)", "ViP (ANCHOR=16.0)"],
    ]
    row = dict(zip(table.headers, table.rows[1], strict=True))
    assert row["validation ACC"].value == pytest.approx(0.2)
    assert row["rank correlation"].value == pytest.approx((-0.48 + 1) / 2)
    assert row["rank correlation"].deviation == pytest.approx(np.std([0.005, 0.01, 0.015]))
    assert row["symptoms kept"].value == 1
    assert (row["attribute AUC untrained"].value, row["attribute AUC"].value) == (0.9, 0.3)


def test_a_damaged_file_is_a_note_of_the_table(tmp_path):
    good, bad = (write_run(tmp_path, seed=seed) for seed in (1, 2))
    write_drift(good, drifts(0.9, "kept"))
    write_drift(bad, drifts(0.9, "kept"))
    (bad / FILE).write_text("class\n")

    (table,) = meaning_tables(find_runs(tmp_path), Choices(seeds=(1,)))

    assert len(table.rows) == 1
    assert any("drift.csv: has no column" in note for note in table.notes)


def test_plots_of_kinds_and_of_attributes(tmp_path, capsys, monkeypatch):
    """One of the kinds for each task with several, and one of all attributes; else an error."""
    monkeypatch.setattr("sys.argv", ["parse_results.py", str(tmp_path), "--plot", "meaning"])
    swapped = {"TRAINER.VIP.SYMPTOMS": "symptoms/derm7pt_swapped.json"}
    folder = write_run(tmp_path)
    with pytest.raises(InputError, match="nothing to draw; --plot needs ViP runs whose symptoms"):
        parse_results.main()
    write_drift(folder, drifts(0.9, "kept"))
    write_drift(write_run(tmp_path, options=swapped), drifts(-0.5, "reversed"))
    anchored = swapped | {"TRAINER.VIP.ANCHOR": "16.0"}
    write_drift(write_run(tmp_path, options=anchored), drifts(0.9, "kept"))

    parse_results.main()

    drawn = [path.rsplit("/", 1)[1] for path in capsys.readouterr().out.split()]
    assert drawn == [
        f"meaning_{name}.{ending}"
        for name in ("derm7pt", "attributes")
        for ending in ("png", "pdf")
    ]
    assert all((tmp_path / "plots" / name).stat().st_size > 5000 for name in drawn)


@pytest.mark.slow
def test_anchor_trains_measures_and_prints(toy, short, capsys, monkeypatch):
    """Plain and anchored, right and swapped: four runs, each with its drift, and their table."""
    phrases = json.loads((toy / "symptoms.json").read_text())
    swapped = dict(zip(phrases, reversed(phrases.values()), strict=True))
    (toy / "symptoms_swapped.json").write_text(json.dumps(swapped))
    words = [str(toy / "toy.yaml"), str(toy / "random.yaml"), "--root", str(toy / "data")]
    words += ["--output", str(toy / "output"), "--seeds", "1", "--kinds", "right", "swapped"]
    words += ["--", *short, "OPTIM.MAX_EPOCH", "1"]
    printed = []
    monkeypatch.setattr(anchor.compare, "call", printed.append)

    assert anchor.main(words) == 0

    files = sorted((toy / "output").rglob("drift.csv"))
    assert len(files) == 4
    assert sum(f"ANCHOR={float(ANCHOR)}" in str(file) for file in files) == 2
    for file in files:
        with open(file, newline="") as opened:
            assert len(list(csv.DictReader(opened))) == 5
    (command,) = printed
    assert command[3:5] == ["--meaning", "--ci"]
    when = [file.stat().st_mtime_ns for file in files]
    assert anchor.main(words) == 0
    assert [file.stat().st_mtime_ns for file in files] == when  # nothing is done twice


def test_the_grid_is_kinds_times_weights():
    """Each kind plain, then with each weight; the option is left to the script."""
    rows = anchor.anchor_rows("derm7pt", [2, 8.5], ["right", "random_words"])

    assert [options[-2:] for _, options in rows[2:]] == [
        ["TRAINER.VIP.ANCHOR", "2"],
        ["TRAINER.VIP.ANCHOR", "2"],
        ["TRAINER.VIP.ANCHOR", "8.5"],
        ["TRAINER.VIP.ANCHOR", "8.5"],
    ]
    assert rows[0] == ("ViP", []) and rows[1][1][1].endswith("derm7pt_random_words.json")
    with pytest.raises(InputError, match="chooses TRAINER.VIP.ANCHOR itself"):
        anchor.parse_args(["derm7pt", "vit_b16", "TRAINER.VIP.ANCHOR", "2"])
