"""Tables against figures worked out from the run folders themselves."""

import csv
import io
import json

import numpy as np
import pytest
from results_runs import metrics_of, write_run
from sklearn import metrics as sk

import parse_results
import reporting.report
from results import cost, experiments, layouts, method_tables, metrics, paper
from results.choices import Choices
from results.intervals import Intervals
from results.paper import read_paper
from results.rendering import Estimate, PValue, Table, render
from results.runs import find_runs
from results.tables import KINDS, Kind, tables_of

BACKBONES = ("vit_b16", "vit_l14", "rn50")


def accuracy_of(folder):
    return json.loads((folder / "results.json").read_text())["metrics"]["accuracy"]


def table_of(root, **options):
    """The only table of a folder's runs, and its rows by their first cell."""
    (table,) = method_tables.paper_tables(find_runs(root), Choices(**options))
    return table, {row[0]: row for row in table.rows}


def test_mean_and_deviation_are_over_backbones_of_means_over_seeds(tmp_path):
    accuracy = {
        backbone: [accuracy_of(write_run(tmp_path, backbone=backbone, seed=s)) for s in (1, 2, 3)]
        for backbone in BACKBONES
    }
    table, rows = table_of(tmp_path)
    means = [np.mean(values) for values in accuracy.values()]
    assert rows["ViP"][1].value == pytest.approx(np.mean(means), abs=1e-12)
    assert rows["ViP"][1].deviation == pytest.approx(np.std(means, ddof=0), abs=1e-12)
    assert rows["ViP"][-1] == "9 of 9"
    assert not any("missing" in note for note in table.notes)


def test_one_backbone_shows_the_deviation_over_seeds(tmp_path):
    accuracy = [accuracy_of(write_run(tmp_path, backbone="tiny", seed=s)) for s in (1, 2, 3)]
    table, rows = table_of(tmp_path)
    assert rows["ViP"][1].deviation == pytest.approx(np.std(accuracy))
    assert "over seeds; one backbone (tiny)" in table.notes[0]


def test_what_is_missing_is_said(tmp_path):
    for seed in (1, 2, 3):
        write_run(tmp_path, "CoOp", backbone="vit_b16", seed=seed)
        write_run(tmp_path, "KgCoOp", backbone="vit_b16", seed=seed)
    write_run(tmp_path, "CoOp", backbone="vit_l14", seed=2)
    table, rows = table_of(tmp_path)
    assert rows["CoOp"][-1] == "4 of 6" and rows["KgCoOp"][-1] == "3 of 6"
    assert "CoOp: missing vit_l14 seeds 1 3" in table.notes
    assert "KgCoOp: missing all of vit_l14" in table.notes
    assert "no runs of rn50, which the paper's mean includes" in table.notes
    assert rows["KgCoOp"][1].deviation is None


def test_seeds_outside_the_protocol_are_expected_of_all(tmp_path):
    write_run(tmp_path, "CoOp", seed=7)
    write_run(tmp_path, "ViP", seed=1)
    table, rows = table_of(tmp_path, seeds=[1])
    assert "CoOp: missing vit_b16 seed 1" in table.notes
    assert "ViP: missing vit_b16 seed 7" in table.notes


def test_zero_shot_needs_one_seed_only(tmp_path):
    write_run(tmp_path, "ZeroshotCLIP", seed=1)
    write_run(tmp_path, "CoOp", seed=1)
    _, rows = table_of(tmp_path)
    assert rows["ZeroshotCLIP"][-1] == "1 of 1" and rows["CoOp"][-1] == "1 of 3"


def test_majority_row_is_exact(tmp_path):
    """Most frequent training class, test counts: accuracy and macro F1 by scikit-learn."""
    counts = {"train": {"melanoma": 90, "nevus": 256}, "test": {"melanoma": 101, "nevus": 219}}
    write_run(tmp_path, class_counts=counts)
    _, rows = table_of(tmp_path)
    label = [0] * 101 + [1] * 219
    f1 = sk.f1_score(label, [1] * 320, average="macro", zero_division=0)
    assert [cell.value for cell in rows["majority class"][1:3]] == pytest.approx([219 / 320, f1])


