"""CLIP-LoRA and CLIP-SVD against CLIPs whose weights are replaced by what they learned."""

import copy

import pytest
import torch
from naive import NAMES, cosine, cross_entropy, text_feature
from small_clip import frozen_clip
from small_folders import save_backbone
from torch.nn import functional as F
from torch.testing import assert_close

from backbones.adaptation import adapt
from backbones.loading import load_backbone
from engine.method import METHODS, DoesNotApply
from engine.prompts import encode_texts
from trainers.clip_lora import LowRank
from trainers.clip_svd import SingularValues

# Map -> the module of one of OpenAI's layers that computes it, and which third of its rows.
PLACES = {
    "q": ("attn", "in_proj_weight", 0),
    "k": ("attn", "in_proj_weight", 1),
    "v": ("attn", "in_proj_weight", 2),
    "out": ("attn.out_proj", "weight", None),
    "up": ("mlp.c_fc", "weight", None),
    "down": ("mlp.c_proj", "weight", None),
}


def stir(model):
    """Learned numbers away from their start."""
    with torch.no_grad():
        for parameter in model.learned.parameters():
            parameter += 0.05 * torch.randn_like(parameter)


def replace_weights(block, new):
    """Put differentiable weights into a layer: ``new(map, frozen rows)``."""
    stacks = {}
    for name, (path, parameter, third) in PLACES.items():
        module = block.get_submodule(path)
        frozen = getattr(module, parameter).detach()
        rows = frozen if third is None else frozen.chunk(3)[third]
        stacks.setdefault((module, parameter), []).append(new(name, rows))
    for (module, parameter), rows in stacks.items():
        delattr(module, parameter)
        setattr(module, parameter, torch.cat(rows))


def low_rank_weight(adapter, frozen):
    changed = frozen.clone()
    for i in range(adapter.B.shape[1]):  # 1 / sqrt(rank)
        changed = changed + torch.outer(adapter.B[:, i], adapter.A[i]) / adapter.B.shape[1] ** 0.5
    return changed


def singular_weight(adapter, frozen):
    left, _, right = torch.linalg.svd(frozen, full_matrices=False)
    return sum(s * torch.outer(left[:, i], right[i]) for i, s in enumerate(adapter.sigma))


NAIVE = {"CLIPLoRA": low_rank_weight, "CLIPSVD": singular_weight}
MAPS = {"CLIPLoRA": "q k v".split(), "CLIPSVD": list(PLACES)}


def changed_clip(frozen, learned, method):
    """A copy of a frozen CLIP with the changed weights in place of its own."""
    model = copy.deepcopy(frozen)
    for blocks, layers in (
        (model.visual.transformer.resblocks, learned.image),
        (model.transformer.resblocks, learned.text),
    ):
        for block, layer in zip(blocks, layers, strict=True):
            assert list(layer) == MAPS[method]
            replace_weights(
                block, lambda n, rows, of=layer: NAIVE[method](of[n], rows) if n in of else rows
            )
    return model


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("method, options", [("CLIPLoRA", {"DROPOUT": 0.0}), ("CLIPSVD", {})])
def test_logits_and_gradients(frozen64, tiny_clip64, label, build, close, method, options, mode):
    """Both encoders compute with the changed weights, and their gradients reach what learns."""
    frozen = copy.deepcopy(tiny_clip64)
    model = build(method, frozen64, **options).model.double()
    stir(model)
    getattr(model, mode)()
    pictures = torch.randn(3, 3, 32, 32, dtype=torch.float64)
    changed = changed_clip(frozen, model.learned, method)
    images = [changed.visual(picture[None])[0] for picture in pictures]
    texts = [text_feature(changed, f"a photo of a {name} .") for name in NAMES]
    scale = frozen64.logit_scale.exp()
    naive = torch.stack([torch.stack([scale * cosine(f, t) for t in texts]) for f in images])
    logits, losses = model(pictures, label)

    close(logits, naive)
    close(sum(losses.values()), cross_entropy(naive, label), list(model.learned.parameters()))
    with torch.no_grad():
        close(model(pictures).logits, naive)


def test_what_learns(frozen64, build, shapes):
    """Small parameters alone; a checkpoint holds nothing else."""
    model = build("CLIPLoRA", frozen64).model
    expected = {
        f"{tower}.{layer}.{name}.{part}": shape
        for tower in ("image", "text")
        for layer in (0, 1)
        for name in "qkv"
        for part, shape in (("A", (2, 64)), ("B", (64, 2)))
    }
    assert shapes(model) == expected
    assert model.learned.state_dict().keys() == expected.keys()


def test_adapters_follow_the_mode_of_what_learns(tiny_clip, build):
    """The encoders share them, and stay in eval mode themselves."""
    model = build("CLIPLoRA", frozen_clip(tiny_clip)).model
    for mode in (False, True):
        model.train(mode)
        assert {m.training for m in model.learned.modules()} == {mode}
        assert not model.backbone.image.tower.ln_post.training


def test_singular_values_learn(frozen64, build, shapes):
    model = build("CLIPSVD", frozen64).model
    expected = {
        f"{tower}.{layer}.{name}.sigma": (64,)
        for tower in ("image", "text")
        for layer in (0, 1)
        for name in PLACES
    }
    assert shapes(model) == expected
    assert model.learned.state_dict().keys() == expected.keys()


