"""How the channels of an image are shown: in which colour, between which numbers.

A colour picture is told by its channels' names, red, green and blue, never by their
count: three stains of a fluorescence microscope are no colour picture. Other channels
get the colour that people usually give their dye, and a window from the numbers
themselves, so that whoever opens the file sees something.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import xarray as xr

    from theatrum.catalog.formats.scene import Channel

COLOURS: Final = ("red", "green", "blue")
"""The names of a colour picture's channels."""
DARK: Final = 1.0
BRIGHT: Final = 99.8
"""Percentiles: the background, and what is no dust or hot pixel (one in 500)."""
_DEPTHS: Final = 3
"""Planes of a stack that are looked at, spread over it."""
_PURE: Final = {"red": "#ff0000", "green": "#00ff00", "blue": "#0000ff"}
_PALETTE: Final = ("#0000ff", "#00ff00", "#ff0000", "#ff00ff", "#00ffff", "#ffff00",
                   "#ff8000", "#ffffff")  # fmt: skip
"""For channels whose names say nothing: most often the first is a nuclear stain."""
_USUAL: Final = (
    (r"dapi|hoechst|\bcfp\b|bfp|405|pacific.?blue|coumarin|v450", "#0000ff"),
    (r"fitc|gfp|488|opal.?520|\bcy2\b|alexa.?fluor.?4", "#00ff00"),
    (r"yfp|514|532|opal.?540|vic\b", "#ffff00"),
    (r"tritc|\bcy3\b|rfp|mcherry|tomato|5[4-6]\d|opal.?570|texas.?red|59\d|opal.?620",
     "#ff0000"),
    (r"\bcy5\b|6[3-5]\d|opal.?650|opal.?690|far.?red|apc", "#ff00ff"),
    (r"\bcy7\b|7[05]0|opal.?780|near.?infra", "#00ffff"),
    (r"bright.?field|phase|transmi|\bdic\b|autofluor|grey|gray", "#ffffff"),
)  # fmt: skip


def is_colour(names: Sequence[object]) -> bool:
    """Whether channels of these names are the red, green and blue of one picture."""
    return tuple(str(one).lower() for one in names) == COLOURS


def usual_colour(name: str, index: int, count: int) -> str:
    """The colour, `#rrggbb`, that people give a channel of that name.

    `index` of `count` decides where the name says nothing; one alone is white.
    """
    said = name.lower()
    if said in _PURE:
        return _PURE[said]
    for pattern, colour in _USUAL:
        if re.search(pattern, said):
            return colour
    return "#ffffff" if count == 1 else _PALETTE[index % len(_PALETTE)]


def names_of(array: xr.DataArray) -> list[str]:
    """The channels' names: the coordinate `c`, else `attrs["channels"]`, else numbers.

    An array without an axis c has one name, or none.
    """
    count = int(array.sizes.get("c", 1))
    names = [str(one) for one in array.attrs.get("channels", ())]
    # Asked for by name, xarray makes up a coordinate where there is none.
    if "c" in array.coords and array.coords["c"].size == count:
        names = [str(one) for one in np.atleast_1d(array.coords["c"].values)]
    if len(names) == count:
        return names
    return [str(number) for number in range(count)] if "c" in array.dims else []


def channels_of(array: xr.DataArray) -> tuple[Channel, ...]:
    """The channels that an array tells of, with the colours that it knows of them.

    Colours stand by name in `attrs["channel_colors"]`.
    """
    # Readers of all formats come with it, and pictures need none of them.
    from theatrum.catalog.formats.scene import Channel

    colours: Mapping[str, str] = array.attrs.get("channel_colors") or {}
    return tuple(
        Channel(name, str(colours.get(name) or "")) for name in names_of(array)
    )


# Any: columns
def columns_of(channels: Sequence[Channel]) -> list[dict[str, Any]]:
    """The columns of `channel`, a row a channel."""
    rows = []
    for one in channels:
        low, high = one.window or (None, None)
        rows.append(
            {
                "name": one.name,
                "color": one.color or None,
                "fluor": one.fluor or None,
                "excitation_nm": one.excitation_nm,
                "emission_nm": one.emission_nm,
                "exposure_ms": one.exposure_ms,
                "window_lo": low,
                "window_hi": high,
            }
        )
    return rows


def decided(
    channels: Sequence[Channel], dims: Sequence[str], coarsest: Any
) -> tuple[Channel, ...]:
    """The channels with a colour and a window each.

    `coarsest` is an array as numpy's or zarr's, of which a few planes are read; what a
    file says of colours and windows stands.
    """
    names = [one.name for one in channels]
    shown = []
    for number, one in enumerate(channels):
        window = one.window
        if window is None and is_colour(names):
            window = _of_colour(dims, coarsest)
        elif window is None:
            window = window_of(_sample(dims, coarsest, number))
        colour = one.color or usual_colour(one.name, number, len(names))
        shown.append(replace(one, color=colour, window=window))
    return tuple(shown)


def window_of(numbers: npt.NDArray[Any]) -> tuple[float, float]:
    """Dark and bright of some numbers, never the same; what is not finite is not."""
    finite = numbers[np.isfinite(numbers)].astype(np.float64)
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(one) for one in np.percentile(finite, (DARK, BRIGHT)))
    if high <= low:
        low, high = float(finite.min()), float(finite.max())
    return (low, high) if high > low else (low, low + 1.0)


def _of_colour(dims: Sequence[str], coarsest: Any) -> tuple[float, float]:
    """A colour picture's own black and white, the same for its three channels."""
    count = coarsest.shape[list(dims).index("c")]
    parts = [_sample(dims, coarsest, number) for number in range(count)]
    numbers = np.concatenate(parts)
    most = float(np.nanmax(numbers)) if numbers.size else 0.0
    if coarsest.dtype == np.uint8 or 1.0 < most <= 255.0:
        return 0.0, 255.0
    if coarsest.dtype.kind == "f" and most <= 1.0:
        return 0.0, 1.0
    return 0.0, 65535.0 if most <= 65535.0 else most


def _sample(dims: Sequence[str], coarsest: Any, channel: int) -> npt.NDArray[Any]:
    """A channel's numbers in some planes of the first time."""
    depths = dict(zip(dims, coarsest.shape, strict=True)).get("z", 1)
    chosen = sorted({depths * (2 * n + 1) // (2 * _DEPTHS) for n in range(_DEPTHS)})
    parts = []
    for depth in chosen:
        at = {"t": 0, "c": channel, "z": depth}
        where = tuple(at.get(dim, slice(None)) for dim in dims)
        parts.append(np.asarray(coarsest[where]).ravel())
    return np.concatenate(parts)
