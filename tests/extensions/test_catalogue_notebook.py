"""The notebook on the catalogue runs top to bottom, in any JupyterLab."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = (
    Path(__file__).resolve().parents[2] / "notebooks" / "examples" / "catalogue.ipynb"
)


def test_the_notebook_goes_from_a_question_to_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=200, kernel_name="python3").execute()
    shown = {
        cell.id: str([one.get("data", one.get("text")) for one in cell.outputs])
        for cell in notebook.cells
        if cell.cell_type == "code"
    }
    assert "'taken': 3" in shown["ingest"]
    assert "SELECT" in shown["ask"]
    assert "image/png" in shown["look"]
    assert "2.0" in shown["sizes"]
    assert "'succeeded': 3" in shown["run"]
    assert shown["results"].count("900") == 3
    assert "<svg" in shown["flow"]
    assert shown["numbers"].count(", 1)") == 3, "one body in each scan"
    assert "sub-1_T1w.nii.gz" in shown["lineage"]
