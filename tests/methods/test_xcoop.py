"""XCoOp against its equations, in float64, and its image features."""

import clip
import pytest
import torch
from naive import cross_entropy, prompt_rows, rows_to_feature, text_feature
from small_clip import frozen_clip
from small_folders import KINDS, save_backbone
from torch.nn import functional as F
from torch.testing import assert_close

import explain
import train
from backbones.loading import load_backbone
from core.errors import InputError
from engine.method import DoesNotApply
from engine.trainer import MethodTrainer
from results.record import read_record
from symptoms import Symptoms, load_symptoms

NAMES = ["melanoma", "congenital nevus", "scar"]
SIGNS = Symptoms(
    {
        "melanoma": ["ragged edges", "a blue-white veil"],
        "congenital nevus": ["one even colour."],
        "scar": ["pale", "shiny", "flat"],
    }
)
HARD = [
    "a photo of a melanoma, ragged edges, a blue-white veil",
    "a photo of a congenital nevus, one even colour",
    "a photo of a scar, pale, shiny, flat",
]


def unit(x):
    return x / x.square().sum(-1, keepdim=True).sqrt()


def image_tokens(tower, image):
    """[1 + P, d] what the last layer makes of one image's class token and patches, projected."""
    x = tower.conv1(image[None])[0].flatten(1).T
    x = tower.ln_pre(torch.cat([tower.class_embedding[None], x]) + tower.positional_embedding)
    x = x[:, None]
    for block in tower.transformer.resblocks:
        x = block(x)
    return tower.ln_post(x[:, 0]) @ tower.proj


def whole_rows(model, rows):
    """[77, d_txt] unit token embeddings of a padded text without positions."""
    padding = model.token_embedding(torch.zeros(77 - len(rows), dtype=torch.long))
    return unit(torch.cat([rows, padding]))


def naive_losses(model, ctx, logits, label, noise):
    """Cross-entropy, prompt-level and token-level losses, class by class and context by context."""
    s = model.logit_scale.exp()
    soft = [
        [prompt_rows(model, c, name) for c in own] for own, name in zip(ctx, NAMES, strict=True)
    ]
    hard_ids = [clip.tokenize(f"{text} .")[0] for text in HARD]
    hard = [unit(text_feature(model, f"{text} .")) + n for text, n in zip(HARD, noise, strict=True)]
    u = [unit(sum(rows_to_feature(model, rows) for rows in own) / len(own)) for own in soft]
    tokens = [sum(whole_rows(model, rows) for rows in own) / len(own) for own in soft]
    hard_tokens = [unit(model.token_embedding(ids)) for ids in hard_ids]
    prompts = torch.stack([torch.stack([s * (a * h).sum() for a in u]) for h in hard])
    between = torch.stack([torch.stack([s * (a * h).sum() for a in tokens]) for h in hard_tokens])
    classes = torch.arange(3)
    return (
        cross_entropy(logits, label),
        5 * F.cross_entropy(prompts, classes),
        5 * F.cross_entropy(between, classes),
    )


def naive_logits(model, ctx, images):
    s = model.logit_scale.exp()
    found = []
    for image in images:
        cls, *patches = unit(image_tokens(model.visual, image))
        row = []
        for own, name in zip(ctx, NAMES, strict=True):
            texts = [unit(rows_to_feature(model, prompt_rows(model, c, name))) for c in own]
            whole = sum((cls * t).sum() for t in texts) / len(texts)
            local = sum((p * t).sum() for p in patches for t in texts)
            row.append(s * whole + 0.01 * s * local / len(patches) / len(texts))
        found.append(torch.stack(row))
    return torch.stack(found)


@pytest.fixture
def drawn(frozen64, build):
    """XCoOp in float64 whose contexts all differ; and what it was built from."""
    built = build("XCoOp", frozen64, symptoms=SIGNS, classnames=NAMES, N_PROMPTS=2)
    model = built.model.double()
    with torch.no_grad():
        ctx = model.learned.prompt_learner.ctx
        ctx += 0.02 * torch.randn_like(ctx)
    return model


