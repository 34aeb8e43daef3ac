"""The methods as plainly as their papers put them: what the fast code is measured against.

Every text has all of CLIP's 77 tokens, classes and pictures go through the text encoder one after
the other, and every step encodes its pictures. Nothing here is shared with ``trainers``, except
that the learned parameters have the names of the checkpoints, so that both can start alike.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import clip
import torch
from clip.model import CLIP
from torch import Tensor
from torch.nn import functional as F


def embedded(model: CLIP, texts: Sequence[str], n_ctx: int = 0) -> tuple[Tensor, Tensor]:
    """Token ids and their embeddings, [n, 77] and [n, 77, width], ``n_ctx`` words held free."""
    tokens = clip.tokenize([" ".join(["X"] * n_ctx + [f"{text}."]) for text in texts])
    tokens = tokens.to(model.positional_embedding.device)
    with torch.no_grad():
        return tokens, model.token_embedding(tokens)


def encode(model: CLIP, tokens: Tensor, embeddings: Tensor, ctx: Tensor | None = None) -> Tensor:
    """CLIP's text encoder; ``ctx`` [n_ctx, width] takes the places after the first."""
    if ctx is not None:
        n = len(embeddings)
        start, rest = embeddings[:, :1], embeddings[:, 1 + len(ctx) :]
        embeddings = torch.cat([start, ctx.expand(n, -1, -1), rest], dim=1)
    x = embeddings + model.positional_embedding
    x = model.transformer(x.permute(1, 0, 2)).permute(1, 0, 2)
    x = model.ln_final(x)
    x = x[torch.arange(len(x), device=x.device), tokens.argmax(dim=-1)]
    return x @ model.text_projection


def scores(model: CLIP, image: Tensor, text: Tensor) -> Tensor:
    """[batch, d] and [n_cls, d] -> [batch, n_cls]."""
    return model.logit_scale.exp() * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).t()


class Reference:
    """A method with its optimiser.

    Args:
        model: ``clip.model.CLIP`` in fp32.
        method: a key of ``METHODS``.
        params: name -> tensor, as in a checkpoint of the method.
        classnames: the classes. symptoms: class name -> phrases.
    """

    def __init__(
        self,
        model: CLIP,
        method: str,
        params: Mapping[str, Tensor],
        classnames: Sequence[str],
        symptoms: Mapping[str, Sequence[str]],
        n_ctx: int = 4,
    ) -> None:
        self.model = model.requires_grad_(False)
        self.params = {name: value.detach().clone() for name, value in params.items()}
        for value in self.params.values():
            value.requires_grad_(True)
        self.score = partial(METHODS[method], self)
        by_symptoms = method.startswith(("ViP", "ZeroshotCLIP symptoms"))
        context = n_ctx if any(name.endswith("ctx") for name in params) else 0
        named = [[name] if context else [f"a photo of a {name}"] for name in classnames]
        texts = symptoms.values() if by_symptoms else named
        self.texts = [embedded(model, of_class, context) for of_class in texts]
        self.penalty: Tensor | float = 0.0
        if method.startswith("ZeroshotCLIP"):
            with torch.no_grad():
                of_class = [F.normalize(encode(model, *text), dim=-1) for text in self.texts]
                self.known = torch.stack([features.mean(dim=0) for features in of_class])
        if method == "KgCoOp":
            known = [embedded(model, [f"a photo of a {name}"]) for name in classnames]
            with torch.no_grad():
                self.known = torch.cat([encode(model, *text) for text in known])
        self.optim: torch.optim.Optimizer | None = None
        if params:
            self.optim = torch.optim.SGD(
                self.params.values(), lr=0.001, momentum=0.9, weight_decay=5e-4
            )

    def encoded(self, ctx: Tensor) -> Tensor:
        """[n, d] text features with this context."""
        return torch.cat([encode(self.model, *text, ctx) for text in self.texts])

    def logits(self, pictures: Tensor) -> Tensor:
        """[batch, 3, H, W] (or [batch, d], to time the rest alone) -> [batch, n_cls]."""
        if pictures.dim() == 2:
            return self.score(pictures)
        with torch.no_grad():
            image = self.model.encode_image(pictures)
        return self.score(image)

    def step(self, pictures: Tensor, label: Tensor) -> float:
        """One step of training; for a method that learns nothing, one batch of a test."""
        if self.optim is None:
            with torch.no_grad():
                return F.cross_entropy(self.logits(pictures), label).item()
        loss = F.cross_entropy(self.logits(pictures), label) + self.penalty
        self.optim.zero_grad()
        loss.backward()
        self.optim.step()
        return loss.item()


