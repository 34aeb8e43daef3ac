"""Published figures: their data files, and when a figure may be compared with ours."""

import pytest
from results_runs import write_run

from core.errors import InputError
from results import layouts, method_tables, paper
from results.choices import Choices
from results.paper import paper_names, read_paper
from results.runs import find_runs

# A paper with figures of single datasets, as a file of results/published.
MADE_UP = """
citation: "Nobody, 2030"
link: https://example.org
backbones: [biomedclip]
seeds: 3
schedule: own
tables:
  - source: Table 1
    dataset: derm7pt
    shots: 16
    figures:
      CoOp: {accuracy: [0.7, 0.01]}
      BiomedCoOp: {accuracy: 0.8}
      ZeroshotCLIP: {accuracy: 0.5}
  - source: Table 2
    dataset: derm7pt
    shots: 4
    figures:
      CoOp: {accuracy: 0.6}
"""


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    """The made-up paper, read from a folder that holds it alone."""
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "nobody.yaml").write_text(MADE_UP)
    monkeypatch.setattr(paper, "FOLDER", folder)
    read_paper.cache_clear()
    yield read_paper("nobody")
    read_paper.cache_clear()


def cells(root, *papers, column=-2):
    """(first cell of a row -> a cell of it, notes) of the only table of a folder's runs."""
    (table,) = method_tables.paper_tables(find_runs(root), Choices(papers=papers))
    return {row[0]: str(row[column]) for row in table.rows}, table.notes


@pytest.mark.parametrize("name", paper_names())
def test_every_file_is_of_the_schema(name):
    """With its source, and means or figures of known metrics."""
    source = read_paper(name)

    assert source.citation and source.backbones and source.tables
    assert all(table.source and table.figures for table in source.tables)
    assert source.link or name == "vip"


@pytest.mark.parametrize(
    "name, shots, classes, method, figure",
    [
        ("biomedcoop", 16, "all", "BiomedCoOp", 0.7242),
        ("biomedcoop", 1, "all", "LPPlusPlus", 0.4724),
        ("biomedcoop", 16, "new", "KgCoOp", 0.6408),
        ("biomedcoop", 16, "harmonic mean", "BiomedCoOp", 0.7507),
        ("clipsvd", 16, "all", "CLIPSVD", 0.7646),
        ("clipsvd", 16, "all", "MaPLe", 0.5293),
        ("clipsvd", 16, "base", "XCoOp", 0.7462),
        ("clipsvd", 16, "harmonic mean", "CLIPSVD", 0.7825),
        ("vip", -1, "all", "ViP", 0.8111),
    ],
)
def test_figures_are_those_printed(name, shots, classes, method, figure):
    table = read_paper(name).table_for("derm7pt", shots, classes)
    assert (table.shots, table.classes) == (shots, classes)
    assert table.estimate(method, "accuracy").value == figure


def test_a_figure_of_the_same_protocol_is_not_marked(tmp_path, made_up):
    """The paper's own schedule, dataset, backbone and shots; zero-shot has no schedule."""
    same = {"trainer": "CoOp", "backbone": "biomedclip", "shots": 16}
    write_run(tmp_path, **same, options={"PROTOCOL": "own"})
    write_run(tmp_path, **same)
    found, notes = cells(tmp_path, made_up)

    assert found["CoOp (PROTOCOL=own)"] == ".7000 (.010)"
    assert found["CoOp"] == "None"  # the other row is the paper's
    assert not any("another protocol" in note for note in notes)
    assert "nobody: Nobody, 2030, Table 1, https://example.org; biomedclip, 3 seeds" in notes


@pytest.mark.parametrize(
    "run, reason",
    [
        ({}, "the paper trains by its own schedule, and these rows by the shared one: CoOp"),
        ({"backbone": "vit_b16"}, "with biomedclip, here vit_b16"),
        ({"shots": 8}, "16 training images a class, here 8 training images a class"),
        ({"shots": -1}, "16 training images a class, here all training images"),
    ],
    ids=str,
)
def test_a_figure_of_another_protocol_is_marked_with_the_reason(tmp_path, made_up, run, reason):
    options = {"PROTOCOL": "own"} if run else {}
    write_run(tmp_path, "CoOp", **{"backbone": "biomedclip", "shots": 16, **run}, options=options)
    shots = {8: 4}.get(run.get("shots"))  # the nearest that the paper has
    found, notes = cells(tmp_path, made_up)
    expected = ".6000*" if shots else ".7000 (.010)*"

    assert found["CoOp (PROTOCOL=own)" if run else "CoOp"] == expected
    (note,) = [note for note in notes if "another protocol" in note]
    assert note == f"nobody, figures with *: another protocol, not comparable: {reason}".replace(
        "16 training images a class, here 8", "4 training images a class, here 8"
    )


