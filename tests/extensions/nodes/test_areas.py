"""Several areas measured: each by itself, exact where geometry is exact."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from theatrum import open_image
from theatrum.node import ArrayImage, BadValue, Cancelled, Context, Polygon
from theatrum.nodes import measure_areas
from theatrum.nodes.areas import _sums
from theatrum.nodes.raster import raster_at
from theatrum.nodes.stains import colour
from theatrum.nodes.tissue import learned

from tests.extensions.nodes.pictures import blank, noisy, rectangle

EOSIN = colour(0.1, 0.5, "h-e")


def _slide(mpp: float | None = 0.5) -> ArrayImage:
    """Tissue from x = 400 on."""
    array = blank(1600, 1200)
    array[:, 400:] = EOSIN
    return ArrayImage(noisy(array), mpp)


def test_each_area_has_a_row_with_its_own_numbers() -> None:
    full, half = rectangle(600, 100, 1000, 500), rectangle(200, 600, 600, 800)
    found = measure_areas.run({"image": _slide(), "polygons": [full, half]})
    first, second = found["table"].rows()
    assert first["area"] == 1
    assert first["size"] == pytest.approx(400 * 400 * 0.25e-6)
    assert first["perimeter"] == pytest.approx(1600 * 0.0005)
    assert first["tissue"] == pytest.approx(100, abs=0.1)
    assert first["eosin"] == pytest.approx(0.5, abs=0.02)
    assert first["haematoxylin"] == pytest.approx(0.1, abs=0.02)
    assert second["perimeter"] == pytest.approx(1200 * 0.0005)
    assert second["tissue"] == pytest.approx(50, abs=1)
    assert second["eosin"] == pytest.approx(0.25, abs=0.03)
    assert found["total_mm2"] == pytest.approx((160_000 + 80_000) * 0.25e-6)
    assert found["tissue_mm2"] == pytest.approx((160_000 + 40_000) * 0.25e-6, rel=0.01)
    assert found["table"].units["size"] == "mm2"


def test_a_circle_has_the_area_and_perimeter_of_a_circle() -> None:
    angle = np.linspace(0, 2 * math.pi, 500, endpoint=False)
    circle = Polygon(
        np.stack([900 + 300 * np.cos(angle), 600 + 300 * np.sin(angle)], 1)
    )
    (row,) = measure_areas(_slide(), [circle]).table.rows()
    assert row["size"] == pytest.approx(math.pi * 0.15**2, rel=1e-3)
    assert row["perimeter"] == pytest.approx(2 * math.pi * 0.15, rel=1e-3)


def test_what_lies_beside_the_slide_is_left_out() -> None:
    found = measure_areas(_slide(), [rectangle(1400, 1000, 3000, 3000)])
    (row,) = found.table.rows()
    assert row["size"] == pytest.approx(200 * 200 * 0.25e-6)
    assert row["perimeter"] == pytest.approx(800 * 0.0005)
    assert found.areas[0].bounds == (1400, 1000, 1600, 1200)


@settings(max_examples=5, deadline=None)
@given(st.floats(0, 700), st.floats(0, 700), st.floats(20, 400), st.floats(20, 400))
def test_size_and_perimeter_do_not_depend_on_the_place(
    x: float, y: float, width: float, height: float
) -> None:
    (row,) = measure_areas(
        _SLIDE, [rectangle(x, y, x + width, y + height)]
    ).table.rows()
    assert row["size"] == pytest.approx(width * height * 0.25e-6)
    assert row["perimeter"] == pytest.approx(2 * (width + height) * 0.0005)


_SLIDE = _slide()


@pytest.mark.parametrize("edge", [33, 128, 1000])
def test_the_pixels_of_an_area_do_not_depend_on_the_tiles(edge: int) -> None:
    slide = _slide()
    raster = raster_at(slide, 1.0)
    rule = learned(slide.array)
    area = Polygon([(100, 50), (1500, 300), (900, 1100), (300, 900)])
    wanted = _sums(raster, [area], rule, "h-e", Context())
    found = _sums(raster, [area], rule, "h-e", Context(), edge)
    assert (found.pixels, found.tissue) == (wanted.pixels, wanted.tissue)
    assert found.second == pytest.approx(wanted.second)


def test_a_slide_without_a_scale_has_no_sizes() -> None:
    found = measure_areas.run(
        {"image": _slide(None), "polygons": [rectangle(600, 100, 1000, 500)]}
    )
    assert list(found["table"].columns) == ["area", "tissue", "haematoxylin", "eosin"]
    assert "total_mm2" not in found


def test_a_pixel_that_is_not_square_is_measured_as_it_is() -> None:
    class Oblong(ArrayImage):
        @property
        def mpp_y(self) -> float | None:
            return 1.0

    slide = Oblong(_slide().array, 0.5)
    (row,) = measure_areas(slide, [rectangle(600, 100, 1000, 300)]).table.rows()
    assert row["size"] == pytest.approx(0.2 * 0.2)
    assert row["perimeter"] == pytest.approx(0.8)


def test_an_area_smaller_than_a_pixel_has_a_size_only() -> None:
    (row,) = measure_areas(
        _slide(), [rectangle(600.1, 100.1, 600.4, 100.4)]
    ).table.rows()
    assert row["size"] == pytest.approx(0.09 * 0.25e-6)
    assert row["tissue"] is None


def test_no_area_and_an_area_beside_the_slide_are_refused() -> None:
    with pytest.raises(BadValue, match="draw at least one"):
        measure_areas(_slide(), [])
    with pytest.raises(BadValue, match="draw it anew"):
        measure_areas(_slide(), [rectangle(5000, 0, 6000, 10)])


def test_progress_rises_and_a_cancel_stops() -> None:
    told: list[float] = []
    areas = [rectangle(0, 0, 1600, 1200)] * 3
    measure_areas(_slide(), areas, context=Context(lambda one, _: told.append(one)))
    assert told == sorted(told)
    assert told[-1] == 1.0
    with pytest.raises(Cancelled):
        measure_areas(_slide(), areas, context=Context(is_cancelled=lambda: True))


def test_areas_of_a_real_slide_are_tissue_or_glass(shared_data: Path) -> None:
    slide = open_image(shared_data / "wsi" / "CMU-1-Small-Region.svs")
    areas = [rectangle(700, 2300, 1000, 2700), rectangle(50, 2000, 300, 2800)]
    tissue, glass = measure_areas(slide, areas).table.rows()
    assert tissue["tissue"] > 80  # type: ignore[operator]  # a number
    assert glass["tissue"] < 3  # type: ignore[operator]  # a number
    assert tissue["eosin"] > 3 * glass["eosin"]  # type: ignore[operator]  # numbers
