"""Frozen CLIP: loading it, its two encoders, and the scores. Every trainer uses this one."""

import contextlib
import hashlib
import os
import urllib.error
from pathlib import Path

import clip
import torch
from clip.model import build_model, convert_weights
from torch import nn
from torch.nn import functional as F

from backbones import expand_token_table
from backbones.text_layers import (
    LastAttention,
    Layer,
    TextInputs,
    at_least_fp32,
    fuse_activations,
    norm,
    take,
)
from core.errors import InputError, first_line

PRECISIONS = ("fp32", "fp16", "amp", "bf16")
CACHE = "~/.cache/clip"  # where the clip package keeps its downloads
ADDRESSES = "https://github.com/openai/CLIP/blob/main/clip/clip.py"


def cosine_logits(image_features, text_features, logit_scale):
    """Score images against class prompts by scaled cosine similarity.

    Args:
        image_features: [batch, dim], of any norm.
        text_features: [n_cls, dim] or [batch, n_cls, dim], of any norm.
        logit_scale: scalar, log inverse temperature; CLIP's is ln 100, about 4.6.

    Returns:
        [batch, n_cls] logits in at least fp32, within ``exp(logit_scale)`` of zero.

    Raises:
        ValueError: if the two features differ in ``dim``.

    Source: Radford et al. 2021, https://arxiv.org/abs/2103.00020, Figure 3.
    """
    if image_features.shape[-1] != text_features.shape[-1]:
        raise ValueError(
            f"image features have {image_features.shape[-1]} dimensions, "
            f"text features {text_features.shape[-1]}"
        )
    # Half-precision cosines would tie pictures that differ; autocast would make them half again.
    with torch.autocast(image_features.device.type, enabled=False):
        image_features = F.normalize(at_least_fp32(image_features), dim=-1)
        text_features = F.normalize(at_least_fp32(text_features), dim=-1)
        if text_features.dim() == 2:
            cosines = image_features @ text_features.t()
        else:
            cosines = torch.einsum("bd,bkd->bk", image_features, text_features)
        return logit_scale.exp() * cosines


def load_clip(cfg, device):
    """Load the backbone that ``cfg.MODEL.BACKBONE`` names, frozen, on ``device``.

    ``PATH`` is a file in OpenAI's format (JIT archive or state dict); without it ``NAME`` is one of
    ``clip.available_models()``, read from the clip package's cache or downloaded by it.

    Returns:
        ``FrozenCLIP``.

    Raises:
        InputError: a name or file that is missing, unreadable or made for another picture size.
    """
    backbone = cfg.MODEL.BACKBONE
    model = _read_file(backbone.PATH) if backbone.PATH else _read_by_name(backbone.NAME)
    frozen = FrozenCLIP(model, cfg.TRAINER[cfg.TRAINER.NAME.upper()].PREC, device)
    if tuple(cfg.INPUT.SIZE) != (frozen.resolution, frozen.resolution):
        raise InputError(
            f"INPUT.SIZE is {tuple(cfg.INPUT.SIZE)}, but {backbone.PATH or backbone.NAME} reads "
            f"{frozen.resolution}x{frozen.resolution} pictures; set INPUT.SIZE in its YAML"
        )
    if cfg.MODEL.COMPILE:
        try:
            torch.compile(torch.sin)(torch.ones(8, device=device))
        except Exception as error:  # of a compiler that is missing, in many forms
            raise InputError(
                f"MODEL.COMPILE: torch.compile does not work here ({first_line(error)}); install "
                "what it needs (on a CPU a C++ compiler, on a GPU Triton), or leave it out"
            ) from error
        frozen.encode_prompts = torch.compile(frozen.encode_prompts)
    return frozen


def _read_by_name(name):
    if name not in clip.available_models():
        raise InputError(
            f"MODEL.BACKBONE.NAME is {name!r}; choose one of {', '.join(clip.available_models())}, "
            "or give a checkpoint's file in MODEL.BACKBONE.PATH"
        )
    folder = Path(CACHE).expanduser()
    file = name.replace("/", "-").replace("@", "-") + ".pt"
    try:
        return clip.load(name, device="cpu", jit=False, download_root=str(folder))[0]
    except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
        # A download that broke off fails its checksum next time; clip then fetches it anew.
        raise InputError(
            f"CLIP's weights for {name} are not here and could not be downloaded ({error}): put "
            f"{file} into {folder} (address and checksum: {ADDRESSES}), or set MODEL.BACKBONE.PATH"
        ) from error
    except RuntimeError as error:
        if "checksum" not in str(error):
            raise
        raise InputError(
            f"{folder / file} is not the released file ({error}); delete it"
        ) from error


def _read_file(path):
    path = Path(path).expanduser()
    if not path.is_file():
        raise InputError(f"MODEL.BACKBONE.PATH: there is no file {path} (seen from {os.getcwd()})")
    try:
        state_dict = torch.jit.load(str(path), map_location="cpu").state_dict()
    except RuntimeError:  # not a JIT archive
        try:
            state_dict = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # the reader's errors have no common base
            raise InputError(
                f"{path} is not a CLIP checkpoint, or only half of one: {first_line(error)}"
            ) from error
    try:
        return build_model(expand_token_table(dict(state_dict)))
    except (KeyError, AttributeError, TypeError, RuntimeError) as error:
        raise InputError(
            f"{path} does not hold OpenAI's CLIP format: {first_line(error)}"
        ) from error


