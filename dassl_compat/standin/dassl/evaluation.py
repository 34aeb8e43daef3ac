"""Metrics of a whole split, collected batch by batch."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from dassl.utils import Registry
from torch import Tensor

from core.files import atomic_write
from core.late import imported

EVALUATOR_REGISTRY = Registry("EVALUATOR")


def build_evaluator(cfg: Any, **kwargs: Any) -> Any:
    """Build the evaluator that ``cfg.TEST.EVALUATOR`` names."""
    return EVALUATOR_REGISTRY.build(cfg.TEST.EVALUATOR, cfg, **kwargs)


@EVALUATOR_REGISTRY.register()
class Classification:
    """Accuracy, error rate and macro F1, all in percent; optionally per class and confusions.

    ``reset``, then ``process`` for each batch, then ``evaluate``.
    """

    def __init__(self, cfg: Any, lab2cname: dict[int, str] | None = None, **kwargs: Any) -> None:
        if cfg.TEST.PER_CLASS_RESULT and lab2cname is None:
            raise ValueError("TEST.PER_CLASS_RESULT needs lab2cname, the name of each label")
        self.cfg = cfg
        self._lab2cname = lab2cname or {}
        self.reset()

    def reset(self) -> None:
        """Forget every batch."""
        self._y_true: list[int] = []
        self._y_pred: list[int] = []

    def process(self, mo: Tensor, gt: Tensor) -> None:
        """Add one batch: scores ``mo`` [batch, n_cls] and labels ``gt`` [batch]."""
        self._y_pred.extend(mo.argmax(dim=1).tolist())
        self._y_true.extend(gt.tolist())

    def evaluate(self) -> OrderedDict[str, float]:
        """Print the metrics and return them, accuracy first.

        Macro F1 is the mean over the classes that occur among the labels, as Dassl defines it.
        """
        if not self._y_true:
            raise ValueError("nothing to evaluate: no batch was processed")
        total, labels = len(self._y_true), sorted(set(self._y_true))
        correct = sum(map(int.__eq__, self._y_true, self._y_pred))
        macro_f1 = imported("sklearn.metrics").f1_score(
            self._y_true, self._y_pred, average="macro", labels=labels
        )
        results = OrderedDict(
            accuracy=100.0 * correct / total,
            error_rate=100.0 - 100.0 * correct / total,
            macro_f1=100.0 * float(macro_f1),
        )
        print(
            "=> result\n"
            f"* total: {total:,}\n"
            f"* correct: {correct:,}\n"
            f"* accuracy: {results['accuracy']:.4f}%\n"
            f"* error: {results['error_rate']:.4f}%\n"
            f"* macro_f1: {results['macro_f1']:.4f}%"
        )
        if self.cfg.TEST.PER_CLASS_RESULT:
            results["perclass_accuracy"] = self._per_class(labels)
        if self.cfg.TEST.COMPUTE_CMAT:
            self._save_confusions()
        return results

    def _per_class(self, labels: list[int]) -> float:
        print("=> per-class result")
        accuracies = []
        for label in labels:
            of_class = [p for t, p in zip(self._y_true, self._y_pred, strict=True) if t == label]
            total, correct = len(of_class), of_class.count(label)
            accuracies.append(100.0 * correct / total)
            print(
                f"* class: {label} ({self._lab2cname[label]})\t"
                f"total: {total:,}\tcorrect: {correct:,}\tacc: {accuracies[-1]:.4f}%"
            )
        average = sum(accuracies) / len(accuracies)
        print(f"* average: {average:.4f}%")
        return average

    def _save_confusions(self) -> None:
        """Write cmat.pt: rows are true classes and sum to one."""
        metrics = imported("sklearn.metrics")
        confusions = metrics.confusion_matrix(self._y_true, self._y_pred, normalize="true")
        path = Path(self.cfg.OUTPUT_DIR) / "cmat.pt"
        with atomic_write(path, "wb") as file:
            torch.save(torch.from_numpy(confusions), file)
        print(f"Confusion matrix is saved to {path}")
