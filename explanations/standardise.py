"""Similarities that compare across symptoms: against those of the training pictures.

CLIP's cosines to any text lie within a narrow band of their own, so a raw similarity says more of
the phrase than of the picture. How far it is from the training pictures' mean, in their deviations,
speaks of the picture.
"""

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from foundation.errors import InputError
from foundation.files import atomic_write, fingerprint

from .contributions import contributions


@dataclass(frozen=True)
class Standard:
    """What is usual over the training pictures."""

    mean: np.ndarray  # [K, k] similarity, NaN where a class has fewer symptoms
    deviation: np.ndarray  # [K, k]
    contribution: np.ndarray  # [K, k] mean contribution

    def of(self, similarity):
        """Similarities [n, K, k] as deviations from the training pictures' mean."""
        return (similarity - self.mean) / self.deviation


def standard(run):
    """The ``Standard`` of a run; None, with a line on stderr, where its pictures are not here."""
    try:
        features = run.training_features
    except InputError as error:
        print(f"similarities are shown as they are, not standardised: {error}", file=sys.stderr)
        return None
    parts = contributions(run.model, features)
    deviation = parts.similarity.std(axis=0)
    return Standard(
        parts.similarity.mean(axis=0),
        np.where(deviation > 0, deviation, np.nan),
        parts.symptom.mean(axis=0),
    )


def training_features(run):
    """Encode the training split's centre-crop views, or read them as encoded before.

    Kept in the run's folder, so that the next explanation starts at once and needs no dataset.

    Returns:
        [n, d] fp32.
    """
    known = run.results.get("split_fingerprint") or run.dataset.split_fingerprint
    file = run.folder / "explanations" / f"train-features-{_key(run.cfg, known)}.npy"
    with contextlib.suppress(OSError, ValueError):
        return torch.from_numpy(np.load(file, allow_pickle=False))
    pictures = [picture.impath for picture in run.pictures("train")]
    features = run.encode(pictures, progress="encoding the training pictures")
    # A folder that may not be written costs time, nothing else.
    with contextlib.suppress(PermissionError), atomic_write(file, "wb") as stream:
        np.save(stream, features.numpy())
    return features


def _key(cfg, split_fingerprint):
    """Changes whenever the pictures, their views or the image encoder do."""
    path = Path(cfg.MODEL.BACKBONE.PATH).expanduser()
    stat = path.stat() if cfg.MODEL.BACKBONE.PATH else None
    return fingerprint(
        [
            split_fingerprint,
            cfg.DATASET.NUM_SHOTS,
            cfg.DATASET.SUBSAMPLE_CLASSES,
            cfg.SEED if cfg.DATASET.NUM_SHOTS > 0 else None,
            cfg.MODEL.BACKBONE.NAME,
            [stat.st_size, stat.st_mtime_ns] if stat else None,
            cfg.TRAINER[cfg.TRAINER.NAME.upper()].PREC,
            str(cfg.INPUT),
        ]
    )
