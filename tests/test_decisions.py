"""Patients, thresholds, calibration and prediction sets against naive definitions."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from results_runs import draw, write_run
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

import parse_results
import train
from core.errors import InputError
from results import calibration, operating, patients
from results import statistics as st
from results.choices import Choices, OperatingPoint
from results.conformal import conformal_bound, prediction_sets
from results.decisions import Judged
from results.metrics import metrics_of
from results.predictions import Predictions, anonymous_groups, read_predictions
from results.record import read_record

MELANOMA = {"positive": "melanoma"}


def predictions(n=60, n_cls=2, seed=0, groups=(), positive=None, skill=1.0):
    label, probability = draw(skill, n, n_cls, seed, pictures_seed=seed)
    names = tuple(f"class {c}" for c in range(n_cls))
    images = np.array([f"{i:03d}.png" for i in range(n)])
    return Predictions(
        images,
        label,
        probability.argmax(1),
        probability,
        names,
        positive=positive,
        groups=anonymous_groups(groups),
    )


def table(capsys, folder, *words):
    """The rows of one table as dictionaries, and what was printed on stderr."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["x", str(folder), *words, "--format", "csv"])
        parse_results.main()
    out, err = capsys.readouterr()
    return list(csv.DictReader(out.split("\n\n")[0].splitlines())), err


# -- patients in the file -------------------------------------------------------------------------


def test_the_file_holds_numbers_in_place_of_patients(tmp_path):
    run = predictions(4, groups=["Doe, Jane", "", "Roe, Richard", "Doe, Jane"])
    run.write(tmp_path / "predictions.csv")
    text = (tmp_path / "predictions.csv").read_text()

    assert "Doe" not in text and "Roe" not in text
    assert [row["group"] for row in csv.DictReader(text.splitlines())] == ["1", "", "2", "1"]
    again = read_predictions(tmp_path / "predictions.csv", run.classnames)
    assert again.groups.tolist() == ["1", "", "2", "1"]
    assert again.take(np.array([2, 3])).groups.tolist() == ["2", "1"]


def test_without_patients_the_file_is_what_it_was(tmp_path):
    run = predictions(4, groups=["", "", "", ""])
    run.write(tmp_path / "predictions.csv")
    header = (tmp_path / "predictions.csv").read_text().splitlines()[0]

    assert header == "picture,label,prediction,p(class 0),p(class 1),subtype"
    assert len(read_predictions(tmp_path / "predictions.csv", run.classnames).groups) == 0


def test_a_run_writes_its_validation_predictions_and_the_patients(toy, toy_args, short):
    """The same file for both splits, with a number for each patient."""
    text = (toy / "toy.yaml").read_text()
    (toy / "toy.yaml").write_text(f"{text}  PATIENT_PATTERN: '^(secret\\d)'\n")
    for path in sorted((toy / "data").rglob("*.png")):
        path.rename(path.with_name(f"secret{int(path.stem) % 2}{path.parts[-3]}_{path.name}"))
    train.main(["--trainer", "ZeroshotCLIP", *toy_args, *short])
    record = read_record(toy / "run")
    val = read_predictions(toy / "run" / "predictions_val.csv", record.classnames)

    assert len(val) == 8 and all(image.startswith("val/") for image in val.images)
    assert val.accuracy == record.validation.accuracy
    assert set(val.groups) == {"1", "2"}
    assert set(read_predictions(toy / "run" / "predictions.csv", val.classnames).groups) == set(
        "12"
    )


# -- the bootstrap --------------------------------------------------------------------------------


def test_the_bootstrap_draws_patients_with_all_their_images():
    clusters = st.clusters_of([[predictions(5, groups=["b", "a", "", "b", ""])]])
    weights = np.concatenate(list(st.resamples(5, 500, 3, clusters)))

    assert clusters.tolist() == [0, 1, 2, 0, 3]
    assert (weights[:, 0] == weights[:, 3]).all()
    assert (weights[:, [0, 1, 2, 4]].sum(axis=1) == 4).all()  # four are drawn of four
    assert (weights[:, 1] != weights[:, 2]).any()