def test_balanced_training_has_no_majority_and_says_so(tmp_path):
    counts = {"train": {"melanoma": 40, "nevus": 40}, "test": {"melanoma": 10, "nevus": 20}}
    write_run(tmp_path, class_counts=counts, training_split_counts=counts["train"])
    table, _ = table_of(tmp_path)
    assert "majority class: melanoma, nevus are as frequent; predicts melanoma" in table.notes


def test_few_shot_majority_is_the_whole_training_splits(tmp_path):
    """Shots are as many of each class; the most frequent class is that of the whole split."""
    counts = {"train": {"melanoma": 1, "nevus": 1}, "test": {"melanoma": 101, "nevus": 219}}
    options = {"DATASET.NUM_SHOTS": 1}
    whole = {"melanoma": 90, "nevus": 256}
    write_run(tmp_path, shots=1, class_counts=counts, training_split_counts=whole, options=options)
    table, rows = table_of(tmp_path)
    assert rows["majority class"][1].value == pytest.approx(219 / 320)
    assert "majority class: nevus, the most frequent in the whole training split" in table.notes


def test_an_older_few_shot_file_has_no_majority_row(tmp_path):
    options = {"DATASET.NUM_SHOTS": 1}
    write_run(tmp_path, format=1, shots=1, training_split_counts=None, options=options)
    table, rows = table_of(tmp_path)
    assert "majority class" not in rows
    assert any(note.startswith("majority class: not known") for note in table.notes)


def test_variants_are_rows_of_their_own_and_not_in_the_method(tmp_path):
    plain = accuracy_of(write_run(tmp_path))
    write_run(tmp_path, options={"TRAINER.VIP.MERGE": "mean", "OPTIM.LR": 0.1})
    write_run(tmp_path, options={"TRAINER.VIP.SYMPTOMS": "symptoms/derm7pt_useless.json"})
    _, rows = table_of(tmp_path)
    assert rows["ViP"][1].value == plain
    assert "ViP (OPTIM.LR=0.1, MERGE=mean)" in rows
    assert "ViP (symptoms=derm7pt_useless)" in rows


def test_two_symptom_files_under_one_name_are_two_rows(tmp_path):
    for fingerprint in ("aaaa", "bbbb"):
        write_run(tmp_path, symptom_fingerprint=fingerprint)
    _, rows = table_of(tmp_path)
    assert {"ViP (symptoms=aaaa)", "ViP (symptoms=bbbb)"} < set(rows)


def test_shots_and_half_the_classes_are_tables_of_their_own(tmp_path):
    write_run(tmp_path)
    write_run(tmp_path, shots=4, options={"DATASET.NUM_SHOTS": 4})
    for half in ("base", "new"):
        write_run(
            tmp_path,
            subsample_classes=half,
            options={"DATASET.SUBSAMPLE_CLASSES": half},
            metrics={"accuracy": 0.8 if half == "base" else 0.6, "macro_f1": 0.5},
        )
    runs = find_runs(tmp_path)
    titles = [table.title for table in method_tables.paper_tables(runs, Choices())]
    assert titles == [
        "derm7pt",
        "derm7pt, base classes",
        "derm7pt, new classes",
        "derm7pt, 4 shots a class",
    ]
    (table,) = layouts.base_to_new_tables(runs, Choices(("accuracy",)))
    assert table.headers == ["method", "base ACC", "new ACC", "HM ACC"]
    assert table.rows[0][0] == "ViP"
    assert table.rows[0][3].value == pytest.approx(2 * 0.8 * 0.6 / 1.4)


def test_base_to_new_has_the_intervals_and_gaps_of_other_tables(tmp_path):
    """Each half's own; a method that lacks one half has no harmonic mean."""
    halves = [("ViP", "base", 1), ("ViP", "base", 2), ("ViP", "new", 1), ("CoOp", "base", 1)]
    for trainer, half, seed in halves:
        options = {"DATASET.SUBSAMPLE_CLASSES": half}
        write_run(tmp_path, trainer, seed=seed, subsample_classes=half, options=options)
    (table,) = layouts.base_to_new_tables(
        find_runs(tmp_path),
        Choices(("accuracy", "auroc"), Intervals(("accuracy", "auroc"), times=20), seeds=(1, 2)),
    )
    rows = {row[0]: row[1:] for row in table.rows}
    assert table.headers[4:] == ["base AUROC", "new AUROC", "HM AUROC"]
    for i in (0, 1, 3, 4):
        assert rows["ViP"][i].low <= rows["ViP"][i].value <= rows["ViP"][i].high
    assert rows["CoOp"][0].low is not None and rows["CoOp"][1:3] == [None, None]
    assert "CoOp on base classes, ViP on new classes: missing vit_b16 seed 2" in table.notes
    assert "CoOp on new classes: no runs" in table.notes


