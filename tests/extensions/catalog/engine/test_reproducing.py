"""What a run is told to be done again by does it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from theatrum.catalog.connection import Catalog
from theatrum.catalog.engine import map_query
from theatrum.catalog.engine.reproducing import python_of
from theatrum.catalog.rows import Row
from theatrum.nodes.catalog import merge_channels, straighten_line

from tests.extensions.catalog.engine import study as nodes
from tests.extensions.catalog.engine.study import study


def _program(run: Row) -> str:
    inputs = [one.to_dict() for one in run.inputs]
    return python_of(run.node.to_dict(), run.params, inputs)


def _made(catalog: Catalog, program: str) -> Any:
    """What the program makes, in a notebook that is connected already."""
    first, connected, rest = program.partition("from theatrum import catalog\n")
    names: dict[str, Any] = {"catalog": catalog}
    assert connected
    exec(first + rest, names)  # noqa: S102  (a program of our own)
    return names["made"]


def test_a_run_over_several_images_is_done_again_with_all_of_them(
    tmp_path: Path,
) -> None:
    catalog = study(tmp_path, 3)
    scans = catalog.images.all()
    batch = map_query(scans, merge_channels, by="modality", engine="sync").wait(300)
    (merged,) = batch.results
    made = _made(catalog, _program(merged.run))
    assert made.sizes["c"] == 3
    assert np.array_equal(made, merged.array)


def test_a_run_along_a_line_is_done_again_along_it(tmp_path: Path) -> None:
    catalog = study(tmp_path, 1)
    scan = catalog.images.first()
    scan.derive("top", lambda array: array.isel(z=0, drop=True)).save("top")
    top = catalog.images.filter(name="top")
    line = top.first().add_roi("line", [[0, 1], [4, 1]])
    batch = map_query(top, straighten_line, line=line, width=1, engine="sync").wait(300)
    (made,) = batch.results
    assert np.allclose(_made(catalog, _program(made.run)), made.array)


def test_what_no_package_holds_has_no_program(tmp_path: Path) -> None:
    catalog = study(tmp_path, 1)
    batch = map_query(
        catalog.images.all(), lambda image: image * 2, engine="sync"
    ).wait(300)
    assert _program(batch.runs.first()) == ""
    run = map_query(catalog.images.all(), nodes.brightest, engine="sync").wait(300)
    assert "import brightest" in _program(run.runs.first())
