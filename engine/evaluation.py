"""Predictions, the figures drawn from them, and the files a run leaves behind."""

import csv

import numpy as np
from sklearn import metrics as sk

from core.files import atomic_write


class Predictions:
    """Class probabilities for the pictures of a split.

    Args:
        pictures: the split's ``Picture`` objects, n of them.
        probabilities: [n, n_cls], rows summing to one.
        classnames: n_cls names.
    """

    def __init__(self, pictures, probabilities, classnames):
        self.pictures = pictures
        self.probabilities = probabilities
        self.classnames = list(classnames)
        self.label = np.array([picture.label for picture in pictures])
        self.prediction = probabilities.argmax(axis=1)

    @property
    def accuracy(self):
        return float((self.prediction == self.label).mean())

    def metrics(self):
        """Accuracy, balanced accuracy, macro F1, AUROC and per-class rates, all fractions.

        AUROC is one against rest, averaged over classes (for two classes: the usual one). A figure
        that the split does not define (a class without pictures) is None.
        """
        labels = range(len(self.classnames))
        matrix = sk.confusion_matrix(self.label, self.prediction, labels=labels)
        per_class = {}
        for c, name in enumerate(self.classnames):
            hits, positives = matrix[c, c], matrix[c].sum()
            negatives = matrix.sum() - positives
            false_alarms = matrix[:, c].sum() - hits
            per_class[name] = {
                "sensitivity": _ratio(hits, positives),
                "specificity": _ratio(negatives - false_alarms, negatives),
            }
        recalls = [rates["sensitivity"] for rates in per_class.values()]
        present = [recall for recall in recalls if recall is not None]
        return {
            "accuracy": self.accuracy,
            "balanced_accuracy": sum(present) / len(present),
            "macro_f1": float(
                sk.f1_score(
                    self.label, self.prediction, labels=labels, average="macro", zero_division=0
                )
            ),
            "auroc": self._auroc(),
            "per_class": per_class,
        }

    def _auroc(self):
        areas = []
        for c in range(len(self.classnames)):
            positive = self.label == c
            if positive.all() or not positive.any():
                return None
            areas.append(sk.roc_auc_score(positive, self.probabilities[:, c]))
        return float(areas[-1] if len(areas) == 2 else np.mean(areas))

    def write(self, path):
        """Write predictions.csv: picture, label, prediction, p(class)..., subtype."""
        names = self.classnames
        with atomic_write(path) as file:
            writer = csv.writer(file)
            columns = [f"p({name})" for name in names]
            writer.writerow(["picture", "label", "prediction", *columns, "subtype"])
            rows = zip(self.pictures, self.label, self.prediction, self.probabilities, strict=True)
            for picture, label, prediction, row in rows:
                values = [repr(float(p)) for p in row]
                writer.writerow(
                    [picture.id, names[label], names[prediction], *values, picture.subtype]
                )


def _ratio(part, whole):
    return float(part / whole) if whole else None


def print_result(predictions, metrics):
    """The lines that parsers of Dassl's logs read, with all digits, and the figures of a class."""
    total = len(predictions.label)
    correct = int((predictions.prediction == predictions.label).sum())
    print("=> result")
    print(f"* total: {total:,}")
    print(f"* correct: {correct:,}")
    print(f"* accuracy: {100 * metrics['accuracy']:.4f}%")
    print(f"* error: {100 - 100 * metrics['accuracy']:.4f}%")
    print(f"* macro_f1: {100 * metrics['macro_f1']:.4f}%")
    print(f"* balanced_accuracy: {100 * metrics['balanced_accuracy']:.4f}%")
    if metrics["auroc"] is not None:
        print(f"* auroc: {100 * metrics['auroc']:.4f}%")
    for name, rates in metrics["per_class"].items():
        shown = ", ".join(
            f"{rate} {100 * value:.4f}%" for rate, value in rates.items() if value is not None
        )
        print(f"* {name}: {shown}")
