"""One page to look at before trusting generated symptoms: images, answers, what was kept."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reporting.pages import write_page


def write_symptom_page(
    path: Path,
    title: str,
    settings: Mapping[str, Any],
    results: Mapping[str, Any],
    provenance: Mapping[str, str],
    sheets: Mapping[tuple[str, int], bytes],
) -> Path:
    """Write one HTML file that needs nothing else: no script, no network.

    Args:
        settings, results: of ``Generation``.
        provenance: class name -> where its phrases come from.
        sheets: (class, number) -> JPEG bytes of what was shown, where they are available.
    """
    images = {
        key: "data:image/jpeg;base64," + base64.b64encode(data).decode()
        for key, data in sheets.items()
    }
    return write_page(
        path,
        "symptoms.html.jinja",
        title=title,
        settings=settings,
        results=results,
        provenance=provenance,
        images=images,
    )