def test_zero_shot_is_a_row_of_base_to_new_with_shots(tmp_path):
    """It learns nothing, so its runs are those of every number of shots; no table of its own."""
    for half in ("base", "new"):
        options = {"DATASET.SUBSAMPLE_CLASSES": half}
        write_run(tmp_path, "ZeroshotCLIP", subsample_classes=half, options=options)
        for shots in (4, 16):
            few = {**options, "DATASET.NUM_SHOTS": shots}
            write_run(tmp_path, "ViP", shots=shots, subsample_classes=half, options=few)
    tables = layouts.base_to_new_tables(find_runs(tmp_path), Choices(("accuracy",)))

    assert [table.title for table in tables] == [
        "derm7pt, 4 shots a class, base to new",
        "derm7pt, 16 shots a class, base to new",
    ]
    for table in tables:
        assert [row[0] for row in table.rows] == ["ZeroshotCLIP", "ViP"]
        assert None not in table.rows[0]
        assert "HM is the harmonic mean of base and new" in table.notes[0]


def test_zero_shot_alone_has_its_base_to_new_table(tmp_path):
    for half in ("base", "new"):
        options = {"DATASET.SUBSAMPLE_CLASSES": half}
        write_run(tmp_path, "ZeroshotCLIP", subsample_classes=half, options=options)
    (table,) = layouts.base_to_new_tables(find_runs(tmp_path), Choices())
    assert [row[0] for row in table.rows] == ["ZeroshotCLIP"]


def test_maple_on_a_resnet_does_not_apply(tmp_path):
    write_run(tmp_path, "MaPLe", backbone="vit_b16")
    for seed in (1, 2, 3):
        write_run(
            tmp_path, "MaPLe", backbone="rn50", seed=seed, metrics=None, does_not_apply="a ResNet"
        )
    table, rows = table_of(tmp_path)
    assert rows["MaPLe"][-1] == "1 of 3"
    assert "MaPLe: does not apply to rn50 (a ResNet)" in table.notes
    runs = [run for run in find_runs(tmp_path) if run.backbone == "rn50"]
    (alone,) = method_tables.paper_tables(runs, Choices())
    assert alone.rows[-1][1:3] == ["does not apply"] * 2


def test_paper_figures_stand_beside_ours(tmp_path):
    write_run(tmp_path)
    write_run(tmp_path, options={"TRAINER.VIP.MERGE": "mean"})
    write_run(tmp_path, "Supervised", options={"TRAINER.SUPERVISED.START": "clip"})
    table, rows = table_of(tmp_path, papers=[read_paper("vip")])
    assert table.headers == ["method", "ACC", "F1", "paper ACC", "paper F1", "runs"]
    assert [str(cell) for cell in rows["ViP"][3:5]] == [".8111 (.007)", ".7730 (.015)"]
    assert rows["ViP (MERGE=mean)"][3] is None
    assert rows["Supervised (START=clip)"][3] is None
    assert any("2.08 points of accuracy, which is within" in note for note in table.notes)


def test_papers_supervised_is_the_one_from_scratch(tmp_path):
    """With both starts in one table, scratch's row has the paper's figure, CLIP's none."""
    write_run(tmp_path, "Supervised")
    write_run(tmp_path, "Supervised", options={"TRAINER.SUPERVISED.START": "clip"})
    table, rows = table_of(tmp_path, papers=[read_paper("vip")])
    assert [row[0] for row in table.rows[1:]] == ["Supervised", "Supervised (START=clip)"]
    assert [str(cell) for cell in rows["Supervised"][3:5]] == [".7277 (.044)", ".6236 (.093)"]
    assert rows["Supervised (START=clip)"][3:5] == [None, None]


