"""The OpenAI family gives CLIP's numbers, in every precision, from every file that holds them."""

import copy
import io
import zipfile

import clip
import pytest
import torch
from clip.model import convert_weights
from small_clip import frozen_clip, make_clip
from torch.testing import assert_close

from backbones.backbone import weights_fingerprint
from backbones.loading import backbone_of, load_backbone, with_preprocessing
from backbones.numerics import cosine_logits
from backbones.texts import TextTooLong
from core.errors import InputError
from engine.config import load_cfg
from engine.prompts import ContextPrompts, encode_texts

TEXTS = ["a photo of a dog", "skin lesion with a well-defined (round) border", "x"]


# -- the two encoders -----------------------------------------------------------------------------


def test_text_encoder_matches_clip(tiny_clip):
    """Without what texts have in common and without padding: what CLIP gives for 77 positions."""
    expected = tiny_clip.encode_text(clip.tokenize([f"{text} ." for text in TEXTS]))

    assert_close(encode_texts(frozen_clip(tiny_clip), TEXTS), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["tiny_clip", "tiny_resnet"])
def test_image_encoder_matches_clip_and_carries_no_graph(name, request):
    model = request.getfixturevalue(name)
    images = torch.randn(2, 3, 32, 32)
    features = frozen_clip(model).encode_image(images)

    assert_close(features, model.encode_image(images))
    assert not features.requires_grad


@pytest.mark.parametrize("name", ["tiny_clip", "tiny_resnet"])
def test_patch_tokens_are_values_in_the_joint_space(name, request):
    """MaskCLIP by hand: the last attention, in which each place reads itself alone."""
    model = request.getfixturevalue(name)
    images = torch.randn(2, 3, 32, 32)
    patches = frozen_clip(copy.deepcopy(model)).patch_tokens(images)
    seen = []
    visual = model.visual
    with torch.no_grad():
        if name == "tiny_clip":
            last = visual.transformer.resblocks[-1]
            last.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
            model.encode_image(images)
            alone = last.ln_1(seen[0][1:]).flatten(0, 1).unsqueeze(0)  # sequences of one token
            read = last.attn(alone, alone, alone)[0].reshape(4, 2, -1)
            expected = (visual.ln_post(read) @ visual.proj).transpose(0, 1)
        else:
            visual.attnpool.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
            model.encode_image(images)
            places = seen[0].flatten(2).transpose(1, 2)
            expected = visual.attnpool.c_proj(visual.attnpool.v_proj(places))

    assert_close(patches, expected, rtol=1e-4, atol=1e-5)
    assert patches.shape == (2, 4 if name == "tiny_clip" else 1, 48)


def test_image_tokens_change_the_feature_and_get_gradients(tiny_clip):
    """Against MaPLe's equations in tests/methods/test_maple.py; here, that nothing else learns."""
    frozen = frozen_clip(tiny_clip)
    tokens = torch.randn(2, 3, frozen.vision_width, requires_grad=True)
    images = torch.randn(2, 3, 32, 32)
    features = frozen.encode_image(images, list(tokens))
    features.sum().backward()

    assert (tokens.grad.abs().amax(dim=(1, 2)) > 0).all()
    assert not torch.allclose(features, frozen.encode_image(images))
    assert all(p.grad is None for p in frozen.parameters())


def test_a_resnet_gives_the_same_with_channels_last(tiny_resnet):
    """What it reads on a GPU."""
    frozen, images = frozen_clip(tiny_resnet), torch.randn(3, 3, 32, 32)
    last = images.contiguous(memory_format=torch.channels_last)
    assert_close(frozen.encode_image(last), frozen.encode_image(images), atol=1e-6, rtol=1e-5)


def test_a_resnet_reads_no_tokens(tiny_resnet):
    frozen = frozen_clip(tiny_resnet)

    assert frozen.vision_width is None and frozen.vision_depth is None
    with pytest.raises(ValueError, match="ResNet"):
        frozen.encode_image(torch.randn(1, 3, 32, 32), [torch.zeros(2, 8)])


@pytest.mark.parametrize("name", ["tiny_clip", "tiny_resnet"])
def test_a_new_image_tower_has_the_shape_and_other_weights(name, request):
    """As CLIP's constructor draws them, so that a seed gives what it gave before."""
    frozen = frozen_clip(request.getfixturevalue(name))
    torch.manual_seed(1)
    tower = frozen.new_image_tower()
    again = make_clip("vit" if name == "tiny_clip" else "resnet", seed=1).visual

    shapes = {key: value.shape for key, value in frozen.image_tower.state_dict().items()}
    assert {key: value.shape for key, value in tower.state_dict().items()} == shapes
    assert torch.equal(tower.conv1.weight, again.conv1.weight)
    assert not torch.equal(tower.conv1.weight, frozen.image_tower.conv1.weight)
    assert tower(torch.randn(2, 3, 32, 32)).shape == (2, frozen.embed_dim)


