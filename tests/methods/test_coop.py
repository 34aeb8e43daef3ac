"""CoOp against its equations, in float64."""

import pytest
import torch
from naive import NAMES, cosine, cross_entropy, prompt_rows, rows_to_feature

from core.errors import InputError


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("csc", [False, True])
def test_logits_and_gradients(frozen64, image_features, label, build, close, shapes, position, csc):
    """Every position of the class name, one context for all or one for each class."""
    built = build("CoOp", frozen64, CLASS_TOKEN_POSITION=position, CSC=csc, N_CTX=5)
    model = built.model.double()
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
    logits, losses = model.from_features(image_features, label)

    close(logits, naive)
    close(sum(losses.values()), cross_entropy(naive, label), [ctx])
    assert shapes(model) == {"ctx": (3, 5, 64) if csc else (5, 64)}


def test_start_words(frozen64, build):
    """The context starts as the words' own embeddings."""
    model = build("CoOp", frozen64, CTX_INIT="a photo of a").model
    names = build("ZeroshotCLIP", frozen64).model

    torch.testing.assert_close(
        torch.nn.functional.normalize(model.double().class_features(), dim=-1),
        names.class_features(),
    )


def test_start_words_of_another_number(frozen64, build):
    with pytest.raises(InputError, match="has 3 tokens; N_CTX is 4"):
        build("CoOp", frozen64, CTX_INIT="a photo of")


def test_published_checkpoint(frozen64, build):
    """``ctx`` is read; what follows from the class names is left aside."""
    built = build("CoOp", frozen64)
    ctx = torch.randn(4, 64).half()
    fixed = {"token_prefix": torch.zeros(3, 1, 64), "token_suffix": torch.zeros(3, 72, 64)}

    built.load({"ctx": ctx, **fixed})

    assert torch.equal(built.model.learned.ctx, ctx.float())
    assert built.model.learned.ctx.dtype == torch.float32


def test_class_specific_contexts_are_read_by_class_name(frozen64, build):
    """Another order of the classes changes nothing; an unknown class has no context."""
    built = build("CoOp", frozen64, CSC=True)
    ctx = torch.randn(3, 4, 64)

    built.load({"ctx": ctx}, trained=[NAMES[2], NAMES[0], NAMES[1]])
    assert torch.equal(built.model.learned.ctx, ctx[[1, 2, 0]])
    with pytest.raises(InputError, match="has none for melanoma; test it on the classes"):
        built.load({"ctx": ctx}, trained=["a", NAMES[1], NAMES[2]])