@pytest.mark.parametrize("noisy", [False, True])
def test_loss_and_gradients(drawn, frozen64, label, close, shapes, monkeypatch, noisy):
    """Each loss by itself; noise is the mean over the copies of a hard prompt."""
    ctx = drawn.learned.prompt_learner.ctx
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    draws = torch.randn(2, 3, 48, dtype=torch.float64)
    monkeypatch.setattr(torch, "rand", lambda *shape: torch.full(shape, 0.49 if noisy else 0.5))
    monkeypatch.setattr(torch, "randn", lambda *shape, **options: draws)

    logits, losses = drawn(images, label)
    naive = naive_logits(frozen64.model, ctx, images)
    noise = 0.05 * (draws[0] + draws[1]) / 2 if noisy else torch.zeros(3, 48)
    expected = naive_losses(frozen64.model, ctx, naive, label, noise)

    close(logits, naive)
    assert list(losses) == ["cross_entropy", "prompts", "tokens"]
    for ours, by_hand in zip(losses.values(), expected, strict=True):
        close(ours, by_hand)
    close(sum(losses.values()), sum(expected), [ctx])
    assert shapes(drawn) == {"prompt_learner.ctx": (3, 2, 4, 64)}


def test_alignment_losses_have_the_gradients_of_their_equations(
    drawn, frozen64, label, close, monkeypatch
):
    """At a temperature where neither loss is saturated."""
    monkeypatch.setattr(torch, "rand", lambda *shape: torch.ones(shape))
    for scale in (frozen64.log_scale, frozen64.model.logit_scale):
        scale.data.fill_(-1.0)
    ctx = drawn.learned.prompt_learner.ctx
    logits = torch.randn(3, 3, dtype=torch.float64)

    ours = drawn.losses(logits, label, drawn.class_features())
    _, prompts, tokens = naive_losses(frozen64.model, ctx, logits, label, torch.zeros(3, 48))

    close(ours["prompts"], prompts, [ctx])
    close(ours["tokens"], tokens, [ctx])


def test_noise_is_of_training_alone(drawn, label):
    features = torch.randn(3, 96, dtype=torch.float64)
    torch.manual_seed(0)

    def losses():
        return {drawn.from_features(features, label).losses["prompts"].item() for _ in range(12)}

    trained = losses()
    drawn.eval()
    tested = losses()

    assert 1 < len(trained) < 12 and len(tested) == 1  # without noise in about half of the steps


def test_contexts_of_the_same_start_stay_equal(frozen64, build, label):
    """As in the released code: their gradients are the same."""
    model = build("XCoOp", frozen64, symptoms=SIGNS, classnames=NAMES).model.double()
    ctx = model.learned.prompt_learner.ctx
    losses = model.from_features(torch.randn(3, 96, dtype=torch.float64), label).losses
    (gradient,) = torch.autograd.grad(sum(losses.values()), ctx)

    assert gradient.abs().max() > 0
    assert_close(gradient, gradient[:, :1].expand_as(gradient), rtol=0, atol=1e-12)