def test_no_paper_columns_where_it_printed_nothing(tmp_path):
    write_run(tmp_path, dataset="synthderm")
    write_run(tmp_path, dataset="derm7pt", shots=4)
    for table in method_tables.paper_tables(
        find_runs(tmp_path), Choices(papers=[read_paper("vip")])
    ):
        assert table.headers == ["method", "ACC", "F1", "runs"]


def test_runs_on_other_splits_are_named(tmp_path):
    write_run(tmp_path, "CoOp")
    write_run(tmp_path, "ViP", split_fingerprint="other")
    table, _ = table_of(tmp_path)
    assert "made with different splits: CoOp 0123456789ab, ViP other" in table.notes


def test_intervals_hold_the_figure_and_name_what_is_noise(tmp_path):
    for seed in (1, 2):
        write_run(tmp_path, "CoOp", seed=seed, skill=1.5, n=100)
        write_run(tmp_path, "ViP", seed=seed, skill=1.6, n=100)
        write_run(tmp_path, "BayesianPrompt", seed=seed, skill=-1.0, n=100)
    table, rows = table_of(tmp_path, intervals=Intervals(metrics.default_metrics(), times=200))
    for row in table.rows:
        for cell in row[1:3]:
            assert cell.low <= cell.value <= cell.high
    (noise,) = [note for note in table.notes if "noise" in note]
    assert "100 test images" in noise and "BayesianPrompt" not in noise


def test_no_predictions_no_interval(tmp_path):
    write_run(tmp_path, predictions=False)
    table, rows = table_of(tmp_path, intervals=Intervals(metrics.default_metrics(), times=20))
    assert rows["ViP"][1].low is None
    assert any("ViP: no interval" in note and "predictions.csv" in note for note in table.notes)


def test_external_tests_stand_apart(tmp_path):
    write_run(tmp_path)
    write_run(tmp_path, seed=2, trained_on="synthderm")
    runs = find_runs(tmp_path)
    (main,) = method_tables.paper_tables(runs, Choices())
    assert main.rows[-1][-1] == "1 of 3"
    (external,) = layouts.external_tables(runs, Choices())
    assert external.rows[0][:2] == ["ViP", "derm7pt, trained on synthderm"]
    assert layouts.external_tables([run for run in runs if not run.trained_on], Choices()) == []


def test_by_backbone_and_by_seed_average_less(tmp_path):
    accuracy = {}
    for backbone in BACKBONES[:2]:
        for seed in (1, 2):
            accuracy[backbone, seed] = accuracy_of(
                write_run(tmp_path, backbone=backbone, seed=seed)
            )
    runs = find_runs(tmp_path)
    (by_seed,) = layouts.seed_tables(runs, Choices())
    assert {(r[1], r[2]): r[3].value for r in by_seed.rows} == accuracy
    (by_backbone,) = layouts.backbone_tables(runs, Choices())
    for row in by_backbone.rows:
        values = [accuracy[row[1], seed] for seed in (1, 2)]
        assert row[2].value == pytest.approx(np.mean(values))
        assert row[2].deviation == pytest.approx(np.std(values))
        assert row[-1] == "1 2"
    assert "ViP: missing vit_b16 seed 3, vit_l14 seed 3" in by_backbone.notes


def test_cost_is_a_mean_over_seeds_of_one_device(tmp_path):
    for seed in (1, 2):
        write_run(tmp_path, seed=seed)
    write_run(tmp_path, seed=3, device="NVIDIA H100", peak_memory_bytes={"gpu": None, "cpu": 1})
    (table,) = cost.cost_tables(find_runs(tmp_path), Choices())
    assert [row[2] for row in table.rows] == [15.0, 30.0]  # the helper trains 10 seconds a seed
    assert [row[-1] for row in table.rows] == ["cpu", "NVIDIA H100"]
    assert [row[5] for row in table.rows] == [1024, None]
    assert table.rows[0][7] == 528_384


