"""One page to look at before trusting generated symptoms: pictures, answers, what was kept."""

import base64

from reporting.pages import write_page


def write_symptom_page(path, title, settings, results, provenance, sheets):
    """Write one HTML file that needs nothing else: no script, no network.

    Args:
        path: the file.
        settings, results: of ``Generation``.
        provenance: class name -> where its phrases come from.
        sheets: (class, number) -> JPEG bytes of what was shown, where they are at hand.
    """
    pictures = {
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
        pictures=pictures,
    )
