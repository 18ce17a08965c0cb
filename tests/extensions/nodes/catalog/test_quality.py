"""Quality of slices, and their numbers in fewer bytes."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from theatrum.node import BadValue
from theatrum.nodes.catalog import normalise, quantise, slice_quality

from tests.extensions.nodes.catalog.phantoms import head, plane


def test_ct_goes_through_a_window_and_all_else_between_percentiles() -> None:
    hounsfield = (head() - 4000).assign_attrs(modality="CT")
    shown = normalise(hounsfield, ct_centre=0, ct_width=2000)
    assert np.allclose(shown, np.clip((hounsfield + 1000) / 2000, 0, 1), atol=1e-6)
    assert 0 < shown.attrs["clipped_percent"] < 100
    assert "range" in normalise(plane()).attrs


@pytest.mark.parametrize(
    ("to", "error"), [("uint8", 1 / 255), ("uint16", 1 / 65535), ("float16", 1e-3)]
)
def test_values_are_kept_as_exactly_as_their_bytes_allow(to: str, error: float) -> None:
    image = normalise(plane())
    kept = quantise(image, to=to)
    assert kept.dtype == to
    back = kept.astype(float) * kept.attrs.get("stored_slope", 1.0)
    assert float(abs(back - image).max()) <= error
    with pytest.raises(BadValue, match="not within 0 to 1"):
        quantise(plane(), to="uint16")


def test_blank_slices_are_counted_and_left_and_right_are_never_proven() -> None:
    stack = xr.DataArray(
        np.zeros((10, 8, 8), np.float32),
        dims=("z", "y", "x"),
        attrs={"orientation": "LPS", "clipped_percent": 9.0, "warnings": ["a gap"]},
    )
    stack.values[3:] = 0.5
    found = slice_quality(stack)
    assert found.slices == 10
    assert found.blank_percent == pytest.approx(30)
    assert found.orientation_known
    assert found.left_right == "by the affine, not proven"
    assert found.remarks.startswith("a gap; 9.0 %")
    assert slice_quality(stack.assign_attrs(orientation="")).left_right == "unknown"
