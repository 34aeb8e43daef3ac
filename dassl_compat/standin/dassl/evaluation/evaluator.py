"""Metrics of a whole split, gathered batch by batch."""

from collections import OrderedDict
from pathlib import Path

import torch

from core.files import atomic_write

from .build import EVALUATOR_REGISTRY


class EvaluatorBase:
    """``reset``, then ``process`` for each batch, then ``evaluate``."""

    def __init__(self, cfg):
        self.cfg = cfg

    def reset(self):
        raise NotImplementedError

    def process(self, mo, gt):
        raise NotImplementedError

    def evaluate(self):
        raise NotImplementedError


@EVALUATOR_REGISTRY.register()
class Classification(EvaluatorBase):
    """Accuracy, error rate and macro F1, all in percent; optionally per class and confusions."""

    def __init__(self, cfg, lab2cname=None, **kwargs):
        super().__init__(cfg)
        if cfg.TEST.PER_CLASS_RESULT and lab2cname is None:
            raise ValueError("TEST.PER_CLASS_RESULT needs lab2cname, the name of each label")
        self._lab2cname = lab2cname
        self.reset()

    def reset(self):
        self._y_true = []
        self._y_pred = []

    def process(self, mo, gt):
        """Add one batch: scores ``mo`` [batch, n_cls] and labels ``gt`` [batch]."""
        self._y_pred.extend(mo.argmax(dim=1).tolist())
        self._y_true.extend(gt.tolist())

    def evaluate(self):
        """Print the result and return it: accuracy first."""
        if not self._y_true:
            raise ValueError("nothing to evaluate: no batch was processed")
        truth, prediction = torch.tensor(self._y_true), torch.tensor(self._y_pred)
        total, correct = len(truth), int((truth == prediction).sum())
        # Only classes that occur in the truth count, so a split without one is not punished.
        labels = sorted(set(self._y_true))
        results = OrderedDict(
            accuracy=100.0 * correct / total,
            error_rate=100.0 - 100.0 * correct / total,
            macro_f1=100.0 * sum(_f1(truth, prediction, c) for c in labels) / len(labels),
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
            results["perclass_accuracy"] = self._per_class(truth, prediction, labels)
        if self.cfg.TEST.COMPUTE_CMAT:
            self._save_confusions(truth, prediction)
        return results

    def _per_class(self, truth, prediction, labels):
        print("=> per-class result")
        accuracies = []
        for label in labels:
            of_class = truth == label
            total, correct = int(of_class.sum()), int((prediction[of_class] == label).sum())
            accuracies.append(100.0 * correct / total)
            print(
                f"* class: {label} ({self._lab2cname[label]})\t"
                f"total: {total:,}\tcorrect: {correct:,}\tacc: {accuracies[-1]:.4f}%"
            )
        average = sum(accuracies) / len(accuracies)
        print(f"* average: {average:.4f}%")
        return average

    def _save_confusions(self, truth, prediction):
        """Rows are true classes and sum to one; as scikit-learn's with ``normalize="true"``."""
        labels = sorted(set(self._y_true) | set(self._y_pred))
        place = {label: i for i, label in enumerate(labels)}
        confusions = torch.zeros(len(labels), len(labels), dtype=torch.float64)
        for row, column in zip(truth.tolist(), prediction.tolist(), strict=True):
            confusions[place[row], place[column]] += 1
        confusions /= confusions.sum(dim=1, keepdim=True).clamp(min=1)
        path = Path(self.cfg.OUTPUT_DIR) / "cmat.pt"
        with atomic_write(path, "wb") as file:
            torch.save(confusions, file)
        print(f"Confusion matrix is saved to {path}")


def _f1(truth, prediction, label):
    hits = int(((truth == label) & (prediction == label)).sum())
    return 2.0 * hits / int((truth == label).sum() + (prediction == label).sum())
