"""Several findings an image: tables, labels, loss, figures and predictions."""

import csv
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from drawn_findings import LABELS, NAMES, films, write_chexpert, write_nih
from sklearn.metrics import f1_score, roc_auc_score
from torch.nn import functional as F
from torch.testing import assert_close

from core.errors import InputError
from core.yaml_files import read_yaml
from datasets.multi_label import label_of
from datasets.views import read_dataset
from engine.config import CONFIGS, load_cfg, read_symptoms
from engine.labels import finding_logits, label_loss, share_correct
from results.finding_tables import bootstrap_figures
from results.findings import (
    FindingPredictions,
    align_findings,
    auroc_of,
    best_threshold,
    f1_of,
    finding_figures,
    macro_auroc,
    read_finding_predictions,
    weighted_figures,
)
from symptoms import SymptomFile

UNKNOWN = math.nan


def dataset_file(folder, layout, *lines):
    """A YAML file of a made table below ``folder``."""
    if layout == "nih":
        columns = '  CSV: "Data_Entry_2017.csv"\n  CSV_COLUMNS: {path: "Image Index", '
        columns += 'label: "Finding Labels", patient: "Patient ID"}\n'
    else:
        columns = "  CSV: CheXpert-v1.0-small/train.csv\n  CSV_COLUMNS: {path: Path}\n"
        columns += "  CSV_ONE_HOT: True\n  PATIENT_PATTERN: '(patient\\d+)/study'\n"
    path = folder / f"{layout}.yaml"
    path.write_text(
        f"DATASET:\n  NAME: ImageFolder\n  MULTI_LABEL: True\n  PATH: {layout}\n"
        f"  CLASSNAMES: [{', '.join(NAMES)}]\n  CLASS_FOLDERS: [{', '.join(LABELS)}]\n{columns}"
        + "".join(f"  {line}\n" for line in lines)
    )
    return path


def read(folder, layout, *lines):
    cfg, _ = load_cfg("CoOp", str(dataset_file(folder, layout, *lines)), "tiny", root=str(folder))
    return read_dataset(cfg)


def everything(dataset):
    return {p.id: label_of(p) for side in dataset.split.values() for p in side}


@pytest.fixture
def nih(tmp_path):
    write_nih(tmp_path / "nih", 24)
    return tmp_path


@pytest.fixture
def chexpert(tmp_path):
    write_chexpert(tmp_path / "chexpert", 24)
    return tmp_path


# Tables


def test_joined_labels(nih, capsys):
    """Each image has the planted findings, "No Finding" has none, and patients are apart."""
    dataset = read(nih, "nih")
    found = everything(dataset)
    planted = [tuple(map(float, shown.values())) for _, shown in films(24)]

    assert [found[name] for name in sorted(found)] == planted
    assert tuple([0.0] * 4) in planted
    assert dataset.classnames == [*NAMES, *(f"no {name}" for name in NAMES)]
    assert "patients in more than one split: none" in capsys.readouterr().out
    positive = sum(label[0] for label in found.values())
    assert sum(side["consolidation"] for side in dataset.class_counts.values()) == positive


def test_official_lists(nih):
    """The splits of train_val_list.txt and test_list.txt, validation drawn from the first."""
    with open(nih / "nih" / "Data_Entry_2017.csv") as file:
        names = [row["Image Index"] for row in csv.DictReader(file)]
    (nih / "nih" / "train_val_list.txt").write_text("\n".join(names[:18]))
    (nih / "nih" / "test_list.txt").write_text("\n".join(names[18:]))
    dataset = read(nih, "nih", "CSV_SPLITS: {train: train_val_list.txt, test: test_list.txt}")

    assert sorted(p.id.split("/")[-1] for p in dataset.test) == sorted(names[18:])
    assert len(dataset.val) + len(dataset.train_x) == 18