def test_where_no_patient_repeats_the_draws_are_those_of_images():
    alone = predictions(40, groups=[f"p{i}" for i in range(40)])
    assert st.clusters_of([[alone]]) is None
    samples = [
        st.bootstrap_means([[run]], ("accuracy",), 50)["accuracy"]
        for run in (alone, predictions(40))
    ]
    assert (samples[0] == samples[1]).all()


def test_a_run_that_knows_no_patients_takes_those_of_another():
    """Both sides of a difference meet the same patients; the interval is that of brute force."""
    a = predictions(40, seed=1, groups=[f"p{i % 9}" for i in range(40)])
    b = Predictions(a.images, a.labels, 1 - a.predicted, 1 - a.probabilities, a.classnames)
    found = st.bootstrap_difference([[a]], [[b]], ("accuracy",), 60, 5)["accuracy"]

    generator, gaps = np.random.default_rng(5), []
    for drawn in generator.integers(0, 9, size=(60, 9)):
        rows = np.concatenate([np.flatnonzero(np.arange(40) % 9 == patient) for patient in drawn])
        gaps.append(a.correct[rows].mean() - b.correct[rows].mean())
    assert found[1:] == pytest.approx(tuple(np.percentile(gaps, [2.5, 97.5])), abs=1e-12)


def test_intervals_by_patient_hold_the_truth_where_those_by_image_do_not():
    """60 patients of 6 images that are all correct or all not: 95 % only by patient."""
    generator, inside = np.random.default_rng(0), {True: 0, False: 0}
    names = [f"p{i // 6}" for i in range(360)]
    for i in range(120):
        correct = np.repeat(generator.random(60) < 0.7, 6)
        label = np.where(correct, 0, 1)
        p = np.tile([0.9, 0.1], (360, 1))
        for known in inside:
            run = Predictions(
                np.arange(360).astype(str), label, np.zeros(360, int), p, ("a", "b"),
                groups=anonymous_groups(names if known else []),
            )  # fmt: skip
            low, high = st.interval(st.bootstrap_means([[run]], ("accuracy",), 300, i)["accuracy"])
            inside[known] += low <= 0.7 <= high
    assert inside[True] >= 105 and inside[False] < 80


def test_tables_say_where_patients_are_drawn(tmp_path, capsys):
    """--ci and --compare; nothing is said of runs whose patients do not repeat or are unknown."""
    write_run(tmp_path / "a", patients=["p1", "p2", "p3"] * 5 + ["p4"])
    write_run(tmp_path / "a", "CoOp", patients=["p1", "p2", "p3"] * 5 + ["p4"])
    write_run(tmp_path / "b")
    write_run(tmp_path / "b", "CoOp")
    note = "the intervals draw the 4 patients in place of the 60 images"
    too_sure = "images of one patient as independent"
    for folder, times in (("a", 1), ("b", 0)):
        _, err = table(capsys, tmp_path / folder, "--ci")
        assert err.count(note) == times
        _, err = table(capsys, tmp_path / folder, "--compare", "ViP", "CoOp")
        assert err.count(note) == times and err.count(too_sure) == 2 * times


def test_the_majority_row_has_an_interval_by_patient_too(tmp_path, capsys):
    """Patients of ten images of one class: wider than by image."""
    label, _ = draw(1.5, 60, 2, 0)
    names = [f"{c} {i % 3}" for i, c in enumerate(label)]
    write_run(tmp_path / "a", patients=names)
    write_run(tmp_path / "b")
    widths = []
    for folder in ("a", "b"):
        (row, *_), _ = table(capsys, tmp_path / folder, "--ci")
        assert row["method"] == "majority class"
        widths.append(float(row["ACC high"]) - float(row["ACC low"]))
    assert widths[0] > 1.5 * widths[1]


# -- predictions of patients ----------------------------------------------------------------------


