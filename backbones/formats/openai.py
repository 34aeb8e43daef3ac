"""OpenAI's format: one file with a CLIP's tensors, as a state dict or a TorchScript archive.

Radford et al. 2021, https://arxiv.org/abs/2103.00020. Also MONET's, PubMedCLIP's, CheXzero's, and
a lone file of open_clip's where image and text encoder are OpenAI's.
"""

import urllib.error
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import clip
import torch
from clip.model import CLIP
from torch import Tensor, nn

from backbones.backbone import (
    Parts,
    count,
    weights_fingerprint,
)
from backbones.encoders.clip_images import clip_image_encoder, set_layers, vision_shape_of
from backbones.encoders.clip_texts import ClipText, check_vocabulary
from backbones.formats import Format, Stated, decided_activation, decided_preprocessing
from backbones.token_table import expand_token_table
from backbones.weights import WeightsFile, check_finite, read_weights
from core.errors import InputError

CACHE = "~/.cache/clip"  # where the clip package keeps its downloads
ADDRESSES = "https://github.com/openai/CLIP/blob/main/clip/clip.py"

# Widths of open_clip's ViT-H, ViT-g and ViT-bigG, whose heads are not of 64 channels.
_OTHER_HEADS = (1280, 1408, 1664)
# TorchScript archives hold these beside the weights.
_SHAPE_ENTRIES = ("input_resolution", "context_length", "vocab_size")


class OpenAIFormat(Format):
    name = "OpenAI CLIP"

    def recognises(self, weights: WeightsFile) -> bool:
        """By the names of its parts; a missing part is named in a later error."""
        marks = ("visual.", "transformer.resblocks.", "text_projection", "positional_embedding")
        names = plain_names(weights.tensors)
        found = sum(any(k.startswith(mark) for k in names) for mark in marks)
        others = any(k.startswith(("visual.trunk.", "cls_emb")) for k in names)
        return "open_clip_config.json" not in weights.settings and found >= 3 and not others

    def parts(self, weights: WeightsFile, stated: Stated) -> Parts:
        """The file does not tell the activation, unless it is a TorchScript archive."""
        key = "MODEL.BACKBONE.ACTIVATION"
        activation = decided_activation(stated.activation, weights.activation, weights.path)
        notes: tuple[str, ...] = ()
        if not activation:
            activation = "quick_gelu"
            notes = (
                f"{weights.path} does not say which activation its model was trained with; "
                "QuickGELU, as in OpenAI's CLIP, is assumed. OpenCLIP's models (LAION, DataComp) "
                f"use GELU: state it with {key} quick_gelu or gelu",
            )
        tensors = plain_names(weights.tensors)
        check_heads(tensors, stated, weights.path)
        model = clip_of(tensors)
        check_vocabulary(model.vocab_size)
        return parts_of(model, activation, stated, notes, weights.fingerprint)

    def released(self) -> Sequence[str]:
        return clip.available_models()

    def cached_file(self, name: str) -> Path | None:
        file = _cache_file(name)
        return file if file.is_file() else None

    def fetch(self, name: str, checked: bool = False) -> WeightsFile:
        """OpenAI's own weights, from the clip package's cache or downloaded by it."""
        file = _cache_file(name)
        if checked:
            return read_weights(file, checked=True)._replace(activation="quick_gelu")
        folder = file.parent
        try:
            with torch.random.fork_rng(devices=[]):  # it draws weights before it reads them
                model, _ = clip.load(name, device="cpu", jit=False, download_root=str(folder))
        except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
            # A download that broke off fails its checksum next time; clip then fetches it anew.
            raise InputError(
                f"CLIP's weights for {name} are not here and could not be downloaded ({error}): "
                f"put {file.name} into {folder} (address and checksum: {ADDRESSES}), or set "
                "MODEL.BACKBONE.PATH"
            ) from error
        except RuntimeError as error:
            if "checksum" not in str(error):
                raise
            raise InputError(f"{file} is not the released file ({error}); delete it") from error
        # The clip package compared the file's checksum: these are OpenAI's own weights.
        weights = WeightsFile(file, model.state_dict(), activation="quick_gelu")
        check_finite(weights)
        return weights


