"""report.py: one file that needs nothing else and says what the runs say."""

import csv
import json
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from results_runs import write_run
from sklearn.metrics import confusion_matrix
from statsmodels.stats.proportion import proportion_confint

import report
from core.errors import command_line
from reporting import measures
from reporting import report as report_page
from reporting.explained import explained_images
from reporting.paths import app_command, value_without_paths, without_paths
from results.named_runs import named_runs
from results.predictions import Predictions
from results.rows import methods_of, tasks_of
from results.runs import find_runs
from results.statistics import mcnemar

VOID = {"meta", "img", "br", "path", "use", "link", "input", "hr"}


class Checker(HTMLParser):
    """Every tag closed, and all that a page may load or run."""

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.tags, self.ids, self.wrong = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attrs = dict(attrs)
        self.loads += [attrs[key] for key in ("src", "href", "xlink:href") if key in attrs]
        self.ids += [attrs["id"]] if "id" in attrs else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def checked(path):
    """The page's text after its form was checked: well-formed, self-contained, no script."""
    text = path.read_text(encoding="utf-8")
    page = Checker()
    page.feed(text)
    assert not page.open and not page.wrong
    assert "script" not in page.tags and "link" not in page.tags
    for address in page.loads:
        assert address.startswith(("#", "data:")), address[:80]
    assert not re.search(r"url\((?!#)|@import", text)
    for address in page.loads:
        if address.startswith("#"):
            assert address[1:] in page.ids
    assert "default-src 'none'" in text
    return text


@pytest.fixture
def many(tmp_path):
    """Runs of an ablation, a knowledge experiment, zero-shot, two datasets and three seeds."""
    root = tmp_path / "output"
    for seed in (1, 2, 3):
        for trainer, skill in (("ViP", 2.0), ("CoOp", 1.5), ("Supervised", 1.0)):
            folder = write_run(root, trainer, seed=seed, skill=skill)
            rows = [("epoch", "loss", "acc", "lr", "val_accuracy", "seconds")]
            rows += [(e, 1 / e, 50, 0.001, 0.5 + e / 100, 1) for e in range(1, 6)]
            with open(folder / "history.csv", "w", newline="") as file:
                csv.writer(file).writerows(rows)
        write_run(root, seed=seed, options={"TRAINER.VIP.MERGE": "mean"}, skill=1.2)
        write_run(
            root, seed=seed, skill=0.5, options={"TRAINER.VIP.SYMPTOMS": "derm7pt_useless.json"}
        )
    for prompts in ("names", "symptoms"):
        write_run(root, "ZeroshotCLIP", options={"TRAINER.ZEROSHOTCLIP.PROMPTS": prompts})
    write_run(root, dataset="three", classnames=("a", "b", "<i>c</i>"))
    return root


def test_report_of_many_runs(many, capsys):
    """Every part is there: tables, curves, matrices, ROC, calibration, rates, settings."""
    report.main([str(many)])

    text = checked(many / "report.html")
    for part in (
        "Report on 18 runs",
        "Significance",
        "derm7pt: ViP against the others",
        "ablation (Table 2)",
        "knowledge (Fig. 5)",
        "zero-shot (Fig. 3 I)",
        "training loss",
        "validation accuracy",
        "Confusion matrices",
        "F1 is macro F1",
        "ROC, melanoma against the rest",
        "ROC, nevus against the rest",
        "sensitivity and specificity",
        "ECE",
        "Configuration and versions",
    ):
        assert part in text, part
    assert "<i>c</i>" not in text and "&lt;i&gt;c&lt;/i&gt;" in text  # names come from outside
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    assert "report.html" in capsys.readouterr().out


def test_the_same_runs_give_the_same_charts(many):
    """Nothing in a page depends on when or in which process it was drawn, but its date."""
    texts = []
    for name in ("a.html", "b.html"):
        report.main([str(many), "--output", str(many / name)])
        texts.append(re.sub(r"written [^.]*\.", "", (many / name).read_text()))

    assert texts[0] == texts[1]


