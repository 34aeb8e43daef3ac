"""Tokenizers: CLIP's byte pairs, and what a ``tokenizer.json`` or ``vocab.txt`` defines."""

import functools
import hashlib
import json
import string
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from clip.simple_tokenizer import SimpleTokenizer, basic_clean, whitespace_clean
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


def cleaned(text: str) -> str:
    """``text`` with its encoding mended, without HTML entities, with single spaces."""
    return whitespace_clean(basic_clean(text))


def canonicalized(text: str) -> str:
    """``text`` cleaned, in lower case, without punctuation, ``_`` as a space.

    How SigLIP was trained (Zhai et al., ICCV 2023). This is open_clip's rule; the tokenizers of
    transformers differ from it and from each other.
    """
    text = basic_clean(text).replace("_", " ").translate(str.maketrans("", "", string.punctuation))
    return whitespace_clean(text.lower())


# What is done to a text before the tokenizer, by open_clip's names.
CLEANING: dict[str, Callable[[str], str]] = {
    "whitespace": cleaned,
    "lower": lambda text: cleaned(text).lower(),
    "canonicalize": canonicalized,
}


class Tokenizer:
    """A tokenizer of the ``tokenizers`` library, with what stands around the words of a text.

    Args:
        fast: the library's tokenizer. pad: id of the padding token.
        clean: a name of ``CLEANING``. Canonicalized texts have no full stop.

    Attributes:
        start, stop, end: the token ids before the words, of a full stop, and behind it.
        unknown: the id that stands for what is not in the vocabulary; None where there is none.
    """

    def __init__(self, fast: Fast, pad: int, clean: str = "whitespace") -> None:
        self.fast, self.pad, self.clean = fast, pad, CLEANING[clean]
        self.fast.no_padding()
        self.fast.no_truncation()
        bare = fast.encode("a", add_special_tokens=False).ids
        whole = fast.encode("a").ids
        at = next(i for i in range(len(whole)) if whole[i : i + len(bare)] == bare)
        self.start, self.end = whole[:at], whole[at + len(bare) :]
        self.unknown = fast.token_to_id(getattr(fast.model, "unk_token", None) or "<unk>")
        # As it follows a word: a stop that stands alone may get a mark of a word's beginning.
        self.stop = self.encode("a.")[len(self.encode("a")) :]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the vocabulary, and of what becomes of a text that shows the rules."""
        known = sorted(self.fast.get_vocab().items())
        rules = [self.encode("É_a-A 1.0"), self.start, self.stop, self.end, self.pad]
        return hashlib.sha256(repr((known, rules)).encode()).hexdigest()

    def encode(self, text: str, behind: bool = False) -> list[int]:
        """The token ids of the words of ``text``.

        Args:
            behind: as they are behind another word. Some tokenizers, SigLIP 2's among them, mark
                the space before a word, and the first word of a text has none.
        """
        text = self.clean(text)
        if not text:
            return []
        ids = self.fast.encode(text, add_special_tokens=False).ids
        if behind:
            first = self.fast.encode("a", add_special_tokens=False).ids
            both = self.fast.encode(f"a {text}", add_special_tokens=False).ids
            if both[: len(first)] == first:
                return both[len(first) :]
        return ids

    def words(self) -> dict[int, str]:
        """The token table's words by id, without special tokens and without marks of pieces."""
        special = {*self.start, *self.end, self.pad, *self.fast.get_added_tokens_decoder()}
        found = sorted(self.fast.get_vocab().items(), key=lambda item: item[1])
        return {
            i: word.removeprefix("##").removeprefix("▁").removeprefix("Ġ").removesuffix("</w>")
            for word, i in found
            if i not in special
        }


def read_tokenizer(folder: Path, clean: str = "whitespace", pad: str = "") -> Tokenizer:
    """The tokenizer that a folder defines in ``tokenizer.json``, or in ``vocab.txt`` as BERT's.

    Args:
        pad: the padding token, where the folder's JSON files do not name it.

    Raises:
        InputError: the folder has neither, a file is damaged, or the padding token is unknown.
    """
    described, vocabulary = folder / "tokenizer.json", folder / "vocab.txt"
    try:
        if described.is_file():
            fast = Fast.from_file(str(described))
        elif vocabulary.is_file():
            fast = _word_pieces(vocabulary)
        else:
            raise InputError(
                f"{folder}: contains neither tokenizer.json nor vocab.txt; copy the tokenizer of "
                f"the model's page into the folder{_converted(folder)}"
            )
        return Tokenizer(fast, _padding(folder, fast, pad), clean)
    except InputError:
        raise
    except Exception as error:  # the library raises plain Exception
        file = described if described.is_file() else vocabulary
        raise InputError(f"{file}: cannot be read as a tokenizer ({first_line(error)})") from None


def _word_pieces(vocabulary: Path) -> Fast:
    """BERT's tokenizer, without case unless ``tokenizer_config.json`` says otherwise."""
    settings: dict[str, Any] = {}
    beside = vocabulary.with_name("tokenizer_config.json")
    if beside.is_file():
        settings = json.loads(beside.read_text(encoding="utf-8"))
    return BertWordPieceTokenizer(
        str(vocabulary),
        lowercase=settings.get("do_lower_case", True),
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )._tokenizer


def read_siglip_tokenizer(folder: Path, clean: str = "canonicalize") -> Tokenizer:
    """SigLIP's tokenizer: one end token and no other.

    Raises:
        InputError: as ``read_tokenizer``, or the file adds other tokens.
    """
    tokenizer = read_tokenizer(folder, clean)
    if tokenizer.start or len(tokenizer.end) != 1:
        raise InputError(
            f"{folder / 'tokenizer.json'}: adds {len(tokenizer.start)} tokens before a text and "
            f"{len(tokenizer.end)} behind it; SigLIP was trained with one end token and no other"
        )
    return tokenizer


def _converted(folder: Path) -> str:
    """How to get a tokenizer.json, where there is a sentencepiece model alone."""
    models = sorted(folder.glob("*.model"))
    if not models:
        return ""
    return (
        f" ({models[0].name} alone is not read; `transformers.AutoTokenizer.from_pretrained"
        "(FOLDER).save_pretrained(FOLDER)` writes tokenizer.json)"
    )


def _padding(folder: Path, fast: Fast, otherwise: str) -> int:
    """The id of the padding token, as transformers finds it."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            token: Any = json.loads((folder / name).read_text(encoding="utf-8")).get("pad_token")
            otherwise = (token["content"] if isinstance(token, dict) else token) or otherwise
            if token:
                break
    if not otherwise:
        raise InputError(
            f"{folder}: no file says which token pads a text; copy tokenizer_config.json of the "
            "model's page into the folder"
        )
    pad = fast.token_to_id(otherwise)
    if pad is None:
        raise InputError(f"{folder}: the tokenizer has no padding token {otherwise!r}")
    return pad
