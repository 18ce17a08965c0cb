"""The viewer's kernel half, without a browser: what it tells the map, and its marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ipyleaflet
import pytest
from theatrum import SlideViewer, open_image
from theatrum.errors import BadMarks
from theatrum.image import Image
from theatrum.viewer import _base_magnification, _fit, _magnifications

from tests import slides
from tests.slides import SlideSpec

SPEC = SlideSpec(width=3000, height=2000, downsamples=(1, 4), tile=256)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    folder = tmp_path_factory.mktemp("slides")
    return open_image(slides.write_slide(folder / "slide.svs", SPEC))


@pytest.fixture(scope="module")
def unmeasured(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """A slide that knows neither its resolution nor its objective."""
    folder = tmp_path_factory.mktemp("slides")
    return open_image(slides.write_slide(folder / "plain.tiff", slides.WHOLE_STREAMS))


def point(x: float, y: float, **more: object) -> dict[str, Any]:
    geometry = {"type": "Point", "coordinates": [x, y]}
    return {"type": "Feature", "geometry": geometry, **more}


def collection(*features: dict[str, Any]) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": list(features)}


def at(viewer: SlideViewer) -> list[list[float]]:
    return [f["geometry"]["coordinates"] for f in viewer.marks["features"]]


def test_the_slide_is_the_map_s_only_layer_on_the_plane_of_the_contract(
    image: Image,
) -> None:
    viewer = SlideViewer(image)
    (tiles,) = viewer.map.layers
    assert tiles.url == image.tiles
    assert viewer.map.crs == ipyleaflet.projections.Simple
    assert (viewer.map.min_zoom, viewer.map.max_zoom) == (-4, 2)
    zooms = (tiles.min_zoom, tiles.max_zoom, tiles.min_native_zoom)
    assert zooms == (-4, 2, -4)
    assert (tiles.max_native_zoom, tiles.zoom_offset, tiles.tile_size) == (0, 4, 256)
    assert tiles.bounds == [(-2000, 0), (0, 3000)]
    assert not tiles.detect_retina


def test_the_whole_slide_fits_before_the_browser_says_how_large_the_map_is(
    image: Image,
) -> None:
    assert _fit(image, (900, 600)) == ((-1000, 1500), -2)
    assert _fit(image, (749, 600)) == ((-1000, 1500), -3)
    assert _fit(image, (100_000, 100_000))[1] == 2
    assert _fit(image, (10, 10))[1] == -4
    viewer = SlideViewer(image, height="600px")
    assert (viewer.map.center, viewer.map.zoom) == ([-1000, 1500], -2)


def test_a_place_and_a_magnification_can_be_gone_to(image: Image) -> None:
    viewer = SlideViewer(image)
    viewer.goto(1200, 700, magnification=10)
    assert (viewer.map.center, viewer.map.zoom) == ([-700, 1200], -1)
    viewer.goto(10, 20)
    assert (viewer.map.center, viewer.map.zoom) == ([-20, 10], -1)
    viewer.goto(10, 20, magnification=1000)
    assert viewer.map.zoom == 2
    viewer.fit()
    assert (viewer.map.center, viewer.map.zoom) == ([-1000, 1500], -2)


def test_magnification_comes_from_the_objective_else_the_resolution_else_nothing(
    image: Image, unmeasured: Image
) -> None:
    assert _base_magnification(image) == 20
    labels = [step["label"] for step in _magnifications(image)]
    assert labels == ["1.25×", "2.5×", "5×", "10×", "20×"]
    assert _base_magnification(unmeasured) is None
    assert _magnifications(unmeasured)[-2:] == [
        {"zoom": -1, "label": "1:2"},
        {"zoom": 0, "label": "1:1"},
    ]
    viewer = SlideViewer(unmeasured)
    with pytest.raises(ValueError, match="not known"):
        viewer.goto(0, 0, magnification=10)


def test_marks_keep_their_ids_and_tell_their_observers(image: Image) -> None:
    viewer = SlideViewer(image, marks=collection(point(1, 2, id="a")))
    told: list[dict[str, Any]] = []
    viewer.observe(lambda change: told.append(change.new), "marks")
    drawn = viewer._draw.data[0]  # type: ignore[union-attr]
    assert drawn["geometry"]["coordinates"] == [1, -2]
    moved = {**drawn, "geometry": {"type": "Point", "coordinates": [3, -4]}}
    viewer._draw.data = [moved]  # type: ignore[union-attr]
    assert viewer.marks["features"][0]["id"] == "a"
    assert at(viewer) == [[3, 4]]
    assert len(told) == 1


def test_each_change_of_the_marks_can_be_undone_and_redone(image: Image) -> None:
    viewer = SlideViewer(image)
    viewer.undo()
    for x in (1.0, 2.0, 3.0):
        viewer.marks = collection(point(x, 0))
    viewer.undo()
    viewer.undo()
    assert at(viewer) == [[1, 0]]
    viewer.redo()
    assert at(viewer) == [[2, 0]]
    viewer.marks = collection()
    viewer.redo()
    assert at(viewer) == []
    viewer.undo()
    assert at(viewer) == [[2, 0]]
    assert len(viewer._draw.data) == 1  # type: ignore[union-attr]


def test_of_too_many_marks_the_newest_stays(image: Image) -> None:
    viewer = SlideViewer(image, max_marks=1)
    viewer.marks = collection(point(1, 1), point(2, 2))
    assert at(viewer) == [[2, 2]]
    extra = point(3, -3, properties={"type": "marker"})
    viewer._draw.data = [*viewer._draw.data, extra]  # type: ignore[union-attr]
    assert at(viewer) == [[3, 3]]
    assert len(viewer._draw.data) == 1  # type: ignore[union-attr]


def test_wrong_arguments_are_refused_with_what_is_allowed(image: Image) -> None:
    with pytest.raises(ValueError, match="rectangle, polygon, point"):
        SlideViewer(image, tools=("circle",))
    with pytest.raises(ValueError, match="at least 1"):
        SlideViewer(image, max_marks=0)
    viewer = SlideViewer(image)
    with pytest.raises(BadMarks):
        viewer.marks = {"type": "Feature"}
    assert at(viewer) == []


def test_a_file_that_is_not_there_gives_a_message_and_no_traceback(
    tmp_path: Path,
) -> None:
    viewer = SlideViewer(tmp_path / "<b>gone.svs")
    (message,) = viewer.children
    assert 'role="alert"' in message.value
    assert "&lt;b&gt;gone.svs" in message.value
    assert viewer.map is None
    viewer.marks = collection(point(1, 1))
    viewer.goto(1, 1)
    assert at(viewer) == [[1, 1]]