def naive_patients(run, combine):
    """{patient: (label, probabilities)} by the definition, a patient at a time."""
    found = {}
    for key in {g or f"image {i}" for i, g in enumerate(run.groups)}:
        rows = [i for i, g in enumerate(run.groups) if (g or f"image {i}") == key]
        classes = {int(run.labels[i]) for i in rows}
        if len(classes) == 1:
            label = classes.pop()
        elif run.positive and run.classnames.index(run.positive) in classes:
            label = run.classnames.index(run.positive)
        else:
            continue
        if combine == "mean":
            p = sum(run.probabilities[i] for i in rows) / len(rows)
        else:
            positive = run.classnames.index(run.positive)
            p = max((run.probabilities[i] for i in rows), key=lambda row: row[positive])
        found[key] = label, p
    return found


@pytest.mark.parametrize("n_cls", [2, 4])
@pytest.mark.parametrize(("combine", "positive"), [("mean", None), ("mean", 1), ("max", 0)])
def test_a_patient_is_its_images_as_one(combine, positive, n_cls):
    names = ["", *(f"p{i % 23}" for i in range(59))]
    positive = None if positive is None else f"class {positive}"
    run = predictions(60, n_cls, seed=3, groups=names, positive=positive)
    found = patients.by_patient(run, combine)
    naive = naive_patients(run, combine)

    assert len(found) == len(naive) < 24 + 1
    rows = [[label, *p] for label, p in zip(found.labels, found.probabilities, strict=True)]
    expected = [[label, *p] for label, p in naive.values()]
    assert sorted(rows) == pytest.approx(np.array(sorted(expected)), abs=1e-12)
    assert (found.predicted == found.probabilities.argmax(1)).all()


def test_the_table_of_patients(tmp_path, capsys):
    """Its metrics are those of the patients; its note says how they were made."""
    names = [f"p{i % 17}" for i in range(60)]
    folder = write_run(tmp_path, patients=names, **MELANOMA)
    run = read_predictions(folder / "predictions.csv", ("melanoma", "nevus"), "melanoma")
    for combine, words in (("mean", "the mean of"), ("max", "most probable")):
        (row,), err = table(capsys, tmp_path, "--patients", combine, "--ci")
        expected = metrics_of(patients.by_patient(run, combine), ("accuracy",))["accuracy"]
        assert float(row["ACC"]) == pytest.approx(expected)
        assert float(row["ACC low"]) < expected < float(row["ACC high"])
        assert "60 images of 17 patients" in err and words in err
        assert "count as melanoma (positive class) if one image is" in err


def test_max_needs_a_positive_class_and_patients_have_to_be_known(tmp_path, capsys):
    write_run(tmp_path / "a", patients=["p1", "p2"])
    write_run(tmp_path / "b")
    assert table(capsys, tmp_path / "b", "--patients")[1].startswith("--patients: no run knows")
    rows, err = table(capsys, tmp_path / "a", "--patients", "max")
    assert rows == [] and "ViP: left out (max needs a positive class; name it by" in err


# -- thresholds -----------------------------------------------------------------------------------


def rates(positive, scores, threshold):
    """(sensitivity, specificity), an image at a time."""
    called = [score >= threshold for score in scores]
    hits = sum(c and p for c, p in zip(called, positive, strict=True))
    left = sum(not c and not p for c, p in zip(called, positive, strict=True))
    return hits / sum(positive), left / sum(not p for p in positive)


@pytest.mark.parametrize("target", [0.7, 0.9, 0.95])
@pytest.mark.parametrize("rate", operating.RATES)
def test_a_threshold_reaches_its_rate_and_gives_up_least(rate, target):
    """Against a search of all thresholds; ties in the scores included."""
    for seed in range(20):
        run = predictions(30 + seed, seed=seed)
        positive, scores = run.labels == 1, run.probabilities[:, 1].round(2)
        found = operating.threshold_for(positive, scores, OperatingPoint(rate, target))
        place = operating.RATES.index(rate)
        candidates = [*scores, *np.nextafter(scores, 2)]
        enough = [
            rates(positive, scores, t)
            for t in candidates
            if rates(positive, scores, t)[place] >= target - 1e-12
        ]
        best = max(both[1 - place] for both in enough)
        achieved = rates(positive, scores, found)
        assert achieved[place] >= target - 1e-12
        assert achieved[1 - place] == pytest.approx(best)