def _cache_file(name: str) -> Path:
    """Where the clip package keeps the weights called ``name``."""
    return Path(CACHE).expanduser() / (name.replace("/", "-").replace("@", "-") + ".pt")


FORMAT = OpenAIFormat()


def parts_of(
    model: CLIP,
    activation: str = "quick_gelu",
    stated: Stated | None = None,
    notes: tuple[str, ...] = (),
    fingerprint: str = "",
) -> Parts:
    """The encoders of a ``clip.model.CLIP``, which become the parts' own.

    Args:
        activation: a name of ``ACTIVATIONS``. stated: heads, mean and standard deviation.
        fingerprint: of the weights, where it is known; the model is then as ``clip_of`` gave it.
    """
    stated = stated or Stated()
    if not fingerprint:
        model = model.float().eval()
    beside: list[Any] = [] if activation == "quick_gelu" else [activation]
    beside += [stated.text_heads, stated.vision_heads] * any(
        (stated.text_heads, stated.vision_heads)
    )
    fingerprint = fingerprint or weights_fingerprint(model.state_dict(), *beside)[:12]
    set_layers(model, activation, stated.text_heads)
    set_layers(model.visual, activation, stated.vision_heads)
    return Parts(
        clip_image_encoder(model.visual),
        ClipText(model),
        model.logit_scale,
        decided_preprocessing(model.visual.input_resolution, stated),
        fingerprint,
        notes,
    )


def check_heads(tensors: Mapping[str, Tensor], stated: Stated, where: Path) -> None:
    """Raise InputError for an image encoder whose heads the file does not tell."""
    patches = tensors.get("visual.conv1.weight")
    if "visual.proj" not in tensors or patches is None or stated.vision_heads:
        return
    if len(patches) in _OTHER_HEADS:
        raise InputError(
            f"{where}: the image encoder has {len(patches):,} channels, as open_clip's ViT-H, "
            "ViT-g and ViT-bigG, and the file does not say how many heads share them; give the "
            "folder with open_clip_config.json as MODEL.BACKBONE.PATH"
        )


def plain_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's names of an open_clip model: ``text.`` before the text encoder's is taken away.

    The logits' bias is left out, as the softmax does not see it.
    """
    plain = {k.removeprefix("text."): v for k, v in tensors.items()}
    return {k: v for k, v in plain.items() if k != "logit_bias"}


def clip_of(tensors: Mapping[str, Tensor]) -> CLIP:
    """The clip package's model in fp32; its own ``build_model`` rounds every weight to fp16.

    Raises:
        KeyError, RuntimeError: a tensor is missing or has another shape.
    """
    tensors = expand_token_table(dict(tensors))
    kept = {k: v for k, v in tensors.items() if k not in _SHAPE_ENTRIES}
    shape = shape_of(tensors)
    if any(tensor.is_meta for tensor in kept.values()):
        return _texts_of(shape, kept)
    # The constructor draws weights, which moves the random numbers of everything behind it: the
    # learned parameters of a run start from what they always started from.
    model = CLIP(**shape)
    model.load_state_dict(kept, assign=True)
    return model.float().eval()


def _texts_of(shape: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> CLIP:
    """A model without the image encoder's numbers; nothing is drawn.

    Its token table, of which a run reads few rows, stays as the file holds it: on the disk, where
    the file is mapped into memory.
    """
    with torch.device("meta"):
        model = CLIP(**shape)
    model.load_state_dict(tensors, assign=True)
    table, model.token_embedding = model.token_embedding, nn.Embedding(0, 1)
    model.float().eval().token_embedding = table
    return model


def shape_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of ``clip.model.CLIP`` that a state dict was made with."""
    width = tensors["ln_final.weight"].shape[0]
    visual = {k.removeprefix("visual."): v for k, v in tensors.items() if k.startswith("visual.")}
    return {
        "embed_dim": tensors["text_projection"].shape[1],
        **vision_shape_of(visual),
        "context_length": tensors["positional_embedding"].shape[0],
        "vocab_size": tensors["token_embedding.weight"].shape[0],
        "transformer_width": width,
        "transformer_heads": max(1, width // 64),
        "transformer_layers": count(tensors, "transformer.resblocks."),
    }
