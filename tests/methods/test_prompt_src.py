"""PromptSRC against its equations, in float64."""

import math

import pytest
import torch
from naive import NAMES, cosine, cross_entropy, prompt_rows, rows_to_feature, text_feature
from small_clip import frozen_clip
from test_maple import naive_image_feature
from torch.testing import assert_close

from core.errors import InputError
from engine.method import DoesNotApply
from trainers.prompt_src import TEMPLATES


def unit(x):
    return x / (x * x).sum().sqrt()


def absolute_difference(rows, others):
    """Mean over all entries of two lists of unit vectors."""
    each = [
        abs(a - b) for x, y in zip(rows, others, strict=True) for a, b in zip(x, y, strict=True)
    ]
    return sum(each) / len(each)


def log_softmax(row):
    return row - row.exp().sum().log()


def naive_losses(model, pictures, label, context, text_tokens, vision_tokens, kept=""):
    """Logits and the four losses, a picture and a class at a time."""
    scale = model.logit_scale.exp()
    texts = [
        rows_to_feature(model, prompt_rows(model, context, f"{kept} {name}"), text_tokens)
        for name in NAMES
    ]
    images = [naive_image_feature(model, picture, vision_tokens) for picture in pictures]
    known = []
    for name in NAMES:
        of_templates = [
            text_feature(model, t.format(name).removesuffix(".") + " .") for t in TEMPLATES
        ]
        known.append(sum(of_templates) / len(of_templates))
    frozen = [model.visual(picture[None])[0] for picture in pictures]
    logits = torch.stack([torch.stack([scale * cosine(f, t) for t in texts]) for f in images])
    teacher = [torch.stack([scale * cosine(f, t) for t in known]) for f in frozen]
    divergence = 0
    for z, z0 in zip(logits, teacher, strict=True):
        for p, p0 in zip(log_softmax(z), log_softmax(z0), strict=True):
            divergence = divergence + p0.exp() * (p0 - p)
    return logits, {
        "cross_entropy": cross_entropy(logits, label),
        "text": 25 * absolute_difference(map(unit, texts), map(unit, known)),
        "image": 10 * absolute_difference(map(unit, images), map(unit, frozen)),
        "logits": divergence / (len(pictures) * len(NAMES)),
    }


@pytest.mark.parametrize("n_ctx, depth", [((4, 4), (9, 9)), ((2, 3), (1, 2)), ((4, 1), (2, 1))])
def test_losses_and_gradients(frozen64, label, build, close, shapes, n_ctx, depth):
    """Both sides, shallow and deep; 9 layers are cut to the tower's two."""
    options = {"N_CTX_TEXT": n_ctx[0], "N_CTX_VISION": n_ctx[1]}
    options |= {"PROMPT_DEPTH_TEXT": depth[0], "PROMPT_DEPTH_VISION": depth[1]}
    model = build("PromptSRC", frozen64, **options).model.double()
    learned = model.learned
    text_tokens, vision_tokens = (
        [tokens[name] for name in tokens] for tokens in (learned.text_tokens, learned.vision_tokens)
    )
    pictures = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    kept = " ".join("a photo of a".split()[n_ctx[0] :])
    naive, naive_of = naive_losses(
        frozen64.model, pictures, label, learned.ctx, text_tokens, vision_tokens, kept
    )
    logits, losses = model(pictures, label)

    close(logits, naive)
    assert losses.keys() == naive_of.keys()
    for name, loss in losses.items():
        close(loss, naive_of[name])
    close(sum(losses.values()), sum(naive_of.values()), list(learned.parameters()))
    expected = {"ctx": (n_ctx[0], 64)}
    expected |= {f"text_tokens.{i}": (n_ctx[0], 64) for i in range(1, min(depth[0], 2))}
    expected |= {f"vision_tokens.{i}": (n_ctx[1], 64) for i in range(min(depth[1], 2))}
    assert shapes(model) == expected


def test_frozen_features_know_no_tokens(frozen64, label, build):
    """They come from a second pass; with weights of zero and equal logits nothing else is left."""
    built = build("PromptSRC", frozen64, TEXT_LOSS_WEIGHT=0.0, IMAGE_LOSS_WEIGHT=0.0)
    losses = built.model.double()(torch.randn(3, 3, 32, 32, dtype=torch.float64), label).losses

    assert losses["text"] == losses["image"] == 0
    assert losses["logits"] > 0