def test_pictures_and_leaving_them_out(toy_run, tmp_path):
    """A run of symptoms shows its best and worst explained pictures, unless they are private.

    At either end each class has at most one picture more than the other, if it has any left.
    """
    folder = toy_run("ViP")
    root = folder.parent

    report.main([str(root), "--output", str(tmp_path / "with.html")])
    report.main([str(root), "--output", str(tmp_path / "without.html"), "--no-images"])

    with_, without = checked(tmp_path / "with.html"), checked(tmp_path / "without.html")
    tasks = with_.count("Best explained, among the correctly classified")  # others' runs, too
    assert 1 <= with_.count("data:image/jpeg;base64,") <= 8 * tasks
    assert "contribution" not in with_ and '<ol class="fall">' in with_
    with open(folder / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    explained = explained_images(methods_of(find_runs(folder)), None)
    for end in ("best", "worst"):
        have = Counter(
            row["label"] for row in rows if (row["label"] == row["prediction"]) == (end == "best")
        )
        shown = Counter(card["truth"] for card in explained[end])
        assert sum(shown.values()) == min(4, sum(have.values()))
        for number in shown.values():
            assert all(number <= shown[other] + 1 or shown[other] == have[other] for other in have)
    assert "data:image" not in without and "Best explained" not in without
    assert str(root.parent / "data") not in without  # the machine's paths are nobody's business


def test_the_report_says_how_to_ask_a_run_in_a_browser(toy_run, tmp_path):
    """With a name that app.py finds, and without the machine's paths."""
    root = tmp_path / "output"  # of this run alone: a name may fit several of a session's runs
    folder = Path(shutil.copytree(toy_run("ViP"), root / "ViP"))
    report.main([str(root), "--output", str(tmp_path / "report.html")])

    text = checked(tmp_path / "report.html")
    assert text.count(f"Ask this run in a browser: <code>python app.py {folder.name}</code>") == 1
    assert "change its symptoms, in a browser: <code>python app.py ViP" in text
    assert named_runs([folder.name], root=root) == [folder]
    assert app_command(root / "a b", root) == "python app.py 'a b'"
    assert app_command(root / "a", root.parent) == "python app.py output/a --runs " + (
        root.parent.name
    )
    assert app_command(root / "a" / "PATH=-home-jane-w.pt" / "seed1", root) == (
        "python app.py a/seed1"
    )
    assert app_command(folder, folder) == f"python app.py {folder.name}"


def test_runs_that_the_page_does_not_show_have_no_command(tmp_path):
    write_run(tmp_path, "VisionLLM")
    ((_, command, _),) = report_page.configurations(find_runs(tmp_path), tmp_path)
    assert command == ""


def test_methods_that_cannot_be_explained_are_not_chosen(tmp_path):
    """They read symptoms too, and may validate better than those that can be."""
    for trainer in ("BiomedCoOp", "XCoOp", "VisionLLM"):
        write_run(tmp_path, trainer, symptom_fingerprint="0" * 12)

    assert explained_images(methods_of(find_runs(tmp_path)), None) is None


def test_a_dataset_that_is_not_here(many):
    """The explained pictures are missing with their reason; all else is there."""
    write_run(many, dataset="gone", symptom_fingerprint="0" * 12)

    report.main([str(many)])

    assert "Explained images" in checked(many / "report.html")


def test_unfinished_runs_are_named(many):
    (many / "half").mkdir()
    (many / "half" / "config.yaml").write_text("a: 1\n")

    report.main([str(many)])

    assert "half: unfinished" in checked(many / "report.html")


NESTED = "[" * 100_000
DAMAGED = {
    "results.json": {
        "empty": "",
        "half-written": '{"format": 1, "dataset": "derm7pt", "trai',
        "null": "null",
        "a list": "[]",
        "binary": b"\x80\x02\xff\x00",
        "nested": NESTED,
        "no dataset": {"dataset": None},
        "a list for a text": {"dataset": ["derm7pt"]},
        "a text for a seed": {"seed": "one"},
        "NaN for a seed": {"seed": float("nan")},
        "a text for metrics": {"metrics": "good"},
        "NaN for a metric": {"metrics": {"accuracy": float("nan"), "macro_f1": 0.5}},
        "900 % accuracy": {"metrics": {"accuracy": 9.0, "macro_f1": 0.5}},
        "a number for class names": {"classnames": 7},
        "a list for options": {"options": ["TRAINER.VIP.MERGE"]},
        "a list for versions": {"versions": ["2.13.0"]},
        "a list for a version": {"versions": {"torch": ["2.13.0"]}},
        "a list for a fingerprint": {"split_fingerprint": ["a"]},
        "a text for validation": {"validation": "good"},
        "a text for seconds": {"seconds": "long"},
    },
    "config.yaml": {
        "empty": "",
        "half-written": "TRAINER: {NAME: ",
        "a list": "- a\n",
        "binary": b"\x80\x02\xff\x00",
        "nested": NESTED,
        "numbers for keys": "1: {2: 3}\n? [a, b]\n: c\n",
        "python": "!!python/object/apply:os.system ['true']\n",
    },
    "history.csv": {
        "empty": "",
        "half-written": "epoch,loss,val_accuracy\n1,0.5",
        "binary": b"\x80\x02\xff\x00",
        "other columns": "a,b\n1,2\n",
        "texts": "epoch,loss,val_accuracy\na,b,c\n",
        "NUL": "epoch,loss,val_accuracy\n1,\x00,2\n",
    },
    "predictions.csv": {
        "empty": "",
        "half-written": "picture,label,prediction,p(melanoma)\ntest/000.png,mel",
        "binary": b"\x80\x02\xff\x00",
        "NaN": "picture,label,prediction,p(melanoma),p(nevus)\na,nevus,nevus,nan,nan\n",
    },
}


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name, kinds in DAMAGED.items() for kind in kinds]
)
def test_a_damaged_run_does_not_stop_the_report(tmp_path, name, kind):
    """It is skipped, or shown without what the file would tell; the other run is there."""
    write_run(tmp_path, seed=1)
    folder = write_run(tmp_path, "CoOp", seed=2)
    content = DAMAGED[name][kind]
    if isinstance(content, dict):
        content = json.dumps(json.loads((folder / name).read_text()) | content)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    report.main([str(tmp_path)])

    text = checked(tmp_path / "report.html")
    assert "ViP, vit_b16, seed 1" in text
    if name == "results.json":
        assert "Report on 1 run<" in text and "CoOp/vit_b16/default/seed2" in text
    else:
        assert "Report on 2 runs" in text


