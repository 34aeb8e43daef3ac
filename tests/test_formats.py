"""Which format a file or folder is in, what its configuration decides, and what is refused."""

import dataclasses
import json
import shutil

import open_clip
import pytest
import timm
import torch
import transformers
from library_models import (
    TEXTS,
    bert_vocabulary,
    biomedclip,
    conch,
    conch_tokenizer,
    hugging_face_clip,
    hugging_face_siglip,
    open_clip_siglip,
    open_clip_vit,
    siglip_tokenizer,
    unimed_clip,
)
from open_clip.tokenizer import HFTokenizer
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer as Fast
from tokenizers import pre_tokenizers, processors

from backbones.backbone import CLIP_MEAN
from backbones.formats.hugging_face import DEFAULTS
from backbones.formats.open_clip import TIMM, timm_settings
from backbones.formats.open_clip_settings import TextSettings, VisionSettings
from backbones.loading import find_weights, known_formats, load_backbone
from backbones.tokenizers import clip_token_ids, read_siglip_tokenizer, read_tokenizer
from backbones.weights import read_weights
from core.errors import InputError

HARD_TEXTS = [
    "a photo of skin lesions.",
    "Blue-white veil, bluish; (T1-weighted) dots & s",
    "  naïve  MÉLANOME\twith&nbsp;a\nveil ",
    "schÃ¶n 皮肤 lesion_with_dots",
    "red",
]


def edited(folder, name, **changes):
    """Change keys of a JSON file, ``a__b`` being b inside of a; None takes one out."""
    content = json.loads((folder / name).read_text())
    for key, value in changes.items():
        *path, last = key.split("__")
        inner = content
        for part in path:
            inner = inner[part]
        if value is None:
            inner.pop(last)
        else:
            inner[last] = value
    (folder / name).write_text(json.dumps(content))


def images_of(backbone):
    torch.manual_seed(2)
    size = backbone.preprocessing.size
    return torch.randn(2, 3, size, size)


def same_model(path, other):
    """Whether two files or folders give the same features."""
    first, second = load_backbone(path=path), load_backbone(path=other)
    images = images_of(first)
    texts = [backbone.encode_text(backbone.prepare(TEXTS)) for backbone in (first, second)]
    return torch.equal(first.encode_image(images), second.encode_image(images)) and torch.equal(
        *texts
    )


# -- recognition --------------------------------------------------------------------------------

MAKERS = {
    "open_clip": [open_clip_vit, biomedclip, open_clip_siglip],
    "Hugging Face CLIP or SigLIP": [hugging_face_clip, hugging_face_siglip],
    "UniMed-CLIP": [unimed_clip],
    "CONCH": [conch],
}


def test_the_page_has_every_format(checkout):
    page = (checkout / "docs" / "backbones.md").read_text(encoding="utf-8")
    for format in known_formats():
        assert f"`{type(format).__module__.split('.')[-1]}.py`" in page


@pytest.mark.parametrize("name", MAKERS)
def test_exactly_one_format_recognises_weights(name, tmp_path):
    """Whichever is asked first."""
    for i, make in enumerate(MAKERS[name]):
        folder = tmp_path / str(i)
        folder.mkdir()
        make(folder)
        weights = read_weights(folder)
        assert [f.name for f in known_formats() if f.recognises(weights)] == [name]


def test_a_folder_of_two_formats_is_read_as_open_clip(tmp_path):
    """LAION's folders have both; so had one revision of BiomedCLIP's, with code of its own."""
    hugging_face_clip(tmp_path)
    alone = tmp_path / "alone"
    alone.mkdir()
    open_clip_vit(alone)
    for name in ("open_clip_config.json", "open_clip_model.safetensors"):
        shutil.copy(alone / name, tmp_path)
    edited(tmp_path, "config.json", auto_map={"AutoModel": "code.Model"})
    (tmp_path / "code.py").write_text("raise SystemExit('ran')")

    assert find_weights(path=str(tmp_path))[1].name == "open_clip"
    assert same_model(tmp_path, alone)


