"""python -m scripts.average: several runs' probabilities averaged, as one run."""

import numpy as np
import pytest
from results_runs import write_run

from core.errors import InputError
from results.record import read_record
from results.runs import Run, find_runs
from scripts import average


def test_the_mean_is_a_run_beside_the_others(tmp_path, capsys):
    folders = [
        write_run(tmp_path, "ZeroshotCLIP", backbone=name, seed=1)
        for name in ("chexzero", "chexzero_2", "chexzero_3")
    ]
    out = tmp_path / "mean"
    average.main([*map(str, folders), "--output-dir", str(out)])
    runs = [Run(read_record(folder), folder).predictions() for folder in folders]
    mean = np.mean([run.probabilities for run in runs], axis=0)
    (found,) = [run for run in find_runs(tmp_path) if run.options.get("AVERAGED") == "3"]
    accuracy = (mean.argmax(axis=1) == runs[0].labels).mean()

    assert np.allclose(found.predictions().probabilities, mean, atol=1e-6)
    assert found.metrics["accuracy"] == pytest.approx(accuracy)
    assert f"* accuracy: {100 * accuracy:.4f}%" in capsys.readouterr().out


def test_validation_predictions_are_averaged_too(tmp_path):
    """So that thresholds can be chosen for the mean; not where a run has none."""
    folders = [write_run(tmp_path, seed=s, val=20 if s < 3 else 0) for s in (1, 2, 3)]
    for number, out in ((2, tmp_path / "two"), (3, tmp_path / "three")):
        average.main([*map(str, folders[:number]), "--output-dir", str(out)])
    runs = [Run(read_record(folder), folder).validation_predictions() for folder in folders[:2]]
    found = Run(read_record(tmp_path / "two"), tmp_path / "two").validation_predictions()

    mean = np.mean([run.probabilities for run in runs], axis=0)
    assert np.allclose(found.probabilities, mean, atol=1e-12)
    assert not (tmp_path / "three" / "predictions_val.csv").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n": 50}, "test images are in only one"),
        ({"classnames": ("nevus", "other")}, "other labels"),
    ],
)
def test_other_images_or_classes_are_one_line(tmp_path, change, said):
    first = write_run(tmp_path, seed=1)
    other = write_run(tmp_path, seed=2, **change)
    with pytest.raises(InputError, match=said):
        average.main([str(first), str(other), "--output-dir", str(tmp_path / "mean")])
    assert not (tmp_path / "mean").exists()


def test_nothing_is_written_over(tmp_path):
    first, other = write_run(tmp_path, seed=1), write_run(tmp_path, seed=2)
    with pytest.raises(InputError, match="already holds a run"):
        average.main([str(first), str(other), "--output-dir", str(first)])
    with pytest.raises(InputError, match="is one run; name two or more"):
        average.main([str(first)])
    with pytest.raises(InputError, match="named twice"):
        average.main([str(first), str(first)])