def test_training_never_reaches_a_frozen_batch_norm(tiny_resnet):
    frozen = frozen_clip(tiny_resnet)
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    frozen.train()
    frozen.encode_image(torch.randn(4, 3, 32, 32))

    assert not any(module.training for module in frozen.modules())
    for name, value in frozen.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_vocabulary_spells_every_token_but_the_special_ones(tiny_clip):
    words, rows = frozen_clip(tiny_clip).vocabulary()

    assert len(words) == len(rows) == 49406
    at = [i for i, word in enumerate(words) if word == "dog"]  # as a word, and as part of one
    row = tiny_clip.token_embedding.weight[clip.tokenize("dog")[0, 1]]
    assert any(torch.equal(rows[i], row) for i in at)


# -- precision ------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "amp"])
def test_low_precision_stays_near_and_learns_in_fp32(tiny_clip, precision):
    """Half precision is for the frozen part alone."""
    exact = encode_texts(frozen_clip(copy.deepcopy(tiny_clip)), TEXTS)
    frozen = frozen_clip(tiny_clip, precision)
    prompts = ContextPrompts(frozen, TEXTS, n_ctx=4)
    features = frozen.encode_text(prompts.inputs, prompts())
    features.sum().backward()

    assert_close(encode_texts(frozen, TEXTS), exact, rtol=0.1, atol=0.1)
    assert prompts.ctx.dtype == prompts.ctx.grad.dtype == torch.float32
    assert prompts.ctx.grad.abs().sum() > 0
    logits = cosine_logits(frozen.encode_image(torch.randn(2, 3, 32, 32)), features, torch.ones(()))
    assert logits.dtype == torch.float32


def test_fp16_on_a_cpu_says_that_it_runs_fp32(tiny_clip, capsys):
    frozen = frozen_clip(tiny_clip, "fp16", "cpu")

    assert frozen.precision == "fp32" and frozen.dtype == torch.float32
    assert "fp16 needs a GPU" in capsys.readouterr().out


def test_a_file_in_fp32_is_not_rounded(toy, tiny_clip):
    """To the bit; the clip package would read every weight as fp16."""
    loaded = load_backbone(path=toy / "clip.pt")

    read = loaded.text.state_dict() | {
        f"visual.{name}": value for name, value in loaded.image_tower.state_dict().items()
    }
    read["logit_scale"] = loaded.logit_scale
    for name, value in tiny_clip.state_dict().items():
        assert torch.equal(read[name], value), name
    assert any((value != value.half().float()).any() for value in tiny_clip.state_dict().values())


