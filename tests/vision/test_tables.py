"""VisionLLM beside the other methods: its model is no backbone, and disturbs no other row."""

import numpy as np
import pytest
from PIL import Image
from results_runs import write_run

import predict
import reporting.report
from core.errors import InputError
from results.choices import Choices
from results.compare import compare_tables
from results.cost import cost_tables
from results.layouts import backbone_tables
from results.method_tables import paper_tables
from results.pairs import matched_runs
from results.rows import methods_of
from results.runs import find_run, find_runs


def write_vision(root, model="gpt-4o", seed=1, **entries):
    """A VisionLLM run, as its command leaves it."""
    options = {"TRAINER.VISIONLLM.MODEL": model}
    return write_run(
        root,
        "VisionLLM",
        backbone=model.replace("-", "_"),
        seed=seed,
        options=options,
        **{
            "own_model": True,
            "place": 88,
            "seeded": False,
            "trainable_parameters": 0,
            "requests": 120,
            "unanswered": 0,
            "seconds": {"test": 50.0, "total": 50.0},
            "features": None,
            "device": "endpoint api.openai.com",
            **entries,
        },
    )


def write_others(root, backbones=("vit_b16",)):
    for backbone in backbones:
        for seed in (1, 2, 3):
            write_run(root, "ViP", backbone=backbone, seed=seed, skill=2.0)
            write_run(root, "CoOp", backbone=backbone, seed=seed, skill=1.0)


def row_of(table, label):
    (found,) = [row for row in table.rows if row[0] == label]
    return found


@pytest.mark.parametrize("backbones", [("vit_b16",), ("vit_b16", "rn50")])
def test_the_other_rows_and_notes_stay_as_they_were(tmp_path, backbones):
    """Means, deviations, counts and notes; one row and what concerns it are all that is new."""
    write_others(tmp_path, backbones)
    (before,) = paper_tables(find_runs(tmp_path), Choices())
    write_vision(tmp_path)
    (after,) = paper_tables(find_runs(tmp_path), Choices())

    label = "VisionLLM (MODEL=gpt-4o)"
    assert [row for row in after.rows if row[0] != label] == before.rows
    assert [note for note in after.notes if label not in note] == before.notes
    assert [note for note in after.notes if label in note] == [
        f"{label}: asks a model at an endpoint; it has no backbone and no training"
    ]
    assert row_of(after, label)[-1] == "1 of 1"
    assert [row[0] for row in after.rows][-2:] == [label, "ViP"]


def test_two_models_are_two_rows(tmp_path):
    """They are never averaged; each has its own figures."""
    write_others(tmp_path)
    folders = [write_vision(tmp_path, model) for model in ("gpt-4o", "qwen")]
    (table,) = paper_tables(find_runs(tmp_path), Choices())

    for folder, model in zip(folders, ("gpt-4o", "qwen"), strict=True):
        run = next(run for run in find_runs(tmp_path) if run.folder == folder)
        row = row_of(table, f"VisionLLM (MODEL={model})")
        assert (row[1].value, row[-1]) == (run.metrics["accuracy"], "1 of 1")


def test_alone_it_is_a_table_too(tmp_path):
    write_vision(tmp_path)
    (table,) = paper_tables(find_runs(tmp_path), Choices())

    assert row_of(table, "VisionLLM (MODEL=gpt-4o)")[-1] == "1 of 1"
    assert not [note for note in table.notes if "missing" in note or "one backbone" in note]


def test_images_without_an_answer_are_told(tmp_path):
    write_others(tmp_path)
    write_vision(tmp_path, unanswered=7)
    (table,) = paper_tables(find_runs(tmp_path), Choices())

    assert (
        "VisionLLM (MODEL=gpt-4o): no answer for 7 of 60 images; their probabilities are even, "
        "which counts as a prediction of melanoma"
    ) in table.notes


def test_a_limited_run_is_told_apart(tmp_path):
    """On fewer images its figures are no rivals of the others'."""
    write_others(tmp_path)
    write_vision(tmp_path, n=20)
    (table,) = paper_tables(find_runs(tmp_path), Choices())

    assert any("tested on 20 of 60 images, so it cannot be compared" in n for n in table.notes)


