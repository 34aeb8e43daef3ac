"""Small random models of open_clip and transformers, saved in the folders that define formats."""

import json
import os
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

os.environ["HF_HUB_OFFLINE"] = "1"  # before the libraries are imported

import open_clip
import timm
import torch
import transformers
from open_clip.hf_model import HFTextEncoder
from open_clip.transformer import QuickGELU, TextTransformer, VisionTransformer
from safetensors.torch import save_file
from timm.models.vision_transformer import _create_vision_transformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn

from backbones.backbone import CLIP_MEAN, CLIP_STD, Preprocessing

TEXTS = [
    "a photo of skin lesions",
    "red",
    "melanoma with a blue veil and dots of another size than the others",
]
# Token ids that stand where a learned context goes.
PLACEHOLDER = 3
HALF = (0.5, 0.5, 0.5)


class Library(NamedTuple):
    """A model in evaluation mode, and what of it the comparison changes.

    Attributes:
        image, text: images, and padded token ids, to features.
        tokens: the token table. text_layers, image_layers: batch first.
        before_layers: what learned image tokens pass through as the patches do.
        length, pad: tokens of a padded text, and what pads it. scale: log inverse temperature.
    """

    image: Callable[[Tensor], Tensor]
    text: Callable[[Tensor], Tensor]
    tokens: nn.Module
    text_layers: Sequence[nn.Module]
    image_layers: Sequence[nn.Module]
    scale: Tensor
    length: int
    pad: int
    preprocessing: Preprocessing
    before_layers: nn.Module = nn.Identity()


def randomised(model: nn.Module) -> nn.Module:
    """Noise in every parameter and buffer, so that no zero or one hides a mistake.

    Matrices get less the wider they are: layers must not amplify rounding.
    """
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith(("logit_scale", "logit_bias")):
                tensor.fill_(3.0)
            elif tensor.is_floating_point() and "attn_mask" not in name:
                noise = torch.randn_like(tensor) if tensor.dim() > 1 else torch.rand_like(tensor)
                tensor.add_((0.5 / tensor.shape[-1] ** 0.5 if tensor.dim() > 1 else 0.1) * noise)
    return model.eval()


def small_timm(name: str, **shape: object) -> str:
    """Register a small vision transformer with timm."""

    def make(pretrained: bool = False, **kwargs: object) -> nn.Module:
        return _create_vision_transformer(name, **{**shape, **kwargs})

    make.__name__, make.__module__ = name, __name__
    if not timm.is_model(name):
        timm.models.register_model(make)
    return name


# -- tokenizers ------------------------------------------------------------------------------------

WORDS = "a photo of skin lesion ##s red melanoma with blue ##ish veil and dots - ( ) & ,".split()


def bert_vocabulary(folder: Path) -> None:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "."]
    (folder / "vocab.txt").write_text("\n".join([*special, *WORDS]), encoding="utf-8")


def siglip_tokenizer(folder: Path, pad: str = "</s>", special: Sequence[str] = ("<pad>",)) -> int:
    """A sentencepiece model as ``tokenizer.json``; returns the size of its vocabulary."""
    tokens = [*special, "</s>", "<unk>"]
    words = ["▁a", "▁photo", "▁of", "▁red", "▁skin", "▁lesions", "▁blue"]
    letters = ["▁", *string.ascii_lowercase]
    pieces = [(token, 0.0) for token in tokens] + [(word, -2.0) for word in words]
    pieces += [(letter, -4.0) for letter in letters]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=len(tokens) - 1, byte_fallback=False))
    tokenizer.add_special_tokens(tokens)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    end = tokenizer.token_to_id("</s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", end)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64}
    names |= {"pad_token": pad, "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return tokenizer.get_vocab_size()


def conch_tokenizer(folder: Path) -> int:
    """A byte-level BPE model without case, as CONCH's."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    special = ["<pad>", "<start_of_text>", "<end_of_text>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start_of_text> $A <end_of_text>",
        special_tokens=[("<start_of_text>", 1), ("<end_of_text>", 2)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer.get_vocab_size()


# -- open_clip -------------------------------------------------------------------------------------

VISION = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
RESNET = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}


def open_clip_folder(
    folder: Path, model_cfg: dict, preprocess_cfg: dict | None = None, pad: int = 0
) -> Library:
    """Save open_clip's model and configuration; the model is what open_clip loads from them."""
    torch.manual_seed(0)
    arguments = {k: v for k, v in model_cfg.items() if k != "custom_text"}
    separate = "custom_text" in model_cfg or "hf_model_name" in model_cfg["text_cfg"]
    made = (open_clip.CustomTextCLIP if separate else open_clip.CLIP)(**arguments)
    save_file(randomised(made).state_dict(), folder / "open_clip_model.safetensors")
    content = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg or {}}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    return open_clip_library(model.eval(), pad)


