"""Frozen CLIP gives CLIP's numbers, in every precision, and loads what OpenAI's format holds."""

import clip
import pytest
import torch
from dassl.engine import TRAINER_REGISTRY
from torch.testing import assert_close

from backbones.clip_model import FrozenCLIP, cosine_logits, load_clip
from core.errors import InputError
from engine.config import load_cfg
from engine.prompts import ContextPrompts, PromptTokens, encode_texts

TEXTS = ["a photo of a dog", "skin lesion with a well-defined (round) border", "x"]


def test_text_encoder_matches_clip(tiny_clip):
    """Without what texts have in common and without padding: what CLIP gives for 77 positions."""
    expected = tiny_clip.encode_text(clip.tokenize([f"{text} ." for text in TEXTS]))

    assert_close(encode_texts(FrozenCLIP(tiny_clip), TEXTS), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["tiny_clip", "tiny_resnet"])
def test_image_encoder_matches_clip_and_carries_no_graph(name, request):
    model = request.getfixturevalue(name)
    pictures = torch.randn(2, 3, 32, 32)
    features = FrozenCLIP(model).encode_image(pictures)

    assert_close(features, model.encode_image(pictures))
    assert not features.requires_grad


def test_features_pass_the_image_encoder_unchanged(tiny_clip):
    """What was encoded before and what is encoded now score alike."""
    frozen = FrozenCLIP(tiny_clip)
    features = torch.randn(2, frozen.embed_dim)

    assert torch.equal(frozen.encode_image(features), features)


def test_training_never_reaches_a_frozen_batch_norm(tiny_resnet):
    frozen = FrozenCLIP(tiny_resnet)
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    frozen.train()
    frozen.encode_image(torch.randn(4, 3, 32, 32))

    assert not any(module.training for module in frozen.modules())
    for name, value in frozen.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("precision", ["bf16", "amp"])
def test_low_precision_stays_near_and_learns_in_fp32(tiny_clip, precision):
    """Half precision is for the frozen part alone."""
    exact = encode_texts(FrozenCLIP(clip_copy(tiny_clip)), TEXTS)
    frozen = FrozenCLIP(tiny_clip, precision)
    prompts = ContextPrompts(frozen, TEXTS, n_ctx=4)
    features = frozen.encode_prompts(prompts.inputs, prompts())
    features.sum().backward()

    assert_close(encode_texts(frozen, TEXTS), exact, rtol=0.1, atol=0.1)
    assert prompts.ctx.dtype == prompts.ctx.grad.dtype == torch.float32
    assert prompts.ctx.grad.abs().sum() > 0
    logits = cosine_logits(frozen.encode_image(torch.randn(2, 3, 32, 32)), features, torch.ones(()))
    assert logits.dtype == torch.float32


def test_fp16_on_a_cpu_says_that_it_runs_fp32(tiny_clip, capsys):
    frozen = FrozenCLIP(tiny_clip, "fp16", "cpu")

    assert frozen.precision == "fp32" and frozen.dtype == torch.float32
    assert "fp16 needs a GPU" in capsys.readouterr().out


def clip_copy(model):
    import copy

    return copy.deepcopy(model)