@pytest.mark.parametrize("uncertain", ["mask", "positive", "negative"])
@pytest.mark.parametrize("unmentioned", ["mask", "positive", "negative"])
def test_columns(chexpert, uncertain, unmentioned):
    """1, 0, -1 and empty cells as the settings say; the patient is a folder of the path."""
    dataset = read(chexpert, "chexpert", f"UNCERTAIN: {uncertain}", f"UNMENTIONED: {unmentioned}")
    found = everything(dataset)
    means = {"mask": UNKNOWN, "positive": 1.0, "negative": 0.0}
    said = {"1.0": 1.0, "0.0": 0.0, "-1.0": means[uncertain], "": means[unmentioned]}
    with open(chexpert / "chexpert" / "CheXpert-v1.0-small" / "train.csv") as file:
        rows = list(csv.DictReader(file))

    assert {row[name] for row in rows for name in LABELS} == set(said)
    for row in rows:
        expected = [said[row[name]] for name in LABELS]
        np.testing.assert_equal(np.array(found[row["Path"]]), expected)
    patients = {p.id.split("/")[2]: p.patient for p in dataset.train_x}
    assert all(folder == patient for folder, patient in patients.items())


def test_a_label_changes_the_split_s_fingerprint(chexpert):
    prints = {
        read(chexpert, "chexpert", f"UNCERTAIN: {meaning}").split_fingerprint
        for meaning in ("mask", "positive", "negative")
    }
    assert len(prints) == 3


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["NUM_SHOTS: 4"], "NUM_SHOTS does not apply with DATASET.MULTI_LABEL"),
        (["SUBSAMPLE_CLASSES: base"], "SUBSAMPLE_CLASSES does not apply"),
        (["SPLIT_FILE: a.json"], "SPLIT_FILE does not apply with .*CSV_SPLITS"),
        (["POSITIVE: hernia"], "POSITIVE does not apply with"),
        (["ABSENT: none"], "give words around one {}"),
        (["UNCERTAIN: maybe"], "choose mask, positive, negative"),
        (["NOT_FINDINGS: [Normal]"], "'No Finding' is not one of .*NOT_FINDINGS"),
    ],
)
def test_settings_that_do_not_fit(nih, lines, message):
    with pytest.raises(InputError, match=message):
        read(nih, "nih", *lines)


def test_unknown_label(nih):
    """One line with its place; NOT_FINDINGS takes a label out."""
    change(nih / "nih" / "Data_Entry_2017.csv", "Effusion", "Efusion")
    with pytest.raises(InputError, match=r"csv, line \d+: the label 'Efusion' is not one of"):
        read(nih, "nih")
    assert read(nih, "nih", 'NOT_FINDINGS: ["No Finding", Efusion]').findings


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",-1.0,", ",maybe,", r"csv, line 2, column \w+: 'maybe' is not a label"),
        (",Hernia", ",Hernie", "has no column 'Hernia'"),
    ],
)
def test_wrong_columns(chexpert, old, new, message):
    change(chexpert / "chexpert" / "CheXpert-v1.0-small" / "train.csv", old, new)
    with pytest.raises(InputError, match=message):
        read(chexpert, "chexpert")


def test_one_class_datasets_refuse(tmp_path):
    with pytest.raises(InputError, match="MULTI_LABEL is True, but DATASET.NAME SynthDerm"):
        load_cfg("CoOp", "synthderm", "tiny", opts=["DATASET.MULTI_LABEL", "True"])


# Released configurations


@pytest.mark.parametrize("name", ["nih_chestxray14", "chexpert"])
def test_symptom_files_fit_the_configurations(name, checkout):
    """Every finding has phrases; its absence has its own or the shared ones; nothing is left."""
    findings = read_yaml(CONFIGS / "datasets" / f"{name}.yaml")["DATASET"]["CLASSNAMES"]
    path = checkout / "symptoms" / f"{name}.json"
    pairs = [*findings, *(f"no {finding}" for finding in findings)]
    symptoms = read_symptoms(path, pairs, (), findings=True)

    assert list(symptoms.phrases) == pairs
    shared = SymptomFile.read(path).phrases["no finding"]
    assert symptoms.phrases["no cardiomegaly"] != shared == symptoms.phrases["no edema"]


def test_without_shared_phrases_every_absence_needs_its_own(tmp_path):
    path = tmp_path / "s.json"
    path.write_text('{"edema": ["white"], "mass": ["round"], "no edema": ["dark"]}')
    with pytest.raises(InputError, match="class 'no mass' is missing"):
        read_symptoms(path, ["edema", "mass", "no edema", "no mass"], (), findings=True)


# The loss