def ablation_runs(root):
    write_run(root, "ZeroshotCLIP")
    write_run(root, "ZeroshotCLIP", options={"TRAINER.ZEROSHOTCLIP.PROMPTS": "symptoms"})
    write_run(root)
    write_run(root, options={"TRAINER.VIP.MERGE": "max"})
    write_run(root, options={"TRAINER.VIP.MERGE": "mean"})
    write_run(root, options={"TRAINER.VIP.CONTEXT": "False"})


def test_ablation_is_table_2(tmp_path):
    ablation_runs(tmp_path)
    (table,) = experiments.ablation_tables(find_runs(tmp_path), Choices(papers=[read_paper("vip")]))
    assert [tuple(row[:3]) for row in table.rows] == list(experiments.ABLATION_ROWS)
    assert all(row[3] is not None for row in table.rows)
    assert [str(row[5]) for row in table.rows] == [
        ".5539 (?)",
        "None",
        ".7531",
        ".7970",
        ".8041",
        ".8111",
    ]
    assert any("does not say" in note for note in table.notes)


def test_ablation_says_which_rows_have_no_runs(tmp_path):
    write_run(tmp_path, options={"TRAINER.VIP.MERGE": "max"})
    (table,) = experiments.ablation_tables(find_runs(tmp_path), Choices())
    assert any("none/prompt (symptoms)" in note and "no runs" in note for note in table.notes)


def test_ablations_with_other_options_do_not_mix(tmp_path):
    for lr in (None, 0.1):
        extra = {"OPTIM.LR": lr} if lr else {}
        write_run(tmp_path, options=extra)
        write_run(tmp_path, options={"TRAINER.VIP.MERGE": "max", **extra})
    tables = experiments.ablation_tables(find_runs(tmp_path), Choices(papers=[read_paper("vip")]))
    # The paper's figures belong to its own settings.
    assert {table.title: any("paper" in name for name in table.headers) for table in tables} == {
        "derm7pt, ablation (Table 2)": True,
        "derm7pt (OPTIM.LR=0.1), ablation (Table 2)": False,
    }


def test_vip_without_anything_learned_is_zero_shot_by_symptoms(tmp_path):
    write_run(tmp_path, options={"TRAINER.VIP.CONTEXT": "False", "TRAINER.VIP.MERGE": "mean"})
    (run,) = find_runs(tmp_path)
    assert experiments.ablation_row(run) == ("none", "none", "symptoms")


def test_knowledge_is_figure_5(tmp_path):
    write_run(tmp_path)
    for kind in ("incorrect", "useless", "out_of_domain", "swapped", "random_words"):
        path = f"symptoms/derm7pt_{kind}.json"
        write_run(tmp_path, options={"TRAINER.VIP.SYMPTOMS": path}, symptom_file=path)
    (table,) = experiments.knowledge_tables(
        find_runs(tmp_path), Choices(papers=[read_paper("vip")])
    )
    assert [row[0] for row in table.rows] == list(experiments.KNOWLEDGE_KINDS.values())
    assert all(row[1] is not None for row in table.rows)
    assert any("their order is not stated" in note for note in table.notes)


@pytest.mark.parametrize("key", ["TRAINER.VIP.SYMPTOMS", "DATASET.SYMPTOMS"])
@pytest.mark.parametrize(
    "file, row",
    [
        (None, "LLM-generated"),
        ("derm7pt_incorrect", "incorrect"),
        ("derm7pt_out_of_domain", "out-of-domain"),
        ("my-own-random-words", "random words (ours)"),
        ("synthderm", "LLM-generated"),
        ("from_a_colleague", "from_a_colleague"),
    ],
)
def test_knowledge_goes_by_the_end_of_the_files_name(tmp_path, key, file, row):
    """synthderm reads derm7pt's files; without the option, its own."""
    options = {key: f"symptoms/{file}.json"} if file else {}
    write_run(tmp_path, dataset="synthderm", options=options)
    (run,) = find_runs(tmp_path)
    assert experiments.knowledge_row(run) == row


def test_the_file_a_dataset_names_is_its_own(tmp_path):
    """Given as an option, too."""
    path = "symptoms/derm7pt.json"
    options = {"TRAINER.VIP.SYMPTOMS": path}
    write_run(tmp_path, dataset="synthderm", options=options, config={"DATASET.SYMPTOMS": path})
    (run,) = find_runs(tmp_path)
    assert experiments.knowledge_row(run) == "LLM-generated"


