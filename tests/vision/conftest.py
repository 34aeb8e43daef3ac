"""A server on the loopback that sees: it answers by the colour of the last image it is shown."""

import base64
import io
import json
import threading

import numpy as np
import pytest
from PIL import Image
from symptom_generation.server import ChatServer

from vision_llm.__main__ import main

KEY = "sk-test-8f2b1c7d9e"
WARM, COLD = "warm color like blood", "cold color like the sea"
SIGNS = sorted(
    [WARM, "the color of a tomato", "no blue at all", COLD, "the color of the sky"]
)  # of the symptoms of `toy`


def shown_images(body):
    """The images of a request, in their order."""
    parts = [
        part
        for message in body["messages"]
        if not isinstance(message["content"], str)
        for part in message["content"]
    ]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return [
        Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/jpeg;base64,"))))
        for url in urls
    ]


def is_red(image):
    red, _, blue = np.asarray(image, dtype=float).mean((0, 1))
    return red > blue


class SeeingServer(ChatServer):
    """Answers both steps for pictures that are rather red or rather blue."""

    def __init__(self):
        super().__init__({})

    def answer(self, text):
        red = is_red(shown_images(self.requests[-1][1])[-1])
        if "Signs:" in text:
            listed = text.partition("Signs:\n")[2].splitlines()
            signs = [line.partition(". ")[2] for line in listed]
            warm = {WARM, "the color of a tomato", "no blue at all"}
            return json.dumps(
                {
                    "signs": [
                        {
                            "number": number,
                            "answer": "present" if (sign in warm) == red else "absent",
                            "confidence": 0.9,
                        }
                        for number, sign in enumerate(signs, start=1)
                    ]
                }
            )
        chance = 0.8 if red else 0.1
        classes = [
            {"class": "red", "probability": chance},
            {"class": "blue", "probability": round(1 - chance, 3)},
        ]
        return json.dumps({"classes": classes})


@pytest.fixture
def server(monkeypatch):
    """A running server, named with a key in the environment."""
    server = SeeingServer()
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def ask(server, toy):
    """Run the command on `toy`'s 12 test images; returns the run's folder."""

    def run(*options, upload=True, output="run"):
        folder = toy / output
        argv = ["--dataset", str(toy / "toy.yaml"), "--root", str(toy / "data")]
        argv += ["--model", "seer", "--modality", "squares", "--output-dir", str(folder)]
        argv += ["--upload-images"] if upload else []
        assert main([*argv, "--retries", "2", "--timeout", "5", *options]) == 0
        return folder

    return run
