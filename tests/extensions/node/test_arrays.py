"""Labelled arrays at the ports of nodes: constraints, files, lines, lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
import xarray as xr
from theatrum.node import (
    Array,
    Axes,
    BadInputs,
    BadNode,
    BadOutputs,
    BadValue,
    Channels,
    Context,
    Dims,
    DType,
    File,
    Line,
    Modality,
    Placed,
    Spacing,
    node,
    spacing_of,
)


def volume(**attrs: object) -> xr.DataArray:
    return xr.DataArray(
        np.zeros((2, 3, 4)), dims=("z", "y", "x"), attrs={"modality": "MR", **attrs}
    )


@node
def doubled(image: Annotated[Array, Dims("... y x")]) -> Array:
    """Twice as bright."""
    return image * 2


def test_a_labelled_array_goes_in_and_out_without_being_read() -> None:
    lazy = volume().chunk({"z": 1})
    out = doubled.run({"image": lazy})["result"]
    assert out.chunks is not None


@pytest.mark.parametrize(
    ("asked", "has", "fits"),
    [
        ("z y x", ("z", "y", "x"), True),
        ("z y x", ("y", "x"), False),
        ("... y x", ("t", "c", "y", "x"), True),
        ("... y x", ("x", "y"), False),
        ("[c] y x", ("y", "x"), True),
        ("[c] y x", ("c", "y", "x"), True),
        ("[c] y x", ("z", "y", "x"), False),
    ],
)
def test_axes_are_held_against_what_a_port_asks(
    asked: str, has: tuple[str, ...], fits: bool
) -> None:
    array = xr.DataArray(np.zeros((1,) * len(has)), dims=has)
    assert (Dims(asked).problem(array) is None) is fits


def test_ports_that_can_never_fit_are_told_before_anything_runs() -> None:
    assert Dims("z y x").clash([Dims("y x")]) is not None
    assert Dims("... y x").clash([Dims("c y x")]) is None
    assert Axes("z").clash([Dims("[c] y x")]) is not None
    assert DType("integer").clash([DType("float")]) is not None
    assert DType("whole").clash([DType("integer")]) is None
    assert Channels(3, 3).clash([Channels(1, 1)]) is not None
    assert Placed().clash([Dims("y x")]) is not None
    assert Modality("CT").clash([Modality("MR")]) is not None


def test_an_array_that_breaks_a_constraint_is_refused_with_the_reason() -> None:
    @node
    def needs_ct(
        scan: Annotated[Array, Modality("CT"), Placed()],
    ) -> int:
        """Count."""
        return int(scan.size)

    with pytest.raises(BadInputs, match="modality MR, but CT"):
        needs_ct.run({"scan": volume()})
    with pytest.raises(BadInputs, match="where it lies"):
        needs_ct.run({"scan": volume(modality="CT")})


def test_an_output_is_held_to_its_promise() -> None:
    @node
    def flat(image: Array) -> Annotated[Array, Dims("y x")]:
        """Say flat, give deep."""
        return image

    with pytest.raises(BadOutputs, match="axes z y x"):
        flat.run({"image": volume()})


def test_a_list_of_arrays_is_checked_one_by_one() -> None:
    @node
    def total(images: Annotated[Sequence[Array], Axes("z")]) -> int:
        """Count."""
        return len(images)

    assert total.run({"images": [volume(), volume()]})["result"] == 2
    with pytest.raises(BadInputs, match="no axis z"):
        total.run({"images": [volume(), volume().isel(z=0)]})


def test_spacing_is_told_by_the_affine_or_by_coordinates_with_units() -> None:
    placed = volume(affine=np.diag([2.0, 3.0, 4.0, 1.0]).tolist())
    assert spacing_of(placed) == {"x": 2.0, "y": 3.0, "z": 4.0}
    scaled = volume().assign_coords(x=("x", np.arange(4) * 0.5, {"units": "um"}))
    assert spacing_of(scaled) == {"x": 0.0005, "y": None, "z": None}
    assert Spacing(3.0).problem(placed) is not None
    assert Spacing(4.0).problem(placed) is None


def test_a_node_writes_its_files_where_its_context_says(tmp_path: Path) -> None:
    @node(kind="export")
    def note(image: Array, *, context: Context | None = None) -> File:
        """Write the axes down."""
        path = (context or Context()).path("../axes.txt")
        path.write_text(" ".join(map(str, image.dims)))
        return File(path, "text/plain")

    found = note.run({"image": volume()}, context=Context(folder=tmp_path / "out"))
    assert found["result"].path == tmp_path / "out" / "axes.txt"
    assert found["result"].path.read_text() == "z y x"
    with pytest.raises(BadValue, match="wrote no"):
        File(tmp_path / "absent", "text/plain")


def test_several_values_may_be_a_parameter_but_not_several_objects() -> None:
    @node
    def scaled(
        image: Array,
        *,
        by: tuple[float, float] = (1, 2),
        names: dict[str, int] | None = None,
    ) -> Array:
        """Scale."""
        return image * by[0] * len(names or {})

    assert scaled.parameters["properties"]["by"]["type"] == "array"
    assert scaled.checked_parameters({"by": [2, 3]})["by"] == (2.0, 3.0)
    with pytest.raises(BadNode, match="'by'"):

        @node
        def broken(image: Array, *, by: tuple[bytes, ...] = ()) -> Array:
            """Scale."""
            return image


def test_a_line_has_a_length_in_any_unit() -> None:
    line = Line([(0, 0), (3, 4), (3, 10)])
    assert line.length() == 11
    assert line.length(2, 0.5) == pytest.approx(np.hypot(6, 2) + 3)
    with pytest.raises(BadValue, match="two points"):
        Line([(0, 0)])
