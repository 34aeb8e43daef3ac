"""The folder of ``tiny_bert``, open_clip's as BiomedCLIP's is: tensors, configuration, vocabulary.

Zhang et al. 2023, https://arxiv.org/abs/2303.00915. Names of tensors are open_clip's, with timm's
and transformers' below them.
"""

import json
import math
import random
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from tokenizers.implementations import BertWordPieceTokenizer
from torch import Tensor

from backbones import captions
from backbones.backbone import CLIP_MEAN, CLIP_STD, Backbone
from backbones.names import BERT, new_name
from backbones.pretrain_clip import EMBED_DIM
from backbones.pretrain_data import TRAIN_SEED
from core.files import atomic_write
from datasets import synthetic
from datasets.drawing import SIZE

PIECES, LENGTH = 448, 128  # of the vocabulary, of a text
CAPTIONS = 3000  # of each world, that the vocabulary is learned from
VISION_WIDTH, VISION_LAYERS, VISION_HIDDEN, PATCH = 128, 3, 128, 8
TEXT_WIDTH, TEXT_LAYERS, TEXT_HEADS, TEXT_HIDDEN = 96, 2, 4, 96
SCALE = 60.0  # exp(logit_scale); another than CLIP's 100, as BiomedCLIP's is

WEIGHTS, PIECES_FILE = "open_clip_model.safetensors", "vocab.txt"
FILES: dict[str, dict[str, Any]] = {
    "open_clip_config.json": {
        "model_cfg": {
            "embed_dim": EMBED_DIM,
            "vision_cfg": {
                "timm_model_name": f"vit_tiny_patch{PATCH}_{SIZE}",
                "timm_model_pretrained": False,
                "timm_pool": "",
                "timm_proj": "linear",
                "image_size": SIZE,
            },
            "text_cfg": {
                "hf_model_name": "tiny_bert",
                "hf_tokenizer_name": "tiny_bert",
                "hf_proj_type": "mlp",
                "hf_pooler_type": "cls_last_hidden_state_pooler",
                "context_length": LENGTH,
            },
        },
        "preprocess_cfg": {"mean": CLIP_MEAN, "std": CLIP_STD},
    },
    "config.json": {
        "model_type": "bert",
        "vocab_size": PIECES,
        "hidden_size": TEXT_WIDTH,
        "num_hidden_layers": TEXT_LAYERS,
        "num_attention_heads": TEXT_HEADS,
        "intermediate_size": TEXT_HIDDEN,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": LENGTH,
        "type_vocab_size": 2,
        "pad_token_id": 0,
    },
}


