"""MaPLe against its equations, in float64."""

import pytest
import torch
from naive import NAMES, cosine, cross_entropy, prompt_rows, rows_to_feature
from small_clip import frozen_clip

from core.errors import InputError
from engine.method import DoesNotApply


def naive_image_feature(model, picture, tokens):
    """A picture's feature with the tokens [n_ctx, d_vis] of each layer after its patches."""
    visual = model.visual
    patches = visual.conv1(picture[None])[0].flatten(1).T  # [patches, d_vis]
    x = torch.cat([visual.class_embedding[None], patches]) + visual.positional_embedding
    x = visual.ln_pre(torch.cat([x, tokens[0]])).unsqueeze(1)
    for i, block in enumerate(visual.transformer.resblocks):
        if 0 < i < len(tokens):
            x = torch.cat([x[: -len(tokens[i])], tokens[i].unsqueeze(1)])
        x = block(x)
    return visual.ln_post(x[0, 0]) @ visual.proj


@pytest.mark.parametrize("n_ctx, depth", [(2, 9), (2, 1), (1, 2), (4, 2)])
def test_logits_and_gradients(frozen64, label, build, close, shapes, n_ctx, depth):
    """Both sides, shallow and deep; 9 layers are cut to the tower's two."""
    built = build("MaPLe", frozen64, N_CTX=n_ctx, PROMPT_DEPTH=depth)
    model = built.model.double()
    pictures = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    learned = model.learned.prompt_learner

    deeper = list(learned.compound_prompts_text)
    tokens = [learned.ctx @ learned.proj.weight.T + learned.proj.bias]
    for text, layer in zip(deeper, learned.compound_prompt_projections, strict=True):
        tokens.append(text @ layer.weight.T + layer.bias)
    kept = " ".join("a photo of a".split()[n_ctx:])
    features = [
        rows_to_feature(
            frozen64.model, prompt_rows(frozen64.model, learned.ctx, f"{kept} {name}"), deeper
        )
        for name in NAMES
    ]
    images = [naive_image_feature(frozen64.model, picture, tokens) for picture in pictures]
    scale = frozen64.logit_scale.exp()
    naive = torch.stack([torch.stack([scale * cosine(f, t) for t in features]) for f in images])
    logits, losses = model(pictures, label)

    close(logits, naive)
    parameters = list(model.learned.parameters())
    close(sum(losses.values()), cross_entropy(naive, label), parameters)
    expected = {
        "prompt_learner.ctx": (n_ctx, 64),
        "prompt_learner.proj.weight": (64, 64),
        "prompt_learner.proj.bias": (64,),
    }
    if depth > 1:
        expected |= {
            "prompt_learner.compound_prompts_text.0": (n_ctx, 64),
            "prompt_learner.compound_prompt_projections.0.weight": (64, 64),
            "prompt_learner.compound_prompt_projections.0.bias": (64,),
        }
    assert shapes(model) == expected


def test_starts_from_the_words(frozen64, build):
    """Before any step the first layer reads ``a photo of a {name}.``."""
    model = build("MaPLe", frozen64, PROMPT_DEPTH=1).model.double()
    names = build("ZeroshotCLIP", frozen64).model

    torch.testing.assert_close(
        torch.nn.functional.normalize(model.class_features(), dim=-1), names.class_features()
    )


def test_does_not_apply_to_a_resnet(tiny_resnet, build):
    with pytest.raises(DoesNotApply, match="the backbone is a ResNet: choose a ViT"):
        build("MaPLe", frozen_clip(tiny_resnet))


def test_fewer_words_than_tokens(frozen64, build):
    with pytest.raises(InputError, match="has 4 tokens; N_CTX is 5"):
        build("MaPLe", frozen64, N_CTX=5)


def test_published_checkpoint(frozen64, build):
    """The frozen CLIP that the original's files hold is left aside."""
    built = build("MaPLe", frozen64)
    state = {k: torch.randn_like(v) for k, v in built.model.learned.state_dict().items()}
    frozen = {
        "prompt_learner.token_prefix": torch.zeros(3, 1, 64),
        "prompt_learner.token_suffix": torch.zeros(3, 74, 64),
        "image_encoder.conv1.weight": torch.zeros(1),
        "text_encoder.positional_embedding": torch.zeros(1),
        "logit_scale": torch.zeros(()),
    }

    built.load(state | frozen)

    for name, value in built.model.learned.state_dict().items():
        assert torch.equal(value, state[name])
