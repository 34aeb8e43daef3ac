"""Tip-Adapter-F: the keys of Tip-Adapter's cache learn."""

import torch
from torch import Tensor

from engine.method import FitData, LabelledFeatures, PromptedModel, accuracy_on, register
from engine.rules import AtLeastOne, Positive

from .tip_adapter import CachedCLIP, TipAdapter, new_draws


@register
class TipAdapterF(TipAdapter):
    """Fine-tune the cached features, with alpha and beta as they start; then choose these.

    Zhang et al., ECCV 2022, https://arxiv.org/abs/2207.09519, section 3.2.

    The released code keeps the epoch that is best on the test images, and reports the better of
    two test accuracies. Here validation chooses the epoch, and there is one accuracy.
    """

    DEFAULTS = TipAdapter.DEFAULTS | {
        "EPOCHS": 20,
        "LR": 0.001,
        "BATCH": 256,
    }
    RULES = TipAdapter.RULES | {"EPOCHS": AtLeastOne, "LR": Positive, "BATCH": AtLeastOne}
    place = 26
    keys_learn = True
    GRID = {"ALPHA": (1.0, 2.0, 3.0, 5.0, 10.0)}  # starts in the released configurations

    def fit(self, model: PromptedModel, data: FitData) -> None:
        assert isinstance(model, CachedCLIP)
        views = data.augmented(max(self.options.VIEWS, self.options.EPOCHS))
        self.fill(model.learned, views[: self.options.VIEWS], data.train.label)
        print(f"{model.learned.keys.numel():,} numbers of the cached features learn")
        self.train(model, views, data.train.label, data.val)
        self.search(model, data.val)

    def train(
        self, model: CachedCLIP, views: Tensor, label: Tensor, val: LabelledFeatures | None
    ) -> None:
        """Train on views [epochs, n, d]; keep the epoch that is best on validation, else the last.

        AdamW with eps 1e-4, and a cosine over all steps, as in the released code.
        """
        options, keys = self.options, model.learned.keys
        optimizer = torch.optim.AdamW([keys], lr=options.LR, eps=1e-4)
        steps = options.EPOCHS * -(-len(label) // options.BATCH)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        draws = new_draws()
        best, best_epoch, best_keys = -1.0, options.EPOCHS, keys
        for epoch in range(options.EPOCHS):
            order = torch.randperm(len(label), generator=draws).to(label.device)
            for batch in order.split(options.BATCH):
                losses = model.from_features(views[epoch, batch], label[batch]).losses
                (keys.grad,) = torch.autograd.grad(losses["cross_entropy"], [keys])
                optimizer.step()
                scheduler.step()
            if val is not None and (accuracy := accuracy_on(model, val)) > best:
                best, best_epoch, best_keys = accuracy, epoch + 1, keys.detach().clone()
        keys.grad = None
        keys.data = best_keys.data
        why = "the last" if val is None else f"the best on validation ({100 * best:.4f}%)"
        print(f"The cached features of epoch {best_epoch} are used, {why}")
