"""Metrics against scikit-learn's, and the lines that people's parsers read."""

import re

import pytest
import torch
from dassl.config import get_cfg_default
from dassl.evaluation import build_evaluator
from dassl.metrics import compute_accuracy
from sklearn.metrics import confusion_matrix, f1_score

import dassl_compat

ours_only = pytest.mark.skipif(
    dassl_compat.USING_INSTALLED_DASSL, reason="the installed Dassl is used as it is"
)


@pytest.fixture
def scores():
    """Scores of five classes; no label is class 3, though it is predicted."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (1200,), generator=generator)
    labels[labels == 3] = 4
    return torch.randn(1200, 5, generator=generator) + torch.eye(5)[labels], labels


def evaluate(cfg, logits, labels):
    evaluator = build_evaluator(cfg, lab2cname={c: f"class {c}" for c in range(5)})
    evaluator.reset()
    for start in range(0, len(labels), 100):
        evaluator.process(logits[start : start + 100], labels[start : start + 100])
    return evaluator.evaluate()


def test_metrics_are_scikit_learns(scores):
    logits, labels = scores
    truth, prediction = labels.numpy(), logits.argmax(1).numpy()

    results = evaluate(get_cfg_default(), *scores)

    assert list(results) == ["accuracy", "error_rate", "macro_f1"]
    assert results["accuracy"] == pytest.approx(100 * (truth == prediction).mean())
    assert results["error_rate"] == pytest.approx(100 - results["accuracy"])
    f1 = f1_score(truth, prediction, average="macro", labels=sorted(set(truth)))
    assert results["macro_f1"] == pytest.approx(100 * f1)


def test_lines_are_those_that_parsers_read(scores, capsys):
    """The patterns of the CoOp family's parser."""
    results = evaluate(get_cfg_default(), *scores)
    told = capsys.readouterr().out

    assert "=> result\n* total: 1,200\n* correct: " in told
    for name in ("accuracy", "macro_f1"):
        number = re.search(rf"\* {name}: ([\.\deE+-]+)%", told).group(1)
        precision = 0.05 if dassl_compat.USING_INSTALLED_DASSL else 5e-5
        assert float(number) == pytest.approx(results[name], abs=precision * 1.01)


def test_per_class_result(scores, capsys):
    logits, labels = scores
    cfg = get_cfg_default()
    cfg.TEST.PER_CLASS_RESULT = True

    results = evaluate(cfg, *scores)

    hits = logits.argmax(1) == labels
    by_class = [100 * hits[labels == c].float().mean().item() for c in (0, 1, 2, 4)]
    assert results["perclass_accuracy"] == pytest.approx(sum(by_class) / 4)
    assert "* class: 4 (class 4)\ttotal: " in capsys.readouterr().out


@ours_only
def test_confusions_are_scikit_learns_and_plain(scores, tmp_path):
    logits, labels = scores
    cfg = get_cfg_default()
    cfg.TEST.COMPUTE_CMAT = True
    cfg.OUTPUT_DIR = str(tmp_path)

    evaluate(cfg, *scores)

    saved = torch.load(tmp_path / "cmat.pt", weights_only=True)
    reference = confusion_matrix(labels, logits.argmax(1), normalize="true")
    assert saved.numpy() == pytest.approx(reference)


def test_accuracy_at_k(scores):
    logits, labels = scores
    one, three = compute_accuracy(logits, labels, topk=(1, 3))
    ranks = logits.argsort(dim=1, descending=True)

    assert one.item() == pytest.approx(100 * (ranks[:, 0] == labels).float().mean().item())
    in_three = (ranks[:, :3] == labels[:, None]).any(1)
    assert three.item() == pytest.approx(100 * in_three.float().mean().item())
    assert compute_accuracy((logits,), labels)[0].shape == (1,)
