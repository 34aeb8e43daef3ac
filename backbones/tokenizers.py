"""Tokenizers: CLIP's byte pairs, and what a ``tokenizer.json`` or ``vocab.txt`` defines."""

import functools
import string
from collections.abc import Iterable
from pathlib import Path

from clip.simple_tokenizer import SimpleTokenizer
from tokenizers import Tokenizer as Fast
from tokenizers.implementations import BertWordPieceTokenizer

from core.errors import InputError, first_line

START, END = "<|startoftext|>", "<|endoftext|>"  # CLIP's


@functools.cache
def clip_tokenizer() -> SimpleTokenizer:
    return SimpleTokenizer()


def clip_token_ids(texts: Iterable[str]) -> list[list[int]]:
    """CLIP's byte-pair tokens of each text, without start and end tokens."""
    return [clip_tokenizer().encode(text) for text in texts]


class Tokenizer:
    """A tokenizer of the ``tokenizers`` library, with what stands around the words of a text.

    Args:
        fast: the library's tokenizer.
        pad: name or id of the padding token.
        canonical: lower-case, without punctuation, single spaces: as SigLIP was trained
            (Zhai et al., ICCV 2023). Texts then have no full stop.

    Attributes:
        start, stop, end: the token ids before the words, of a full stop, and behind it.
    """

    def __init__(self, fast: Fast, pad: str | int, canonical: bool = False) -> None:
        self.fast, self.canonical = fast, canonical
        self.fast.no_padding()
        self.fast.no_truncation()
        pad_id = pad if isinstance(pad, int) else fast.token_to_id(pad)
        if pad_id is None:
            raise InputError(f"the tokenizer has no padding token {pad!r}")
        self.pad = pad_id
        bare = fast.encode("a", add_special_tokens=False).ids
        whole = fast.encode("a").ids
        at = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
        self.start, self.end = whole[:at], whole[at + len(bare) :]
        self.stop = self.encode(".")

    def encode(self, text: str) -> list[int]:
        """The token ids of the words of ``text``."""
        if self.canonical:
            text = canonicalized(text)
            if not text:
                return []
        return self.fast.encode(text, add_special_tokens=False).ids

    def words(self) -> dict[int, str]:
        """The token table's words by id, without special tokens and without marks of pieces."""
        special = {*self.start, *self.end, self.pad, *self._added()}
        found = sorted(self.fast.get_vocab().items(), key=lambda item: item[1])
        return {
            i: word.removeprefix("##").removeprefix("▁").removesuffix("</w>")
            for word, i in found
            if i not in special
        }

    def _added(self) -> set[int]:
        return set(self.fast.get_added_tokens_decoder())


def canonicalized(text: str) -> str:
    """``text`` in lower case, without punctuation, with single spaces."""
    text = text.replace("_", " ").translate(str.maketrans("", "", string.punctuation))
    return " ".join(text.lower().split())


def read_tokenizer(folder: Path, pad: str | int, canonical: bool = False) -> Tokenizer:
    """The tokenizer that a folder defines in ``tokenizer.json``, or in ``vocab.txt`` as BERT's.

    Raises:
        InputError: the folder has neither, or the file is damaged.
    """
    described, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
    try:
        if described.is_file():
            fast = Fast.from_file(str(described))
        elif vocabulary.is_file():
            fast = BertWordPieceTokenizer(str(vocabulary), lowercase=True)._tokenizer
        else:
            raise InputError(
                f"{folder}: contains neither tokenizer.json nor vocab.txt; copy the tokenizer of "
                "the model's page into the folder"
            )
        return Tokenizer(fast, pad, canonical)
    except InputError:
        raise
    except Exception as error:  # the library raises plain Exception
        raise InputError(
            f"{described}: cannot be read as a tokenizer ({first_line(error)})"
        ) from None
