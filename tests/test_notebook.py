"""The notebook in docs/ runs from its first cell to its last, on any run of symptoms."""

import nbformat
import pytest
from nbclient import NotebookClient


def test_notebook_runs(toy_run, checkout, monkeypatch):
    """On a toy run; its outputs are there and none is an error."""
    notebook = nbformat.read(checkout / "docs" / "explain.ipynb", as_version=4)
    monkeypatch.setenv("RUN", str(toy_run("ViP")))
    resources = {"metadata": {"path": str(checkout / "docs")}}

    NotebookClient(notebook, timeout=300, resources=resources).execute()

    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    text = "".join(out.get("text", "") for out in outputs)
    gap = float(text.split("the sum of its parts: ")[1].split()[0])
    assert gap == pytest.approx(0, abs=1e-4)
    assert any("image/png" in out.get("data", {}) for out in outputs)
    assert "A learned vector is not a word" in text
    assert not any(out.output_type == "error" for out in outputs)