def naive_loss(logits, labels):
    """The mean of -y log p - (1 - y) log(1 - p) over known labels, p of the pair's softmax."""
    terms = []
    for row, label in zip(logits, labels, strict=True):
        count = len(label)
        for c, y in enumerate(label):
            if not math.isnan(y):
                pair = math.exp(row[c]), math.exp(row[count + c])
                p = pair[0] / sum(pair)
                terms.append(-y * math.log(p) - (1 - y) * math.log(1 - p))
    return sum(terms) / len(terms)


def random_labels(rng, n, count):
    return rng.choice([0.0, 1.0, UNKNOWN], size=(n, count), p=[0.5, 0.3, 0.2])


def test_loss_is_the_binary_cross_entropy_of_pairs():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(7, 10)), random_labels(rng, 7, 5)
    loss = label_loss(torch.tensor(logits), torch.tensor(labels))

    assert loss.item() == pytest.approx(naive_loss(logits, labels), rel=1e-12)


def test_loss_of_one_class():
    logits, label = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 2, 1, 1, 0])
    assert torch.equal(label_loss(logits, label), F.cross_entropy(logits, label))
    expected = (logits.argmax(dim=1) == label).sum().item() / 5
    assert share_correct(logits, label).item() == pytest.approx(expected)


def test_unknown_labels_have_no_gradient():
    """Only the pairs of known labels move; a batch without any has a loss of zero."""
    logits = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    label_loss(logits, torch.tensor([[1.0, UNKNOWN, 0.0], [UNKNOWN] * 3])).backward()
    moved = logits.grad != 0

    assert moved.tolist() == [[True, False, True] * 2, [False] * 6]
    assert label_loss(logits, torch.full((2, 3), UNKNOWN)).item() == 0


def test_correct_counts_known_findings():
    logits = torch.tensor([[2.0, -1.0, 0.0, 0.0], [2.0, 3.0, 0.0, 0.0]])
    label = torch.tensor([[1.0, 1.0], [UNKNOWN, 1.0]])

    assert share_correct(logits, label).item() == pytest.approx(2 / 3)
    assert share_correct(logits, torch.full((2, 2), UNKNOWN)).item() == 0
    assert_close(finding_logits(logits).sigmoid(), logits.view(2, 2, 2).softmax(1)[:, 0])


# Figures


def predictions(seed=0, n=60, count=3):
    rng = np.random.default_rng(seed)
    labels = random_labels(rng, n, count)
    p = (rng.random((n, count)) + np.nan_to_num(labels, nan=0.5)) / 2
    return FindingPredictions(
        np.array([f"{i:03d}.png" for i in range(n)]), labels, p.round(2), tuple("abc"[:count])
    )


def test_figures_are_scikit_learn_s():
    """AUROC (with ties) and F1 of known labels; the macro figures are their means."""
    run, thresholds = predictions(), np.array([0.4, 0.5, 0.7])
    found = finding_figures(run, thresholds)
    areas, scores = [], []
    for c, name in enumerate(run.findings):
        known = ~np.isnan(run.labels[:, c])
        label, p = run.labels[known, c], run.probabilities[known, c]
        areas.append(roc_auc_score(label, p))
        scores.append(f1_score(label, p >= thresholds[c]))
        figures = found["findings"][name]
        assert figures["auroc"] == pytest.approx(areas[-1], abs=1e-12)
        assert figures["f1"] == pytest.approx(scores[-1], abs=1e-12)
        assert (figures["known"], figures["positive"]) == (known.sum(), label.sum())

    assert found["macro_auroc"] == pytest.approx(np.mean(areas), abs=1e-12)
    assert found["macro_f1"] == pytest.approx(np.mean(scores), abs=1e-12)
    assert macro_auroc(run) == found["macro_auroc"]


def test_weights_are_repeated_images():
    """A bootstrap's weights give the figures of the images that it drew."""
    run, thresholds = predictions(), np.full(3, 0.5)
    drawn = np.random.default_rng(1).integers(0, len(run), (4, len(run)))
    weights = np.stack([np.bincount(row, minlength=len(run)) for row in drawn])
    weighted = weighted_figures(run, weights, thresholds)
    for i, row in enumerate(drawn):
        plain = weighted_figures(run.take(row), np.ones((1, len(run))), thresholds)
        for name in ("macro_auroc", "macro_f1", auroc_of("b"), f1_of("b")):
            assert weighted[name][i] == pytest.approx(plain[name][0], abs=1e-12)