def test_learned_norms(frozen64, build, label, close):
    """The image encoder's ln_1 and ln_2, by the equations, at a tenth of the rate."""
    built = build(
        "XCoOp", frozen64, symptoms=SIGNS, classnames=NAMES, N_PROMPTS=1, LEARN_NORMS=True
    )
    model = built.model.double()
    images = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    norms = [p for p in frozen64.image.parameters() if p.requires_grad]
    ours = model(images, label).losses["cross_entropy"]
    theirs = [
        parameter.requires_grad_(True)
        for block in frozen64.model.visual.transformer.resblocks
        for norm in (block.ln_1, block.ln_2)
        for parameter in (norm.weight, norm.bias)
    ]
    naive = cross_entropy(
        naive_logits(frozen64.model, model.learned.prompt_learner.ctx, images), label
    )

    assert built.method.learns_image_encoder
    assert len(norms) == len(theirs) == 2 * 2 * 2
    close(ours, naive)
    both = torch.autograd.grad(ours, norms), torch.autograd.grad(naive, theirs)
    for a, b in zip(*both, strict=True):
        assert a.abs().max() > 0
        assert_close(a, b, rtol=0, atol=1e-10)
    groups = model.parameter_groups(0.5)
    assert [(len(g["params"]), g["lr"]) for g in groups] == [(1, 0.5), (8, 0.05)]
    assert model.max_gradient_norm == 1


def test_norms_need_a_transformer(tiny_resnet, build):
    frozen = frozen_clip(tiny_resnet)
    build("XCoOp", frozen, symptoms=SIGNS, classnames=NAMES)
    with pytest.raises(DoesNotApply, match="LEARN_NORMS learns the layer norms"):
        build("XCoOp", frozen, symptoms=SIGNS, classnames=NAMES, LEARN_NORMS=True)


@pytest.mark.parametrize("kind", KINDS)
def test_image_features_hold_the_image_and_the_mean_patch(kind, tmp_path, build):
    """The first half is the feature that every method reads."""
    backbone = load_backbone(path=str(save_backbone(kind, tmp_path)))
    model = build("XCoOp", backbone, symptoms=SIGNS, classnames=NAMES).model
    side = backbone.preprocessing.size
    images = torch.randn(2, 3, side, side)

    encoder = model.image_encoder
    found = encoder.encode_image(images)
    features, patches = backbone.encode_with_patches(images)

    d = backbone.embed_dim
    assert encoder.embed_dim == 2 * d and encoder.fingerprint != backbone.fingerprint
    assert_close(found[:, :d], backbone.encode_image(images), rtol=1e-4, atol=1e-5)
    assert patches.shape == backbone.patch_tokens(images).shape
    assert_close(found[:, d:], unit(patches).mean(dim=1), rtol=1e-4, atol=1e-5)
    assert bool(backbone.image.layer_norms()) == (kind != "CLIP, ResNet")


def test_pooled_patches_are_as_if_they_were_alone(tmp_path):
    """SigLIP's pooling of one position alone is that position's feature."""
    backbone = load_backbone(path=str(save_backbone("SigLIP", tmp_path)))
    tower = backbone.image.tower
    side = backbone.preprocessing.size
    images = torch.randn(2, 3, side, side)
    x = tower.trunk.embed(images)
    for block in tower.trunk.blocks:
        x = block(x)

    _, patches = backbone.encode_with_patches(images)

    for j in range(x.shape[1]):
        assert_close(patches[:, j], tower.head(tower.trunk.pool(x[:, j : j + 1])))


@pytest.mark.parametrize("kind", KINDS)
def test_layout_is_what_the_encoder_reads(kind, tmp_path):
    """Start, context, words, stop and end, padded to the context length."""
    backbone = load_backbone(path=str(save_backbone(kind, tmp_path)))
    ids = backbone.layout(["red", "the blue sea"], 2, groups=[0, 1])
    rows = backbone.text.layout(["red", "the blue sea"], 2, "end", [0, 1])

    assert ids.shape == (2, backbone.context_length)
    assert [(row < 0).sum().item() for row in ids] == [2, 2]
    assert [sorted(row[row < 0].tolist()) for row in ids] == [[-2, -1], [-4, -3]]
    for row, whole in zip(rows, ids.tolist(), strict=True):
        assert whole == row + [backbone.text.pad] * (len(whole) - len(row))


