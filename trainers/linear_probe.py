"""Logistic regression on CLIP's frozen image features."""

import time
import warnings

import numpy as np
import torch
from dassl.engine import TRAINER_REGISTRY
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import nn

from backbones.clip_model import PromptedModel
from core.errors import InputError
from engine.trainer import PromptTrainer

STRENGTHS = [10.0**exponent for exponent in range(-6, 7)]


@TRAINER_REGISTRY.register()
class LinearProbe(PromptTrainer):
    """Fit a linear classifier to centre-crop features; validation chooses its regularisation.

    Radford et al. 2021, https://arxiv.org/abs/2103.00020, section 3.2. The one epoch that its log
    speaks of is the whole fit.
    """

    DEFAULTS = {
        "C": 0.0,  # inverse strength of the regularisation; 0: chosen on validation
        "MAX_ITER": 1000,
    }

    def build_prompted_clip(self, clip_model, classnames):
        head = nn.Linear(clip_model.embed_dim, len(classnames)).to(clip_model.device)
        return LinearHead(clip_model, head)

    def build_model(self):
        super().build_model()
        self.max_epoch = 1

    def per_class(self):
        return ("weight", "bias")

    def run_epoch(self):
        """Fit once for each strength, from the strongest on; the best on validation is kept."""
        start = time.time()
        features, label = self.features("train")
        present = np.unique(label)
        if len(present) < self.num_classes:
            missing = set(range(self.num_classes)) - set(present)
            raise InputError(f"class {self.lab2cname[min(missing)]!r} has no training picture")
        candidates = self.candidates()
        validation = self.features("val") if len(candidates) > 1 else (features, label)
        best = -1.0
        for strength in candidates:
            fitted = LogisticRegression(C=strength, max_iter=self.method_cfg.MAX_ITER)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", ConvergenceWarning)
                fitted.fit(features, label)
            unfinished = any(issubclass(w.category, ConvergenceWarning) for w in caught)
            accuracy = fitted.score(*validation)
            print(
                f"C {strength:g}: accuracy {100 * accuracy:.4f}%"
                + (", stopped at MAX_ITER" if unfinished else "")
            )
            if accuracy > best:
                best, chosen = accuracy, fitted
        print(f"C {chosen.C:g} is used")
        self.keep(chosen)
        with torch.no_grad():
            logits = self.model(torch.from_numpy(features).float().to(self.device)).cpu()
        target = torch.from_numpy(label)
        seconds = time.time() - start
        self.seconds["train"] += seconds
        self.epoch_summary = {
            "epoch": 1,
            "loss": self.compute_loss(logits, target).item(),
            "acc": 100 * (logits.argmax(dim=1) == target).double().mean().item(),
            "lr": None,
            "seconds": seconds,
        }

    def candidates(self):
        """The strengths to try, the strongest regularisation first."""
        if self.method_cfg.C > 0:
            return [self.method_cfg.C]
        if not self.dm.dataset.val:
            print("no validation pictures to choose C on: C is 1")
            return [1.0]
        return STRENGTHS

    def features(self, split):
        """A split's features [n, d] in float64 and labels [n], as arrays."""
        pictures = self.dm.dataset.train_x if split == "train" else getattr(self.dm.dataset, split)
        features = torch.cat([self.model.clip.encode_image(x).cpu() for x in self.inputs(split)])
        return features.double().numpy(), np.array([picture.label for picture in pictures])

    @torch.no_grad()
    def keep(self, fitted):
        """Copy a fitted classifier into the model's head."""
        weight, bias = torch.from_numpy(fitted.coef_), torch.from_numpy(fitted.intercept_)
        if self.num_classes == 2:
            # Of two classes scikit-learn keeps the second's score over the first's.
            weight, bias = (torch.cat([torch.zeros_like(x), x]) for x in (weight, bias))
        self.model.learned.weight.copy_(weight)
        self.model.learned.bias.copy_(bias)


class LinearHead(PromptedModel):
    """Frozen features and a linear layer, fp32."""

    def logits(self, image_features):
        return self.learned(image_features)
