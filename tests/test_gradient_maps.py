"""Heat maps by gradients against naive computations in float64, for each kind of image encoder."""

import copy
from collections import OrderedDict

import pytest
import torch
from clip.model import LayerNorm
from naive import cosine
from small_clip import frozen_clip, make_clip
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from backbones.backbone import ImageEncoder
from backbones.encoders.clip_images import ClipViT
from backbones.encoders.vit import Tower, Trunk, ViT
from backbones.gradient_maps import attention_maps, grad_cam
from core.errors import InputError


def double(model):
    """A CLIP in float64 as a backbone, with its image tower."""
    model = model.double()
    for part in model.modules():
        if isinstance(part, LayerNorm):  # CLIP's own computes in fp32
            part.__class__ = nn.LayerNorm
    return frozen_clip(model).double()


def forward_with(visual, image, changes):
    """The feature of one image, head by head, with ``changes[layer]`` added to the attention."""
    x = visual.conv1(image[None])[0].flatten(1).T
    x = visual.ln_pre(torch.cat([visual.class_embedding[None], x]) + visual.positional_embedding)
    weights = []
    for layer, block in enumerate(visual.transformer.resblocks):
        normed, attention = block.ln_1(x), block.attn
        q, k, v = (normed @ attention.in_proj_weight.T + attention.in_proj_bias).chunk(3, dim=1)
        read, of_layer = [], []
        for head in range(attention.num_heads):
            own = slice(head * attention.head_dim, (head + 1) * attention.head_dim)
            scores = q[:, own] @ k[:, own].T / attention.head_dim**0.5
            weight = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
            of_layer.append(weight)
            if layer in changes:
                weight = weight + changes[layer][head]
            read.append(weight @ v[:, own])
        weights.append(torch.stack(of_layer))
        x = x + torch.cat(read, dim=1) @ attention.out_proj.weight.T + attention.out_proj.bias
        x = x + block.mlp(block.ln_2(x))
    return visual.ln_post(x[0]) @ visual.proj, weights


@torch.no_grad()
def test_a_transformer_s_maps_are_attention_times_finite_differences(tiny_clip):
    """Each attention weight is moved by itself, in each layer and head, for each feature."""
    for block in tiny_clip.visual.transformer.resblocks:
        block.attn.num_heads, block.attn.head_dim = 2, 32
    backbone = double(tiny_clip)
    torch.manual_seed(0)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    features = torch.randn(3, 48, dtype=torch.float64)
    visual, scale, step = backbone.image_tower, backbone.logit_scale.exp(), 1e-5

    expected = torch.zeros(2, 3, 4, dtype=torch.float64)
    for i, image in enumerate(images):
        plain, weights = forward_with(visual, image, {})
        assert_close(plain, backbone.encode_image(images)[i])
        for layer, weight in enumerate(weights):
            for place in torch.cartesian_prod(*map(torch.arange, weight.shape)).tolist():
                if place[-1] == 0:  # the class token is no patch
                    continue
                change = torch.zeros_like(weight)
                change[tuple(place)] = step
                more, _ = forward_with(visual, image, {layer: change})
                less, _ = forward_with(visual, image, {layer: -change})
                for j, feature in enumerate(features):
                    slope = scale * (cosine(more, feature) - cosine(less, feature)) / (2 * step)
                    added = weight[tuple(place)] * slope
                    expected[i, j, place[-1] - 1] += added.clamp(min=0)

    found = backbone.gradient_maps(images, features)
    assert_close(found, expected.reshape(2, 3, 2, 2), rtol=1e-5, atol=1e-7)
    assert (found.flatten(2).std(dim=2) > 0).all()


@torch.no_grad()
@pytest.mark.parametrize("pool", ["token", "map", "coca"])
def test_a_timm_transformer_s_maps_are_attention_times_finite_differences(monkeypatch, pool):
    """As above, with a class token or with pooling, whose attention is one layer more."""
    torch.manual_seed(0)
    trunk = Trunk(32, 2, 2, 64, 16, 2, "gelu", 1e-6, pool, 8, 40)
    width = 40 if pool == "coca" else 32
    tower = Tower(trunk, nn.Sequential(OrderedDict(proj=nn.Linear(width, 48, bias=False))))
    for name, parameter in trunk.named_parameters():
        if name.endswith(("latent", "query", "bias")):
            nn.init.normal_(parameter)
    encoder = ViT(tower.state_dict(), heads=2).double().eval().requires_grad_(False)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    features = torch.randn(3, 48, dtype=torch.float64)
    n_layers = 2 + (pool != "token")

    def feature_with(image, changes):
        weights = []

        def attend(query, key, value, *_, **__):
            scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
            weights.append((scores.exp() / scores.exp().sum(dim=-1, keepdim=True))[0])
            changed = weights[-1] + changes.get(len(weights) - 1, 0)
            return changed[None] @ value

        monkeypatch.setattr(F, "scaled_dot_product_attention", attend)
        found = encoder.encode(image[None])[0]
        monkeypatch.undo()
        return found, weights

    expected, step = torch.zeros(2, 3, 4, dtype=torch.float64), 1e-5
    for i, image in enumerate(images):
        plain, weights = feature_with(image, {})
        assert_close(plain, encoder.encode(images)[i])
        assert len(weights) == n_layers
        for layer, weight in enumerate(weights):
            for place in torch.cartesian_prod(*map(torch.arange, weight.shape)).tolist():
                if pool != "map" and place[-1] == 0:  # the class token
                    continue
                change = torch.zeros_like(weight)
                change[tuple(place)] = step
                more, _ = feature_with(image, {layer: change})
                less, _ = feature_with(image, {layer: -change})
                for j, feature in enumerate(features):
                    slope = (cosine(more, feature) - cosine(less, feature)) / (2 * step)
                    patch = place[-1] - (pool != "map")
                    expected[i, j, patch] += (weight[tuple(place)] * slope).clamp(min=0)

    with torch.enable_grad():
        found = encoder.gradient_maps(
            images, lambda x: F.normalize(x, dim=-1) @ F.normalize(features, dim=-1).T
        )
    assert_close(found, expected.reshape(2, 3, 2, 2), rtol=1e-4, atol=1e-8)


