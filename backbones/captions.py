"""Captions for the drawn world: what is seen, in many wordings, and never a disease.

A phrase says one fact: an attribute and the values it allows ("unclear edges" allows a blurred and
a jagged border). ``captions.json`` holds the patterns: ``(ragged|torn) (edges|rim)`` stands for
every choice of its alternatives, ``{edges}`` for one of the choices named there. A caption joins
phrases for one, several or all of a picture's attributes.
"""

import functools
import json
import random
import re
from collections.abc import Mapping
from pathlib import Path

from datasets.synthetic import World

Fact = tuple[str, tuple[str, ...]]  # an attribute and the values that a phrase allows
Facts = dict[str, tuple[str, ...]]  # what a caption states: attribute -> the values it allows

# Words that name a disease, or whether there is one. No caption holds any of them.
DISEASE_WORDS = frozenset(
    "melanoma melanomas melanocytic nevus nevi naevus naevi mole moles pneumonia pneumonic cancer "
    "cancerous carcinoma tumor tumour malignant malignancy benign disease diseased infection "
    "infected healthy unhealthy sick normal abnormal diagnosis diagnosed bacterial viral "
    "pathology pathological harmless dangerous suspicious".split()
)

# What the pictures can be said to show: patterns of noun phrases and of statements for each fact.
GRAMMAR = Path(__file__).with_name("captions.json")
_GRAMMAR = json.loads(GRAMMAR.read_text())

SUBJECTS = {
    "SynthDerm": ("spot", "lesion", "mark", "patch", "growth", "skin spot", "skin lesion"),
    "SynthChest": ("chest", "chest film", "film", "lung film", "x-ray", "chest x-ray", "thorax"),
}
PICTURE_OF = (
    "a photo of", "a picture of", "an image of", "a close-up of", "a photograph of", "a view of",
    "a photo showing", "this is", "here is", "one sees", "a clear photo of", "a medical image of",
)  # fmt: skip
HEDGES = ("", "", "", "", "clearly", "apparently", "it seems that", "visible here", "seen here")

