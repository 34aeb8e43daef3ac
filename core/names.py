"""Class names: how prompts, folders and symptom files spell the same class."""

import functools


def prompt_name(name: str) -> str:
    """A class name as prompts have it: ``_`` is a space, as every CoOp-family method reads it."""
    return " ".join(name.replace("_", " ").split())


@functools.lru_cache(1024)
def name_key(name: str) -> str:
    """The same key for two spellings of one class name: case and ``_`` do not matter."""
    return prompt_name(name).casefold()