def test_a_task_to_which_nothing_applies(many):
    """Its runs say why they have no figures; there is nothing to test or to draw."""
    why = "needs a transformer"
    write_run(many, "MaPLe", "gone", "rn50", metrics=None, does_not_apply=why)

    report.main([str(many)])

    text = checked(many / "report.html")
    assert why in text and "gone in detail" in text


def test_the_machine_s_paths_are_left_out(many):
    """Settings, labels and reasons keep the names of files, and not where they lie."""
    home = "/home/jane roe"
    config = {
        "OUTPUT_DIR": "/mnt/jane/output",
        "FEATURES": f"{{DIR: {home}/cache, KEEP: true}}",
        "DATASET": f"{{ROOT: /mnt/jane, CSV: ~jane/one.csv, CLASS_FOLDERS: [{home}/a, b/c]}}",
        "TRAINER": "{VIP: {SYMPTOMS: symptoms/mine.json}}",
        "MODEL": r"{BACKBONE: {PATH: 'C:\jane\weights.pt'}}",
    }
    write_run(
        many, dataset="far", config=config, options={"MODEL.BACKBONE.PATH": "/mnt/jane/weights.pt"}
    )
    broken = write_run(many, "CoOp", "far", predictions=False)
    (many / "half").mkdir()
    (many / "half" / "config.yaml").write_text("a: 1\n")

    report.main([str(many)])

    text = checked(many / "report.html")
    assert "jane" not in text and str(many) not in text and str(many.parent) not in text
    for kept in ("DIR: cache", "CSV: one.csv", "PATH=weights.pt", "- b/c", "symptoms/mine.json"):
        assert kept in text
    assert f"{broken.relative_to(many)}/predictions.csv: cannot be read" in text
    assert "half: unfinished" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("out/a/b.csv: broken", "a/b.csv: broken"),
        ("a/b holds /mnt/c/d.json, ~/e/f.pt (and ~g/h)", "a/b holds d.json, f.pt (and h)"),
        ("not 1/2 or +/-, no http://x.org/y", "not 1/2 or +/-, no http://x.org/y"),
        ("layout/a and scout/b", "layout/a and scout/b"),
    ],
)
def test_texts_without_paths(text, expected):
    assert without_paths(text, "out") == expected
    assert value_without_paths([text, 1, None], "out") == [expected, 1, None]