@pytest.mark.parametrize("n_cls", [2, 3])
def test_the_table_of_thresholds(tmp_path, capsys, n_cls):
    """Chosen on validation, measured on test, by the positive class against the rest."""
    names = ("melanoma", "nevus", "wart")[:n_cls]
    folders = [
        write_run(tmp_path, seed=s, n=80, val=50, classnames=names, **MELANOMA) for s in (1, 2, 3)
    ]
    (row,), err = table(capsys, tmp_path, "--operating", "specificity=0.8")
    thresholds, found = [], []
    for folder in folders:
        val, test = (read_predictions(folder / f, names) for f in
                     ("predictions_val.csv", "predictions.csv"))  # fmt: skip
        negatives = sorted(val.probabilities[val.labels != 0, 0])
        # The least threshold above four fifths of the negatives.
        thresholds.append(negatives[math.ceil(0.8 * len(negatives) - 1e-9) - 1])
        found.append(rates(test.labels == 0, test.probabilities[:, 0], thresholds[-1] + 1e-15))
    assert float(row["threshold"]) == pytest.approx(np.mean(thresholds), abs=1e-9)
    assert float(row["threshold deviation"]) == pytest.approx(np.std(thresholds), abs=1e-9)
    for name, values in zip(operating.RATES, zip(*found, strict=True), strict=True):
        assert float(row[name]) == pytest.approx(np.mean(values))
        assert float(row[f"{name} low"]) <= np.mean(values) <= float(row[f"{name} high"])
    assert "positive class: melanoma" in err and "50 validation and 80 test images" in err
    assert "negative validation cases" in err
    assert ("against all other classes" in err) == (n_cls == 3)


def test_a_threshold_needs_a_positive_class_among_several(tmp_path, capsys):
    write_run(tmp_path, val=50, classnames=("a", "b", "c"))
    rows, err = table(capsys, tmp_path, "--operating", "sensitivity=0.9")
    assert rows == [] and "no class is named positive; name one by DATASET.POSITIVE" in err


def test_a_share_of_all_images_has_wilsons_interval(tmp_path, capsys):
    """A bootstrap of 60 correct images knows no error; Wilson's interval does."""
    write_run(tmp_path, val=50, skill=40, **MELANOMA)
    (row,), _ = table(capsys, tmp_path, "--operating", "sensitivity=0.9")
    n = int((draw(40, 60, 2, 0)[0] == 0).sum())
    assert float(row["specificity"]) == 1.0
    assert float(row["specificity low"]) == pytest.approx((60 - n) / (60 - n + 1.959964**2))


# -- calibration ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n_cls", [2, 5])
def test_measures_of_calibration_are_scikit_learns(n_cls):
    run = predictions(400, n_cls, seed=2)
    p, labels = run.probabilities, run.labels
    confidence, correct = p.max(1), run.correct.astype(float)

    assert calibration.negative_log_likelihood(p, labels) == pytest.approx(sk.log_loss(labels, p))
    truth = np.eye(n_cls)[labels]
    naive = sum(sk.brier_score_loss(truth[:, c], p[:, c]) for c in range(n_cls))
    assert calibration.brier_score(p, labels) == pytest.approx(naive)
    accuracy, means = calibration_curve(correct, confidence, n_bins=10, strategy="uniform")
    counts = np.histogram(confidence, np.linspace(0, 1, 11))[0]
    gaps = np.abs(accuracy - means) * counts[counts > 0] / 400
    found = calibration.expected_calibration_error(confidence, correct)
    assert found == pytest.approx(gaps.sum())


def test_the_table_of_calibration(tmp_path, capsys):
    """The temperature comes from validation, the measures from test; it improves a sharp run."""
    folder = write_run(tmp_path, n=400, val=300)
    for name in ("predictions.csv", "predictions_val.csv"):
        run = read_predictions(folder / name, ("melanoma", "nevus"))
        sharp = calibration.tempered(run.probabilities, 1 / 4)
        Predictions(run.images, run.labels, run.predicted, sharp, run.classnames).write(
            folder / name
        )
    val, test = (read_predictions(folder / f, ("melanoma", "nevus")) for f in
                 ("predictions_val.csv", "predictions.csv"))  # fmt: skip
    (row,), err = table(capsys, tmp_path, "--calibration")
    temperature = float(row["temperature"])
    losses = [
        sk.log_loss(val.labels, calibration.tempered(val.probabilities, t))
        for t in (0.98 * temperature, temperature, 1.02 * temperature)
    ]
    assert losses[1] == min(losses) and temperature > 2
    after = calibration.tempered(test.probabilities, temperature)
    assert float(row["NLL before"]) == pytest.approx(sk.log_loss(test.labels, test.probabilities))
    assert float(row["NLL after"]) == pytest.approx(sk.log_loss(test.labels, after))
    for name in ("ECE", "Brier", "NLL"):
        assert float(row[f"{name} after"]) < float(row[f"{name} before"])
    assert "10 bins of equal width" in err


