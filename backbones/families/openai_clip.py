"""OpenAI's CLIP and what was trained from it: a causal text transformer, a ViT or a ResNet.

Radford et al. 2021, https://arxiv.org/abs/2103.00020
"""

import functools
import urllib.error
from collections.abc import Iterable, Sequence
from pathlib import Path

import clip
import torch
from clip.model import CLIP, ModifiedResNet, QuickGELU, VisionTransformer, convert_weights
from clip.simple_tokenizer import SimpleTokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from backbones import expand_token_table
from backbones.backbone import Backbone, Preprocessing, weights_fingerprint
from backbones.numerics import at_least_fp32, take
from backbones.texts import check_length, lay_out, strip_stop
from backbones.token_tree import TokenTree, TreeTexts, attend, attend_ends, put
from backbones.weights import WeightsFile, check_finite
from core.errors import InputError

CACHE = "~/.cache/clip"  # where the clip package keeps its downloads
ADDRESSES = "https://github.com/openai/CLIP/blob/main/clip/clip.py"
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
ACTIVATIONS = {"quick_gelu": QuickGELU, "gelu": nn.GELU}
START, END = "<|startoftext|>", "<|endoftext|>"


@functools.cache
def tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()


def token_ids(texts: Iterable[str]) -> list[list[int]]:
    """The byte-pair tokens of each text, without start and end tokens."""
    return [tokenizer().encode(text) for text in texts]


