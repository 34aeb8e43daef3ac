"""CoCoOp against its equations, in float64; its chunks against one piece."""

import pytest
import torch
from naive import NAMES, cosine, cross_entropy, prompt_rows, rows_to_feature

from core.errors import InputError
from trainers.cocoop import ConditionalCLIP, ConditionalPrompts


@pytest.mark.parametrize("text_batch", [1024, 7, 1])
def test_logits_and_gradients(frozen64, image_features, label, build, close, shapes, text_batch):
    """In one piece, in pieces of two pictures and one, and of one picture each."""
    built = build("CoCoOp", frozen64, TEXT_BATCH=text_batch)
    model = built.model.double()
    net = model.learned.meta_net

    rows = []
    for f in image_features:
        hidden = torch.relu(net.linear1.weight @ (f / f.norm()) + net.linear1.bias)
        bias = net.linear2.weight @ hidden + net.linear2.bias
        ctx = torch.stack([token + bias for token in model.learned.ctx])
        features = [
            rows_to_feature(frozen64.model, prompt_rows(frozen64.model, ctx, n)) for n in NAMES
        ]
        rows.append(torch.stack([frozen64.logit_scale.exp() * cosine(f, t) for t in features]))
    naive = torch.stack(rows)
    logits, losses = model.from_features(image_features, label)

    close(logits, naive)
    learned = list(model.learned.parameters())
    close(sum(losses.values()), cross_entropy(naive, label), learned)
    assert shapes(model) == {
        "ctx": (4, 64),
        "meta_net.linear1.weight": (3, 48),
        "meta_net.linear1.bias": (3,),
        "meta_net.linear2.weight": (64, 3),
        "meta_net.linear2.bias": (64,),
    }


def test_no_more_prompts_than_asked_for_are_encoded_at_once(frozen64, image_features, monkeypatch):
    """The bound holds on the way forward and on the way back."""
    prompts = ConditionalPrompts(frozen64, NAMES, 4, "a photo of a")
    model = ConditionalCLIP(frozen64, prompts, text_batch=7).double()
    encode, sizes = frozen64.encode_text, []

    def counted(texts, learned):
        sizes.append(texts.n_texts * len(learned))
        return encode(texts, learned)

    monkeypatch.setattr(frozen64, "encode_text", counted)

    model.from_features(image_features).logits.sum().backward()

    assert sizes == [6, 3] + sizes[2:]  # two pictures' three classes, and one's
    assert sorted(sizes[2:]) == [3, 6]  # again, for the gradients
    assert model.learned.ctx.grad is not None


def test_a_hundred_classes(frozen64, image_features):
    """[batch, 100], whatever the chunk."""
    names = [f"class number {i}" for i in range(100)]
    prompts = ConditionalPrompts(frozen64, names, 4, "a photo of a")
    with torch.no_grad():
        models = [ConditionalCLIP(frozen64, prompts, n).double() for n in (7, 300)]
        logits = [model.from_features(image_features).logits for model in models]

    assert logits[0].shape == (3, 100)
    torch.testing.assert_close(*logits)


@pytest.mark.parametrize("option", ["TEXT_BATCH", "N_CTX"])
def test_nothing_at_a_time(frozen64, build, option):
    with pytest.raises(InputError, match=f"{option} is 0; it should be at least 1"):
        build("CoCoOp", frozen64, **{option: 0})


def test_published_checkpoint(frozen64, build):
    """The state's names are the original's."""
    built = build("CoCoOp", frozen64)
    state = {
        "ctx": torch.randn(4, 64),
        "meta_net.linear1.weight": torch.randn(3, 48),
        "meta_net.linear1.bias": torch.randn(3),
        "meta_net.linear2.weight": torch.randn(64, 3),
        "meta_net.linear2.bias": torch.randn(64),
    }
    fixed = {"token_prefix": torch.zeros(3, 1, 64), "token_suffix": torch.zeros(3, 72, 64)}

    built.load(state | fixed)

    for name, value in built.model.learned.state_dict().items():
        assert torch.equal(value, state[name])