def test_evaluation_uses_the_average(frozen64, build, close):
    """sum_e w_e theta_e / sum_e w_e over the epochs so far, w a Gaussian density of the epoch."""
    mean, std = 3.0, 1.5
    model = build("PromptSRC", frozen64, GPA_MEAN=mean, GPA_STD=std).model.double()
    pictures = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    seen, density = [], []
    for epoch in range(1, 6):
        with torch.no_grad():
            for parameter in model.learned.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        seen.append([p.detach().clone() for p in model.learned.parameters()])
        density.append(math.exp(-((epoch - mean) ** 2) / (2 * std**2)))
        model.end_epoch(epoch, 5)
        averages = [
            sum(w * x for w, x in zip(density, tensors, strict=True)) / sum(density)
            for tensors in zip(*seen, strict=True)
        ]
        model.learned.eval()
        text, vision = model.learned.tokens()
        for ours, naive in zip([*text, *vision], averages, strict=True):
            close(ours, naive)
        with torch.no_grad():
            evaluated = model(pictures).logits
        model.learned.train()
        with torch.no_grad():
            trained = model(pictures).logits
            if epoch == 1:  # the only epoch so far
                close(evaluated, trained)
            for parameter, average in zip(model.learned.parameters(), averages, strict=True):
                parameter.copy_(average)
            close(evaluated, model(pictures).logits)
            for parameter, last in zip(model.learned.parameters(), seen[-1], strict=True):
                parameter.copy_(last)


def test_class_features_are_kept_for_each_mode(frozen64, build):
    """Nothing learned changes between the two calls, and yet they differ."""
    model = build("PromptSRC", frozen64).model.double()
    model.end_epoch(1, 2)
    with torch.no_grad():
        model.learned.ctx.normal_()
        trained = model.current_features()
        model.learned.eval()
        assert not torch.allclose(model.current_features(), trained)


def test_average_far_from_its_mean(frozen64, build, close):
    """The first of many epochs weighs nothing beside the 15th, but alone it is the average."""
    model = build("PromptSRC", frozen64, GPA_MEAN=150.0, GPA_STD=1.0).model.double()
    model.end_epoch(1, 200)
    model.learned.eval()

    close(model.learned.tokens()[0][0], model.learned.ctx.detach())


def test_starts_from_the_words(frozen64, build):
    model = build("PromptSRC", frozen64, PROMPT_DEPTH_TEXT=1).model.double()
    names = build("ZeroshotCLIP", frozen64).model

    assert_close(
        torch.nn.functional.normalize(model.class_features(), dim=-1), names.class_features()
    )


def test_does_not_apply_to_a_resnet(tiny_resnet, build):
    with pytest.raises(DoesNotApply, match="the backbone is a ResNet: choose a ViT"):
        build("PromptSRC", frozen_clip(tiny_resnet))


def test_says_where_its_depth_is_cut(tiny_clip, build, capsys):
    build("PromptSRC", frozen_clip(tiny_clip))
    assert capsys.readouterr().out == (
        "PROMPT_DEPTH_TEXT is 9: all 2 layers of the tower\n"
        "PROMPT_DEPTH_VISION is 9: all 2 layers of the tower\n"
    )


def test_fewer_words_than_tokens(tiny_clip, build):
    with pytest.raises(InputError, match="has 4 tokens; N_CTX is 5"):
        build("PromptSRC", frozen_clip(tiny_clip), N_CTX_TEXT=5)


def test_published_checkpoint(tiny_clip, build):
    """The original's files hold the averaged tokens, a whole CLIP and a second image encoder."""
    built = build("PromptSRC", frozen_clip(tiny_clip))
    learned = {
        "prompt_learner.ctx": ("ctx", (4, 64)),
        "text_encoder.transformer.resblocks.1.VPT_shallow": ("text_tokens.1", (4, 64)),
        "image_encoder.VPT": ("vision_tokens.0", (4, 64)),
        "image_encoder.transformer.resblocks.1.VPT_shallow": ("vision_tokens.1", (4, 64)),
    }
    state = {name: torch.randn(shape) for name, (_, shape) in learned.items()}
    frozen = {
        "prompt_learner.token_prefix": torch.zeros(3, 1, 64),
        "prompt_learner.token_suffix": torch.zeros(3, 72, 64),
        "prompt_learner.ZS_image_encoder.conv1.weight": torch.zeros(1),
        "prompt_learner.ZS_image_encoder.transformer.resblocks.1.ln_1.weight": torch.zeros(64),
        "image_encoder.transformer.resblocks.1.ln_1.weight": torch.zeros(64),
        "text_encoder.positional_embedding": torch.zeros(1),
        "logit_scale": torch.zeros(()),
    }

    built.load(state | frozen)

    present = dict(built.model.learned.named_parameters())
    for name, (ours, _) in learned.items():
        assert torch.equal(present[ours], state[name])
    built.model.learned.eval()
    text, vision = built.model.learned.tokens()
    for tokens, published in zip([*text, *vision], state.values(), strict=True):
        assert torch.equal(tokens, published)


def test_own_checkpoint_keeps_tokens_and_average(tiny_clip, build):
    built = build("PromptSRC", frozen_clip(tiny_clip))
    state = {k: torch.randn_like(v) for k, v in built.model.learned.state_dict().items()}

    built.load(state)

    for name, value in built.model.learned.state_dict().items():
        assert torch.equal(value, state[name])