class OpenAIClip(Backbone):
    """CLIP as the clip package defines it, frozen.

    Args:
        model: a ``clip.model.CLIP``, which becomes this backbone's own.
    """

    family = "OpenAI CLIP"

    def __init__(
        self, model: CLIP, precision: str = "fp32", device: str | torch.device = "cpu"
    ) -> None:
        super().__init__(precision, device)
        model = model.float()
        self.fingerprint = weights_fingerprint(model)[:12]  # the same in every precision
        if self.precision in ("fp16", "bf16"):
            convert_weights(model)  # halves what may be halved: not the norms, not the embeddings
        if self.precision == "bf16":
            for parameter in model.parameters():
                if parameter.dtype == torch.float16:
                    parameter.data = parameter.data.bfloat16()
        self.model = model.to(self.device).eval().requires_grad_(False)
        is_vit = isinstance(model.visual, VisionTransformer)
        self.embed_dim = model.text_projection.shape[1]
        self.text_width = model.ln_final.weight.shape[0]
        self.text_depth = len(model.transformer.resblocks)
        self.vision_width = model.visual.conv1.out_channels if is_vit else None
        self.vision_depth = len(model.visual.transformer.resblocks) if is_vit else None
        self.context_length = model.context_length
        self.preprocessing = Preprocessing(model.visual.input_resolution, MEAN, STD)

    # -- files ----------------------------------------------------------------------------------

    @classmethod
    def recognises(cls, weights: WeightsFile) -> bool:
        """By the names of its parts; a missing part is named in a later error."""
        marks = ("visual.", "transformer.resblocks.", "text_projection", "positional_embedding")
        return sum(any(k.startswith(mark) for k in weights.tensors) for mark in marks) >= 3

    @classmethod
    def from_weights(
        cls,
        weights: WeightsFile,
        precision: str = "fp32",
        device: str | torch.device = "cpu",
        activation: str = "quick_gelu",
        text_heads: int | None = None,
        vision_heads: int | None = None,
    ) -> "OpenAIClip":
        """Build from OpenAI's names of tensors, in the precision that the file holds.

        Args:
            activation: quick_gelu, as OpenAI's own, or gelu, as many of OpenCLIP's; a file does
                not tell.
            text_heads, vision_heads: of the attention; None is one for each 64 channels.
        """
        if activation not in ACTIVATIONS:
            raise InputError(f"activation {activation!r}: choose one of {', '.join(ACTIVATIONS)}")
        model = clip_of(weights.tensors)
        for tower, heads in ((model, text_heads), (model.visual, vision_heads)):
            for block in getattr(getattr(tower, "transformer", None), "resblocks", ()):
                block.mlp.gelu = ACTIVATIONS[activation]()
                if heads:
                    block.attn.num_heads, block.attn.head_dim = heads, block.attn.embed_dim // heads
        return cls(model, precision, device)

    @classmethod
    def released(cls) -> Sequence[str]:
        return clip.available_models()

    @classmethod
    def fetch(cls, name: str) -> WeightsFile:
        """OpenAI's own weights, from the clip package's cache or downloaded by it."""
        folder = Path(CACHE).expanduser()
        file = folder / (name.replace("/", "-").replace("@", "-") + ".pt")
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
        weights = WeightsFile(file, model.state_dict())
        check_finite(weights)
        return weights

    # -- texts ----------------------------------------------------------------------------------

    def token_ids(self, texts: Iterable[str]) -> list[list[int]]:
        return token_ids(texts)

    @torch.no_grad()
    def embed_tokens(self, ids: Tensor) -> Tensor:
        return self.model.token_embedding(ids.to(self.device))

    @torch.no_grad()
    def prepare(
        self,
        texts: Sequence[str],
        n_ctx: int = 0,
        position: str = "end",
        groups: Sequence[int] | None = None,
    ) -> TreeTexts:
        """Texts laid out as ``[SOS] context words "." [EOS]``, as a tree of their tokens.

        Words and stop are tokenised apart: a phrase that ends in ")" would else merge with it.
        """
        check_length(texts, self.context_length)
        special = tokenizer().encoder
        (stop,) = token_ids(["."])
        words = token_ids(map(strip_stop, texts))
        start, end = [special[START]], [*stop, special[END]]
        rows = lay_out(texts, words, start, end, self.context_length, n_ctx, position, groups)
        tree = TokenTree.of(rows).to(self.device)
        positions = self.model.positional_embedding[tree.positions].to(self.dtype)
        x = self.embed_tokens(tree.tokens.clamp(min=0)).to(self.dtype) + positions
        return TreeTexts(tree, -1 - tree.tokens[tree.slots], x, positions[tree.slots])

    def encode_text(
        self, prepared: TreeTexts, learned: Tensor | None = None, deep: Sequence[Tensor] = ()
    ) -> Tensor:
        tree, model = prepared.tree, self.model
        with self.autocast():
            x, m = prepared.x, 1
            if learned is not None:
                m = len(learned)
                learned = learned.to(self.dtype) + prepared.slot_positions
                x = put(x.expand(m, -1, -1), tree.slots, learned).flatten(0, 1)  # [m * rows, d_txt]
            copies = tree.copies(m)
            for i, block in enumerate(model.transformer.resblocks):
                if 0 < i <= len(deep):
                    x = put(x.unflatten(0, (m, -1)), tree.slots, deep[i - 1]).flatten(0, 1)
                if i < self.text_depth - 1:
                    x = x + attend(block.attn, block.ln_1(x), copies)
                else:  # nothing but the end tokens is read behind the last layer
                    x = take(x, copies.ends) + attend_ends(block.attn, block.ln_1(x), copies)
                x = x + block.mlp(block.ln_2(x))
            x = model.ln_final(x).to(self.dtype)
            return at_least_fp32(x @ model.text_projection)

    def vocabulary(self) -> tuple[list[str], Tensor]:
        """A word's last token ends in ``</w>``, which is left out."""
        words = {i: word for i, word in tokenizer().decoder.items() if word not in (START, END)}
        rows = self.embed_tokens(torch.tensor(list(words)))
        return [word.removesuffix("</w>") for word in words.values()], rows

    # -- images ---------------------------------------------------------------------------------

    def encode_image(self, images: Tensor, tokens: Sequence[Tensor] = ()) -> Tensor:
        """As in MaPLe (Khattak et al., CVPR 2023): the tokens follow the patches."""
        images = images.to(self.device, self.dtype)
        if not tokens:
            with torch.no_grad(), self.autocast():
                return at_least_fp32(self.model.encode_image(images))
        if self.vision_width is None:
            raise ValueError("the image tower is a ResNet: it reads no tokens")
        visual = self.model.visual
        with self.autocast():
            x = self._layer_input(images, tokens[0])
            for i, block in enumerate(visual.transformer.resblocks):
                if 0 < i < len(tokens):  # in place of what the last positions became
                    new = _for_each(tokens[i], x)
                    x = torch.cat([x[: -len(new)], new])
                x = block(x)
            return at_least_fp32(visual.ln_post(x[0]) @ visual.proj)

    def _layer_input(self, images: Tensor, tokens: Tensor | None = None) -> Tensor:
        """[1 + P + n, batch, d_vis]: class embedding, patches and tokens before the first layer."""
        visual = self.model.visual
        x = visual.conv1(images).flatten(2).permute(2, 0, 1)  # [P, batch, d_vis]
        start = visual.class_embedding.to(x.dtype).expand(1, x.shape[1], -1)
        x = torch.cat([start, x]) + visual.positional_embedding.to(x.dtype).unsqueeze(1)
        return visual.ln_pre(x if tokens is None else torch.cat([x, _for_each(tokens, x)]))

    @torch.no_grad()
    def patch_tokens(self, images: Tensor) -> Tensor:
        images = images.to(self.device, self.dtype)
        with self.autocast():
            if isinstance(self.model.visual, ModifiedResNet):
                return at_least_fp32(_resnet_patches(self.model.visual, images))
            visual = self.model.visual
            *blocks, last = visual.transformer.resblocks
            x = self._layer_input(images)
            for block in blocks:
                x = block(x)
            x = last.ln_1(x[1:])  # [P, batch, d_vis]
            weight, bias = last.attn.in_proj_weight, last.attn.in_proj_bias
            width = x.shape[-1]
            values = last.attn.out_proj(F.linear(x, weight[2 * width :], bias[2 * width :]))
            return at_least_fp32(visual.ln_post(values) @ visual.proj).transpose(0, 1)

    @property
    def image_tower(self) -> nn.Module:
        return self.model.visual

    def new_image_tower(self) -> nn.Module:
        # A whole CLIP, because its constructor draws the weights; the text side is a stub.
        stub = {"context_length": 1, "vocab_size": 1, "transformer_width": 64}
        stub |= {"transformer_heads": 1, "transformer_layers": 1}
        state = {f"visual.{name}": x for name, x in self.model.visual.state_dict().items()}
        tower = CLIP(self.embed_dim, **vision_shape_of(state), **stub).visual
        if self.vision_width is not None:
            blocks = zip(
                tower.transformer.resblocks, self.model.visual.transformer.resblocks, strict=True
            )
            for new, old in blocks:
                new.mlp.gelu = type(old.mlp.gelu)()
                new.attn.num_heads, new.attn.head_dim = old.attn.num_heads, old.attn.head_dim
        return tower

    # -- numbers --------------------------------------------------------------------------------

    @property
    def logit_scale(self) -> Tensor:
        return self.model.logit_scale

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype


FAMILY = OpenAIClip

# TorchScript archives hold these beside the weights.
_SHAPE_ENTRIES = ("input_resolution", "context_length", "vocab_size")


def clip_of(tensors: dict[str, Tensor]) -> CLIP:
    """The clip package's model in fp32; its own ``build_model`` rounds every weight to fp16.

    Raises:
        KeyError, RuntimeError: a tensor is missing or has another shape.
    """
    tensors = expand_token_table(tensors)
    model = CLIP(**shape_of(tensors))
    model.load_state_dict({k: v for k, v in tensors.items() if k not in _SHAPE_ENTRIES})
    return model.eval()


def shape_of(tensors: dict[str, Tensor]) -> dict[str, int | tuple[int, ...] | None]:
    """The arguments of ``clip.model.CLIP`` that a state dict was made with."""
    width = tensors["ln_final.weight"].shape[0]
    return {
        "embed_dim": tensors["text_projection"].shape[1],
        **vision_shape_of(tensors),
        "context_length": tensors["positional_embedding"].shape[0],
        "vocab_size": tensors["token_embedding.weight"].shape[0],
        "transformer_width": width,
        "transformer_heads": max(1, width // 64),
        "transformer_layers": _count(tensors, "transformer.resblocks."),
    }


def vision_shape_of(tensors: dict[str, Tensor]) -> dict[str, int | tuple[int, ...] | None]:
    """Those of the image tower."""
    if "visual.proj" in tensors:
        patch = tensors["visual.conv1.weight"].shape[-1]
        side = round((tensors["visual.positional_embedding"].shape[0] - 1) ** 0.5)
        return {
            "image_resolution": patch * side,
            "vision_layers": _count(tensors, "visual.transformer.resblocks."),
            "vision_width": tensors["visual.conv1.weight"].shape[0],
            "vision_patch_size": patch,
        }
    side = round((tensors["visual.attnpool.positional_embedding"].shape[0] - 1) ** 0.5)
    return {
        "image_resolution": 32 * side,
        "vision_layers": tuple(_count(tensors, f"visual.layer{i}.") for i in range(1, 5)),
        "vision_width": tensors["visual.layer1.0.conv1.weight"].shape[0],
        "vision_patch_size": None,
    }


def _count(tensors: dict[str, Tensor], prefix: str) -> int:
    """How many numbers follow ``prefix`` in the names."""
    return len({k[len(prefix) :].split(".")[0] for k in tensors if k.startswith(prefix)})


def _for_each(tokens: Tensor, x: Tensor) -> Tensor:
    """[n, width] tokens for every image of x [L, batch, width]: [n, batch, width]."""
    return tokens.to(x.dtype).unsqueeze(1).expand(-1, x.shape[1], -1)


def _resnet_patches(visual: ModifiedResNet, images: Tensor) -> Tensor:
    """[batch, P, d]: the pooling's value and output projections at each place."""
    maps = []
    hook = visual.attnpool.register_forward_pre_hook(lambda _, args: maps.append(args[0]))
    try:
        visual(images)
    finally:
        hook.remove()
    pool = visual.attnpool
    return pool.c_proj(pool.v_proj(maps[0].flatten(2).transpose(1, 2)))