def test_zero_shot_gain_is_symptoms_minus_names(tmp_path):
    gaps = []
    for backbone in BACKBONES:
        names = write_run(tmp_path, "ZeroshotCLIP", backbone=backbone)
        options = {"TRAINER.ZEROSHOTCLIP.PROMPTS": "symptoms"}
        by_symptoms = write_run(tmp_path, "ZeroshotCLIP", backbone=backbone, options=options)
        gaps.append(accuracy_of(by_symptoms) - accuracy_of(names))
    intervals = Intervals(metrics.default_metrics(), times=100)
    runs = find_runs(tmp_path)
    (table,) = experiments.zeroshot_tables(
        runs, Choices(papers=[read_paper("vip")], intervals=intervals)
    )
    gain = {row[0]: row[1] for row in table.rows}["symptoms - names, points"]
    assert gain.value == pytest.approx(np.mean(gaps))
    assert gain.deviation == pytest.approx(np.std(gaps))
    assert gain.low <= gain.value <= gain.high
    assert str(table.rows[-1][1]) == "+18.73"


def test_shots_curves_need_two_points(tmp_path):
    for shots in (1, 16):
        write_run(tmp_path, shots=shots, options={"DATASET.NUM_SHOTS": shots})
    write_run(tmp_path, "CoOp", shots=1, options={"DATASET.NUM_SHOTS": 1})
    curves = experiments.shots_curves(find_runs(tmp_path))
    assert {name: sorted(points) for name, points in curves["derm7pt"].items()} == {"ViP": [1, 16]}


@pytest.mark.parametrize("form", ["github", "latex", "html"])
def test_every_format_shows_every_row(tmp_path, form):
    write_run(tmp_path, "CoOp")
    write_run(tmp_path, "ViP")
    text = render(table_of(tmp_path)[0], form)
    assert all(name in text for name in ("majority class", "CoOp", "ViP", "ACC"))


def test_csv_has_every_digit(tmp_path):
    folders = [write_run(tmp_path, backbone=backbone) for backbone in BACKBONES[:2]]
    table, rows = table_of(tmp_path, intervals=Intervals(metrics.default_metrics(), times=20))
    (*_, row) = csv.DictReader(io.StringIO(render(table, "csv")))
    assert row["table"] == "derm7pt" and row["method"] == "ViP"
    assert float(row["ACC"]) == np.mean([accuracy_of(folder) for folder in folders])
    assert float(row["ACC deviation"]) == rows["ViP"][1].deviation
    assert float(row["ACC low"]) <= float(row["ACC"]) <= float(row["ACC high"])


@pytest.mark.parametrize(
    "figure, text",
    [
        (Estimate(0.8337, 0.019), ".8337 (.019)"),
        (Estimate(1.0), "1.0000"),
        (Estimate(0.0, 0.0), ".0000 (.000)"),
        (Estimate(0.5, None, 0.25, 1.0), ".5000 [.250, 1.000]"),
        (Estimate(-0.0123, 0.01, -0.05, 0.02, signed=True), "-1.23 (1.00) [-5.00, +2.00]"),
        (Estimate(float("nan")), "-"),
        (PValue(0.00001), "<.0001"),
        (PValue(0.0123), ".0123"),
    ],
)
def test_figures_are_printed_as_in_the_paper(figure, text):
    assert str(figure) == text


def test_the_paper_figures_are_complete():
    tables = read_paper("vip").tables
    assert {table.dataset for table in tables} == {"derm7pt", "pneumonia"}
    for methods in (table.figures for table in tables):
        assert len(methods) == 7
        assert all(set(figures) == {"accuracy", "macro_f1"} for figures in methods.values())
    assert paper.margin("pneumonia") == ("Supervised", pytest.approx(0.0009))


def test_metrics_of_the_helper_match_the_intervals(tmp_path):
    """results.json's figures and the bootstrap's are of one definition."""
    write_run(tmp_path, classnames=("a", "b", "c", "d"), n=100)
    (run,) = find_runs(tmp_path)
    predictions = run.predictions()
    expected = metrics_of(predictions.labels, predictions.probabilities)
    assert metrics.metrics_of(predictions) == pytest.approx(expected)


