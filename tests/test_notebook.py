"""The notebook runs from its first cell to its last."""

from pathlib import Path

import pytest

from tests import processes

NOTEBOOK = Path(__file__).parent.parent / "docs" / "first_steps.ipynb"


def _read():
    nbformat = pytest.importorskip("nbformat")
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_kept_without_what_it_printed():
    notebook = _read()

    assert not [cell for cell in notebook.cells if cell.cell_type == "code" and (cell.outputs or cell.execution_count)]


@pytest.mark.slow
def test_the_notebook_tunes_shows_its_curve_and_labels_arrays(tmp_path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("XLA_FLAGS", processes.xla_flags(1))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = _read()

    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()

    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert "24 classes, 192 images to train on, 638 to test" in shown
    assert "% of the test images, 282 queries" in shown
    assert len([output for output in outputs if "image/png" in output.get("data", {})]) == 2