def test_an_image_encoder_without_maps_says_so(tiny_clip, monkeypatch):
    """One line for the user; the patches' maps remain."""
    backbone = frozen_clip(tiny_clip)
    monkeypatch.setattr(ClipViT, "gradient_maps", ImageEncoder.gradient_maps)
    with pytest.raises(InputError, match="ClipViT: this image encoder has no maps by gradients"):
        backbone.gradient_maps(torch.randn(1, 3, 32, 32), torch.randn(1, 48))


def test_a_resnet_s_maps_are_grad_cam(tiny_resnet):
    """Of 32 x 32 pixels no layer has 7 x 7 places, so the first layer's 8 x 8 are explained."""
    backbone = double(tiny_resnet)
    torch.manual_seed(0)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    features = torch.randn(3, 48, dtype=torch.float64)
    visual = backbone.image_tower
    found = backbone.gradient_maps(images, features)

    seen = []
    hook = visual.layer1.register_forward_hook(lambda _, args, output: seen.append(output.clone()))
    backbone.encode_image(images)
    hook.remove()
    assert found.shape == (2, 3, 8, 8)
    for i in range(2):
        for j in range(3):

            def logit(channels, j=j):
                x = visual.layer4(visual.layer3(visual.layer2(channels[None].clone())))
                return backbone.logit_scale.exp() * cosine(visual.attnpool(x)[0], features[j])

            channels = seen[0][i]
            slope = torch.autograd.functional.jacobian(logit, channels)
            expected = sum(c * s.mean() for c, s in zip(channels, slope, strict=True)).clamp(min=0)
            assert_close(found[i, j], expected)


@pytest.mark.parametrize(
    ("visual", "resolution", "side"),
    [("vit", 32, 2), ("vit", 96, 6), ("resnet", 64, 8), ("resnet", 128, 8), ("resnet", 224, 7)],
)
def test_maps_have_the_patches_grid_or_the_deepest_fine_layer_s(visual, resolution, side):
    """Rows and columns of each kind; neither weights nor features get a gradient."""
    backbone = frozen_clip(make_clip(visual, resolution=resolution))
    features = torch.randn(2, 48, requires_grad=True)
    with torch.no_grad():  # as a caller may have it
        maps = backbone.gradient_maps(torch.randn(1, 3, resolution, resolution), features)

    assert maps.shape == (1, 2, side, side) and maps.dtype == torch.float32
    assert not maps.requires_grad and (maps >= 0).all() and maps.any()
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert features.grad is None


@pytest.mark.parametrize("precision", ["bf16", "amp"])
@pytest.mark.parametrize("name", ["tiny_clip", "tiny_resnet"])
def test_half_precision_gives_nearly_the_same_maps(name, precision, request):
    """In fp32, whatever the encoder computes in."""
    model = request.getfixturevalue(name)
    torch.manual_seed(0)
    images, features = torch.randn(2, 3, 32, 32), torch.randn(2, 48)
    exact = frozen_clip(copy.deepcopy(model)).gradient_maps(images, features)
    half = frozen_clip(copy.deepcopy(model), precision).gradient_maps(images, features)

    assert half.dtype == torch.float32
    assert_close(half, exact, rtol=0.2, atol=0.1 * float(exact.max()))


@pytest.mark.parametrize("name", ["tiny_clip", "tiny_resnet"])
def test_a_map_is_of_its_image_and_feature_alone(name, request):
    """Whatever else is in the batch; scaled features are the same ones."""
    backbone = frozen_clip(copy.deepcopy(request.getfixturevalue(name)))
    torch.manual_seed(0)
    images, features = torch.randn(3, 3, 32, 32), torch.randn(2, 48)
    together = backbone.gradient_maps(images, 7 * features)

    for i in range(3):
        for j in range(2):
            alone = backbone.gradient_maps(images[i : i + 1], features[j : j + 1])
            assert_close(together[i, j], alone[0, 0], rtol=1e-3, atol=1e-5)
    assert not torch.allclose(together[0, 0], together[1, 0], rtol=0.01)
    assert not torch.allclose(together[0, 0], together[0, 1], rtol=0.01)


def test_the_two_formulas_on_numbers_done_by_hand():
    """A score that weighs attention by 2, -3, 5, 0, 1; one of channels with weights 4 and -1."""
    weights = torch.tensor([0.2, 0.3, 0.1, 0.3, 0.1]).reshape(1, 1, 1, 5).requires_grad_()
    scores = (weights * torch.tensor([2.0, -3.0, 5.0, 0.0, 1.0])).sum().reshape(1, 1)
    expected = torch.tensor([[[[0.0, 0.5], [0.0, 0.1]]]])  # the first key is no patch
    assert_close(attention_maps(scores, [weights], 4), expected)
    assert_close(attention_maps(scores, [weights, weights], 4), 2 * expected)

    channels = torch.tensor([[[1.0, 2.0]], [[3.0, 9.0]]])[None].requires_grad_()
    scores = (4 * channels[:, 0].mean() - channels[:, 1].mean()).reshape(1, 1)
    expected = torch.tensor([[(4 * 1 - 3) / 2, max(4 * 2 - 9, 0) / 2]]).reshape(1, 1, 1, 2)
    assert_close(grad_cam(scores, channels), expected)