def weights_fingerprint(module):
    """SHA-256 of a module's parameters and buffers, their names, types and shapes."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def choose_precision(precision, device):
    """The precision that ``device`` can run; says so when it is not the one asked for."""
    if precision not in PRECISIONS:
        raise InputError(f"PREC is {precision!r}; choose one of {', '.join(PRECISIONS)}")
    if precision == "fp16" and device.type == "cpu":
        print("fp16 needs a GPU: on this CPU the run uses fp32")
        return "fp32"
    if precision == "amp" and device.type == "cpu":
        print("amp on a CPU computes in bf16")
    return precision


class FrozenCLIP(nn.Module):
    """CLIP with nothing left to learn, in one precision, on one device.

    Attributes:
        embed_dim: d, the joint embedding. text_width: d_txt, width of a token embedding.
        vision_width: d_vis, width of the vision transformer, None for a ResNet.
        resolution: side of the pictures it reads. logit_scale: log inverse temperature.
        fingerprint: of the weights as they were read.
        text_layers, last_attention, ln_final: what ``encode_prompts`` runs.
    """

    def __init__(self, model, precision="fp32", device="cpu"):
        super().__init__()
        device = torch.device(device)
        self.precision = choose_precision(precision, device)
        model = model.float()
        self.fingerprint = weights_fingerprint(model)[:12]  # the same in every precision
        fuse_activations(model.transformer)
        if self.precision in ("fp16", "bf16"):
            convert_weights(model)  # halves what may be halved: not the norms, not the embeddings
        if self.precision == "bf16":
            for parameter in model.parameters():
                if parameter.dtype == torch.float16:
                    parameter.data = parameter.data.bfloat16()
        self.model = model.to(device).eval().requires_grad_(False)
        blocks = model.transformer.resblocks
        self.text_layers = [Layer.of(block) for block in blocks]
        self.last_attention = LastAttention(blocks[-1].attn)
        self.ln_final = model.ln_final.weight, model.ln_final.bias
        self.device = device
        self.embed_dim = model.text_projection.shape[1]
        self.text_width = model.ln_final.weight.shape[0]
        self.is_vit = hasattr(model.visual, "transformer")
        self.vision_width = model.visual.conv1.weight.shape[0] if self.is_vit else None
        self.resolution = model.visual.input_resolution
        self.context_length = model.context_length

    def train(self, mode=True):
        """Stays in eval mode: a ResNet's batch norms must not follow the pictures."""
        return super().train(False)

    @property
    def dtype(self):
        return self.model.dtype

    @property
    def logit_scale(self):
        return self.model.logit_scale

    def autocast(self):
        """The context that the encoders run in; does nothing unless the precision is ``amp``."""
        if self.precision != "amp":
            return contextlib.nullcontext()
        dtype = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype)

    @torch.no_grad()
    def encode_image(self, x):
        """Encode pictures; features that are encoded already pass through.

        Args:
            x: [batch, 3, resolution, resolution] pictures or [batch, embed_dim] features.

        Returns:
            [batch, embed_dim] in fp32, not normalised.
        """
        if x.dim() == 2:
            return at_least_fp32(x)
        with self.autocast():
            return at_least_fp32(self.model.encode_image(x.to(self.device)))

    def embed_tokens(self, tokens):
        """[n, L] token ids -> [n, L, text_width] embeddings in the token table's precision."""
        with torch.no_grad():
            return self.model.token_embedding(tokens.to(self.device))

    @torch.no_grad()
    def read(self, tokens, tree):
        """Do once what does not depend on anything learned.

        Args:
            tokens: [rows] ids, any where something learned goes. tree: their ``TokenTree``.

        Returns:
            ``TextInputs``, on the device.
        """
        model, tree, first = self.model, tree.to(self.device), self.text_layers[0]
        positions = model.positional_embedding[tree.positions].to(self.dtype)
        x = self.embed_tokens(tokens).to(self.dtype) + positions
        with self.autocast():
            projected = first.project(x)
        mask = end_mask = None
        # On a GPU the kernel that takes a mask adds up the gradients of many keys as they come.
        if tree.seen is not None and self.device.type == "cpu":
            mask = torch.zeros_like(tree.seen, dtype=self.dtype)
            mask = mask.masked_fill(~tree.seen, float("-inf"))
            end_mask = mask[tree.ends].repeat_interleave(first.n_heads, dim=0)
        return TextInputs(tree, x, positions[tree.slots], projected, mask, end_mask)

    def encode_prompts(self, inputs, learned=None, between=None):
        """Encode texts.

        Args:
            inputs: ``TextInputs`` of n texts.
            learned: [m, s, text_width] embeddings for ``tree.slots``, for each of m contexts; None
                for texts that have none.
            between: called as ``between(i, x)`` with x [m * rows, text_width] before layer i >= 1;
                returns the x that the layer reads.

        Returns:
            [m * n, embed_dim] in at least fp32, not normalised, with gradients to ``learned``.
        """
        x, projected = inputs.x, inputs.projected
        with self.autocast():
            if learned is not None:
                learned = learned.to(self.dtype) + inputs.position_embeddings
                x = inputs.place(x, learned)
                projected = inputs.place(projected, self.text_layers[0].project(learned))
                inputs = inputs._replace(tree=inputs.tree.copies(len(learned)))
            for i, layer in enumerate(self.text_layers):
                if i and between:
                    x = between(i, x)
                if i == len(self.text_layers) - 1:
                    ends = take(x, inputs.tree.ends)
                    x = ends + self.last_attention(norm(x, layer.ln_1), inputs)
                else:
                    x = x + layer.attend(layer.project(x) if i else projected, inputs)
                x = x + layer.feed_forward(x)
            x = norm(x, self.ln_final).to(self.dtype)
            return at_least_fp32(x @ self.model.text_projection)
