"""Run folders as a training run leaves them, small and drawn from a seed."""

import json

import numpy as np
from sklearn import metrics as sk

from results.predictions import Predictions, anonymous_groups

CLASSNAMES = ("melanoma", "nevus")


def draw(skill=1.5, n=60, n_cls=2, seed=0, pictures_seed=0):
    """Labels and probabilities; more skill, more correct. Labels depend on the split only."""
    label = np.random.default_rng(pictures_seed).choice(n_cls, n, p=_shares(n_cls))
    label[:n_cls] = np.arange(n_cls)
    score = np.random.default_rng(seed).normal(size=(n, n_cls))
    score[np.arange(n), label] += skill
    probability = np.exp(score)
    return label, probability / probability.sum(1, keepdims=True)


def _shares(n_cls):
    shares = np.arange(1.0, n_cls + 1)
    return shares / shares.sum()


def metrics_of(label, probability):
    """What results.json says, by scikit-learn."""
    prediction = probability.argmax(1)
    n_cls = probability.shape[1]
    if n_cls == 2:
        auroc = sk.roc_auc_score(label, probability[:, 1])
    else:
        auroc = np.mean([sk.roc_auc_score(label == c, probability[:, c]) for c in range(n_cls)])
    return {
        "accuracy": float(sk.accuracy_score(label, prediction)),
        "balanced_accuracy": float(sk.balanced_accuracy_score(label, prediction)),
        "macro_f1": float(sk.f1_score(label, prediction, average="macro")),
        "auroc": float(auroc),
    }


def write_run(
    root,
    trainer="ViP",
    dataset="derm7pt",
    backbone="vit_b16",
    seed=1,
    options=None,
    skill=1.5,
    n=60,
    classnames=CLASSNAMES,
    subtypes=None,
    config=None,
    predictions=True,
    patients=None,
    val=0,
    **record,
):
    """Write a run's folder and return it; ``record`` overrides entries of results.json.

    ``patients`` are those of the test images, one each or in turn; ``val`` is the number of
    validation images with predictions, each of a patient of its own where patients are known.
    """
    options = options or {}
    variant = "_".join(f"{k}={v}".replace("/", "-") for k, v in options.items()) or "default"
    if record.get("symptom_fingerprint"):
        variant += f"_symptoms-{record['symptom_fingerprint']}"
    folder = root / dataset / trainer / backbone / variant / f"seed{seed}"
    folder.mkdir(parents=True)
    drawn_by = sum(map(ord, f"{trainer}{backbone}{variant}")) * 10 + seed
    label, probability = draw(skill, n, len(classnames), drawn_by)
    counts = {name: int((label == i).sum()) for i, name in enumerate(classnames)}
    results = {
        "format": 2,
        "dataset": dataset,
        "trainer": trainer,
        "backbone": backbone,
        "variant": variant,
        "options": {key: str(value) for key, value in options.items()},
        "seed": seed,
        "split": "test",
        "shots": -1,
        "subsample_classes": "all",
        "classnames": list(classnames),
        "metrics": metrics_of(label, probability),
        "class_counts": {"train": counts, "val": counts, "test": counts},
        "training_split_counts": counts,
        "positive": None,
        "seconds": {
            "setup": 1.0,
            "train": 10.0 * seed,
            "validate": 1.0,
            "test": 1.0,
            "total": 13.0,
        },
        "pictures_per_second": 100.0,
        "peak_memory_bytes": {"gpu": 2**30, "cpu": 2**31},
        "trainable_parameters": 0 if trainer == "ZeroshotCLIP" else 528_384,
        "device": "cpu",
        "versions": {"torch": "2.13.0"},
        "split_fingerprint": "0123456789ab",
        "symptom_file": None,
        "symptom_fingerprint": None,
        **record,
    }
    lines = [f"SEED: {seed}"]
    for key, value in (config or {}).items():
        *parents, last = key.split(".")
        lines += ["  " * depth + f"{parent}:" for depth, parent in enumerate(parents)]
        lines.append("  " * len(parents) + f"{last}: {value}")
    (folder / "config.yaml").write_text("\n".join(lines) + "\n")
    if predictions and results["metrics"] is not None:
        groups = [patients[i % len(patients)] for i in range(n)] if patients else []
        _write_predictions(folder, label, probability, classnames, subtypes, groups)
    if val:
        label, probability = draw(skill, val, len(classnames), drawn_by + 1, pictures_seed=1)
        groups = [f"val {i}" for i in range(val)] if patients else []
        _write_predictions(folder, label, probability, classnames, None, groups, "val")
        results["validation"] = {"accuracy": metrics_of(label, probability)["accuracy"]}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def _write_predictions(folder, label, probability, classnames, subtypes, patients=(), split="test"):
    n = len(label)
    Predictions(
        np.array([f"{split}/{i:03d}.png" for i in range(n)]),
        label,
        probability.argmax(1),
        probability,
        tuple(classnames),
        np.array([subtypes[i % len(subtypes)] if subtypes else "" for i in range(n)]),
        groups=anonymous_groups(patients),
    ).write(folder / ("predictions.csv" if split == "test" else "predictions_val.csv"))
