"""Few-shot: the table of shots x methods, and all methods' curves in one figure."""

import numpy as np
import pytest
from matplotlib.text import Annotation
from results_runs import write_run

from engine.method import METHODS
from results import shot_plots
from results.choices import Choices
from results.few_shot import shots_tables
from results.runs import find_runs
from results.shot_plots import FAMILIES, MARKERS, spaced


def few_shot(root, trainer, shots, seeds=(1,), options=None, **record):
    """Runs of a method with some numbers of shots; their folders by (shots, seed)."""
    return {
        (n, seed): write_run(
            root,
            trainer,
            seed=seed,
            shots=n,
            options={**(options or {}), "DATASET.NUM_SHOTS": n},
            **record,
        )
        for n in shots
        for seed in seeds
    }


def test_a_column_for_each_number_of_shots(tmp_path):
    few_shot(tmp_path, "ViP", (1, 2, 16), seeds=(1, 2, 3), skill=2.0)
    few_shot(tmp_path, "CoOp", (1, 16), seeds=(1, 2, 3))
    few_shot(tmp_path, "KgCoOp", (16,))  # one point is no curve
    write_run(tmp_path, "ViP", seed=1)
    write_run(tmp_path, "ZeroshotCLIP")
    runs = find_runs(tmp_path)
    accuracy, f1 = shots_tables(runs, Choices())

    assert (accuracy.title, f1.title) == ("derm7pt, few-shot, ACC", "derm7pt, few-shot, F1")
    assert accuracy.headers == ["method", "1 shot", "2 shots", "16 shots", "all images"]
    rows = {row[0]: row[1:] for row in accuracy.rows}
    assert list(rows) == ["ZeroshotCLIP", "CoOp", "ViP"]
    assert rows["CoOp"][1] is None and rows["CoOp"][3] is None
    zero = {str(cell) for cell in rows["ZeroshotCLIP"]}
    assert len(zero) == 1 and zero != {"None"}
    expected = [r.metrics["accuracy"] for r in runs if r.trainer == "ViP" and r.shots == 2]
    assert rows["ViP"][1].value == pytest.approx(np.mean(expected))
    assert rows["ViP"][1].deviation == pytest.approx(np.std(expected))
    assert "ViP, all images: missing vit_b16 seeds 2 3" in accuracy.notes


def test_the_row_of_an_own_schedule_is_a_line_of_its_own(tmp_path):
    for options in ({}, {"PROTOCOL": "own"}):
        few_shot(tmp_path, "CoOp", (1, 16), options=options)
    (table,) = shots_tables(find_runs(tmp_path), Choices(("accuracy",)))
    assert [row[0] for row in table.rows] == ["CoOp", "CoOp (PROTOCOL=own)"]


@pytest.fixture
def crowd(tmp_path):
    """Runs of thirty methods, of which many end alike."""
    names = [*(name for _, members in FAMILIES.values() for name in members), "Another"]
    for place, name in enumerate(names):
        trained = name not in FAMILIES["nothing trained"][1]
        shots = (1, 4, 16) if trained else (-1,)
        for n in shots:
            options = {"DATASET.NUM_SHOTS": n} if trained else {}
            parameters = 1000 if trained else 0
            write_run(
                tmp_path,
                name,
                shots=n,
                options=options,
                place=place,
                trainable_parameters=parameters,
            )
    few_shot(tmp_path, "CoOp", (1, 4, 16), options={"PROTOCOL": "own"})
    return names, tmp_path


def test_all_names_stand_apart_in_one_figure(crowd, monkeypatch):
    names, root = crowd
    figures = []
    monkeypatch.setattr(shot_plots, "save", lambda figure, *_: figures.append(figure) or [])
    shot_plots.plot_shots(find_runs(root), root)
    (figure,) = figures
    panels = figure.axes

    assert len(panels) == 2 and len(names) > 25
    for axis in panels:
        written = [text for text in axis.texts if isinstance(text, Annotation)]
        assert {text.get_text() for text in written} == {*names, "CoOp (PROTOCOL=own)"}
        heights = sorted(text.xyann[1] for text in written)
        low, high = axis.get_ylim()
        pixels = axis.get_window_extent().height / (high - low)
        size = written[0].get_fontsize() * figure.dpi / 72
        assert min(np.diff(heights)) * pixels > size  # a line of text each
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert set(legend) == {*FAMILIES, "other"}


def test_every_method_of_a_figure_has_another_look(crowd, monkeypatch):
    """No two lines have the same colour, marker and dashes, but those that nothing trains."""
    _, root = crowd
    figures = []
    monkeypatch.setattr(shot_plots, "save", lambda figure, *_: figures.append(figure) or [])
    shot_plots.plot_shots(find_runs(root), root)
    axis = figures[0].axes[0]
    looks = [
        (line.get_color(), line.get_marker(), line.get_linestyle())
        for line in axis.lines
        if len(line.get_xdata()) == 3 and line.get_marker() in MARKERS
    ]
    assert len(looks) > 20 and len(set(looks)) == len(looks)


def test_every_method_has_a_family():
    """Or it is drawn as 'other', which is right for a method of one's own."""
    known = {name for _, members in FAMILIES.values() for name in members}
    assert METHODS.keys() <= known


@pytest.mark.parametrize(
    "values, expected",
    [
        ([0.5], [0.5]),
        ([0.2, 0.8], [0.2, 0.8]),
        ([0.5, 0.5, 0.5], [0.5, 0.6, 0.7]),
        ([0.9, 0.95, 1.0], [0.8, 0.9, 1.0]),
        ([0.0, 0.0], [0.0, 0.1]),
        ([0.5] * 21, list(np.linspace(0, 1, 21))),
    ],
)
def test_names_are_spaced(values, expected):
    assert spaced(values, 0.1, 0.0, 1.0) == pytest.approx(expected)