def open_clip_library(model: nn.Module, pad: int = 0) -> Library:
    text = getattr(model, "text", model)
    if isinstance(text, HFTextEncoder):
        tokens = text.transformer.embeddings.word_embeddings
        text_layers, length = text.transformer.encoder.layer, 256
    else:
        tokens, text_layers = text.token_embedding, text.transformer.resblocks
        length = text.context_length
    if hasattr(model.visual, "trunk"):
        image_layers = model.visual.trunk.blocks
    else:
        image_layers = getattr(getattr(model.visual, "transformer", None), "resblocks", ())
    own = model.visual.preprocess_cfg
    size = own["size"] if isinstance(own["size"], int) else own["size"][0]
    prepared = Preprocessing(
        size, tuple(own["mean"]), tuple(own["std"]), own["interpolation"], own["resize_mode"]
    )
    return Library(
        model.encode_image,
        model.encode_text,
        tokens,
        text_layers,
        image_layers,
        model.logit_scale,
        length,
        pad,
        prepared,
        getattr(model.visual, "ln_pre", nn.Identity()),
    )


def open_clip_vit(folder: Path, vision: dict | None = None, **rest: object) -> Library:
    text = {**TEXT, **rest.pop("text", {})}
    cfg = {"embed_dim": 48, "vision_cfg": {**VISION, **(vision or {})}, "text_cfg": text}
    return open_clip_folder(folder, {**cfg, **rest})


def biomedclip(
    folder: Path,
    pooler: str = "cls_last_hidden_state_pooler",
    projection: str = "mlp",
    timm_name: str = "",
    bert: dict | None = None,
    **vision: object,
) -> Library:
    """BERT and timm's vision transformer. open_clip reads BERT's configuration from a folder."""
    bert_vocabulary(folder)
    shape = {"vocab_size": 30, "hidden_size": 128, "num_hidden_layers": 2, "intermediate_size": 96}
    shape |= {"num_attention_heads": 2, "max_position_embeddings": 256}
    transformers.BertConfig(**(bert or shape)).save_pretrained(folder / "bert")
    shape = {"patch_size": 8, "img_size": 32, "embed_dim": 64, "depth": 2, "num_heads": 1}
    name = timm_name or small_timm("vit_tiny_patch8_32", **shape)
    text = {"hf_model_name": str(folder / "bert"), "hf_model_pretrained": False}
    text |= {"hf_tokenizer_name": "some/name", "context_length": 256}
    text |= {"hf_proj_type": projection, "hf_pooler_type": pooler}
    vision = {"timm_model_name": name, "timm_pool": "", "timm_proj": "linear", **vision}
    vision.setdefault("image_size", 32)
    cfg = {"embed_dim": 48, "vision_cfg": vision, "text_cfg": text}
    return open_clip_folder(folder, cfg, {"mean": list(CLIP_MEAN), "std": list(CLIP_STD)})


