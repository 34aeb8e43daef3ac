import threading

import numpy as np
import pytest
from PIL import Image

from .server import ChatServer

KEY = "sk-test-8f2b1c7d9e"
ANSWERS = {
    "melanoma": {
        "text": "Here is what helps:\n\n"
        "- **Asymmetry**: One half is unlike the other half.\n"
        "- **Ragged borders**: The edges are ragged, notched or blurred. They fade.\n"
        "- **Several colors**: Shades of brown, black, red and blue in one spot.\n"
        "- **Growth**: The spot has grown over the last months.\n"
        "- Melanoma spots are often large.\n",
        "pictures": [
            "The spots have an asymmetry of color; edges are ragged and notched.",
            "Colors: several brown and black shades. Borders are ragged.",
            "1. Ragged, blurred edges.\n2. Dark colors, brown to black.",
        ],
    },
    "nevus": {
        "text": "* The spot is symmetric on both sides.\n* The edges are clear and well-defined.\n"
        "* The color is consistent, a single brown or tan.\n",
        "pictures": ["Symmetric round spots with clear, well-defined edges, consistent brown."] * 3,
    },
}


@pytest.fixture
def server(monkeypatch):
    """A running chat server, named with a key in the environment."""
    server = ChatServer({name: dict(entry) for name, entry in ANSWERS.items()})
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def images(tmp_path):
    """20 small pictures of each class, with a patient's name and EXIF notes."""
    generator = np.random.default_rng(0)
    for classname in ANSWERS:
        folder = tmp_path / "images" / classname
        folder.mkdir(parents=True)
        for number in range(20):
            pixels = generator.integers(0, 255, (32, 40, 3), dtype=np.uint8)
            picture = Image.fromarray(pixels)
            exif = picture.getexif()
            exif[0x010E] = "patient Jane Roe"
            picture.save(folder / f"jane_roe_{number}.jpg", exif=exif)
    return tmp_path / "images"
