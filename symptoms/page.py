"""One page to look at before trusting generated symptoms: pictures, answers, what was kept."""

import base64
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from foundation.files import atomic_write

TEMPLATE = "page.html.jinja"


def write_page(path, title, settings, results, provenance, sheets):
    """Write one HTML file that needs nothing else: no script, no network.

    Args:
        path: the file.
        settings, results: of ``Generation``.
        provenance: class name -> where its phrases come from.
        sheets: (class, number) -> JPEG bytes of what was shown, where they are at hand.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pictures = {
        key: "data:image/jpeg;base64," + base64.b64encode(data).decode()
        for key, data in sheets.items()
    }
    page = environment.get_template(TEMPLATE).render(
        title=title,
        settings=settings,
        results=results,
        provenance=provenance,
        pictures=pictures,
    )
    with atomic_write(path) as file:
        file.write(page)