def test_the_file_of_weights_is_chosen_by_its_known_name(tmp_path):
    """MetaCLIP's folder has a second .bin in other names."""
    hugging_face_clip(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    torch.save({"x": torch.zeros(1)}, tmp_path / "another.bin")

    assert find_weights(path=str(tmp_path))[1].name == "Hugging Face CLIP or SigLIP"


def test_weights_in_several_files(tmp_path):
    hugging_face_clip(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "model-00001-of-00002.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(InputError, match="in several files .*index.json.*one file"):
        load_backbone(path=tmp_path)


def test_two_files_without_a_known_name(tmp_path):
    for name in ("one.pt", "other.pt"):
        torch.save({"x": torch.zeros(1)}, tmp_path / name)
    with pytest.raises(InputError, match="several files of weights .one.pt, other.pt"):
        load_backbone(path=tmp_path)
    (tmp_path / "one.pt").unlink()
    (tmp_path / "other.pt").unlink()
    with pytest.raises(InputError, match="contains no weights"):
        load_backbone(path=tmp_path)


def test_names_that_need_a_folder(tmp_path):
    """open_clip's and transformers' tensors do not tell what their configuration decides."""
    for make, name in ((open_clip_siglip, "open_clip_model"), (hugging_face_clip, "model")):
        make(tmp_path)
        with pytest.raises(InputError, match="give the folder with .*config.json"):
            load_backbone(path=tmp_path / f"{name}.safetensors")


# -- open_clip ----------------------------------------------------------------------------------

REFUSED = [
    ({"model_cfg__vision_cfg__pretrain_path": "x.pth"}, "pretrain_path 'x.pth'.*PanDerm"),
    ({"model_cfg__multimodal_cfg": {"width": 1}}, "multimodal_cfg .*not supported .CoCa"),
    ({"model_cfg__vision_cfg__timm_model_name": "fastvit_mci0"}, "image encoder fastvit_mci0"),
    ({"model_cfg__vision_cfg__timm_model_name": "naflexvit_base_patch16_gap"}, "naflexvit_base"),
    ({"model_cfg__vision_cfg__timm_model_name": "vit_relpos_base_patch16_224"}, "vit_relpos_base"),
    ({"model_cfg__vision_cfg__timm_pool": None}, "timm_pool avg .also where timm_pool is left out"),
    ({"model_cfg__vision_cfg__timm_pool": "rot_attn"}, "vision_cfg.timm_pool 'rot_attn'"),
    ({"model_cfg__vision_cfg__ls_init_value": 0.1}, "vision_cfg.ls_init_value 0.1"),
    ({"model_cfg__text_cfg__hf_pooler_type": "max_pooler"}, "hf_pooler_type 'max_pooler'"),
    ({"model_cfg__text_cfg__embed_cls": True}, "text_cfg.embed_cls True"),
    ({"model_cfg__text_cfg__tokenizer_kwargs": {"strip_sep_token": True}}, "strip_sep_token True"),
    ({"model_cfg__vision_cfg__timm_pool": "map"}, "'map', but the tensors have no pooling by"),
    ({"preprocess_cfg__std": [0, 1, 1]}, "preprocess_cfg.std.0 0 .*greater than 0"),
    ({"model_cfg__new_key": 1}, "model_cfg.new_key 1 is not supported$"),
    ({"model_cfg__vision_cfg__image_size": 64}, "images of 64 pixels in patches of 8 has 4 x 4"),
    ({"model_cfg__embed_dim": None}, "model_cfg.embed_dim is missing"),
    ({"preprocess_cfg__resize_mode": "longest"}, "preprocess_cfg.resize_mode 'longest'"),
]


@pytest.fixture(scope="module")
def biomedclip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("biomedclip")
    biomedclip(folder)
    return folder


@pytest.mark.parametrize(("changes", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_what_would_compute_something_else_is_refused(
    changes, message, biomedclip_folder, tmp_path
):
    """In one line that names the setting and the file or encoder."""
    shutil.copytree(biomedclip_folder, tmp_path, dirs_exist_ok=True)
    edited(tmp_path, "open_clip_config.json", **changes)
    with pytest.raises(InputError, match=message) as error:
        load_backbone(path=tmp_path)
    assert "\n" not in str(error.value)


def test_what_a_configuration_leaves_out_is_open_clip_s():
    """Its defaults are not BERT's, and its heads do not follow from the width."""
    for ours, theirs in (
        (VisionSettings, open_clip.CLIPVisionCfg),
        (TextSettings, open_clip.CLIPTextCfg),
    ):
        defaults = {field.name: field.default for field in dataclasses.fields(theirs)}
        assert set(defaults) <= set(ours.model_fields)
        for name, default in defaults.items():
            known = ours.model_fields[name].default
            # What the tensors tell, what nothing reads, and layers that have no such part.
            assert known == default or known is None, name
    known = {"head_width": 64, "timm_pool": "avg", "timm_proj": "linear"}
    known |= {"heads": 8, "context_length": 77, "hf_pooler_type": "mean_pooler"}
    fields = VisionSettings.model_fields | TextSettings.model_fields
    assert {name: fields[name].default for name in known} == known


def test_the_old_spelling_of_bert_s_settings(biomedclip_folder, tmp_path):
    """BiomedCLIP's configuration before open_clip renamed proj and pooler_type."""
    shutil.copytree(biomedclip_folder, tmp_path, dirs_exist_ok=True)
    old = {"model_cfg__text_cfg__hf_proj_type": None, "model_cfg__text_cfg__proj": "mlp"}
    old |= {"model_cfg__text_cfg__hf_pooler_type": None}
    old |= {"model_cfg__text_cfg__pooler_type": "cls_last_hidden_state_pooler"}
    edited(tmp_path, "open_clip_config.json", **old)
    assert same_model(tmp_path, biomedclip_folder)
    edited(tmp_path, "open_clip_config.json", model_cfg__text_cfg__pooler_type=None)
    assert not same_model(tmp_path, biomedclip_folder)  # the default is the mean


def test_the_fingerprint_has_what_changes_features_and_nothing_else(biomedclip_folder, tmp_path):
    """BERT's settings and the tokenizer among it; what is only stated again does not count."""
    first = load_backbone(path=biomedclip_folder).fingerprint
    assert load_backbone(path=biomedclip_folder, activation="gelu").fingerprint == first
    assert load_backbone(path=biomedclip_folder, mean=CLIP_MEAN).fingerprint == first
    shutil.copytree(biomedclip_folder, tmp_path, dirs_exist_ok=True)
    assert load_backbone(path=tmp_path).fingerprint == first

    def changed(name, content):
        (tmp_path / name).write_text(content)
        found = load_backbone(path=tmp_path).fingerprint
        (tmp_path / name).unlink()
        return found

    words = (tmp_path / "vocab.txt").read_text()
    others = [
        changed("config.json", '{"model_type": "bert", "layer_norm_eps": 1e-5}'),
        changed("tokenizer_config.json", '{"do_lower_case": false}'),
        changed("vocab.txt", words.replace("red", "blau")),
    ]
    assert len({first, *others}) == 4


def test_a_tokenizer_of_another_model_is_refused(biomedclip_folder, tmp_path):
    """Its ids lie outside of the token table."""
    shutil.copytree(biomedclip_folder, tmp_path, dirs_exist_ok=True)
    words = (tmp_path / "vocab.txt").read_text()
    more = "\n".join(f"word{i}" for i in range(10))
    (tmp_path / "vocab.txt").write_text(f"{words}\n{more}")
    backbone = load_backbone(path=tmp_path)
    backbone.prepare(["red"])
    with pytest.raises(InputError, match="token id 34, but the text encoder has 30 token"):
        backbone.prepare(["word9"])
    assert len(backbone.vocabulary()[0]) == len(backbone.vocabulary()[1])


def test_other_text_encoders_of_transformers_are_refused(biomedclip_folder, tmp_path):
    """RoBERTa has BERT's names but one token type, and counts positions otherwise."""
    shutil.copytree(biomedclip_folder, tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "open_clip_model.safetensors")
    name = "text.transformer.embeddings.token_type_embeddings.weight"
    tensors[name] = tensors[name][:1].clone()
    save_file(tensors, tmp_path / "open_clip_model.safetensors")
    with pytest.raises(InputError, match="text encoder is not a BERT .RoBERTa"):
        load_backbone(path=tmp_path)


def test_position_ids_of_old_files_are_dropped(biomedclip_folder, tmp_path):
    shutil.copytree(biomedclip_folder, tmp_path, dirs_exist_ok=True)
    tensors = load_file(tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_model.safetensors").unlink()
    tensors["text.transformer.embeddings.position_ids"] = torch.arange(256)[None]
    torch.save(tensors, tmp_path / "open_clip_pytorch_model.bin")
    assert same_model(tmp_path, biomedclip_folder)


def test_what_is_stated_must_not_contradict_the_folder(biomedclip_folder):
    stated = {"activation": "gelu", "mean": CLIP_MEAN}
    load_backbone(path=biomedclip_folder, **stated)
    with pytest.raises(InputError, match="ACTIVATION is quick_gelu, but .* says gelu"):
        load_backbone(path=biomedclip_folder, activation="quick_gelu")
    with pytest.raises(InputError, match="PIXEL_MEAN is .0.5, 0.5, 0.5., but .* says"):
        load_backbone(path=biomedclip_folder, mean=(0.5, 0.5, 0.5))


@pytest.mark.parametrize("name", [n for n in timm.list_models("vit_*") if TIMM.fullmatch(n)])
def test_what_the_name_of_timm_s_encoder_tells(name):
    """Heads and activation; and every encoder that is accepted has plain layers."""
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0, depth=1)
    heads, activation = timm_settings(name)
    (block,) = model.blocks
    has_tanh = type(block.mlp.act).__name__ == "GELUTanh"
    assert block.attn.num_heads == (heads or model.embed_dim // 64)
    assert activation == ("gelu_tanh" if has_tanh else "gelu")
    assert has_tanh or block.mlp.act.approximate == "none"
    for absent in (block.ls1, block.attn.q_norm, model.norm_pre, model.fc_norm):
        assert isinstance(absent, torch.nn.Identity)
    assert block.norm1.eps == model.norm.eps == 1e-6
    assert model.num_prefix_tokens == (model.cls_token is not None)


# -- transformers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "siglip2"}, "model_type siglip2 .*NaFlex.* not supported"),
        ({"model_type": "chinese_clip"}, "model_type chinese_clip is not supported"),
        ({"auto_map": {"AutoModel": "code.Model"}}, "code of its own .auto_map., .*never run"),
        ({"text_config__hidden_act": "silu"}, "text_config.hidden_act 'silu'"),
        ({"text_config__eos_token_id": 7}, "text_config.eos_token_id 7 is not"),
        ({"vision_config__image_size": 64}, "image_size is 64, but .* 32 pixels"),
        ({"vision_config__num_attention_heads": "x"}, "vision_config.num_attention_heads cannot"),
        ({"text_config__num_attention_heads": 0}, "text_config.num_attention_heads .*greater than"),
        ({"text_config__num_attention_heads": 5}, "5 attention heads do not divide a width of 64"),
        ({"vision_config__num_attention_heads": 5}, "5 attention heads do not divide a width"),
    ],
)
def test_other_models_of_transformers_are_refused(changes, message, tmp_path):
    hugging_face_clip(tmp_path)
    edited(tmp_path, "config.json", **changes)
    with pytest.raises(InputError, match=message) as error:
        load_backbone(path=tmp_path)
    assert "\n" not in str(error.value)


def test_old_configurations_override(tmp_path):
    """``text_config_dict`` wins over ``text_config``, as in transformers."""
    hugging_face_clip(tmp_path)
    inner = json.loads((tmp_path / "config.json").read_text())["text_config"]
    edited(tmp_path, "config.json", text_config_dict={**inner, "hidden_act": "gelu"})
    model = transformers.CLIPModel.from_pretrained(tmp_path).eval()
    backbone = load_backbone(path=tmp_path)
    ids = torch.tensor([[49406, *clip_token_ids(["red."])[0], 49407]])

    with torch.no_grad():
        expected = model.get_text_features(input_ids=ids)
    expected = getattr(expected, "pooler_output", expected)
    ours = backbone.encode_text(backbone.prepare(["red"]))
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    assert type(backbone.text.transformer.resblocks[0].mlp.gelu) is torch.nn.GELU


def test_what_a_configuration_leaves_out_is_transformers_s():
    """Many released folders of SigLIP's state the model's kind alone."""
    for kind, configs in (
        ("clip", (transformers.CLIPTextConfig(), transformers.CLIPVisionConfig())),
        ("siglip", (transformers.SiglipTextConfig(), transformers.SiglipVisionConfig())),
    ):
        for side, config in zip(("text", "vision"), configs, strict=True):
            ours = DEFAULTS[kind][side]
            assert ours == {name: getattr(config, name) for name in ours}


PREPROCESSING = [
    ({"size": 32, "resample": 2}, ("shortest", "bilinear"), 0),
    ({"size": {"height": 32, "width": 32}}, ("squash", "bicubic"), 0),
    ({"size": {"shortest_edge": 40}}, ("shortest", "bicubic"), 1),
]


@pytest.mark.parametrize(("changes", "expected", "notes"), PREPROCESSING)
def test_preprocessing_is_the_folder_s(changes, expected, notes, tmp_path):
    """A crop that is smaller than what was resized is announced."""
    hugging_face_clip(tmp_path)
    edited(tmp_path, "preprocessor_config.json", **changes)
    backbone = load_backbone(path=tmp_path)
    own = backbone.preprocessing
    assert (own.resize_mode, own.interpolation) == expected and len(backbone.notes) == notes
    assert own.mean == (0.485, 0.456, 0.406)


def test_a_folder_without_preprocessing(tmp_path):
    hugging_face_clip(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    backbone = load_backbone(path=tmp_path)
    assert "no preprocessor_config.json" in backbone.notes[0]
    assert backbone.preprocessing.mean == CLIP_MEAN
    assert load_backbone(path=tmp_path, mean=(0.5, 0.4, 0.3)).preprocessing.mean == (0.5, 0.4, 0.3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resample": 1}, "resample 1 is not supported"),
        ({"rescale_factor": 1.0}, "rescale_factor 1.0"),
        ({"image_std": [1, 0, 1]}, "image_std.1: .*greater than 0"),
        ({"image_mean": "x"}, "preprocessor_config.json: image_mean: "),
        ({"size": {"height": 20, "width": 32}}, "size .* is not supported"),
    ],
)
def test_other_preprocessing_is_refused(changes, message, tmp_path):
    hugging_face_clip(tmp_path)
    edited(tmp_path, "preprocessor_config.json", **changes)
    with pytest.raises(InputError, match=message):
        load_backbone(path=tmp_path)


# -- tokenizers ---------------------------------------------------------------------------------


def ours(tokenizer, texts):
    return [[*tokenizer.start, *tokenizer.encode(text), *tokenizer.end] for text in texts]


def padded(rows, length, pad):
    return [row + [pad] * (length - len(row)) for row in rows]


def test_bert_s_tokens_are_transformers_and_open_clip_s(tmp_path):
    """From vocab.txt and from tokenizer.json."""
    bert_vocabulary(tmp_path)
    from_vocabulary = read_tokenizer(tmp_path, pad="[PAD]")
    words = (tmp_path / "vocab.txt").read_text().split("\n")
    slow = transformers.BertTokenizer(vocab={word: i for i, word in enumerate(words)})
    slow.save_pretrained(tmp_path)
    theirs = HFTokenizer(str(tmp_path), context_length=64)(HARD_TEXTS).tolist()
    from_json = read_tokenizer(tmp_path)

    for tokenizer in (from_vocabulary, from_json):
        rows = ours(tokenizer, HARD_TEXTS)
        assert padded(rows, 64, tokenizer.pad) == theirs
        assert [slow(text).input_ids for text in HARD_TEXTS[:2]] == rows[:2]
        assert tokenizer.stop == [5] and tokenizer.words()[10] == "lesion"


def test_a_vocabulary_with_case_is_read_with_case(tmp_path):
    """As ``tokenizer_config.json`` says; BERT models of clinical notes have it."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "a", "Red", "red", "é", "e"]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    theirs = transformers.BertTokenizer.from_pretrained(tmp_path, do_lower_case=False)

    for text in ("Red red", "é e"):
        rows = ours(read_tokenizer(tmp_path, pad="[PAD]"), [text])
        assert rows == [theirs(text).input_ids] == [[2, *rows[0][1:-1], 3]]
    (tmp_path / "tokenizer_config.json").unlink()
    assert read_tokenizer(tmp_path, pad="[PAD]").encode("Red é") == [8, 10]


@pytest.mark.parametrize("pad", ["</s>", "<pad>"])
def test_siglip_s_tokens_are_open_clip_s(pad, tmp_path):
    """Canonicalised, one end token, always 64 with the folder's own padding."""
    siglip_tokenizer(tmp_path, pad)
    theirs = HFTokenizer(str(tmp_path), context_length=64, clean="canonicalize")(HARD_TEXTS)
    tokenizer = read_siglip_tokenizer(tmp_path)

    assert padded(ours(tokenizer, HARD_TEXTS), 64, tokenizer.pad) == theirs.tolist()
    assert tokenizer.stop == [] and tokenizer.pad == (1 if pad == "</s>" else 0)


def test_a_word_behind_a_context_is_marked_as_such(tmp_path):
    """SigLIP 2's tokenizer marks the space before a word; the first of a text has none."""
    siglip_tokenizer(tmp_path)
    file = Fast.from_file(str(tmp_path / "tokenizer.json"))
    file.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    file.save(str(tmp_path / "tokenizer.json"))
    tokenizer = read_siglip_tokenizer(tmp_path)
    whole, context = tokenizer.encode("a photo of red"), tokenizer.encode("a photo of")

    assert whole[: len(context)] == context
    assert tokenizer.encode("red", behind=True) == whole[len(context) :]
    assert tokenizer.encode("red") != tokenizer.encode("red", behind=True)


def test_heads_that_do_not_fit_are_refused(tmp_path):
    hugging_face_siglip(tmp_path)
    for side in ("text", "vision"):
        edited(tmp_path, "config.json", **{f"{side}_config__num_attention_heads": 5})
        with pytest.raises(InputError, match="5 attention heads do not divide a width of 96"):
            load_backbone(path=tmp_path)
        edited(tmp_path, "config.json", **{f"{side}_config__num_attention_heads": 4})
    load_backbone(path=tmp_path)


def test_a_siglip_tokenizer_that_adds_other_tokens_is_refused(tmp_path):
    hugging_face_siglip(tmp_path)
    file = Fast.from_file(str(tmp_path / "tokenizer.json"))
    file.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    file.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(InputError, match="0 tokens before a text and 0 behind it"):
        load_backbone(path=tmp_path)


def test_conch_s_tokens_are_its_file_s(tmp_path):
    """A full stop that follows a word is not the stop that begins one."""
    conch_tokenizer(tmp_path)
    file = str(tmp_path / "tokenizer.json")
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=file)
    tokenizer = read_tokenizer(tmp_path, pad="<pad>")
    texts = ["a photo of skin lesions", "Red MÉLANOME, blue-white", "x"]
    rows = [
        [*tokenizer.start, *tokenizer.encode(t), *tokenizer.stop, *tokenizer.end] for t in texts
    ]

    assert rows == [theirs(f"{text}.").input_ids for text in texts]


def test_clip_s_tokens_are_open_clip_s():
    theirs = open_clip.SimpleTokenizer()(HARD_TEXTS)
    rows = [[49406, *ids, 49407] for ids in clip_token_ids(HARD_TEXTS)]
    assert padded(rows, 77, 0) == theirs.tolist()


def test_a_bare_file_whose_heads_are_not_told_is_refused(tmp_path):
    """open_clip's ViT-H has heads of 80 channels; 64 would compute something else."""
    shape = {"layers": 1, "width": 1280, "patch_size": 16, "head_width": 80}
    library = open_clip_vit(tmp_path, shape)
    with pytest.raises(InputError, match="1,280 channels.*open_clip_config.json"):
        load_backbone(path=tmp_path / "open_clip_model.safetensors")
    backbone = load_backbone(path=tmp_path)
    images = images_of(backbone)
    with torch.no_grad():
        expected = library.image(images)
    torch.testing.assert_close(backbone.encode_image(images), expected, rtol=1e-4, atol=1e-4)


def test_a_folder_without_its_tokenizer(tmp_path):
    hugging_face_siglip(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    with pytest.raises(InputError, match="no file says which token pads"):
        load_backbone(path=tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "spiece.model").touch()
    with pytest.raises(InputError, match="neither tokenizer.json nor .*spiece.model alone"):
        load_backbone(path=tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="tokenizer.json: cannot be read as a tokenizer"):
        load_backbone(path=tmp_path)


def test_a_damaged_configuration(tmp_path):
    open_clip_siglip(tmp_path)
    for content, said in (("[1]", "does not hold a JSON object"), ("{", "cannot be read as JSON")):
        (tmp_path / "open_clip_config.json").write_text(content)
        with pytest.raises(InputError, match=f"open_clip_config.json {said}"):
            load_backbone(path=tmp_path)


def test_a_vocabulary_that_is_not_clip_s_is_refused(tmp_path):
    """Words would else be read as others."""
    open_clip_vit(tmp_path, text={"vocab_size": 100})
    with pytest.raises(InputError, match="49,408"):
        load_backbone(path=tmp_path)