def shapes() -> dict[str, tuple[int, ...]]:
    """The tensors of the file by name: open_clip's names, timm's and transformers' below them."""

    def layer(name: str, out: int, into: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}

    def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (width,), f"{name}.bias": (width,)}

    width, trunk = VISION_WIDTH, "visual.trunk"
    found: dict[str, tuple[int, ...]] = {
        f"{trunk}.cls_token": (1, 1, width),
        f"{trunk}.pos_embed": (1, 1 + (SIZE // PATCH) ** 2, width),
        f"{trunk}.patch_embed.proj.weight": (width, 3, PATCH, PATCH),
        f"{trunk}.patch_embed.proj.bias": (width,),
        **norm(f"{trunk}.norm", width),
        "visual.head.proj.weight": (EMBED_DIM, width),
        "logit_scale": (),
    }
    for block in (f"{trunk}.blocks.{i}" for i in range(VISION_LAYERS)):
        found |= norm(f"{block}.norm1", width) | norm(f"{block}.norm2", width)
        found |= layer(f"{block}.attn.qkv", 3 * width, width)
        found |= layer(f"{block}.attn.proj", width, width)
        found |= layer(f"{block}.mlp.fc1", VISION_HIDDEN, width)
        found |= layer(f"{block}.mlp.fc2", width, VISION_HIDDEN)
    width, bert = TEXT_WIDTH, "text.transformer"
    found |= {
        f"{bert}.embeddings.word_embeddings.weight": (PIECES, width),
        f"{bert}.embeddings.position_embeddings.weight": (LENGTH, width),
        f"{bert}.embeddings.token_type_embeddings.weight": (2, width),
        **norm(f"{bert}.embeddings.LayerNorm", width),
    }
    for block in (f"{bert}.encoder.layer.{i}" for i in range(TEXT_LAYERS)):
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            found |= layer(f"{block}.attention.{part}", width, width)
        found |= norm(f"{block}.attention.output.LayerNorm", width)
        found |= layer(f"{block}.intermediate.dense", TEXT_HIDDEN, width)
        found |= layer(f"{block}.output.dense", width, TEXT_HIDDEN)
        found |= norm(f"{block}.output.LayerNorm", width)
    hidden = (width + EMBED_DIM) // 2  # as open_clip has it
    return found | {
        "text.proj.0.weight": (hidden, width),
        "text.proj.2.weight": (EMBED_DIM, hidden),
    }


def fresh_tensors() -> dict[str, Tensor]:
    """Random weights: embeddings as BERT's, matrices by what they read, norms the identity."""
    generator = torch.Generator().manual_seed(TRAIN_SEED)
    tensors = {}
    for name, shape in shapes().items():
        if name == "logit_scale":
            tensors[name] = torch.tensor(math.log(SCALE))
        elif len(shape) == 1:
            tensors[name] = torch.full(shape, float("norm" in name.lower() and "weight" in name))
        else:
            is_table = "embed" in name and "patch" not in name or "token" in name
            std = 0.02 if is_table else (3 * math.prod(shape[1:])) ** -0.5
            tensors[name] = std * torch.randn(shape, generator=generator)
    return tensors


def trained_tensors(model: Backbone) -> dict[str, Tensor]:
    """The weights of ``model`` by the names of ``shapes``."""
    image, text = model.image.tower.state_dict(), model.text.layers.state_dict()
    tensors = {"logit_scale": model.log_scale.detach()}
    for name in shapes():
        if name.startswith("visual."):
            tensors[name] = image[name.removeprefix("visual.")]
        elif name.endswith("token_type_embeddings.weight"):
            tensors[name] = torch.stack([text["types"], torch.zeros_like(text["types"])])
        elif name.startswith("text."):
            own = new_name(name.removeprefix("text."), BERT)
            stacked, _, part = own.rpartition(".")
            tensors[name] = text[stacked].chunk(3)[int(part)] if part.isdigit() else text[own]
    return tensors


def write_folder(folder: Path, tensors: dict[str, Tensor], pieces: Sequence[str]) -> None:
    """The folder of a model: weights in half precision but for the temperature."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in FILES.items():
        with atomic_write(folder / name, "w") as file:
            file.write(json.dumps(content, indent=1) + "\n")
    with atomic_write(folder / PIECES_FILE, "w") as file:
        file.write("\n".join(pieces) + "\n")
    halves = {
        name: (tensor if name == "logit_scale" else tensor.half()).cpu().contiguous()
        for name, tensor in tensors.items()
    }
    with atomic_write(folder / WEIGHTS, "wb") as file:
        file.write(safetensors.torch.save(halves))


def pieces_of_captions() -> list[str]:
    """A WordPiece vocabulary of ``PIECES`` learned from captions; every ASCII text is in it.

    Which of several pieces that are equally frequent comes in differs from run to run.
    """
    rng, texts = random.Random(TRAIN_SEED), [*captions.words()]
    for world in synthetic.WORLDS:
        for i in range(CAPTIONS):
            attributes = synthetic.sample_attributes(world, np.random.default_rng(i))
            texts.append(captions.caption(world, attributes, rng)[0])
    letters = [*string.ascii_lowercase, *string.digits]
    tokenizer = BertWordPieceTokenizer(lowercase=True)
    tokenizer.train_from_iterator(
        iter(texts),
        vocab_size=PIECES - len(letters),
        min_frequency=1,
        initial_alphabet=[*letters, *string.punctuation],
        show_progress=False,
    )
    known = tokenizer.get_vocab()
    pieces = sorted(known, key=known.__getitem__)
    pieces += [f"##{letter}" for letter in letters if f"##{letter}" not in known]
    words = [word for word in captions.words() if word not in known]
    return pieces + words[: PIECES - len(pieces)]


def known_pieces(work: Path) -> list[str]:
    """The shipped vocabulary, or one that is made for this training."""
    shipped, own = (folder / "tiny_bert" / PIECES_FILE for folder in (Path(__file__).parent, work))
    if not shipped.exists() and not own.exists():
        with atomic_write(own, "w") as file:
            file.write("\n".join(pieces_of_captions()) + "\n")
    return (shipped if shipped.exists() else own).read_text("utf-8").split()