@pytest.mark.parametrize(
    "record", [{"fitted_at_once": True}, {"trainable_parameters": 0}], ids=["fitted", "untrained"]
)
def test_what_is_not_trained_in_steps_has_no_other_schedule(tmp_path, made_up, record):
    write_run(tmp_path, "CoOp", backbone="biomedclip", shots=16, **record)
    if "trainable_parameters" in record:  # then its shots do not matter
        shots = read_paper("nobody").tables[0].model_copy(update={"shots": -1})
        made_up = made_up.model_copy(update={"tables": (shots,)})
    found, notes = cells(tmp_path, made_up)
    assert found["CoOp"] == ".7000 (.010)"
    assert not any("another protocol" in note for note in notes)


def test_means_over_datasets_are_marked_beside_any_dataset(tmp_path):
    write_run(tmp_path, "CoOp", dataset="synthderm", backbone="biomedclip", shots=16)
    write_run(tmp_path, "ViP", dataset="synthderm", backbone="biomedclip", shots=16)
    found, notes = cells(tmp_path, read_paper("biomedcoop"))

    assert found == {"majority class": "None", "CoOp": ".6962*", "ViP": "None"}
    assert any("mean over 11 biomedical datasets, here synthderm" in note for note in notes)


def test_figures_of_vip_s_own_backbones_are_not_marked(tmp_path):
    """A part of its backbones is said elsewhere; another backbone is another protocol."""
    write_run(tmp_path / "same", "CoOp", backbone="rn50")
    write_run(tmp_path / "other", "CoOp", backbone="tiny")
    vip = read_paper("vip")

    assert cells(tmp_path / "same", vip, column=3)[0]["CoOp"] == ".7823 (.005)"
    found, notes = cells(tmp_path / "other", vip, column=3)
    assert found["CoOp"] == ".7823 (.005)*"
    assert any("with vit_b16, vit_l14, rn50, here tiny" in note for note in notes)


def test_base_to_new_has_the_papers_three_figures(tmp_path):
    for half in ("base", "new"):
        write_run(
            tmp_path,
            "CoOp",
            shots=16,
            options={"DATASET.SUBSAMPLE_CLASSES": half},
            subsample_classes=half,
        )
    choices = Choices(papers=[read_paper("biomedcoop")], metrics=["accuracy"])
    (table,) = layouts.base_to_new_tables(find_runs(tmp_path), choices)

    assert table.headers[-3:] == [f"biomedcoop {part} ACC" for part in ("base", "new", "HM")]
    assert [str(cell) for cell in table.rows[0][-3:]] == [".7385*", ".6475*", ".6723*"]


@pytest.mark.parametrize(
    "change, message",
    [
        (("accuracy: [0.7, 0.01]", "acuracy: 0.7"), "no such metric; there are accuracy"),
        (("accuracy: [0.7, 0.01]", "accuracy: 70.1"), "less than or equal to 1"),
        (("    dataset: derm7pt\n    shots: 16", "    shots: 16"), "either dataset or mean_over"),
        (("schedule: own", "schedule: other"), "'shared' or 'own'"),
        (("seeds: 3\n", ""), "seeds: Field required"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, made_up, change, message):
    assert change[0] in MADE_UP
    path = paper.FOLDER / "wrong.yaml"
    path.write_text(MADE_UP.replace(*change))
    with pytest.raises(InputError, match="wrong.yaml: ") as raised:
        read_paper("wrong")
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_an_unknown_paper_names_those_there_are():
    with pytest.raises(InputError, match="of nope; choose from biomedcoop, clipsvd, vip"):
        read_paper("nope")