@pytest.mark.parametrize("method", NAIVE)
def test_starts_as_zero_shot(tiny_clip, build, method):
    zero_shot = build("ZeroshotCLIP", frozen_clip(copy.deepcopy(tiny_clip))).model
    model = build(method, frozen_clip(tiny_clip)).model.eval()
    pictures = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert_close(model(pictures).logits, zero_shot(pictures).logits, rtol=0, atol=1e-4)


def test_dropout_acts_on_each_entry_of_a_map_s_input(frozen64):
    """In training alone, drawn for each map by itself; W x + b keeps all of x."""
    module = frozen64.image.linear_maps()[0][0].module
    frozen, bias = module.weight.detach().clone().chunk(3), module.bias.chunk(3)
    adapters = adapt(frozen64.image, "qkv", lambda weight: LowRank(weight, 2, 0.7, dropout=0.25))[0]
    with torch.no_grad():
        for adapter in adapters.values():
            adapter.B.normal_()
    x = torch.randn(5, 3, 64, dtype=torch.float64)
    torch.manual_seed(1)
    ours = module(x).chunk(3, dim=-1)

    torch.manual_seed(1)
    for i, (name, adapter) in enumerate(adapters.items()):
        mask = F.dropout(torch.ones_like(x), 0.25)  # [5, 3, 64]: 0 or 4 / 3
        assert name == "qkv"[i]
        low_rank = 0.7 * (mask * x) @ adapter.A.T @ adapter.B.T
        assert_close(ours[i], x @ frozen[i].T + bias[i] + low_rank)
    adapters.eval()
    for i, adapter in enumerate(adapters.values()):
        whole = x @ (frozen[i] + 0.7 * adapter.B @ adapter.A).T + bias[i]
        assert_close(module(x).chunk(3, dim=-1)[i], whole)


@pytest.mark.parametrize("kind", ["CLIP, ViT", "BERT (BiomedCLIP)", "SigLIP", "CoCa (CONCH)"])
@pytest.mark.parametrize("method", NAIVE)
def test_every_kind_computes_with_the_changed_weights(method, kind, tmp_path):
    """A second backbone whose weights are replaced gives the same features and patches."""
    path = str(save_backbone(kind, tmp_path))
    adapted, replaced = load_backbone(path=path), load_backbone(path=path)
    model = METHODS[method]().build(adapted, ["red", "blue"]).eval()
    stir(model)
    with torch.no_grad():
        for tower in ("image", "text"):
            layers = getattr(replaced, tower).linear_maps()
            for maps, learned in zip(layers, model.learned.get_submodule(tower), strict=True):
                for module, names in maps:
                    frozen = module.weight.chunk(len(names))
                    new = [
                        NAIVE[method](learned[n], w) if n in learned else w
                        for n, w in zip(names, frozen, strict=True)
                    ]
                    module.weight.copy_(torch.cat(new))
        x = torch.randn(2, 3, adapted.preprocessing.size, adapted.preprocessing.size)
        for of in (
            lambda backbone: backbone.encode_image(x),
            lambda backbone: backbone.patch_tokens(x),
            lambda backbone: encode_texts(backbone, ["red", "the sea"]),
        ):
            assert_close(of(adapted), of(replaced), rtol=1e-3, atol=1e-4)
        assert_close(model(x).logits, model.from_features(replaced.encode_image(x)).logits)
    features = torch.randn(3, adapted.embed_dim)
    assert_close(
        adapted.gradient_maps(x, features),
        replaced.gradient_maps(x, features),
        rtol=1e-2,
        atol=1e-4,
    )


@pytest.mark.parametrize("method", NAIVE)
def test_does_not_apply_to_a_resnet(tiny_resnet, build, method):
    with pytest.raises(DoesNotApply, match="image encoder is a ResNet.*: choose a ViT"):
        build(method, frozen_clip(tiny_resnet))


def test_a_backbone_is_adapted_once(tiny_clip, build):
    backbone = frozen_clip(tiny_clip)
    build("CLIPLoRA", backbone)
    with pytest.raises(ValueError, match="adapted already: load the backbone again"):
        build("CLIPSVD", backbone)


def test_an_encoder_without_named_maps(tiny_resnet):
    with pytest.raises(ValueError, match="ClipResNet names no linear maps"):
        adapt(frozen_clip(tiny_resnet).image, "q", SingularValues)


@pytest.mark.parametrize("precision", ["fp32", "amp", "bf16"])
@pytest.mark.parametrize("method", NAIVE)
def test_what_learns_is_fp32(tiny_clip, build, method, precision):
    """Whatever the encoders compute in; the weights that they read keep their own precision."""
    backbone = frozen_clip(tiny_clip, precision)
    model = build(method, backbone).model
    stir(model)
    stored = backbone.text.dtype
    logits, losses = model(torch.randn(2, 3, 32, 32), torch.tensor([0, 1]))
    losses["cross_entropy"].backward()

    assert logits.dtype == torch.float32
    for parameter in model.learned.parameters():
        assert parameter.dtype == parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0
    model.eval()
    for encoder in (backbone.image, backbone.text):
        for maps in encoder.linear_maps():
            for module, _ in maps:
                assert module.weight.dtype == stored
