"""The notebook on contours runs top to bottom, on a drawn chest and a real scan."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from theatrum.structures import Drawn, series_geometry, structure_set

from tests.extensions.structures.series import ct_series
from tests.tile_server.test_dicom_series import written

NOTEBOOK = (
    Path(__file__).resolve().parents[2] / "notebooks" / "examples" / "contouring.ipynb"
)
SPACING_MM = 3.0


def chest(folder: Path) -> None:
    """A body with two lungs and a spine, and the lungs as a person drew them."""
    slices, rows, columns = 8, 90, 130
    y, x = np.mgrid[:rows, :columns] * SPACING_MM

    def ellipse(at: tuple[float, float], radii: tuple[float, float]) -> np.ndarray:
        return ((x - at[0]) / radii[0]) ** 2 + ((y - at[1]) / radii[1]) ** 2 <= 1

    right, left = ellipse((120, 135), (50, 70)), ellipse((270, 135), (50, 70))
    hu = np.full((rows, columns), -1000)
    hu[ellipse((195, 135), (170, 110))] = 40
    hu[left | right] = -750
    hu[ellipse((195, 215), (15, 15))] = 500
    noise = np.random.default_rng(5).normal(0, 15, (slices, rows, columns))
    pixels = np.clip(hu[None] + noise, -1024, 3000).astype(int)
    images = ct_series(
        slices, rows, columns, (SPACING_MM, SPACING_MM), 4.0, pixels=pixels
    )
    written(folder / "CT", images)
    made = structure_set(
        [
            Drawn("Lung_L", np.repeat(left[None], slices, axis=0)),
            Drawn("Lung_R", np.repeat(right[None], slices, axis=0)),
        ],
        images,
        series_geometry(images),
        label="manual",
        series_description="manual",
        made_at=datetime(2026, 3, 17, tzinfo=UTC),
    )
    made.save_as(folder / "RTSTRUCT.dcm", enforce_file_format=True)


def _run(folder: Path) -> dict[str, str]:
    """What each cell of the notebook shows, by its id."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return {
        cell.id: "\n".join(
            one.get("text") or one.get("data", {}).get("text/plain", "")
            for one in cell.get("outputs", [])
        )
        for cell in notebook.cells
    }


def _dices(shown: str) -> list[float]:
    return [float(line.split()[2]) for line in shown.splitlines()[1:]]


def test_it_runs_on_a_drawn_chest(tmp_path: Path) -> None:
    chest(tmp_path)
    shown = _run(tmp_path)
    assert "CT, 130 x 90 x 8 voxels" in shown["open"]
    assert "Lung_L: 8 contours" in shown["contours"]
    assert "SliceViewer" in shown["look"]
    assert min(_dices(shown["compare"])) > 0.95
    assert int(shown["made"].split()[0]) > 500


@pytest.mark.long
def test_it_runs_on_the_phantom(tmp_path: Path, shared_data: Path) -> None:
    folder = shared_data / "ct_rtstruct" / "alderson_lungs"
    shutil.copytree(folder / "CT", tmp_path / "CT")
    shutil.copy(folder / "RS_matched.dcm", tmp_path / "RTSTRUCT.dcm")
    assert min(_dices(_run(tmp_path)["compare"])) >= 0.95