# Wordings kept for the evaluation. No caption may hold one of them; a test compares.
HELD_OUT: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {
    "SynthDerm": {
        "symmetry": {
            "symmetric": (
                "The spot is symmetric on both sides",
                "the left half mirrors the right half",
                "an evenly balanced lesion, both sides equal",
            ),
            "asymmetric": (
                "The spot is asymmetric, one half unlike the other",
                "the left half does not mirror the right half",
                "a lopsided lesion with sides that do not match",
            ),
        },
        "border": {
            "clear": (
                "The spot has clear, well-defined edges",
                "a crisp line separates the lesion from the skin",
                "edges sharp and smooth all around",
            ),
            "blurred": (
                "the spot melts away into the skin around without a line",
                "edges soft and smeared all around",
                "a lesion whose rim is hazy and indistinct",
            ),
            "jagged": (
                "edges torn and spiky all around",
                "a lesion whose rim is toothed with points and notches",
                "a spot with a ragged, zigzag outline",
            ),
        },
        "colours": {
            "one": (
                "The spot has a consistent color, usually brown, tan or black",
                "a lesion pigmented the same all over",
                "one even shade from rim to rim",
            ),
            "several": (
                "The spot has several colors, such as brown, black, red, white and blue",
                "The spot does not have a consistent color",
                "many shades mixed within one lesion",
            ),
        },
        "colour": {
            "brown": ("pigment of a chestnut brown", "a spot colored in brown"),
            "tan": ("pigment of a light beige tan", "a spot colored in tan"),
            "black": ("pigment of a blackish charcoal", "a spot colored in black"),
        },
        "dots": {
            "dots": (
                "Irregular dots within the spot",
                "a lesion with black specks scattered across its inside",
                "peppered by tiny dark points",
            ),
            "none": (
                "Not a single dot within the spot",
                "a lesion without black specks across its inside",
                "not peppered by any dark points",
            ),
        },
        "redness": {
            "red": (
                "Redness or swelling around the spot",
                "inflamed, reddened skin encloses the lesion",
                "a flushed ring about the mark",
            ),
            "none": (
                "Absence of redness and swelling around the spot",
                "pale, quiet skin encloses the lesion",
                "no flushed ring about the mark",
            ),
        },
        "network": {
            "network": (
                "pigment lines crossing like a net within the spot",
                "a lesion with a honeycomb mesh of lines",
                "a visible reticular grid inside",
            ),
            "none": (
                "no pigment lines crossing within the spot",
                "a lesion without a honeycomb mesh of lines",
                "no visible reticular grid inside",
            ),
        },
        "veil": {
            "veil": (
                "A blue-white veil within the spot",
                "a milky bluish cloud over the lesion",
                "blue haze in the center of the mark",
            ),
            "none": (
                "No blue-white veil within the spot",
                "not a milky bluish cloud over the lesion",
                "no blue haze in the center of the mark",
            ),
        },
    },
    "SynthChest": {
        "opacity": {
            "opaque": (
                "presence of consolidation",
                "a dense white cloud within one lung",
                "part of the lung field turned opaque",
            ),
            "none": (
                "evenly dark lungs on both sides",
                "absence of consolidation in both lungs",
                "airy lungs, no white cloud within",
            ),
        },
        "zone": {
            "upper": ("whitening of the upper lobe", "a dense cloud near the top of the lung"),
            "lower": ("whitening of the lower lobe", "a dense cloud near the bottom of the lung"),
        },
        "bronchogram": {
            "lines": (
                "air bronchogram sign",
                "black air tubes branching through the white patch",
                "airways seen as dark branches in consolidation",
            ),
            "none": (
                "without air bronchogram sign",
                "no black air tubes branching through",
                "airways not seen as dark branches",
            ),
        },
        "borders": {
            "sharp": (
                "sharp outline of the heart",
                "smooth, clear dome of the diaphragm on each side",
                "crisp edges of heart and diaphragm",
            ),
            "hidden": (
                "obscured outline of the heart",
                "hazy, lost dome of the diaphragm on each side",
                "fuzzy edges of heart and diaphragm",
            ),
        },
        "effusion": {
            "fluid": (
                "presence of pleural effusion",
                "a meniscus of liquid at the base of the chest",
                "blunted corners between the ribs and the diaphragm",
            ),
            "none": (
                "sharp, dark corners between the ribs and the diaphragm",
                "absence of pleural effusion and liquid",
                "no meniscus of liquid at the base of the chest",
            ),
        },
        "cavity": {
            "cavity": (
                "presence of cavitation",
                "a hollow ring with a bright wall in the lung field",
                "a dark round hole enclosed by a white wall",
            ),
            "none": (
                "absence of cavitation and rings",
                "no hollow ring with a bright wall in the lung field",
                "no dark round hole enclosed by a white wall",
            ),
        },
        "markings": {
            "increased": (
                "coarse lines and streaks throughout both lungs",
                "heavy interstitial strands in the lung fields",
                "prominent vessels reaching the edges of the lungs",
            ),
            "normal": (
                "fine branching vessels fading towards the edges of the lungs",
                "faint, slender vessels in the lung fields",
                "few thin lines in both lungs",
            ),
        },
    },
}


def plain(text: str) -> str:
    """Lower case without stops and doubled blanks, so that wordings can be compared."""
    return " ".join(re.findall(r"[\w-]+", text.lower()))


def expand(pattern: str) -> set[str]:
    """Every phrase that a pattern ``(a|b) c`` stands for."""
    innermost = re.search(r"\(([^()]*)\)", pattern)
    if innermost is None:
        return {" ".join(pattern.split())}
    before, after = pattern[: innermost.start()], pattern[innermost.end() :]
    return {text for choice in innermost[1].split("|") for text in expand(before + choice + after)}


@functools.cache
def _facts(world_name: str) -> dict[Fact, tuple[list[str], list[str]]]:
    """{(attribute, values it allows): (patterns of noun phrases, patterns of statements)}."""

    def filled(patterns: list[str]) -> list[str]:
        for name, choices in _GRAMMAR["choices"].items():
            patterns = [pattern.replace("{" + name + "}", choices) for pattern in patterns]
        return patterns

    return {
        (fact["attribute"], tuple(fact["values"])): (
            filled(fact["nouns"]),
            filled(fact["statements"]),
        )
        for fact in _GRAMMAR["facts"]
        if fact["world"] == world_name
    }


@functools.cache
def held_out_phrases() -> frozenset[str]:
    return frozenset(
        plain(phrase)
        for world in HELD_OUT.values()
        for values in world.values()
        for phrases in values.values()
        for phrase in phrases
    )


@functools.cache
def phrases(world_name: str) -> dict[Fact, tuple[list[list[str]], ...]]:
    """{(attribute, values): ([[phrases of a pattern], ...] of nouns, the same of statements)}."""
    return {
        fact: tuple([sorted(expand(pattern)) for pattern in patterns] for patterns in forms)
        for fact, forms in _facts(world_name).items()
    }


