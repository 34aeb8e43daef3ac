"""HTML files from templates; a file needs nothing else."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from core.files import atomic_write

TEMPLATES = Path(__file__).resolve().parent / "templates"


def write_page(path: str | Path, template: str, **values: Any) -> Path:
    """Render one of the templates and write it; the file is complete or absent."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,  # names of classes and files come from outside
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))
    with atomic_write(path) as file:
        file.write(environment.get_template(template).render(style=style, **values))
    return Path(path)