def test_the_reliability_diagram(tmp_path, capsys):
    write_run(tmp_path, val=50)
    write_run(tmp_path, "CoOp", val=50)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["x", str(tmp_path), "--plot", "calibration"])
        parse_results.main()
    paths = capsys.readouterr().out.split()
    assert [Path(path).name for path in paths] == [
        "calibration_derm7pt.png",
        "calibration_derm7pt.pdf",
    ]
    assert all(Path(path).stat().st_size > 1000 for path in paths)


# -- prediction sets ------------------------------------------------------------------------------


def naive_sets(judged, level, by_class):
    """The classes in each set, an image and a class at a time."""
    val, test = judged.val, judged.test
    sets = []
    for p in test.probabilities:
        chosen = []
        for c in range(len(val.classnames)):
            scores = sorted(
                1 - val.probabilities[i][y]
                for i, y in enumerate(val.labels)
                if not by_class or y == c
            )
            k = math.ceil((len(scores) + 1) * level - 1e-9)
            if k > len(scores) or 1 - p[c] <= scores[k - 1]:
                chosen.append(c)
        sets.append(chosen)
    return sets


@pytest.mark.parametrize("by_class", [False, True])
@pytest.mark.parametrize("level", [0.8, 0.9, 0.95])
def test_prediction_sets_are_the_naive_ones(by_class, level):
    judged = Judged(predictions(40, 3, 1), predictions(60, 3, 2))
    found = prediction_sets(judged, level, by_class)
    assert [np.flatnonzero(row).tolist() for row in found] == naive_sets(judged, level, by_class)


def test_a_bound_of_too_few_cases_admits_everything():
    assert conformal_bound(np.array([0.1, 0.2, 0.3]), 0.9) == np.inf
    assert conformal_bound(np.arange(9) / 10, 0.9) == 0.8  # the 9th of 9


@pytest.mark.parametrize("by_class", [False, True])
def test_sets_cover_as_often_as_they_say(by_class):
    """Over 300 draws of 80 validation images; by class in a class that is hard to tell too."""
    covered = []
    for seed in range(300):
        both, hard = (predictions(140, 3, seed, skill=skill) for skill in (2.0, 0.0))
        both.probabilities[both.labels == 2] = hard.probabilities[both.labels == 2]
        judged = Judged(both.take(np.arange(3, 83)), both.take(np.arange(83, 140)))
        sets, labels = prediction_sets(judged, 0.8, by_class), judged.test.labels
        inside = sets[np.arange(len(labels)), labels]
        covered.append([inside.mean(), *(inside[labels == c].mean() for c in range(3))])
    means = np.nanmean(covered, axis=0)
    assert 0.79 < means[0] < (0.86 if by_class else 0.82)
    assert (means[3] > 0.79) == by_class