def test_concepts_that_do_not_fit_are_left_out_with_a_line(tiny_clip, build, capsys):
    long = Symptoms({"a": [f"sign {i} of many more words than there is room" for i in range(20)]})
    build("XCoOp", frozen_clip(tiny_clip), symptoms=long, classnames=["a"])

    assert "note: a: its prompt holds the first 6 of 20 concepts" in capsys.readouterr().out


def test_published_checkpoint(tiny_clip, frozen64, build):
    """Of the whole CLIP: contexts, one after the other for all classes, and layer norms."""
    ctx = torch.randn(4 * 3, 4, 64)
    state = {f"image_encoder.{k}": v for k, v in tiny_clip.visual.state_dict().items()}
    for name in state:
        if ".ln_1." in name or ".ln_2." in name:
            state[name] = torch.randn_like(state[name])
    state |= {
        "prompt_learner.ctx": ctx,
        "prompt_learner.token_prefix": torch.zeros(12, 1, 64),
        "prompt_learner.token_suffix": torch.zeros(12, 72, 64),
        "prompt_learner.class_text_features": torch.zeros(1, 12, 48),
        "text_encoder.module.text_projection": torch.zeros(64, 48),
        "logit_scale": torch.tensor(4.6),
    }
    built = build("XCoOp", frozen64, symptoms=SIGNS, classnames=NAMES, LEARN_NORMS=True)
    built.load(state)

    for c in range(3):
        for n in range(4):
            assert torch.equal(built.model.learned.prompt_learner.ctx[c, n], ctx[3 * n + c])
    norm = built.model.backbone.image.tower.transformer.resblocks[1].ln_2
    expected = state["image_encoder.transformer.resblocks.1.ln_2.weight"]
    assert torch.equal(norm.weight, expected.to(norm.weight))
    frozen = build("XCoOp", frozen64, symptoms=SIGNS, classnames=NAMES)
    with pytest.raises(InputError, match="holds learned layer norms; set TRAINER.XCOOP.LEARN"):
        frozen.load(state)


@pytest.mark.parametrize("norms", ["False", "True"])
def test_resumed_run_is_the_whole_run(toy, toy_args, short, monkeypatch, norms):
    """Cut after an epoch and started again: the same predictions, bit for bit, noise and all."""
    args = ["--trainer", "XCoOp", *toy_args[:-1]]
    options = [*short, "TRAINER.XCOOP.LEARN_NORMS", norms]
    train.main([*args, str(toy / "whole"), *options])
    after_epoch = MethodTrainer.after_epoch

    def cut(self):
        after_epoch(self)
        if self.epoch == 0:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MethodTrainer, "after_epoch", cut)
        with pytest.raises(KeyboardInterrupt):
            train.main([*args, str(toy / "cut"), *options])
    train.main([*args, str(toy / "cut"), *options])

    whole, again = ((toy / n / "predictions.csv").read_text() for n in ("whole", "cut"))
    assert whole == again


def test_norms_move_and_are_loaded_again(toy, toy_args, short, capsys):
    args = ["--trainer", "XCoOp", *toy_args, *short, "TRAINER.XCOOP.LEARN_NORMS", "True"]
    train.main(args)
    ended = read_record(toy / "run").metrics
    capsys.readouterr()
    train.main([*args, "--eval-only"])

    assert f"* accuracy: {100 * ended.accuracy:.4f}%" in capsys.readouterr().out


def test_it_is_not_explainable(toy_run):
    """Its concepts are in the losses, and its class scores are not sums over them: one line."""
    with pytest.raises(InputError, match="XCoOp reads symptoms, but its class scores are not"):
        explain.main([str(toy_run("XCoOp"))])


def test_the_released_concepts_are_a_symptom_file(checkout):
    """Of the classes of the dataset pneumonia."""
    path = checkout / "configs" / "trainers" / "own" / "XCoOp_pneumonia.json"
    concepts = load_symptoms(path, ["normal lung", "pneumonia"])

    assert list(map(len, concepts.phrases.values())) == [2, 4]
