"""The notebook that shows a node of one's own: it runs, and its line makes an app."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from scipy import ndimage

from services.ia_api.apps import registered
from services.ia_api.settings import read
from tests import slides

NOTEBOOK = (
    Path(__file__).resolve().parents[3] / "notebooks" / "examples" / "own_node.ipynb"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a slide, in which the notebook was run."""
    folder = tmp_path_factory.mktemp("own_node")
    slides.write_slide(folder / "slide.svs", slides.YCBCR)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    nbformat.write(notebook, folder / "run.ipynb")
    return folder


def _answer(folder: Path, cell_id: str) -> str:
    """What a cell of the run notebook shows."""
    notebook = nbformat.read(folder / "run.ipynb", as_version=4)
    (cell,) = [one for one in notebook.cells if one.id == cell_id]
    shown = [
        one.get("text") or one.get("data", {}).get("text/plain", "")
        for one in cell.outputs
    ]
    return "\n".join(shown)


def test_it_runs_from_top_to_bottom_and_finds_the_spots(folder: Path) -> None:
    count = int(_answer(folder, "try").strip("( ").split(",")[0])
    dark = slides.picture(1000, 700).mean(axis=2) < 80
    pieces, _ = ndimage.label(dark)
    drawn = int((np.bincount(pieces.ravel())[1:] >= 20).sum())
    # The slide is stored as JPEG: a spot at the limit may fall to either side.
    assert count == pytest.approx(drawn, rel=0.1)
    assert "Map(" in _answer(folder, "look") or "SlideViewer" in _answer(folder, "look")


def test_it_shows_what_is_refused_and_the_schema(folder: Path) -> None:
    refused = _answer(folder, "refused")
    for part in ("'image'", "'darker_than'", "'colour'"):
        assert part in refused
    assert "'maximum': 255" in _answer(folder, "schema")


def test_its_one_line_of_configuration_makes_the_node_an_app(folder: Path) -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    (toml,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    table = tomllib.loads(toml)
    apps = registered(read(table["ia_api"]), folder)
    assert apps["dark-spots"].title == "Dark spots"
    assert apps["dark-spots"].input == "wholeSlide"
    assert "dark-spots" in _answer(folder, "app")