def feature_use(images, encoded, seconds):
    return {"images": images, "encoded": encoded, "seconds": seconds}


@pytest.mark.parametrize("order", [("CoOp", "ViP"), ("ViP", "CoOp")])
def test_the_cost_of_a_method_does_not_depend_on_which_came_first(tmp_path, order):
    """The first run pays for encoding; both are charged for it at the speed at which it went."""
    for i, trainer in enumerate(order):
        views = feature_use(500, 0 if i else 500, 0.0 if i else 25.0)
        split = feature_use(100, 0 if i else 100, 0.0 if i else 4.0)
        write_run(tmp_path, trainer, features={"training views": views, "test": split})
    write_run(tmp_path, "MaPLe", features=None)
    (table,) = cost.cost_tables(find_runs(tmp_path), Choices())
    rows = {row[0]: row for row in table.rows}
    assert [rows[name][2] for name in ("CoOp", "ViP")] == [10.0, 10.0]
    assert [rows[name][3] for name in ("CoOp", "ViP")] == [29.0, 29.0]
    assert rows["MaPLe"][3] is None
    assert any("a first run also spends the encoding seconds" in note for note in table.notes)


def test_the_cost_of_a_cut_run_is_at_the_speed_of_what_was_encoded(tmp_path):
    """A part was kept by a run that was cut: 100 images took 5 s, so 500 take 25 s."""
    write_run(tmp_path, features={"training views": feature_use(500, 100, 5.0)})
    (table,) = cost.cost_tables(find_runs(tmp_path), Choices())
    assert table.rows[0][3] == pytest.approx(25.0)


def test_the_cost_of_a_fit_has_its_seconds_and_no_images_a_second(tmp_path):
    """It sees no image in a step; the encoding of the features that it reads is charged to it."""
    use = {"test": {"images": 100, "encoded": 100, "seconds": 5.0}}
    fit = {"fitted_at_once": True, "seconds": {"train": 0.0123, "total": 1.0}}
    write_run(tmp_path, "LinearProbe", features=use, **fit)
    write_run(tmp_path, "CoOp", features=use, fitted_at_once=False)
    (table,) = cost.cost_tables(find_runs(tmp_path), Choices())
    rows = {row[0]: dict(zip(table.headers, row, strict=True)) for row in table.rows}

    assert rows["LinearProbe"]["images a second"] is None
    assert rows["LinearProbe"]["train seconds"] == pytest.approx(0.0123)
    assert rows["LinearProbe"]["encoding seconds"] == rows["CoOp"]["encoding seconds"] == 5.0
    assert rows["CoOp"]["images a second"] == 100.0
    (note,) = [note for note in table.notes if "fitted at once" in note]
    assert note.startswith("LinearProbe: ") and "CoOp" not in note
    assert "| LinearProbe | vit_b16    |          0.0123 |" in render(table)


def test_a_cost_that_is_not_known_says_why(tmp_path):
    write_run(tmp_path, "CoOp", format=1)
    write_run(tmp_path, "ViP", features={"test": feature_use(100, 0, 0.0)})
    (table,) = cost.cost_tables(find_runs(tmp_path), Choices())
    assert [row[3] for row in table.rows] == [None, None]
    assert any(note.startswith("CoOp: results files of an older version") for note in table.notes)
    assert "ViP: all features were read from runs that are not in this folder" in table.notes