def test_a_released_file_keeps_its_fingerprint(toy, tiny_clip):
    """Files of fp16 weights, as OpenAI's are: what clip's own reader makes of them."""
    convert_weights(tiny_clip)
    torch.save(tiny_clip.state_dict(), toy / "clip.pt")
    theirs = clip.model.build_model(torch.load(toy / "clip.pt")).float()

    assert (
        load_backbone(path=toy / "clip.pt").fingerprint
        == weights_fingerprint(theirs.state_dict())[:12]
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_fingerprint_is_the_file_s_not_the_precision_s(toy, precision):
    first = load_backbone(path=toy / "clip.pt").fingerprint
    assert load_backbone(path=toy / "clip.pt", precision=precision).fingerprint == first


# -- scores and texts -----------------------------------------------------------------------------


def test_cosine_logits_of_class_and_of_image_prompts():
    """One set of class features, or one an image: the same scores where they agree."""
    f, t = torch.randn(3, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    scale = torch.tensor(100.0, dtype=torch.float64).log()
    expected = torch.nn.functional.cosine_similarity(f[:, None], t[None], dim=-1) * 100

    assert_close(cosine_logits(f, t, scale), expected)
    assert_close(cosine_logits(f, t.expand(3, 4, 5), scale), expected)
    with pytest.raises(ValueError, match="5 dimensions, text features 6"):
        cosine_logits(f, torch.randn(4, 6), scale)


def test_phrase_and_full_stop_are_tokenised_apart(tiny_clip):
    """')' and '.' would merge into one token, and another text would be read."""
    tree = frozen_clip(tiny_clip).prepare(["round (dark)."]).tree
    together = clip.tokenize("round (dark).")[0]
    apart = clip.tokenize(["round (dark)", "."])

    words = apart[0][1 : apart[0].argmax()].tolist()
    assert tree.tokens.tolist() == [together[0], *words, apart[1][1], together.max()]
    assert tree.tokens.tolist() != together[: together.argmax() + 1].tolist()


def test_context_starts_from_words(tiny_clip):
    frozen = frozen_clip(tiny_clip)
    prompts = ContextPrompts(frozen, ["dog", "black cat"], 4, start_words="a photo of a")
    read = frozen.encode_text(prompts.inputs, prompts())

    assert_close(read, encode_texts(frozen, ["a photo of a dog", "a photo of a black cat"]))
    with pytest.raises(InputError, match="'a photo' has 2 tokens; N_CTX is 4"):
        ContextPrompts(frozen, ["dog"], 4, start_words="a photo")


def test_given_contexts_stand_in_place_of_the_learned_one(tiny_clip):
    """All texts with each context, as if it were the learned one."""
    frozen = frozen_clip(tiny_clip)
    prompts = ContextPrompts(frozen, TEXTS, 2)
    contexts = prompts.ctx.detach() + torch.randn(4, 1, 64)
    given = frozen.encode_text(prompts.inputs, prompts.with_contexts(contexts))

    for context, features in zip(contexts, given.split(len(TEXTS)), strict=True):
        with torch.no_grad():
            prompts.ctx.copy_(context)
        assert_close(features, frozen.encode_text(prompts.inputs, prompts()))


def test_too_many_context_tokens_are_not_the_phrase_s_fault(tiny_clip):
    """No phrase is named: none would fit."""
    with pytest.raises(InputError, match="^N_CTX is 1000; .* at most 73") as error:
        ContextPrompts(frozen_clip(tiny_clip), ["dog"], 1000)
    assert not isinstance(error.value, TextTooLong)


@pytest.mark.parametrize(
    ("text", "n_ctx", "reason"),
    [
        ("spot " * 80, 4, "takes 87 tokens with a context of 4; .* at most 77: shorten it$"),
        ("spot " * 70, 8, "takes 81 tokens with a context of 8; .*: shorten it or lower N_CTX$"),
        ("x" * 1_000_000, 0, "is 1,000,000 characters long; .* at most 77 tokens"),
    ],
)
def test_a_text_too_long_is_named_in_short(tiny_clip, text, n_ctx, reason):
    """With its place among the texts, so that a caller can add its class and file."""
    with pytest.raises(TextTooLong, match=reason) as error:
        frozen_clip(tiny_clip).prepare(["dog", text], n_ctx)
    assert error.value.index == 1 and error.value.text == text
    assert len(str(error.value)) < 250


# -- files ----------------------------------------------------------------------------------------


def test_reads_state_dicts_and_jit_archives(toy, tiny_clip):
    """The two forms of OpenAI's files give the same encoder."""
    images = torch.randn(1, 3, 32, 32)
    expected = load_backbone(path=toy / "clip.pt")
    traced = torch.jit.trace(
        tiny_clip, (images, clip.tokenize("x")), check_trace=False, strict=False
    )
    traced.save(str(toy / "jit.pt"))
    archived = load_backbone(path=toy / "jit.pt")

    assert_close(archived.encode_image(images), expected.encode_image(images))
    assert archived.fingerprint == expected.fingerprint


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state_dict", "model", "module.", "both"])
def test_reads_what_training_programs_write(toy, tiny_clip, wrapper):
    """The weights among other things, and under DataParallel's names."""
    state = tiny_clip.state_dict()
    if wrapper in ("module.", "both"):
        state = {f"module.{name}": value for name, value in state.items()}
    if wrapper != "module.":
        name = "model_state_dict" if wrapper == "both" else wrapper
        state = {"epoch": 3, name: state, "optimizer": {"lr": 0.1}}
    torch.save(state, toy / "wrapped.pt")
    loaded = load_backbone(path=toy / "wrapped.pt")

    assert loaded.fingerprint == load_backbone(path=toy / "clip.pt").fingerprint


def test_the_seed_draws_the_same_after_loading(toy):
    """What a method starts from does not depend on how the file wraps the weights."""
    state = torch.load(toy / "clip.pt")
    torch.save({"state_dict": state}, toy / "wrapped.pt")
    drawn = []
    for path in ("clip.pt", "wrapped.pt"):
        torch.manual_seed(0)
        load_backbone(path=toy / path)
        drawn.append(torch.randn(3))
    torch.manual_seed(0)
    clip.model.build_model(dict(state))

    assert torch.equal(*drawn)
    assert torch.equal(drawn[0], torch.randn(3))


def test_activation_and_heads_are_chosen_beside_the_file(toy, tiny_clip):
    """A file tells neither."""
    images = torch.randn(2, 3, 32, 32)
    for block in (*tiny_clip.transformer.resblocks, *tiny_clip.visual.transformer.resblocks):
        block.mlp.gelu = torch.nn.GELU()
        block.attn.num_heads, block.attn.head_dim = 2, 32
    chosen = {"activation": "gelu", "text_heads": 2, "vision_heads": 2}
    loaded = load_backbone(path=toy / "clip.pt", **chosen)
    plain = load_backbone(path=toy / "clip.pt")

    assert_close(loaded.encode_image(images), tiny_clip.encode_image(images))
    expected = tiny_clip.encode_text(clip.tokenize([f"{text} ." for text in TEXTS]))
    assert_close(encode_texts(loaded, TEXTS), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(plain.encode_image(images), loaded.encode_image(images))
    assert loaded.new_image_tower().transformer.resblocks[0].attn.num_heads == 2
    with pytest.raises(InputError, match="'relu'; choose one of quick_gelu, gelu"):
        load_backbone(path=toy / "clip.pt", activation="relu")


def saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def zipped():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("weights/clip.pt", b"1")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "is a web page"),
        (b"\n<html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        (b"red green blue\n" * 10, "is a text file"),
        (zipped(), "is a zip archive of other files"),
        (b"\x1f\x8b\x08\x00\x00\x00", "is a gzip archive"),
        (saved({"weight": torch.zeros(9999)})[:5000], "is incomplete: copy or download it again"),
        (bytes(range(256)) * 9, "is damaged, incomplete or of another kind"),
        (saved(torch.nn.Linear(2, 2)), "holds Python objects beside tensors"),
        (saved([1, 2]), "contains no named tensors"),
        (
            saved({"weight": torch.zeros(1)}),
            "does not hold weights in a known format .*called weight",
        ),
    ],
)
def test_another_kind_of_file_is_told_by_what_it_is(toy, content, said):
    """In one line with the file's name, and no advice to load it unsafely."""
    (toy / "clip.pt").write_bytes(content)
    with pytest.raises(InputError, match=said) as error:
        load_backbone(path=toy / "clip.pt")

    message = str(error.value)
    assert "clip.pt" in message and "\n" not in message and "weights_only" not in message


def test_half_a_clip_is_told_by_what_is_missing(toy, tiny_clip):
    state = tiny_clip.state_dict()
    del state["visual.ln_post.weight"]
    torch.save(state, toy / "clip.pt")
    with pytest.raises(InputError, match="does not hold the OpenAI CLIP format: .*ln_post.weight"):
        load_backbone(path=toy / "clip.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_tensor_that_is_not_finite_is_named(toy, tiny_clip, value):
    state = tiny_clip.state_dict()
    state["visual.conv1.weight"][3, 1, 2, 2] = value
    torch.save(state, toy / "clip.pt")
    with pytest.raises(InputError, match=r"clip.pt: the tensor visual.conv1.weight holds NaN"):
        load_backbone(path=toy / "clip.pt")


@pytest.mark.parametrize("device", ["nope", "cuda:99", "x" * 1000])
def test_a_device_that_is_not_there_is_one_line(toy, device):
    with pytest.raises(InputError, match="cannot be used here") as error:
        load_backbone(path=toy / "clip.pt", device=device)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_missing_weights_without_network_say_what_where_and_whence(monkeypatch, tmp_path):
    """One line: the file, the folder, the address."""
    import urllib.error
    import urllib.request

    def offline(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(InputError) as error:
        load_backbone("ViT-B/16")
    message = str(error.value)

    assert "\n" not in message
    for part in ("ViT-B-16.pt", str(tmp_path / ".cache" / "clip"), "https://"):
        assert part in message


def test_released_weights_come_through_clip_s_cache(monkeypatch, tmp_path, tiny_clip):
    """Its folder, its checksum; loading draws no more random numbers than a file does."""
    convert_weights(tiny_clip)
    asked = []

    def load(name, device, jit, download_root):
        asked.append((name, download_root))
        torch.randn(5)
        return tiny_clip, None

    monkeypatch.setattr(clip, "load", load)
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.manual_seed(0)
    loaded = load_backbone("ViT-B/16")
    drawn = torch.randn(3)
    torch.save(tiny_clip.state_dict(), tmp_path / "clip.pt")
    torch.manual_seed(0)
    from_file = load_backbone(path=tmp_path / "clip.pt")

    assert asked == [("ViT-B/16", str(tmp_path / ".cache" / "clip"))]
    assert loaded.fingerprint == from_file.fingerprint
    assert torch.equal(drawn, torch.randn(3))


def test_unknown_backbone_lists_the_choices():
    with pytest.raises(InputError, match="'ViT-B/17'; choose one of RN50, .*ViT-B/16"):
        load_backbone("ViT-B/17")


def test_a_size_that_the_backbone_does_not_read_is_refused(toy):
    cfg, _ = load_cfg(
        "ViP", str(toy / "toy.yaml"), str(toy / "random.yaml"), opts=["INPUT.SIZE", "(64, 64)"]
    )
    with pytest.raises(InputError, match="INPUT.SIZE is .64, 64., but .*clip.pt reads .* 32x32"):
        with_preprocessing(cfg, backbone_of(cfg, "cpu"))
