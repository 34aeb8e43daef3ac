"""HTML files from templates; a file needs nothing else."""

import base64
import io
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from core.files import atomic_write
from datasets.dicom import DEFAULT, Rendering
from datasets.pictures import read_picture

TEMPLATES = Path(__file__).resolve().parent / "templates"
THUMBNAIL = 224  # pixels of an image's longer side


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


def thumbnail(path: str | Path, rendering: Rendering = DEFAULT) -> tuple[str, tuple[int, int]]:
    """A small copy of an image as a data: address, and its size; of DICOM in the window given."""
    image = read_picture(path, rendering=rendering)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=88)
    data = base64.b64encode(stream.getvalue()).decode()
    return f"data:image/jpeg;base64,{data}", image.size
