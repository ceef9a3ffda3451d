"""Every notebook runs from its first cell to its last, at a tiny size."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "colab").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_headless(path, tmp_path, monkeypatch):
    monkeypatch.setenv("FLAX_ZOO_EPOCHS", "1")
    monkeypatch.setenv("FLAX_ZOO_WORKDIR", str(tmp_path / "run"))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "clear the outputs"
    client = NotebookClient(notebook, timeout=300, kernel_name="python3")
    ran = client.execute(cwd=str(tmp_path))
    said = "".join(
        output.get("text", "") for cell in ran.cells for output in cell.get("outputs", [])
    )
    assert "jax " in said and "on cpu" in said
    pictures = [
        output
        for cell in ran.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 2
    told, table = (float(word) for word in re.findall(r"(\d+\.\d+) %", said)[-2:])
    assert told == table
