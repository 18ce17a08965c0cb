"""The focus map: blur is found where it is, whatever the tissue's contrast."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage
from theatrum import open_image
from theatrum.node import ArrayImage, Cancelled, Context
from theatrum.nodes import focus_map
from theatrum.nodes.focus import BLURRED_BELOW, SHARP_FROM, sharpness

from tests.extensions.nodes.pictures import GLASS, large_tissue


def _tissue(width: int = 2048, height: int = 1536) -> npt.NDArray[np.float64]:
    """Tissue of grains of all sizes, as sharp as a scanner's pictures of it."""
    rng = np.random.default_rng(3)
    grains = sum(
        size * ndimage.gaussian_filter(rng.normal(size=(height, width)), size)
        for size in (0.8, 2, 5, 12)
    )
    grains = 18 * grains / grains.std()
    return np.stack([195 + grains, 130 + 1.4 * grains, 185 + 0.8 * grains], axis=2)


def _picture(array: npt.NDArray[np.float64]) -> ArrayImage:
    return ArrayImage(array.clip(0, 255).astype(np.uint8), mpp=0.5)


def _blurred(array: npt.NDArray[np.float64], sigma: float) -> npt.NDArray[np.float64]:
    return np.asarray(ndimage.gaussian_filter(array, (sigma, sigma, 0)))


def test_a_sharp_slide_is_fit_for_use() -> None:
    found = focus_map.run({"image": _picture(_tissue())})
    assert found["sharp"] == 100
    assert found["blurred"] == 0
    assert found["judged"] == 4  # cells of 1024 pixels; the last row is half a cell
    assert found.quality is not None
    assert found.quality.verdict == "QualityOk"


def test_a_blurred_slide_is_rejected_with_the_reason() -> None:
    found = focus_map.run({"image": _picture(_blurred(_tissue(), 3))})
    assert found["blurred"] == 100
    assert found.quality is not None
    assert found.quality.verdict == "Rejected"
    assert "100 % of the tissue is blurred" in found.quality.reason


def test_the_map_shows_which_cells_are_blurred() -> None:
    array = _tissue()
    array[:, 1024:] = _blurred(array, 3)[:, 1024:]
    cells = focus_map(_picture(array), cell_um=128).cells
    assert cells.outlines is not None
    right = cells.points[:, 0] > 1024
    assert np.array_equal(cells.classes == 2, right)
    assert set(cells.classes[~right]) == {0}
    assert len(cells) == 8 * 6
    assert sum(one.area_px for one in cells.outlines) == 2048 * 1536
    assert len(cells.class_colours) == len(cells.class_names) == 3


def test_sharpness_falls_with_blur_and_does_not_follow_contrast() -> None:
    array = _tissue(512, 512)
    scores = []
    for sigma in (0, 0.5, 1, 1.5, 2, 3, 5):
        seen = array if sigma == 0 else _blurred(array, sigma)
        scores.append(sharpness(_picture(seen).array))
    assert all(score is not None for score in scores)
    assert scores == sorted(scores, reverse=True)  # type: ignore[type-var]  # no None
    pale = 215 + (array - array.mean()) / 3
    full = sharpness(_picture(array).array)
    assert sharpness(_picture(pale).array) == pytest.approx(full, rel=0.15)


def test_nothing_is_judged_where_there_is_nothing_to_see() -> None:
    glass = np.full((900, 1200, 3), GLASS, np.uint8)
    found = focus_map.run({"image": ArrayImage(glass, mpp=0.5)})
    assert found["judged"] == 0
    assert found.quality is None
    assert len(found["cells"]) == 0
    assert sharpness(glass[:256, :256]) is None


def test_a_coarse_scan_is_not_judged() -> None:
    coarse = ArrayImage(_picture(_tissue()).array, mpp=2.0)
    found = focus_map.run({"image": coarse})
    assert found["judged"] == 0
    assert found.quality is None


def test_more_blur_may_be_allowed() -> None:
    image = _picture(_blurred(_tissue(), 3))
    allowed = focus_map(image, most_blurred=100).quality
    assert allowed is not None
    assert allowed.verdict == "QualityOk"


def test_a_large_slide_is_sampled_with_progress_in_bounded_memory() -> None:
    told: list[float] = []
    image = large_tissue(60_000, 40_000)
    tracemalloc.start()
    focus_map(image, cell_um=1000, context=Context(lambda share, _: told.append(share)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < focus_map.resources.memory_bytes
    assert told == sorted(told)
    assert told[-1] == 1.0
    # A field of 256 x 256 of each cell of 2000 x 2000 pixels, and the coarse look.
    assert image.pixels_read < 60_000 * 40_000 / 20


def test_a_cancel_stops_between_two_fields() -> None:
    image = _picture(_tissue())
    seen: list[str] = []

    def on_progress(_share: float, text: str) -> None:
        seen.append(text)

    def is_cancelled() -> bool:
        return seen.count("judging the focus") >= 3

    with pytest.raises(Cancelled):
        focus_map(image, cell_um=128, context=Context(on_progress, is_cancelled))
    assert seen.count("judging the focus") == 3


def test_real_slides_are_sharp_until_they_are_blurred(shared_data: Path) -> None:
    for name in ("CMU-1-Small-Region.svs", "TCGA-CR-7395-01A-01-TS1.svs"):
        slide = open_image(shared_data / "wsi" / name)
        width, height = min(slide.width, 2000), min(slide.height, 2000)
        array = np.asarray(slide.region(0, 0, width, height)).astype(np.float64)
        found = focus_map(_picture(array), cell_um=256)
        assert found.blurred == 0
        assert found.sharpness is not None
        assert found.sharpness > SHARP_FROM
        worse = focus_map(_picture(_blurred(array, 2.5)), cell_um=256)
        assert worse.sharpness is not None
        assert worse.sharpness < BLURRED_BELOW
        assert worse.quality is not None
        assert worse.quality.verdict == "Rejected"