def test_cosine_logits_of_class_and_of_picture_prompts():
    """One set of class features, or one a picture: the same scores where they agree."""
    f, t = torch.randn(3, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    scale = torch.tensor(100.0, dtype=torch.float64).log()
    expected = torch.nn.functional.cosine_similarity(f[:, None], t[None], dim=-1) * 100

    assert_close(cosine_logits(f, t, scale), expected)
    assert_close(cosine_logits(f, t.expand(3, 4, 5), scale), expected)
    with pytest.raises(ValueError, match="5 dimensions, text features 6"):
        cosine_logits(f, torch.randn(4, 6), scale)


def test_phrase_and_full_stop_are_tokenised_apart():
    """')' and '.' would merge into one token, and another text would be read."""
    layout = PromptTokens(["round (dark)."])
    together = clip.tokenize("round (dark).")[0]
    apart = clip.tokenize(["round (dark)", "."])

    words = apart[0][1 : apart[0].argmax()].tolist()
    assert layout.tokens.tolist() == [together[0], *words, apart[1][1], together.max()]
    assert layout.tokens.tolist() != together[: together.argmax() + 1].tolist()


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_texts_share_their_beginnings_and_nothing_else(position):
    """A row for each distinct beginning; a path of rows gives each text back, end token last."""
    texts = ["black cat", "black dog", "dog", "black cat"]
    alone = [PromptTokens([text], 2, position) for text in texts]
    layout = PromptTokens(texts, 2, position)
    tree, fixed = layout.tree, layout.tokens.clone()
    fixed[tree.slots] = -1 - layout.sources  # what stands in a slot

    beginnings = set()
    for i, one in enumerate(alone):
        expected = one.tokens.clone()
        expected[one.tree.slots] = -1 - one.sources
        path = tree.paths[i, : tree.eos[i] + 1]
        assert fixed[path].tolist() == expected.tolist()
        assert tree.positions[path].tolist() == list(range(len(path)))
        assert path[-1] == tree.ends[i]
        beginnings |= {tuple(expected[: n + 1].tolist()) for n in range(len(expected))}
    assert len(fixed) == len(beginnings)
    assert tree.paths.flatten()[tree.at].tolist() == list(range(len(fixed)))


@pytest.mark.parametrize("position", ["end", "front"])
def test_gradients_of_shared_rows_can_be_repeated(tiny_clip, position):
    """To the bit, with several threads; "front" puts the one context into every text's own rows."""
    texts = [f"{i} {i % 7} spots" for i in range(300)]
    prompts = ContextPrompts(FrozenCLIP(tiny_clip), texts, 4, position)
    weights = torch.randn(len(prompts.sources), 64)
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    gradients = []
    for _ in range(10):
        prompts.ctx.grad = None
        (prompts() * weights).sum().backward()
        gradients.append(prompts.ctx.grad)
    torch.set_num_threads(threads)

    assert all(torch.equal(gradient, gradients[0]) for gradient in gradients)


def test_half_precision_adds_up_shared_gradients_in_fp32(tiny_clip):
    """Hundreds of texts behind one context lose no more of its gradient than a few do."""
    texts = [f"{i} {i % 7} spots" for i in range(300)]
    gradients = []
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        prompts = ContextPrompts(frozen := FrozenCLIP(clip_copy(tiny_clip), precision), texts, 4)
        frozen.encode_prompts(prompts.inputs, prompts()).sum().backward()
        gradients.append(prompts.ctx.grad)

    assert (gradients[1] - gradients[0]).norm() < 0.03 * gradients[0].norm()


def test_context_starts_from_words(tiny_clip):
    frozen = FrozenCLIP(tiny_clip)
    prompts = ContextPrompts(frozen, ["dog", "black cat"], 4, start_words="a photo of a")
    read = frozen.encode_prompts(prompts.inputs, prompts())

    assert_close(read, encode_texts(frozen, ["a photo of a dog", "a photo of a black cat"]))
    with pytest.raises(InputError, match="'a photo' has 2 tokens; N_CTX is 4"):
        ContextPrompts(frozen, ["dog"], 4, start_words="a photo")


def test_given_contexts_stand_in_place_of_the_learned_one(tiny_clip):
    """All texts with each context, as if it were the learned one."""
    frozen = FrozenCLIP(tiny_clip)
    prompts = ContextPrompts(frozen, TEXTS, 2)
    contexts = prompts.ctx.detach() + torch.randn(4, 1, 64)
    given = frozen.encode_prompts(prompts.inputs, prompts.with_contexts(contexts))

    for context, features in zip(contexts, given.split(len(TEXTS)), strict=True):
        with torch.no_grad():
            prompts.ctx.copy_(context)
        assert_close(features, frozen.encode_prompts(prompts.inputs, prompts()))


def test_reads_state_dicts_and_jit_archives(toy, toy_cfg, tiny_clip):
    """The two forms of OpenAI's files give the same encoder."""
    pictures = torch.randn(1, 3, 32, 32)
    expected = load_clip(toy_cfg(), torch.device("cpu")).encode_image(pictures)
    traced = torch.jit.trace(
        tiny_clip, (pictures, clip.tokenize("x")), check_trace=False, strict=False
    )
    traced.save(str(toy / "jit.pt"))
    archived = load_clip(
        toy_cfg("MODEL.BACKBONE.PATH", str(toy / "jit.pt")), torch.device("cpu")
    ).encode_image(pictures)

    assert_close(archived, expected)


@pytest.fixture
def toy_cfg(toy):
    def build(*opts, trainer="ViP"):
        files = str(toy / "toy.yaml"), str(toy / "random.yaml")
        return load_cfg(trainer, *files, opts=opts, root=str(toy / "data"))[0]

    return build


def test_half_a_checkpoint_and_a_stranger_are_named(toy, toy_cfg):
    whole = (toy / "clip.pt").read_bytes()
    (toy / "clip.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="clip.pt is not a CLIP checkpoint, or only half of one"):
        load_clip(toy_cfg(), torch.device("cpu"))
    torch.save({"weight": torch.zeros(1)}, toy / "clip.pt")
    with pytest.raises(InputError, match="does not hold OpenAI's CLIP format"):
        load_clip(toy_cfg(), torch.device("cpu"))


def test_missing_weights_without_network_say_what_where_and_whence(toy_cfg, monkeypatch, tmp_path):
    """One line: the file, the folder, the address."""
    import urllib.error
    import urllib.request

    def offline(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(InputError) as error:
        load_clip(
            toy_cfg("MODEL.BACKBONE.PATH", "", "MODEL.BACKBONE.NAME", "ViT-B/16"),
            torch.device("cpu"),
        )
    message = str(error.value)

    assert "\n" not in message
    for part in ("ViT-B-16.pt", str(tmp_path / ".cache" / "clip"), "https://"):
        assert part in message


def test_unknown_backbone_lists_the_choices(toy_cfg):
    with pytest.raises(InputError, match="'ViT-B/17'; choose one of RN50, .*ViT-B/16"):
        load_clip(
            toy_cfg("MODEL.BACKBONE.PATH", "", "MODEL.BACKBONE.NAME", "ViT-B/17"),
            torch.device("cpu"),
        )


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ViP", "CoCoOp", "MaPLe"])
def test_compiled_text_encoder_gives_the_same(method, toy_cfg):
    """Scores and gradients, with a context, one of each picture, and tokens between the layers."""
    losses, gradients = [], []
    for compiled in (False, True):
        trainer = TRAINER_REGISTRY.get(method)(toy_cfg("MODEL.COMPILE", compiled, trainer=method))
        pictures = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        loss = trainer.model(pictures).logits[:, 0].sum()
        loss.backward()
        losses.append(loss)
        gradients.append([p.grad for p in trainer.model.learned.parameters() if p.grad is not None])

    assert hasattr(trainer.model.backbone.encode_prompts, "_torchdynamo_orig_callable")
    assert_close(losses[1], losses[0], rtol=1e-4, atol=1e-3)
    assert_close(gradients[1], gradients[0], rtol=1e-3, atol=1e-3)


def test_compiling_without_a_compiler_is_one_clear_line(toy_cfg, monkeypatch):
    def no_compiler(function):
        raise RuntimeError("No working C++ compiler found\nand a long story")

    monkeypatch.setattr(torch, "compile", no_compiler)
    with pytest.raises(InputError, match="MODEL.COMPILE: .*No working C.. compiler found.; instal"):
        load_clip(toy_cfg("MODEL.COMPILE", True), torch.device("cpu"))