def zeroshot(self: Reference, image: Tensor) -> Tensor:
    return scores(self.model, image, self.known)


def coop(self: Reference, image: Tensor) -> Tensor:
    text = self.encoded(self.params["ctx"])
    return scores(self.model, image, text)


def kgcoop(self: Reference, image: Tensor) -> Tensor:
    text = self.encoded(self.params["ctx"])
    self.penalty = 8 * (1 - F.cosine_similarity(text, self.known).mean())
    return scores(self.model, image, text)


def cocoop(self: Reference, image: Tensor) -> Tensor:
    p, rows = self.params, []
    for picture in image:
        x = F.normalize(picture, dim=0)
        x = F.relu(F.linear(x, p["meta_net.linear1.weight"], p["meta_net.linear1.bias"]))
        bias = F.linear(x, p["meta_net.linear2.weight"], p["meta_net.linear2.bias"])
        text = self.encoded(p["ctx"] + bias)
        rows.append(scores(self.model, picture[None], text))
    return torch.cat(rows)


def bayesian(self: Reference, image: Tensor, samples: int = 10) -> Tensor:
    p, rows, self.penalty = self.params, [], 0.0

    def network(name: str, x: Tensor) -> Tensor:
        for layer in (0, 2, 4):
            prefix = f"meta_net.{name}.module.{layer}"
            x = F.linear(x, p[f"{prefix}.weight"], p[f"{prefix}.bias"])
            x = x if layer == 4 else F.elu(x)
        return x

    for picture in image:
        x = F.normalize(picture, dim=0)
        mean, log_variance = network("weight_mean", x), network("weight_log_variance", x)
        kl = 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).mean()
        self.penalty = self.penalty + 0.001 * kl / len(image)
        drawn = []
        for _ in range(samples):
            bias = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
            text = self.encoded(p["ctx"] + bias)
            drawn.append(scores(self.model, picture[None], text).log_softmax(dim=-1))
        rows.append(torch.stack(drawn).logsumexp(dim=0) - math.log(samples))
    return torch.cat(rows)


def vip(self: Reference, image: Tensor, merge: str = "prompt") -> Tensor:
    p, columns = self.params, []
    for c, text in enumerate(self.texts):
        symptoms = encode(self.model, *text, p.get("prompt_learner.ctx"))  # T, [k, d]
        if merge == "max":
            columns.append(scores(self.model, image, symptoms).amax(dim=-1))
            continue
        if merge == "mean":
            merged = F.normalize(symptoms, dim=-1).mean(dim=0)
        else:
            token = p["token.0"][c]  # g
            query = F.linear(token, p["attn.q_proj.weight"])
            keys = F.linear(symptoms, p["attn.k_proj.weight"])
            attention = (keys @ query / query.shape[-1] ** 0.5).softmax(dim=0)
            merged = token + attention @ symptoms
        columns.append(scores(self.model, image, merged[None])[:, 0])
    return torch.stack(columns, dim=1)


METHODS: dict[str, Callable[[Reference, Tensor], Tensor]] = {
    "ZeroshotCLIP names": zeroshot,
    "ZeroshotCLIP symptoms": zeroshot,
    "CoOp": coop,
    "KgCoOp": kgcoop,
    "CoCoOp": cocoop,
    "BayesianPrompt": bayesian,
    "ViP": vip,
    "ViP, no context": vip,
    "ViP, mean": partial(vip, merge="mean"),
    "ViP, max": partial(vip, merge="max"),
}
