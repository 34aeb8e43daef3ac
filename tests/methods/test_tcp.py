"""TCP against its equations, in float64, and on every kind of text encoder."""

import pytest
import torch
from naive import NAMES, cosine, cross_entropy, prompt_rows, text_feature
from small_clip import frozen_clip, make_clip
from small_folders import KINDS, save_backbone
from torch.testing import assert_close

import train
from backbones.loading import load_backbone
from engine.method import DoesNotApply
from engine.prompts import ContextPrompts
from results.record import read_record


def naive_feature(model, rows, tokens, layer):
    """A text's feature; ``tokens`` take the places 1.. of what ``layer`` layers made of it."""
    padding = model.token_embedding(torch.zeros(77 - len(rows), dtype=torch.long))
    x = (torch.cat([rows, padding]) + model.positional_embedding).unsqueeze(1)
    for i, block in enumerate(model.transformer.resblocks):
        if i == layer:
            x = torch.cat([x[:1], tokens.unsqueeze(1), x[1 + len(tokens) :]])
        x = block(x)
    return model.ln_final(x[len(rows) - 1, 0]) @ model.text_projection


def naive_tokens(learned, known, n_ctx):
    """The network on one class's unit zero-shot feature."""
    first, last = learned.meta_net.linear1, learned.meta_net.linear2
    hidden = first.weight @ (known / (known * known).sum().sqrt()) + first.bias
    hidden = hidden / (1 + (-1.702 * hidden).exp())
    return (last.weight @ hidden + last.bias).reshape(n_ctx, -1)


@pytest.mark.parametrize("n_ctx, layer", [(4, 8), (2, 1)])
def test_losses_and_gradients(frozen64, image_features, label, build, close, shapes, n_ctx, layer):
    """Cross-entropy plus 8 (1 - mean_c cos(t_c, t0_c)); 8 layers are cut to the tower's."""
    built = build("TCP", frozen64, N_CTX=n_ctx, LAYER=layer)
    model = built.model.double()
    clip64, learned = frozen64.model, model.learned

    known = [text_feature(clip64, f"a photo of a {name} .") for name in NAMES]
    features = [
        naive_feature(
            clip64, prompt_rows(clip64, learned.ctx, n), naive_tokens(learned, t0, n_ctx), 1
        )
        for n, t0 in zip(NAMES, known, strict=True)
    ]
    scale = frozen64.logit_scale.exp()
    naive = torch.stack(
        [torch.stack([scale * cosine(f, t) for t in features]) for f in image_features]
    )
    mean = sum(cosine(t, t0) for t, t0 in zip(features, known, strict=True)) / len(NAMES)
    logits, losses = model.from_features(image_features, label)

    close(logits, naive)
    parameters = list(learned.parameters())
    close(sum(losses.values()), cross_entropy(naive, label) + 8 * (1 - mean), parameters)
    assert shapes(model) == {
        "ctx": (n_ctx, 64),
        "meta_net.linear1.weight": (12, 48),
        "meta_net.linear1.bias": (12,),
        "meta_net.linear2.weight": (n_ctx * 64, 12),
        "meta_net.linear2.bias": (n_ctx * 64,),
    }


@pytest.mark.parametrize("layer", [1, 2, 3, 8])
def test_behind_which_layer(layer, build, capsys):
    """The layers before read the learned context, those behind the tokens; never none or all."""
    plain = make_clip(text_width=128, layers=4)
    model = build("TCP", frozen_clip(plain), LAYER=layer).model
    said, at = capsys.readouterr().out, min(layer, 3)
    learned = model.learned

    ours = model.class_features()
    for feature, name, known in zip(ours, NAMES, model.known, strict=True):
        rows, tokens = prompt_rows(plain, learned.ctx, name), naive_tokens(learned, known, 4)
        assert_close(feature, naive_feature(plain, rows, tokens, at), rtol=1e-4, atol=1e-5)
    cut = "LAYER is 8: the class-aware tokens stand behind 3 of the text encoder's 4 layers\n"
    assert said == (cut if layer == 8 else "")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("CLIP")])
def test_other_kinds_of_text_encoder(kind, tmp_path, build):
    """A class is as if it were alone, and its tokens stand where its context stood.

    The reference reads one class, and a hook on the layer puts the tokens in.
    """
    backbone = load_backbone(path=str(save_backbone(kind, tmp_path)))
    names = ["red", "the sea at night"]
    model = build("TCP", backbone, classnames=names).model
    learned = model.learned
    block = backbone.text.layers.blocks[learned.layer]

    for feature, name, known in zip(model.class_features(), names, model.known, strict=True):
        prompts = ContextPrompts(backbone, [name], 4)
        tokens = naive_tokens(learned, known, 4)

        def put_in(_, args, slots=prompts.inputs.slots, tokens=tokens):
            x, *others = args
            x = x.clone()
            x[0, slots] = tokens
            return (x, *others)

        handle = block.register_forward_pre_hook(put_in)
        context = prompts.with_contexts(learned.ctx.unsqueeze(0))
        expected = backbone.encode_text(prompts.inputs, context)
        handle.remove()
        assert_close(feature, expected[0], rtol=1e-4, atol=1e-5)
    gradients = torch.autograd.grad(model.class_features().square().sum(), learned.parameters())
    assert all(g.abs().sum() > 0 for g in gradients)


def test_one_layer_is_too_few(build):
    with pytest.raises(DoesNotApply, match="between the layers of the text encoder"):
        build("TCP", frozen_clip(make_clip(layers=1)))


def test_published_checkpoint(frozen64, build):
    """Its names, as the released code writes them."""
    built = build("TCP", frozen64)
    state = {
        "ctx": torch.randn(4, 64),
        "meta_net.linear1.weight": torch.randn(12, 48),
        "meta_net.linear1.bias": torch.randn(12),
        "meta_net.linear2.weight": torch.randn(256, 12),
        "meta_net.linear2.bias": torch.randn(256),
    }
    fixed = {"token_prefix": torch.zeros(3, 1, 64), "token_suffix": torch.zeros(3, 72, 64)}

    built.load(state | fixed)

    for name, value in built.model.learned.state_dict().items():
        assert torch.equal(value, state[name])


def test_new_classes(four_classes, toy_args, short):
    """Base to new: the network makes tokens of classes that training did not see."""
    toy = four_classes
    args = ["--trainer", "TCP", *toy_args[:-1]]
    train.main([*args, str(toy / "base"), *short, "DATASET.SUBSAMPLE_CLASSES", "base"])
    train.main(
        [*args, str(toy / "new"), "--eval-only", "--model-dir", str(toy / "base"), *short]
        + ["DATASET.SUBSAMPLE_CLASSES", "new"]
    )

    assert read_record(toy / "new").classnames == ("green", "grey")