@functools.cache
def _padded_held_out() -> tuple[str, ...]:
    return tuple(f" {phrase} " for phrase in held_out_phrases())


def caption(world: World, attributes: Mapping[str, str], rng: random.Random) -> tuple[str, Facts]:
    """A caption that is true of a picture with these attributes.

    Args:
        world: of ``datasets.synthetic``.
        attributes: value by attribute name.

    Returns:
        text, and the facts it states: {attribute: values it allows}.
    """
    chosen = [a.name for a in world.attributes if can_be_said(a.name, attributes)]
    rng.shuffle(chosen)
    count = rng.choice((1, 1, 1, 2, 2, 3, 4, len(chosen), len(chosen)))
    facts: Facts = {}
    nouns: list[str] = []
    statements: list[str] = []
    for name in chosen[:count]:
        known = _facts_of(world.name, name, attributes[name])
        values = known[0] if len(known) == 1 or rng.random() < 0.75 else known[1]
        facts[name] = values
        if name in _OF_OPACITY:
            facts["opacity"] = ("opaque",)
        forms = phrases(world.name)[name, values]
        form = rng.choices((0, 1), (0.55, 0.45))[0]
        # A pattern first, then one of its phrases: one of many phrases isn't heard more often.
        (nouns, statements)[form].append(rng.choice(rng.choice(forms[form])))
    text = _join(rng, rng.choice(SUBJECTS[world.name]), nouns, statements)
    padded = f" {plain(text)} "
    if any(held in padded for held in _padded_held_out()):
        return caption(world, attributes, rng)
    return text, facts


# Speaking of it says that there is an opacity; where there is none, there is nothing to say.
_OF_OPACITY = ("zone",)


def can_be_said(name: str, attributes: Mapping[str, str]) -> bool:
    """Whether a picture with these attributes has a value of attribute ``name`` to speak of."""
    return name not in _OF_OPACITY or attributes["opacity"] == "opaque"


@functools.cache
def _facts_of(world_name: str, name: str, value: str) -> list[tuple[str, ...]]:
    """The value sets that a phrase about this value can allow, the narrowest first."""
    sets = [values for attribute, values in _facts(world_name) if attribute == name]
    return sorted((values for values in sets if value in values), key=len)


def _join(rng: random.Random, subject: str, nouns: list[str], statements: list[str]) -> str:
    rng.shuffle(nouns)
    rng.shuffle(statements)
    comma = rng.choice((", ", ", ", " and "))
    listed = nouns[0] if nouns else ""
    if len(nouns) > 1:
        listed = comma.join(nouns[:-1]) + rng.choice((" and ", ", ", ", and ")) + nouns[-1]
    parts = list(statements)
    if nouns:
        article = rng.choice(("a", "the", "one", "this"))
        verb = rng.choice(("has", "shows", "displays", "presents"))
        parts.append(
            rng.choice(
                (
                    listed,
                    listed,
                    f"{article} {subject} with {listed}",
                    f"the {subject} {verb} {listed}",
                    f"{rng.choice(PICTURE_OF)} {article} {subject} with {listed}",
                    f"{rng.choice(PICTURE_OF)} {listed}",
                    f"there is {listed}",
                    f"{subject}: {listed}",
                )
            )
        )
        rng.shuffle(parts)
    opening = ""
    if not nouns and rng.random() < 0.3:
        opening = f"{rng.choice(PICTURE_OF)} a {subject}" + rng.choice(
            (", ", ": ", " where ", ". ")
        )
    text = f"{rng.choice(HEDGES)} {opening}{parts[0]}"
    for part in parts[1:]:
        text += rng.choice((", ", ". ", " and ", "; ")) + part
    text = " ".join(text.split())
    if rng.random() < 0.5:
        text = text[0].upper() + text[1:]
    return text + rng.choice((".", ".", ""))


@functools.cache
def words() -> list[str]:
    """Every word, in lower case, and every stop that a caption can hold."""
    texts = [*PICTURE_OF, *HEDGES, "where and the one this a has shows displays presents with"]
    texts += ["there is", *",.;:"]
    for world_name in SUBJECTS:
        texts += SUBJECTS[world_name]
        for forms in phrases(world_name).values():
            texts += [phrase for form in forms for pattern in form for phrase in pattern]
    return sorted({word.lower() for text in texts for word in text.split()})
