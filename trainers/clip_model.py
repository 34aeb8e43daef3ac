"""Frozen CLIP: loading it, its two encoders, and the scores. Every trainer uses this one."""

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
from foundation.errors import InputError, first_line

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


def at_least_fp32(x):
    """``x`` in fp32, or as it is where it is fp64 (the tests' precision)."""
    return x if x.dtype == torch.float64 else x.float()


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
    """

    def __init__(self, model, precision="fp32", device="cpu"):
        super().__init__()
        device = torch.device(device)
        self.precision = choose_precision(precision, device)
        model = model.float()
        self.fingerprint = weights_fingerprint(model)[:12]  # the same in every precision
        if self.precision in ("fp16", "bf16"):
            convert_weights(model)  # halves what may be halved: not the norms, not the embeddings
        if self.precision == "bf16":
            for parameter in model.parameters():
                if parameter.dtype == torch.float16:
                    parameter.data = parameter.data.bfloat16()
        self.model = model.to(device).eval().requires_grad_(False)
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
        dtype = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.precision == "amp")

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

    def encode_prompts(self, embeddings, tree, between=None):
        """Encode texts given as token embeddings.

        Args:
            embeddings: [rows, text_width], one for each distinct token. tree: their ``TokenTree``.
            between: called as ``between(i, x)`` with x [rows, text_width] before block i >= 1;
                returns the x that the block reads.

        Returns:
            [n, embed_dim], not normalised, with gradients to ``embeddings``.
        """
        model = self.model
        with self.autocast():
            x = embeddings.to(self.dtype)
            x = x + model.positional_embedding[tree.positions].to(self.dtype)
            *_, last = blocks = model.transformer.resblocks
            for i, block in enumerate(blocks):
                if i and between:
                    x = between(i, x)
                attended = _attend(block.attn, block.ln_1(x), tree, block is last)
                if block is last:  # nothing but the end tokens is read from here on
                    x = take(x, tree.ends)
                x = x + attended
                x = x + block.mlp(block.ln_2(x))
            return model.ln_final(x).to(self.dtype) @ model.text_projection


def _attend(attention, x, tree, ends_only):
    """Causal self-attention of a text's tokens, by PyTorch's fused kernels.

    Args:
        x: [rows, width]. ends_only: return what the end tokens read, [n, width], not [rows, width].
    """
    n, length = tree.paths.shape
    projected = F.linear(x, attention.in_proj_weight, attention.in_proj_bias)
    heads = take(projected, tree.paths).view(n, length, 3, attention.num_heads, -1)
    query, key, value = heads.permute(2, 0, 3, 1, 4)  # each [n, heads, L, width / heads]
    if ends_only:
        query = query[torch.arange(n, device=x.device), :, tree.eos].unsqueeze(2)
        seen = torch.arange(length, device=x.device) <= tree.eos.view(-1, 1, 1, 1)
        x = F.scaled_dot_product_attention(query, key, value, attn_mask=seen).flatten(1)
    else:
        x = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = take(x.transpose(1, 2).reshape(n * length, -1), tree.at)
    return F.linear(x, attention.out_proj.weight, attention.out_proj.bias)


def take(rows, places):
    """``rows[places]``, for a gradient that can be repeated.

    A row that is taken more than once adds up its gradients: here in one order and in fp32, where
    indexing would add them as its threads come, and half precision lose most of hundreds.

    Args:
        rows: [n, width]. places: indices of any shape.

    Returns:
        [*places.shape, width] in the precision of ``rows``.
    """
    return F.embedding(places, at_least_fp32(rows)).to(rows.dtype)


class PromptedModel(nn.Module):
    """A frozen CLIP and what a method learns beside it.

    A method gives ``learned`` (a module whose state is what a checkpoint holds) and ``logits``.
    """

    def __init__(self, clip_model, learned):
        super().__init__()
        self.clip = clip_model
        self.learned = learned

    def forward(self, x):
        """Pictures [batch, 3, H, W] or their features [batch, d] -> logits [batch, n_cls]."""
        return self.logits(self.clip.encode_image(x))

    def logits(self, image_features):
        raise NotImplementedError


class ClassFeatureModel(PromptedModel):
    """A method whose class features do not depend on the picture: they are encoded once a step."""

    def __init__(self, clip_model, learned):
        super().__init__(clip_model, learned)
        self._kept = None

    def class_features(self):
        """[n_cls, d], of any norm."""
        raise NotImplementedError

    def score(self, image_features, features):
        return cosine_logits(image_features, features, self.clip.logit_scale)

    def logits(self, image_features):
        return self.score(image_features, self.current_features())

    def current_features(self):
        """``class_features()``, encoded once for as long as no learned number changes."""
        if torch.is_grad_enabled():
            return self.class_features()
        # In-place updates, by an optimiser or by loading, raise a tensor's version.
        versions = [(id(p), p._version) for p in self.learned.parameters()]
        if self._kept is None or self._kept[0] != versions:
            self._kept = versions, self.class_features()
        return self._kept[1]
