"""CLIP's text side written out: one text at a time, at full length, by CLIP's own modules."""

import clip
import torch

NAMES = ["melanoma", "congenital nevus", "red (inflamed) skin"]


def word_ids(text):
    ids = clip.tokenize(text)[0]
    return ids[1 : ids.argmax()].tolist()


def rows_to_feature(model, rows, deeper=()):
    """Feature of [n, d_txt] token embeddings, the last of which is the end token's.

    ``deeper[i]`` replaces the outputs at positions 1.. before layer i + 1.
    """
    padding = model.token_embedding(torch.zeros(77 - len(rows), dtype=torch.long))
    x = torch.cat([rows, padding]) + model.positional_embedding
    x = x.unsqueeze(1)
    for i, block in enumerate(model.transformer.resblocks):
        if 0 < i <= len(deeper):
            tokens = deeper[i - 1]
            x = torch.cat([x[:1], tokens.unsqueeze(1), x[1 + len(tokens) :]])
        x = block(x)
    return model.ln_final(x[len(rows) - 1, 0]) @ model.text_projection


def prompt_rows(model, ctx, name, position="end"):
    """[SOS] context and name "." [EOS] as embeddings."""
    (sos, stop, eos) = clip.tokenize(".")[0, :3].tolist()
    words = model.token_embedding(torch.tensor(word_ids(name)))
    sos, stop, eos = model.token_embedding(torch.tensor([sos, stop, eos])).unsqueeze(1)
    before = {"end": len(ctx), "middle": len(ctx) // 2, "front": 0}[position]
    return torch.cat([sos, ctx[:before], words, ctx[before:], stop, eos])


def text_feature(model, text):
    """Feature of a text as it stands."""
    ids = clip.tokenize(text)[0]
    return rows_to_feature(model, model.token_embedding(ids[: ids.argmax() + 1]))


def unit(x):
    return x / (x * x).sum().sqrt()


def cosine(a, b):
    return (a * b).sum() / (a * a).sum().sqrt() / (b * b).sum().sqrt()


def cross_entropy(logits, label):
    """Mean over a batch of -log softmax at the label, by its definition."""
    p = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    return -sum(row[y].log() for row, y in zip(p, label, strict=True)) / len(label)