def test_the_table_of_sets(tmp_path, capsys):
    """Coverage, of each class too, size and single classes, against the naive sets."""
    names = ("a", "b", "c")
    folder = write_run(tmp_path, n=80, val=40, classnames=names)
    judged = Judged(*(read_predictions(folder / f, names) for f in
                      ("predictions_val.csv", "predictions.csv")))  # fmt: skip
    rows, err = table(capsys, tmp_path, "--conformal", "0.8")
    labels = judged.test.labels
    for row, by_class in zip(rows, (False, True), strict=True):
        sets = naive_sets(judged, 0.8, by_class)
        inside = np.array([y in chosen for y, chosen in zip(labels, sets, strict=True)])
        assert float(row["coverage"]) == pytest.approx(inside.mean())
        assert float(row["lowest of a class"]) == pytest.approx(
            min(inside[labels == c].mean() for c in range(3))
        )
        sizes = np.array([len(chosen) for chosen in sets])
        assert float(row["classes in a set"]) == pytest.approx(sizes.mean())
        assert float(row["one class"]) == pytest.approx((sizes == 1).mean())
        assert float(row["none"]) == pytest.approx((sizes == 0).mean())
    # 33rd of 40 scores: the coverage is distributed as Beta(33, 8).
    assert "the bound rests on 40 validation cases" in err and "0.67 and 0.91" in err
    assert "not exchangeable with the test images" in err


# -- what the tables have in common ---------------------------------------------------------------

DECISIONS = (["--operating", "sensitivity=0.9"], ["--calibration"], ["--conformal"])


@pytest.mark.parametrize("words", DECISIONS, ids=lambda words: words[0])
def test_without_validation_predictions_nothing_is_chosen(tmp_path, capsys, words):
    """A row is left out and says why; where no row is left, the command does."""
    write_run(tmp_path, "ViP", **MELANOMA)
    assert "no run has predictions on validation images" in table(capsys, tmp_path, *words)[1]
    write_run(tmp_path, "CoOp", val=50, **MELANOMA)
    write_run(tmp_path, "KgCoOp", val=50, split="val", **MELANOMA)
    rows, err = table(capsys, tmp_path, *words)
    assert {row["method"] for row in rows} == {"CoOp"}
    assert "ViP: left out" in err and "there is no predictions_val.csv" in err
    assert "KgCoOp: left out (tested on its validation images" in err


@pytest.mark.parametrize("words", DECISIONS, ids=lambda words: words[0])
def test_only_runs_that_left_validation_unused_have_no_warning(tmp_path, capsys, words):
    write_run(tmp_path, val=50, config={"TEST.FINAL_MODEL": "last_step"}, **MELANOMA)
    assert "exchangeable" not in table(capsys, tmp_path, *words)[1]
    write_run(tmp_path, "CoOp", val=50, config={"TEST.FINAL_MODEL": "best_val"}, **MELANOMA)
    assert "CoOp: the validation images chose" in table(capsys, tmp_path, *words)[1]


@pytest.mark.parametrize("words", DECISIONS, ids=lambda words: words[0])
def test_decisions_by_patient(tmp_path, capsys, words):
    """With --patients, thresholds, calibration and sets are of patients."""
    write_run(tmp_path, val=50, patients=[f"p{i % 17}" for i in range(60)], **MELANOMA)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["x", str(tmp_path), "--patients", *words])
        parse_results.main()
    out = capsys.readouterr().out
    assert "by patient (mean)," in out and "50 validation and 17 test patients" in out


def test_validation_predictions_of_another_run_are_refused(tmp_path, capsys):
    folder = write_run(tmp_path, val=50)
    other = write_run(tmp_path / "other", skill=0.1, val=50)
    (folder / "predictions_val.csv").write_text((other / "predictions_val.csv").read_text())
    _, err = table(capsys, folder, "--calibration")
    assert "one of the two belongs to another run" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--operating accuracy=0.9", "--operating accuracy=0.9: give sensitivity=0.9 or"),
        ("--operating sensitivity=2", "--operating 2 is not a number above 0 and below 1"),
        ("--operating sensitivity", "--operating nothing is not a number"),
        ("--conformal 1", "--conformal 1 is not a number above 0 and below 1"),
        ("--patients median", "--patients median: choose from mean, max"),
    ],
)
def test_wrong_values_are_one_line(words, message):
    with pytest.raises(InputError) as error:
        parse_results.arguments(words.split())
    assert str(error.value).startswith(message)


def test_a_folder_behind_an_option_is_the_folder(tmp_path):
    args = parse_results.arguments(["--patients", str(tmp_path)])
    assert (args.folder, args.patients) == (tmp_path, "mean")


def test_choices_without_decisions_are_as_before():
    assert Choices().operating is None and operating.operating_tables([], Choices()) == []