def test_a_finding_of_one_value_has_no_figures():
    """It does not enter the means; without any other there are none."""
    run = predictions()
    run.labels[:, 1] = np.where(np.isnan(run.labels[:, 1]), UNKNOWN, 0)
    found = finding_figures(run, None)

    assert found["findings"]["b"]["auroc"] is None and found["findings"]["b"]["f1"] is None
    rest = [found["findings"][name]["auroc"] for name in "ac"]
    assert found["macro_auroc"] == pytest.approx(np.mean(rest))
    run.labels[:] = UNKNOWN
    assert finding_figures(run, None)["macro_f1"] is None and macro_auroc(run) is None


@pytest.mark.parametrize("seed", range(5))
def test_threshold_of_the_highest_f1(seed):
    """No threshold between two scores is better."""
    run = predictions(seed)
    known = ~np.isnan(run.labels[:, 0])
    label, p = run.labels[known, 0], run.probabilities[known, 0]
    values = np.unique(np.concatenate([[0.0], p]))
    candidates = [*((values[1:] + values[:-1]) / 2), 0.0]
    best = max(f1_score(label, p >= t) for t in candidates)

    chosen = best_threshold(run.labels[:, 0], run.probabilities[:, 0])
    assert f1_score(label, p >= chosen) == pytest.approx(best, abs=1e-12)
    assert best_threshold(np.array([0.0, UNKNOWN]), np.array([0.2, 0.9])) == 0.5


# Their file


def test_file_gives_the_predictions_back(tmp_path):
    run = predictions()
    run.write(tmp_path / "p.csv")
    again = read_finding_predictions(tmp_path / "p.csv", run.findings)

    assert (tmp_path / "p.csv").read_text().startswith("picture,label(a),label(b),label(c),p(a)")
    np.testing.assert_array_equal(again.labels, run.labels)
    np.testing.assert_array_equal(again.probabilities, run.probabilities)
    shuffled = run.take(np.arange(len(run))[::-1])
    for aligned in align_findings([shuffled, again]):
        np.testing.assert_array_equal(aligned.probabilities, run.probabilities)


def test_intervals_draw_patients(tmp_path):
    """Images of one patient are drawn together, by numbers that come back from the file."""
    alone = predictions()
    pictures = [
        SimpleNamespace(id=image, label=tuple(label), patient=f"Jane Doe {n % 6}")
        for n, (image, label) in enumerate(zip(alone.images, alone.labels, strict=True))
    ]
    run = FindingPredictions.of(pictures, alone.probabilities, alone.findings)
    run.write(tmp_path / "p.csv")
    again = read_finding_predictions(tmp_path / "p.csv", run.findings)
    shares = bootstrap_figures([(again.take(np.arange(len(run))), np.full(3, 0.5), 1.0)], 50)

    assert "Jane" not in (tmp_path / "p.csv").read_text()
    assert again.groups.tolist() == [str(n % 6 + 1) for n in range(len(run))]
    drawn = np.random.default_rng(0).integers(0, 6, (50, 6))
    rows = [np.concatenate([np.arange(n, len(run), 6) for n in patients]) for patients in drawn]
    naive = [macro_auroc(run.take(of)) for of in rows]
    np.testing.assert_allclose(shares["macro_auroc"], naive, atol=1e-12)


@pytest.mark.parametrize(
    ("old", "new"),
    [("p(a)", "q(a)"), ("001.png", "000.png"), ("000.png,", "000.png,2"), ("0.", "7.")],
)
def test_damaged_file(tmp_path, old, new):
    path = tmp_path / "p.csv"
    predictions().write(path)
    change(path, old, new)
    with pytest.raises(InputError, match="p.csv: damaged or of another format"):
        read_finding_predictions(path, tuple("abc"))


def test_runs_on_other_labels_are_not_aligned():
    run, other = predictions(), predictions()
    other.labels[0] = 1 - np.nan_to_num(other.labels[0])
    with pytest.raises(ValueError, match="other labels"):
        align_findings([run, other])
