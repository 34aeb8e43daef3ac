"""Heat maps of symptoms: planted cases, naive cosines, their place in the image, their drawing."""

import base64
import io

import numpy as np
import pytest
import torch
from dassl.data.transforms import build_transform
from naive import cosine
from PIL import Image
from scipy.stats import spearmanr

from backbones.loading import backbone_of, with_preprocessing
from core.errors import InputError
from datasets import synthetic
from engine.config import load_cfg
from engine.prompts import encode_texts
from explanations.heatmap_drawing import data_uri, layer, legend, overlay
from explanations.heatmaps import heat_maps, maps_of_views, patch_maps, stretched, symptoms_of
from explanations.localisation import TOLERANCE, measure
from trainers import load_run


@pytest.fixture
def run(toy_run):
    return load_run(toy_run("ViP"))


def test_patch_maps_are_cosines():
    """Row by row, of each patch with each symptom."""
    torch.manual_seed(0)
    patches, features = torch.randn(2, 9, 5), torch.randn(4, 5)
    maps = patch_maps(patches, features)

    assert maps.shape == (2, 4, 3, 3)
    for n in range(2):
        for s in range(4):
            for p in range(9):
                expected = cosine(patches[n, p], features[s])
                torch.testing.assert_close(maps[n, s, p // 3, p % 3], expected)


@pytest.mark.parametrize("method", ["patches", "gradient"])
def test_maps_are_of_the_trained_symptoms_class_by_class(run, method):
    """What the backbone gives for one symptom feature, less its mean; padding is no symptom."""
    views = torch.randn(3, 3, 32, 32)
    maps = maps_of_views(run, views, method)
    symptoms, backbone = symptoms_of(run), run.model.backbone
    features = run.model.symptom_features()

    names = [(s.classname, s.phrase) for s in symptoms]
    assert names == [(c, p) for c, phrases in run.symptoms.phrases.items() for p in phrases]
    assert maps.shape == (3, len(symptoms), 2, 2)
    for j, symptom in enumerate(symptoms):
        feature = features[symptom.row, symptom.column][None]
        if method == "gradient":
            expected = backbone.gradient_maps(views, feature)[:, 0]
        else:
            expected = patch_maps(backbone.patch_tokens(views), feature)[:, 0]
        expected = (expected - expected.mean(dim=(1, 2), keepdim=True)).detach().numpy()
        np.testing.assert_allclose(maps[:, j], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("size", [(96, 64), (64, 96), (64, 64), (2000, 1000)])
@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_bright_corner_is_found_where_it_is(run, monkeypatch, size, corner):
    """A tower that sees brightness alone: hot in that quarter of the square, nothing outside it."""
    row, column = corner
    width, height = size
    side = min(size)
    left, top = (width - side) // 2, (height - side) // 2
    pixels = np.zeros((height, width, 3), np.uint8)
    half = side // 2
    rows = slice(top + row * half, top + (row + 1) * half)
    columns = slice(left + column * half, left + (column + 1) * half)
    pixels[rows, columns] = 255
    backbone = run.model.backbone
    feature = run.model.symptom_features()[0, 0].detach()

    def brightness(views):
        light = torch.nn.functional.avg_pool2d(views.mean(1, keepdim=True), 16).flatten(1)
        return torch.where(light > 0, 1.0, -1.0)[..., None] * feature

    monkeypatch.setattr(backbone, "patch_tokens", brightness)
    found = heat_maps(run, Image.fromarray(pixels), "patches")

    shown = found.image.size
    assert max(shown) <= 640 and found.maps.shape == (5, shown[1], shown[0])
    factor = shown[0] / width
    heat = found.maps[0]
    y, x = np.unravel_index(np.nanargmax(heat), heat.shape)
    assert rows.start <= y / factor < rows.stop and columns.start <= x / factor < columns.stop
    seen = ~np.isnan(heat)
    assert seen.sum() == min(shown) ** 2
    assert seen[shown[1] // 2, shown[0] // 2]
    assert seen.all() == (width == height)
    inside = np.asarray(found.image.convert("L")) > 128
    assert np.nanmean(heat[inside & seen]) > 0 > np.nanmean(heat[~inside & seen])
    assert found.limit == pytest.approx(np.nanmax(found.maps))


def test_a_preprocessing_that_squeezes_sees_the_whole_image(toy_run, monkeypatch):
    """Both the view and its map: bright at the far right, outside the central square."""
    run = load_run(toy_run("ViP", "INPUT.RESIZE_MODE", "squash"))
    pixels = np.zeros((40, 160, 3), np.uint8)
    pixels[:, 120:] = 255
    image = Image.fromarray(pixels)
    assert run.views([image])[0, :, :, -1].min() > run.views([image])[0, :, :, 0].max()

    feature = run.model.symptom_features()[0, 0].detach()
    monkeypatch.setattr(
        run.model.backbone,
        "patch_tokens",
        lambda views: (
            torch.nn.functional.avg_pool2d(views[:, :1], 8).flatten(1)[..., None] * feature
        ),
    )
    heat = heat_maps(run, image, "patches").maps[0]
    assert heat.shape == (40, 160) and not np.isnan(heat).any()
    assert heat[:, 130:].min() > 0 > heat[:, :80].max()


@pytest.mark.parametrize("name", ["tiny", "tiny_rn"])
def test_the_embedded_clips_find_a_cavity_and_fluid(checkout, name):
    """By gradients, with the words alone: more of the heat is there than of an even map."""
    path = checkout / "backbones" / f"{name}.pt"
    cfg, _ = load_cfg("ViP", "synthchest", name, opts=["MODEL.BACKBONE.PATH", str(path)])
    frozen = backbone_of(cfg, torch.device("cpu"))
    view = build_transform(with_preprocessing(cfg, frozen), is_train=False)
    signs = {"effusion": "presence of pleural effusion", "cavity": "presence of cavitation"}
    features = encode_texts(frozen, list(signs.values()))
    for j, sign in enumerate(signs):
        drawn = [
            (synthetic.picture(synthetic.CHESTS, 5, i)[0], masks[sign])
            for i in range(60)
            for masks, _ in [synthetic.attribute_masks(synthetic.CHESTS, 5, i)]
            if sign in masks
        ]
        views = torch.stack([view(Image.fromarray(pixels)) for pixels, _ in drawn])
        masks = [mask for _, mask in drawn]
        maps = stretched(frozen.gradient_maps(views, features[j : j + 1])[:, 0].numpy(), 64, 64)
        _, shares = measure(maps - maps.mean(axis=(1, 2), keepdims=True), masks)
        assert len(drawn) > 10
        assert shares.mean() > 2 * np.mean([mask.mean() for mask in masks])


@pytest.mark.parametrize("name", ["tiny", "tiny_rn"])
def test_maps_follow_the_weights(checkout, name):
    """With random weights of the image encoder they are others (Adebayo et al. 2018)."""
    path = checkout / "backbones" / f"{name}.pt"
    cfg, _ = load_cfg("ViP", "synthderm", name, opts=["MODEL.BACKBONE.PATH", str(path)])
    frozen = backbone_of(cfg, torch.device("cpu"))
    view = build_transform(with_preprocessing(cfg, frozen), is_train=False)
    drawn = [synthetic.picture(synthetic.LESIONS, 5, i)[0] for i in range(12)]
    views = torch.stack([view(Image.fromarray(pixels)) for pixels in drawn])
    features = encode_texts(frozen, ["The spot has ragged, notched or blurred edges"])
    maps = frozen.gradient_maps(views, features).flatten(1)
    torch.manual_seed(0)
    frozen.image_tower.load_state_dict(frozen.new_image_tower().state_dict())
    shuffled = frozen.gradient_maps(views, features).flatten(1)

    correlations = [spearmanr(a, b)[0] for a, b in zip(maps, shuffled, strict=True)]
    assert np.mean(correlations) < 0.5


def test_unknown_methods_and_runs_without_symptoms_are_rejected(run, toy_run):
    image = Image.new("RGB", (40, 40))
    with pytest.raises(InputError, match="choose one of gradient, patches"):
        heat_maps(run, image, "attention")
    with pytest.raises(InputError, match="does not read symptoms"):
        heat_maps(load_run(toy_run("CoOp")), image)


def test_measures_of_maps_that_are_known():
    """A map on the mask, one beside it, one just within the tolerance, and one without heat."""
    mask = np.zeros((64, 64), bool)
    mask[10:20, 10:20] = True
    near, far = np.zeros((64, 64)), np.zeros((64, 64))
    near[10 - TOLERANCE, 15] = far[10 - TOLERANCE - 1, 15] = 1
    half = np.where(mask, 1.0, 0) + np.where(np.roll(mask, 30, 1), 1.0, 0) - 0.0
    even = np.zeros((64, 64))
    hits, shares = measure(np.stack([mask - 0.1, near, far, half, even]), [mask] * 5)

    assert hits.tolist() == [1, 1, 0, 1, 0]
    np.testing.assert_allclose(shares, [1, 0, 0, 0.5, mask.mean()])


def test_a_layer_over_the_grey_image_is_the_overlay():
    """What the browser app lays over an image, where explain.py writes one file."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (9, 7, 3), dtype=np.uint8))
    heat = rng.normal(size=(9, 7))
    heat[0, 0] = np.nan
    for limit in (None, 2.0):
        alone = layer(heat, limit)
        laid = Image.alpha_composite(image.convert("L").convert("RGBA"), alone).convert("RGB")
        difference = np.subtract(laid, overlay(image, heat, limit), dtype=float)
        assert alone.mode == "RGBA" and np.asarray(alone)[0, 0, 3] == 0
        assert abs(difference).max() <= 2  # rounding


def test_an_overlay_covers_what_is_hot_and_leaves_the_rest_grey():
    """Twice the limit is as the limit; cold and unseen places are the image in grey."""
    image = Image.new("RGB", (4, 2), (200, 100, 50))
    grey = image.convert("L").getpixel((0, 0))
    heat = np.array([[1, 2, 0, -1], [0.1, 0.5, np.nan, 0]])
    pixels = np.asarray(overlay(image, heat, limit=1.0)).astype(int)

    assert pixels.shape == (2, 4, 3)
    assert (pixels[0, 0] == pixels[0, 1]).all()
    for place in ((0, 2), (0, 3), (1, 2), (1, 3)):
        assert (abs(pixels[place] - grey) <= 1).all()
    changed = abs(pixels - grey).sum(-1)
    assert changed[0, 0] > changed[1, 1] > changed[1, 0] > 10
    own = np.asarray(overlay(image, heat)).astype(int)
    assert (own[0, 1] == pixels[0, 1]).all() and (own[0, 0] != pixels[0, 0]).any()
    none = np.asarray(overlay(image, np.full((2, 4), -1.0)))
    assert (abs(none.astype(int) - grey) <= 1).all()


def test_the_legend_rises_steadily_and_images_become_addresses():
    """Lightness rises from left to right but for where the grey ends; the PNG is the image."""
    light = np.asarray(legend().convert("L"))[0].astype(int)
    assert light[-1] > light[len(light) // 2] and light[-1] > 180
    uri = data_uri(legend())
    kind, content = uri.split(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        assert np.array_equal(np.asarray(image), np.asarray(legend()))
