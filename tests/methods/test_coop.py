"""CoOp against its equations, in float64."""

import pytest
import torch
from naive import NAMES, cosine, cross_entropy, prompt_rows, rows_to_feature

from core.errors import InputError


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("csc", [False, True])
def test_logits_and_gradients(
    frozen64, image_features, label, trainer_of, close, shapes, position, csc
):
    """Every position of the class name, one context for all or one for each class."""
    options = ["TRAINER.COOP.CLASS_TOKEN_POSITION", position, "TRAINER.COOP.CSC", csc]
    trainer = trainer_of("CoOp", frozen64, *options, "TRAINER.COOP.N_CTX", 5)
    model = trainer.model.double()
    ctx = model.learned.ctx

    features = [
        rows_to_feature(
            frozen64.model, prompt_rows(frozen64.model, ctx[c] if csc else ctx, name, position)
        )
        for c, name in enumerate(NAMES)
    ]
    scale = frozen64.logit_scale.exp()
    naive = torch.stack(
        [torch.stack([scale * cosine(f, t) for t in features]) for f in image_features]
    )
    logits = model(image_features)

    close(logits, naive)
    close(trainer.compute_loss(logits, label), cross_entropy(naive, label), [ctx])
    assert shapes(model) == {"ctx": (3, 5, 64) if csc else (5, 64)}


def test_start_words(frozen64, trainer_of):
    """The context starts as the words' own embeddings."""
    options = ["TRAINER.COOP.CTX_INIT", "a photo of a"]
    model = trainer_of("CoOp", frozen64, *options).model
    names = trainer_of("ZeroshotCLIP", frozen64).model

    torch.testing.assert_close(
        torch.nn.functional.normalize(model.double().class_features(), dim=-1),
        names.class_features(),
    )


def test_start_words_of_another_number(frozen64, trainer_of):
    with pytest.raises(InputError, match="has 3 tokens; N_CTX is 4"):
        trainer_of("CoOp", frozen64, "TRAINER.COOP.CTX_INIT", "a photo of")


def test_published_checkpoint(frozen64, trainer_of):
    """``ctx`` is read; what follows from the class names is left aside."""
    trainer = trainer_of("CoOp", frozen64)
    ctx = torch.randn(4, 64).half()
    fixed = {"token_prefix": torch.zeros(3, 1, 64), "token_suffix": torch.zeros(3, 72, 64)}

    trainer.load_learned({"ctx": ctx, **fixed}, "file")

    assert torch.equal(trainer.model.learned.ctx, ctx.float())
    assert trainer.model.learned.ctx.dtype == torch.float32


def test_class_specific_contexts_are_read_by_class_name(frozen64, trainer_of):
    """Another order of the classes changes nothing; an unknown class has no context."""
    trainer = trainer_of("CoOp", frozen64, "TRAINER.COOP.CSC", True)
    ctx = torch.randn(3, 4, 64)

    trainer.load_learned({"ctx": ctx}, "file", classnames=[NAMES[2], NAMES[0], NAMES[1]])
    assert torch.equal(trainer.model.learned.ctx, ctx[[1, 2, 0]])
    with pytest.raises(InputError, match="has none for melanoma; test it on the classes"):
        trainer.load_learned({"ctx": ctx}, "file", classnames=["a", NAMES[1], NAMES[2]])


def test_an_infinite_loss_stops_the_run_before_the_update(frozen64, trainer_of):
    trainer = trainer_of("CoOp", frozen64)
    trainer.device, trainer.model = torch.device("cpu"), trainer.model.double()
    before = trainer.model.learned.ctx.detach().clone()
    features = torch.full((2, frozen64.embed_dim), float("nan"), dtype=torch.float64)
    batch = {"features": features, "label": torch.tensor([0, 1])}

    with pytest.raises(FloatingPointError, match="infinite or NaN"):
        trainer.forward_backward(batch)
    assert torch.equal(trainer.model.learned.ctx, before)
