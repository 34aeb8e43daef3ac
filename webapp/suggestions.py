"""Phrases from a language model, asked only with the user's explicit consent; never an image."""

import os
from collections.abc import Sequence
from typing import Any

from core.errors import InputError, shortened
from symptom_generator.address import BASE_URL, Address
from symptom_generator.chat import Endpoint, TooSlow, Unusable, user_message
from symptom_generator.phrases import read_features
from symptom_generator.pipeline import TEXT_PROMPT

MODALITY = "medical images"
MODEL = "gpt-4o"  # as of symptoms.generate
SECONDS = 60.0


def endpoint_host() -> str | None:
    """The host that OPENAI_BASE_URL names, or OpenAI's where a key is set; else None."""
    if not any(os.environ.get(name, "").strip() for name in (BASE_URL, "OPENAI_API_KEY")):
        return None
    return Address.from_environment().host


def request_for(classname: str, modality: str = MODALITY, model: str = MODEL) -> dict[str, Any]:
    """Where a question about a class would be sent, and its exact text. Nothing is sent.

    Raises:
        InputError: no endpoint is named in the environment.
    """
    host = endpoint_host()
    if host is None:
        raise InputError(
            f"no endpoint is named; set {BASE_URL}, and OPENAI_API_KEY if it needs a key, and "
            "start the app again"
        )
    sends = TEXT_PROMPT.format(category=classname, modality=modality)
    return {"endpoint": host, "model": model, "sends": sends}


def suggest(
    classname: str, consent: Any, avoid: Sequence[str], modality: str = MODALITY, model: str = MODEL
) -> list[str]:
    """Ask for phrases about a class.

    Args:
        consent: the host that the user agreed to send to, as ``request_for`` named it.
        avoid: names that no phrase may contain.

    Raises:
        InputError: there is no consent for this host; the endpoint does not answer, or its answer
            cannot be used.
    """
    asked = request_for(classname, modality, model)
    if consent != asked["endpoint"]:
        raise InputError(
            f"nothing was sent: the consent is for {shortened(ascii(consent))}, and the question "
            f"would go to {asked['endpoint']}"
        )
    endpoint = Endpoint(model, retries=1, timeout=SECONDS, max_requests=4)
    try:
        reply = endpoint.ask([user_message(asked["sends"])])
        features = read_features(reply.text, [*avoid, classname])
    except Unusable as why:
        raise InputError(f"{endpoint.host}: the answer cannot be used: {why}") from None
    except TooSlow:
        raise InputError(
            f"{endpoint.host} did not answer within {SECONDS:g} s; ask again later"
        ) from None
    return [feature["phrase"] for feature in features if feature["phrase"]]