def test_zero_shot_is_one_row_whatever_was_set_of_training(tmp_path, capsys):
    """Its runs of other epochs and shots are the same run; every experiment still has it."""
    prompts = "TRAINER.ZEROSHOTCLIP.PROMPTS"
    for shots in (-1, 1, 16):
        for epochs in (None, 2):
            options = {"OPTIM.MAX_EPOCH": epochs} if epochs else {}
            options |= {"DATASET.NUM_SHOTS": shots} if shots > 0 else {}
            write_run(tmp_path, "ZeroshotCLIP", shots=shots, options=options)
            write_run(
                tmp_path, "ZeroshotCLIP", shots=shots, options=options | {prompts: "symptoms"}
            )
            write_run(tmp_path, "ViP", shots=shots, options=options)
            write_run(tmp_path, "ViP", shots=shots, options=options | {"TRAINER.VIP.MERGE": "max"})
    same = find_runs(tmp_path)
    metrics_of_first = same[0].metrics
    for path in tmp_path.rglob("ZeroshotCLIP/**/results.json"):
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"metrics": metrics_of_first}))
    capsys.readouterr()
    runs = find_runs(tmp_path)
    assert not capsys.readouterr().err
    found = {table.title: table for table in method_tables.paper_tables(runs, Choices())}
    labels = {title: [row[0] for row in table.rows] for title, table in found.items()}
    zero = ["ZeroshotCLIP", "ZeroshotCLIP (PROMPTS=symptoms)"]
    assert [x for x in labels["derm7pt"] if x.startswith("Zeroshot")] == zero
    for shots in ("1 shot", "16 shots"):
        assert not any(x.startswith("Zeroshot") for x in labels[f"derm7pt, {shots} a class"])
        assert any(
            f"{', '.join(zero)}: see derm7pt;" in note
            for note in found[f"derm7pt, {shots} a class"].notes
        )
    ablations = experiments.ablation_tables(runs, Choices())
    assert len(ablations) == 6
    for table in ablations:
        assert table.rows[0][3] is not None and table.rows[1][3] is not None
    curves = experiments.shots_curves(runs)["derm7pt"]
    assert sorted(curves["ZeroshotCLIP"]) == [1, 16]
    for shots, method in curves["ZeroshotCLIP"].items():
        assert method.estimate("accuracy").value == metrics_of_first["accuracy"], shots


@pytest.mark.parametrize("given", ["option", "environment"])
def test_one_seed_is_one_of_one(tmp_path, monkeypatch, given):
    """--seeds 1, or SEEDS=1 as the scripts have it."""
    write_run(tmp_path, "ZeroshotCLIP")
    write_run(tmp_path, "ViP")
    if given == "environment":
        monkeypatch.setenv("SEEDS", "1")
    _, rows = table_of(tmp_path, **({"seeds": [1]} if given == "option" else {}))
    assert rows["ViP"][-1] == rows["ZeroshotCLIP"][-1] == "1 of 1"


def test_zero_shot_with_three_seeds_is_one_of_one(tmp_path):
    for seed in (1, 2, 3):
        write_run(tmp_path, "ZeroshotCLIP", seed=seed)
    _, rows = table_of(tmp_path)
    assert rows["ZeroshotCLIP"][-1] == "1 of 1"


def test_a_method_says_its_own_place_and_whether_seeds_matter(tmp_path):
    """A new method stands where its record says, older files where their method is known to."""
    write_run(tmp_path, "Newest", place=35, seeded=False)
    for trainer in ("CoCoOp", "CoOp", "Unknown"):
        write_run(tmp_path, trainer)
    table, rows = table_of(tmp_path)
    labels = [row[0] for row in table.rows]
    assert labels == ["majority class", "CoOp", "Newest", "CoCoOp", "Unknown"]
    assert rows["Newest"][-1] == "1 of 1" and rows["CoOp"][-1] == "1 of 3"


def test_a_table_is_added_in_one_place(tmp_path, monkeypatch, capsys):
    """Its entry in KINDS alone: the command has its option, the report its section."""
    write_run(tmp_path)

    def made(runs, choices):
        return [Table("an added table", ["method"], [[run.trainer] for run in runs])]

    kind = Kind(made, "Added section", "--added", "an added kind")
    monkeypatch.setattr(parse_results, "KINDS", (*KINDS, kind))
    monkeypatch.setattr(reporting.report, "KINDS", (*KINDS, kind))
    monkeypatch.setattr("sys.argv", ["parse_results.py", str(tmp_path), "--added"])
    parse_results.main()
    assert capsys.readouterr().out.startswith("## an added table")
    reporting.report.make_report(tmp_path, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "Added section" in text and "an added table" in text


def test_f1_is_named_macro_f1_under_every_table(tmp_path):
    ablation_runs(tmp_path)
    for table in tables_of(KINDS, find_runs(tmp_path), Choices()):
        if any("F1" in header.split() for header in table.headers):
            assert any("F1 is macro F1" in note for note in table.notes), table.title