@pytest.mark.parametrize("make", [True, False])
def test_nothing_to_report(tmp_path, capsys, make):
    """One line and exit 2 for an empty folder and for none."""
    folder = tmp_path / "none"
    if make:
        folder.mkdir()
    with pytest.raises(SystemExit) as exit_:
        command_line(lambda: report.main([str(folder)]))()

    lines = capsys.readouterr().err.strip().splitlines()
    assert exit_.value.code == 2
    assert len(lines) == 1 and lines[0].startswith(f"error: {folder}: no ")


def predictions(probabilities, labels, classnames=("a", "b")):
    probabilities, labels = np.asarray(probabilities, float), np.asarray(labels)
    names = np.array([str(i) for i in range(len(labels))])
    return Predictions(names, labels, probabilities.argmax(1), probabilities, classnames)


def test_expected_calibration_error_of_known_answers():
    """All at 95 % confidence and 75 % right: 20 points; and never below zero or above one."""
    sure = predictions([[0.95, 0.05]] * 4, [0, 0, 0, 1])
    assert measures.calibration_error(sure) == pytest.approx(0.20)
    certain = predictions([[1, 0], [0, 1]], [0, 1])
    assert measures.calibration_error(certain) == 0
    # Two bins: 3 of 5 at 0.55 are right, 5 of 5 at 0.75.
    two = predictions([[0.55, 0.45]] * 5 + [[0.75, 0.25]] * 5, [0] * 3 + [1] * 2 + [0] * 5)
    assert measures.calibration_error(two) == pytest.approx(0.5 * 0.05 + 0.5 * 0.25)


def test_rates_are_wilsons():
    """Sensitivity and specificity of each class as counted, with statsmodels' interval."""
    rng = np.random.default_rng(0)
    run = predictions(rng.dirichlet([1, 1, 1], 80), rng.integers(0, 3, 80), ("a", "b", "c"))

    table = measures.rate_table("rates", {"m": [run, run]})

    matrix = confusion_matrix(run.labels, run.predicted)
    low, high = proportion_confint(matrix[1, 1], matrix[1].sum(), method="wilson")
    cell = table.rows[0][3]
    assert cell.value == matrix[1, 1] / matrix[1].sum()
    assert (cell.low, cell.high) == (pytest.approx(low), pytest.approx(high))
    others = np.delete(np.delete(matrix, 1, 0), 1, 1).sum()
    assert table.rows[0][4].value == pytest.approx(others / np.delete(matrix, 1, 0).sum())


def test_significance_is_of_pairs_of_runs(tmp_path):
    """As many McNemar tests as runs, the least p as statsmodels gives it, corrected by Holm."""
    for seed in (1, 2):
        write_run(tmp_path, "ViP", seed=seed, skill=3.0)
        write_run(tmp_path, "CoOp", seed=seed, skill=0.2)
    write_run(tmp_path, "ZeroshotCLIP", skill=0.1)
    methods = {method.trainer: method for method in methods_of(find_runs(tmp_path))}
    ours = methods.pop("ViP")

    table = measures.significance_table("t", ours, list(methods.values()), times=200)

    rows = {row[0]: row for row in table.rows}
    assert rows["CoOp"][3] == "2 of 2" and rows["ZeroshotCLIP"][3] == "2 of 2"
    (ours_runs,) = ours.prediction_groups().values()
    (zero,) = methods["ZeroshotCLIP"].prediction_groups().values()
    least = min(mcnemar(run.correct, zero[0].correct)[2] for run in ours_runs)
    assert least <= rows["ZeroshotCLIP"][4] <= 4 * least
    assert rows["CoOp"][1].low > 0


def test_charts_of_thirty_methods_name_those_that_they_leave_out(tmp_path):
    """A chart has twelve lines at most; the tables and the tests of significance have every row."""
    for place in range(15):
        write_run(tmp_path, f"Method{place:02}", place=place)
    write_run(tmp_path, "ViP", place=90)
    methods = report_page.main_methods(find_runs(tmp_path))
    task = next(iter(tasks_of(find_runs(tmp_path))))
    described = report_page.describe_task(task, methods, False, None, str)
    (table,) = report_page.significance({task: methods}, times=20)

    assert [one["name"] for one in described["confusion"]] == [
        *(f"Method{place:02}" for place in range(4, 15)),
        "ViP",
    ]
    assert described["missing"] == [
        "Method00, Method01, Method02, Method03 (a chart has 12 methods at most)"
    ]
    assert len(table.rows) == 15
