"""Every format gives the numbers of the library that defines it.

`python -m pytest tests/test_agreement.py -s` prints the largest differences, relative to the
largest value of open_clip or transformers; `-m slow` at the released models' sizes.
"""

import contextlib
from functools import partial

import pytest
import torch
from library_models import (
    KINDS,
    PLACEHOLDER,
    TEXTS,
    biomedclip,
    open_clip_siglip,
    open_clip_vit,
)
from torch.nn.functional import cosine_similarity

from backbones.loading import load_backbone
from backbones.texts import lay_out

N_CTX = 2
LARGEST = 1e-5


def ids_of(backbone, library, texts, n_ctx=0):
    """Padded token ids as the library reads them, and where context tokens stand."""
    encoder = backbone.text
    if encoder.kind == "clip":
        start, end = [49406], [269, 49407]  # start; full stop and end
    else:
        tokenizer = encoder.tokenizer
        start, end = tokenizer.start, [*tokenizer.stop, *tokenizer.end]
    rows = lay_out(texts, encoder.token_ids(texts), start, end, library.length, n_ctx)
    ids = torch.tensor([row + [library.pad] * (library.length - len(row)) for row in rows])
    return torch.where(ids < 0, PLACEHOLDER, ids), -1 - ids


@contextlib.contextmanager
def changed(layer, change, after=False):
    """What enters the layer (or leaves it) is changed by a function of [batch, L, width]."""

    def before_hook(_, args, kwargs):
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    def after_hook(_, args, output):
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    if after:
        hook = layer.register_forward_hook(after_hook)
    else:
        hook = layer.register_forward_pre_hook(before_hook, with_kwargs=True)
    with contextlib.ExitStack() as stack:
        stack.callback(hook.remove)
        yield


def theirs_with_contexts(library, ids, places, contexts):
    """Text features with contexts[i] before layer i in the place of placeholder tokens."""

    def put(x, values):
        is_slot = places >= 0
        x = x.clone()
        text = x[:, : places.shape[1]]
        text[is_slot] = values[places[is_slot]]
        return x

    with contextlib.ExitStack() as stack:
        stack.enter_context(changed(library.tokens, partial(put, values=contexts[0]), after=True))
        for layer, values in zip(library.text_layers[1:], contexts[1:], strict=False):
            stack.enter_context(changed(layer, partial(put, values=values)))
        return library.text(ids)


def theirs_with_tokens(library, images, tokens, length):
    """Image features with tokens[i] behind the patches in layer i; nothing pools over them."""

    def beside(x, values):
        return torch.cat([x[:, :length], values.expand(len(x), -1, -1)], dim=1)

    tokens = [library.before_layers(tokens[0]), *tokens[1:]]
    with contextlib.ExitStack() as stack:
        for layer, values in zip(library.image_layers, tokens, strict=False):
            stack.enter_context(changed(layer, partial(beside, values=values)))
        last = library.image_layers[-1]
        stack.enter_context(changed(last, lambda x: x[:, :length], after=True))
        return library.image(images)


def gradients(features, weights, *inputs):
    return torch.cat([g.flatten() for g in torch.autograd.grad((features * weights).sum(), inputs)])


def differences(backbone, library, n_images=2):
    """The largest difference of each quantity, relative to the library's largest value."""
    torch.manual_seed(1)
    size = backbone.preprocessing.size
    images = torch.randn(n_images, 3, size, size)
    found = {}

    def compare(name, ours, theirs):
        found[name] = float(((ours - theirs).abs().max() / theirs.abs().max()).detach())

    ids, _ = ids_of(backbone, library, TEXTS)
    with torch.no_grad():
        image, text = library.image(images), library.text(ids)
        our_image = backbone.encode_image(images)
        our_text = backbone.encode_text(backbone.prepare(TEXTS))
    compare("image", our_image, image)
    compare("text", our_text, text)
    logits = library.scale.exp() * cosine_similarity(image[:, None], text, dim=-1)
    ours = backbone.logit_scale.exp() * cosine_similarity(our_image[:, None], our_text, dim=-1)
    compare("logits", ours, logits)

    width, weights = backbone.text_width, torch.randn_like(text)
    context, deep = ((torch.randn(N_CTX, width) / 10).requires_grad_() for _ in range(2))
    ids, places = ids_of(backbone, library, TEXTS, N_CTX)
    prepared = backbone.prepare(TEXTS, N_CTX)

    def in_slots(values):
        return values[prepared.sources].unsqueeze(0)

    ours = backbone.encode_text(prepared, in_slots(context))
    theirs = theirs_with_contexts(library, ids, places, [context])
    compare("context", ours, theirs)
    compare("gradient", *(gradients(f, weights, context) for f in (ours, theirs)))
    ours = backbone.encode_text(prepared, in_slots(context), [in_slots(deep)])
    theirs = theirs_with_contexts(library, ids, places, [context, deep])
    compare("deep", *(gradients(f, weights, context, deep) for f in (ours, theirs)))

    if backbone.vision_width is not None:
        tokens = (torch.randn(2, 3, backbone.vision_width) / 10).requires_grad_()
        lengths = []
        with changed(library.image_layers[0], lambda x: lengths.append(x.shape[1]) or x):
            library.image(images)
        ours = backbone.encode_image(images, list(tokens))
        theirs = theirs_with_tokens(library, images, list(tokens), lengths[0])
        weights = torch.randn_like(theirs)
        compare("tokens", *(gradients(f, weights, tokens) for f in (ours, theirs)))
    return found