def open_clip_siglip(folder: Path, tanh: bool = False, timm_name: str = "") -> Library:
    """Width and heads of the image encoder as in SO400M: 16 heads, not of 64 channels."""
    special = ("<pad>",) if tanh else ("<other>",)
    n_tokens = siglip_tokenizer(folder, "<pad>" if tanh else "</s>", special)
    shape = {"patch_size": 8, "img_size": 32, "embed_dim": 64, "depth": 2, "num_heads": 16}
    shape |= {"class_token": False, "global_pool": "map"}
    name = timm_name or small_timm("vit_so400m_patch8_siglip_32", **shape)
    width = 768 if timm_name else 64
    vision = {"timm_model_name": name, "timm_pool": "map", "timm_proj": "none"}
    vision["image_size"] = 224 if timm_name else 32
    text = {"context_length": 64, "vocab_size": n_tokens, "width": width, "heads": width // 32}
    text |= {"layers": 12 if timm_name else 2, "no_causal_mask": True, "proj_bias": True}
    text |= {"hf_tokenizer_name": "some/name", "tokenizer_kwargs": {"clean": "canonicalize"}}
    text |= {"pool_type": "last", "norm_kwargs": {"eps": 1e-6}}
    if tanh:
        text["act_kwargs"] = {"approximate": "tanh"}
    cfg = {"embed_dim": width, "init_logit_bias": -10, "custom_text": True}
    cfg |= {"vision_cfg": vision, "text_cfg": text}
    prepared = {"mean": HALF, "std": HALF, "interpolation": "bicubic", "resize_mode": "squash"}
    return open_clip_folder(folder, cfg, prepared, pad=0 if tanh else 1)


# -- transformers ----------------------------------------------------------------------------------


def hugging_face_folder(
    folder: Path, model: nn.Module, prepared: Preprocessing, length: int, pad: int
) -> Library:
    randomised(model).save_pretrained(folder)
    model = type(model).from_pretrained(folder).eval()
    resample = {"bilinear": 2, "bicubic": 3}[prepared.interpolation]
    known = {"image_mean": prepared.mean, "image_std": prepared.std, "resample": resample}
    if prepared.resize_mode == "squash":
        known["size"] = {"height": prepared.size, "width": prepared.size}
        processor = transformers.SiglipImageProcessor(**known)
    else:
        known["size"] = {"shortest_edge": prepared.size}
        processor = transformers.CLIPImageProcessor(crop_size=prepared.size, **known)
    processor.save_pretrained(folder)

    def features(output: object) -> Tensor:
        return output if isinstance(output, Tensor) else output.pooler_output

    return Library(
        lambda images: features(model.get_image_features(pixel_values=images)),
        lambda ids: features(model.get_text_features(input_ids=ids)),
        model.text_model.embeddings.token_embedding,
        model.text_model.encoder.layers,
        model.vision_model.encoder.layers,
        model.logit_scale.reshape(()),
        length,
        pad,
        prepared,
        getattr(model.vision_model, "pre_layrnorm", nn.Identity()),
    )


def hugging_face_clip(folder: Path, text_heads: int = 1, **both: object) -> Library:
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, **both}
    config = transformers.CLIPConfig(
        text_config={**shape, "num_attention_heads": text_heads, "eos_token_id": 49407},
        vision_config={**shape, "num_attention_heads": 2, "image_size": 32, "patch_size": 8},
        projection_dim=48,
    )
    prepared = Preprocessing(32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return hugging_face_folder(folder, transformers.CLIPModel(config), prepared, 77, 49407)


def hugging_face_siglip(
    folder: Path, pad: str = "</s>", interpolation: str = "bicubic", **image: object
) -> Library:
    n_tokens = siglip_tokenizer(folder, pad, ("<pad>",))
    torch.manual_seed(0)
    shape = {"hidden_size": 96, "intermediate_size": 100, "num_hidden_layers": 2}
    shape["num_attention_heads"] = 4
    config = transformers.SiglipConfig(
        text_config={**shape, "vocab_size": n_tokens},
        vision_config={**shape, "image_size": 32, "patch_size": 8, **image},
    )
    size = config.vision_config.image_size
    prepared = Preprocessing(size, HALF, HALF, interpolation, "squash")
    model = transformers.SiglipModel(config)
    return hugging_face_folder(folder, model, prepared, 64, 0 if pad == "<pad>" else 1)


# -- other people's code ---------------------------------------------------------------------------


def unimed_clip(folder: Path) -> Library:
    """OpenAI's image encoder of open_clip, and its BERT by another name; not the library's code."""
    bert_vocabulary(folder)
    torch.manual_seed(0)
    visual = VisionTransformer(32, 8, 64, 2, 1, 4.0, output_dim=48, act_layer=QuickGELU)
    shape = {"vocab_size": 30, "hidden_size": 128, "num_hidden_layers": 2}
    shape |= {"intermediate_size": 96, "num_attention_heads": 2, "max_position_embeddings": 256}
    transformers.BertConfig(**shape).save_pretrained(folder / "bert")
    pooler = "cls_last_hidden_state_pooler"
    text = HFTextEncoder(str(folder / "bert"), 48, None, pooler, "mlp", pretrained=False)
    model = randomised(nn.ModuleDict({"visual": visual, "text_encoder": text}))
    scale = torch.tensor(3.0)
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    state["module.text_encoder.transformer.embeddings.position_ids"] = torch.arange(256)[None]
    state["module.logit_scale"] = scale
    torch.save({"epoch": 3, "name": "x", "state_dict": state}, folder / "unimed_clip.pt")
    bert = text.transformer
    return Library(
        visual,
        text,
        bert.embeddings.word_embeddings,
        bert.encoder.layer,
        visual.transformer.resblocks,
        scale,
        256,
        0,
        Preprocessing(32),
        visual.ln_pre,
    )


class ConchVisual(nn.Module):
    """CONCH's image encoder by its description: timm's trunk, and attention with one query."""

    def __init__(self, width: int, embed_dim: int) -> None:
        super().__init__()
        shape = {"patch_size": 8, "img_size": 32, "embed_dim": width, "depth": 2, "num_heads": 1}
        self.trunk = _create_vision_transformer("vit_base_patch16_224", num_classes=0, **shape)
        for name, n_queries in (("contrast", 1), ("caption", 5)):
            pool = nn.Module()
            pool.query = nn.Parameter(torch.randn(n_queries, embed_dim))
            pool.ln_q, pool.ln_k = nn.LayerNorm(embed_dim), nn.LayerNorm(width)
            pool.attn = nn.MultiheadAttention(embed_dim, 8, kdim=width, vdim=width)
            setattr(self, f"attn_pool_{name}", pool)
            setattr(self, f"ln_{name}", nn.LayerNorm(embed_dim))
        self.proj_contrast = nn.Parameter(torch.randn(embed_dim, embed_dim))

    def forward(self, images: Tensor) -> Tensor:
        pool = self.attn_pool_contrast
        keys = pool.ln_k(self.trunk.forward_features(images)).transpose(0, 1)  # [L, batch, width]
        query = pool.ln_q(pool.query).unsqueeze(1).expand(-1, len(images), -1)
        pooled = self.ln_contrast(pool.attn(query, keys, keys)[0][0])
        return pooled @ self.proj_contrast


def conch(folder: Path) -> Library:
    """Its text encoder is open_clip's CoCa's, with the mask that CoCa was trained with."""
    n_tokens = conch_tokenizer(folder)
    torch.manual_seed(0)
    visual = ConchVisual(64, 48)
    text = TextTransformer(127, n_tokens, 64, 1, 2, output_dim=48, embed_cls=True)
    model = randomised(nn.ModuleDict({"visual": visual, "text": text}))
    scale = torch.tensor(3.0)
    torch.save({**model.state_dict(), "logit_scale": scale}, folder / "pytorch_model.bin")
    return Library(
        visual,
        text,
        text.token_embedding,
        text.transformer.resblocks,
        visual.trunk.blocks,
        scale,
        127,
        0,
        Preprocessing(32),
    )


KINDS: dict[str, Callable[[Path], Library]] = {
    "open_clip ViT, GELU": open_clip_vit,
    "open_clip ViT, QuickGELU": lambda f: open_clip_vit(f, quick_gelu=True),
    "open_clip ViT, other heads, epsilons and tanh GELU": lambda f: open_clip_vit(
        f,
        {"head_width": 16, "norm_kwargs": {"eps": 1e-3}},
        text={"heads": 4, "norm_kwargs": {"eps": 1e-3}, "act_kwargs": {"approximate": "tanh"}},
    ),
    "open_clip ViT, separate text encoder": lambda f: open_clip_vit(f, custom_text=True),
    "open_clip ResNet": lambda f: open_clip_vit(f, RESNET),
    "BiomedCLIP ([CLS], MLP)": biomedclip,
    "BERT (mean, linear)": lambda f: biomedclip(f, "mean_pooler", "linear"),
    "BERT (pooler, MLP), head with a bias": lambda f: biomedclip(
        f, "cls_pooler", timm_proj_bias=True
    ),
    "SigLIP, open_clip": open_clip_siglip,
    "SigLIP 2, open_clip": lambda f: open_clip_siglip(f, tanh=True),
    "SigLIP, transformers": hugging_face_siglip,
    "SigLIP 2, transformers": lambda f: hugging_face_siglip(f, "<pad>", "bilinear"),
    "MedSigLIP, transformers": lambda f: hugging_face_siglip(f, image_size=30),
    "CLIP, transformers": hugging_face_clip,
    "CLIP, transformers, GELU, other heads": lambda f: hugging_face_clip(
        f, 4, hidden_act="gelu", layer_norm_eps=1e-3
    ),
    "CONCH": conch,
    "UniMed-CLIP": unimed_clip,
}