def test_by_backbone_it_has_one_row(tmp_path):
    """With its model; the others have a row for each backbone."""
    write_others(tmp_path, ("vit_b16", "rn50"))
    write_vision(tmp_path)
    (table,) = backbone_tables(find_runs(tmp_path), Choices())

    assert [row[1] for row in table.rows if row[0].startswith("VisionLLM")] == ["gpt_4o"]
    assert {row[1] for row in table.rows if row[0] == "CoOp"} == {"vit_b16", "rn50"}
    assert not [note for note in table.notes if "missing" in note]


def test_it_is_the_partner_of_every_backbone_and_seed(tmp_path):
    write_others(tmp_path, ("vit_b16", "rn50"))
    write_vision(tmp_path)
    methods = {method.trainer: method for method in methods_of(find_runs(tmp_path))}
    notes = []
    pairs = matched_runs(methods["ViP"], methods["VisionLLM"], notes)

    assert [(a.backbone, a.seed, b.backbone) for _, a, b in pairs] == [
        (backbone, seed, "gpt_4o") for backbone in ("vit_b16", "rn50") for seed in (1, 2, 3)
    ]
    assert notes == []


@pytest.mark.parametrize("names", [("ViP", "VisionLLM:MODEL=gpt-4o")] * 2, ids=["as", "reversed"])
def test_compare_measures_the_difference(tmp_path, names, request):
    """Of all pairs, in either order, by backbone."""
    if "reversed" in request.node.name:
        names = names[::-1]
    write_others(tmp_path, ("vit_b16", "rn50"))
    write_vision(tmp_path)
    runs = find_runs(tmp_path)
    tables = compare_tables(runs, *names, times=50)

    differences, tests = tables[0], tables[1]
    assert [row[0] for row in differences.rows] == ["vit_b16", "rn50", "all backbones"]
    assert [row[:2] for row in tests.rows] == [
        [b, s] for b in ("vit_b16", "rn50") for s in (1, 2, 3)
    ]
    mean = np.mean([r.metrics["accuracy"] for r in runs if r.trainer == "ViP"])
    (own,) = [r.metrics["accuracy"] for r in runs if r.trainer == "VisionLLM"]
    expected = mean - own if names[0] == "ViP" else own - mean
    assert differences.rows[-1][5].value == pytest.approx(expected)


def test_compare_does_not_list_settings_that_only_one_side_has(tmp_path):
    write_run(tmp_path, "CoOp", seed=1, config={"OPTIM.LR": 0.1, "TEST.SPLIT": "test"})
    write_vision(tmp_path, config={"TEST.SPLIT": "val"})
    table, *_ = compare_tables(find_runs(tmp_path), "CoOp", "VisionLLM:MODEL=gpt-4o", times=20)

    differing = [note for note in table.notes if note.startswith("besides the method")]
    assert differing == ["besides the method, TEST.SPLIT differs: test against val (all pairs)"]


def test_two_models_are_compared_as_one_pair(tmp_path):
    for model in ("gpt-4o", "qwen"):
        write_vision(tmp_path, model)
    tables = compare_tables(
        find_runs(tmp_path), "VisionLLM:MODEL=gpt-4o", "VisionLLM:MODEL=qwen", times=20
    )
    assert len(tables[1].rows) == 1


def test_its_cost_is_in_requests(tmp_path):
    write_others(tmp_path)
    write_vision(tmp_path)
    (table,) = cost_tables(find_runs(tmp_path), Choices())

    assert (
        "VisionLLM (MODEL=gpt-4o): 120 requests, 50 seconds of waiting for the endpoint"
    ) in table.notes


def test_the_report_has_its_row(tmp_path):
    write_others(tmp_path)
    write_vision(tmp_path, symptom_fingerprint="0123456789ab")
    page = reporting.report.make_report(
        tmp_path, tmp_path / "report.html", images=False, times=20
    ).read_text()

    assert "VisionLLM (MODEL=gpt-4o)" in page
    assert "against VisionLLM" not in page  # no complaint that it has no partner


def test_a_model_that_is_not_here_cannot_predict(tmp_path):
    folder = write_vision(tmp_path, config={"TRAINER.NAME": "VisionLLM"})
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")

    assert find_run("VisionLLM/gpt_4o", tmp_path) == folder
    with pytest.raises(InputError, match="asked at an endpoint and is not here; .*answers.html"):
        predict.main([str(folder), "--images", str(tmp_path / "a.png")])