def agrees(name, backbone, library, **options):
    """Print the differences as a row of a table; each is below ``LARGEST``."""
    found = differences(backbone, library, **options)
    row = (f"{found[key]:.0e}" if key in found else "-" for key in COLUMNS)
    print(f"\n| {name} | {' | '.join(row)} |")
    assert max(found.values()) < LARGEST
    assert backbone.preprocessing == library.preprocessing


COLUMNS = ("image", "text", "logits", "context", "gradient", "deep", "tokens")


@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_the_library_that_defines_it(kind, tmp_path):
    """Features, logits, and gradients to a context and to tokens of later layers and of images."""
    library = KINDS[kind](tmp_path)
    backbone = load_backbone(path=tmp_path)

    agrees(kind, backbone, library)
    assert backbone.notes == ()


def test_a_bare_file_needs_its_activation(tmp_path):
    """A GELU model's folder is right by itself; its file alone is announced, and right if told."""
    library = open_clip_vit(tmp_path)
    file = tmp_path / "open_clip_model.safetensors"
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = library.image(images)
    bare = load_backbone(path=file)
    told = load_backbone(path=file, activation="gelu")

    assert "QuickGELU" in bare.notes[0] and "MODEL.BACKBONE.ACTIVATION" in bare.notes[0]
    assert (bare.encode_image(images) - expected).abs().max() > 100 * LARGEST
    torch.testing.assert_close(told.encode_image(images), expected, rtol=0, atol=LARGEST)
    assert told.notes == () and told.fingerprint != bare.fingerprint
    torch.testing.assert_close(
        told.encode_text(told.prepare(TEXTS)), library.text(ids_of(told, library, TEXTS)[0])
    )


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_a_torchscript_archive_tells_its_activation(activation, tmp_path):
    """By its own code, which is read as text and not run."""
    library = open_clip_vit(tmp_path, quick_gelu=activation == "quick_gelu")
    model = library.image.__self__
    images, ids = torch.randn(2, 3, 32, 32), torch.randint(1, 9, (2, 77))
    traced = torch.jit.trace_module(model, {"encode_image": images, "encode_text": ids})
    traced.save(tmp_path / "model.pt")
    backbone = load_backbone(path=tmp_path / "model.pt")

    with torch.no_grad():
        torch.testing.assert_close(backbone.encode_image(images), library.image(images))
    assert backbone.notes == ()


@pytest.mark.parametrize("kind", ["BiomedCLIP ([CLS], MLP)", "SigLIP, open_clip", "CONCH"])
def test_half_precision_gives_nearly_the_same(kind, tmp_path):
    """And gradients in fp32."""
    KINDS[kind](tmp_path)
    whole, half = (load_backbone(path=tmp_path, precision=p) for p in ("fp32", "bf16"))
    images = torch.randn(2, 3, 32, 32)
    context = torch.randn(1, 3, N_CTX, whole.text_width).flatten(1, 2).requires_grad_()
    features = half.encode_text(half.prepare(TEXTS, N_CTX), context)
    features.sum().backward()

    assert context.grad.isfinite().all() and features.dtype == torch.float32
    expected = whole.encode_text(whole.prepare(TEXTS, N_CTX), context)
    assert cosine_similarity(features, expected).min() > 0.999
    pairs = [(b.encode_image(images), b.patch_tokens(images).flatten(0, 1)) for b in (whole, half)]
    for ours, theirs in zip(*pairs, strict=True):
        assert cosine_similarity(ours, theirs).min() > 0.999


@pytest.mark.parametrize("kind", ["SigLIP, open_clip", "CONCH"])
def test_a_patch_s_feature_is_the_pooling_of_that_patch_alone(kind, tmp_path):
    """What pools by attention then reads nothing else."""
    KINDS[kind](tmp_path)
    pool = load_backbone(path=tmp_path).image_tower.trunk.attn_pool
    x = torch.randn(2, 5, 64)
    with torch.no_grad():
        each = torch.stack([pool(x[:, i : i + 1]) for i in range(5)], dim=1)
        torch.testing.assert_close(pool.alone(x), each)


FRESH = ["SigLIP, open_clip", "CONCH", "CLIP, transformers"]
FRESH += ["open_clip ViT, other heads, epsilons and tanh GELU", "open_clip ResNet"]


@pytest.mark.parametrize("kind", FRESH)
def test_a_fresh_tower_has_the_same_shape(kind, tmp_path):
    """And the same activation, heads and epsilons: with the same weights it computes the same."""
    KINDS[kind](tmp_path)
    backbone = load_backbone(path=tmp_path)
    tower = backbone.new_image_tower().eval()
    tower.load_state_dict(backbone.image_tower.state_dict())
    size = backbone.preprocessing.size
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(tower(images), backbone.encode_image(images))


BERT_BASE = {"vocab_size": 30522}
TRUE_SIZES = {
    "BiomedCLIP, true size": lambda f: biomedclip(
        f, timm_name="vit_base_patch16_224", bert=BERT_BASE, image_size=224
    ),
    "SigLIP B/16, true size": lambda f: open_clip_siglip(
        f, timm_name="vit_base_patch16_siglip_224"
    ),
    "open_clip ViT-B/16 GELU, true size": lambda f: open_clip_vit(
        f,
        {"image_size": 224, "layers": 12, "width": 768, "patch_size": 16},
        text={"width": 512, "heads": 8, "layers": 12},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", TRUE_SIZES)
def test_agrees_at_true_size(kind, tmp_path):
    library = TRUE_SIZES[kind](tmp_path)

    agrees(kind, load_backbone(path=tmp_path), library, n_images=1)
