"""Pictures for the eye: exact JPEG of each plane, and thumbnails.

A JPEG here is the image's pixels and nothing else: no axes, no margin. Pixels that are
not square are stretched along one side, so that shapes are true; `exact` leaves each
pixel as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr
from pydantic import Field

from theatrum.node import Array, Axes, BadValue, Channels, Context, DType, File, node
from theatrum.nodes.catalog.slicing import pixel_ratio

Values = npt.NDArray[Any]  # of any kind of number
Bytes = npt.NDArray[np.uint8]
Picture = Annotated[Array, Axes("y", "x"), Channels(1, 4), DType("number")]
Format = Literal["jpg", "png", "webp"]
Quality = Annotated[int, Field(ge=1, le=100)]

_MEDIA = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
COLOURS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1))
"""Of channels that are laid over each other, in their order."""


@node(version="1.0.0", kind="render")
def jpg(
    image: Picture,
    *,
    quality: Quality = 90,
    format: Format = "jpg",
    low: float | None = None,
    high: float | None = None,
    largest_px: Annotated[int, Field(ge=16, le=65535)] = 4096,
    exact: bool = False,
    context: Context | None = None,
) -> Sequence[File]:
    """Write each plane as a picture of 8 bits.

    Values of 0 to 255 in whole bytes are written as they are. Others are scaled, the
    whole stack alike, so that slices can be compared.

    Parameters
    ----------
    quality
        Of JPEG and WebP.
    low, high
        Shown black and white; without them the stack's least and greatest value, of
        floats within 0 to 1 these two.
    largest_px
        The longer side is made no longer.
    exact
        One pixel of the picture is one of the image, whatever its shape.
    """
    context = context or Context()
    shown = eight_bits(image, low, high)
    ratio = 1.0 if exact else pixel_ratio(image)
    planes = [shown[place] for place in np.ndindex(shown.shape[:-3])]
    indices = image.attrs.get("slice_indices", range(len(planes)))
    stem = str(image.attrs.get("plane", "")) or "plane"
    files = []
    for at, plane in enumerate(planes):
        number = indices[at] if len(indices) == len(planes) else at
        path = context.path(f"{stem}-{number:04d}.{format}")
        save(plane, path, format, quality, ratio, None if exact else largest_px)
        files.append(File(path, _MEDIA[format], "render", f"{stem} {number}"))
        context.progress((at + 1) / len(planes), "writing pictures")
    return files


@node(version="1.0.0", kind="render")
def thumbnail(
    image: Picture,
    *,
    edge_px: Annotated[int, Field(ge=16, le=2048)] = 256,
    quality: Quality = 85,
    context: Context | None = None,
) -> File:
    """Write a small picture: of a stack the middle, of time the first.

    Between the 1st and the 99th percentile of what is shown.

    Parameters
    ----------
    edge_px
        Of the longer side.
    """
    flat = image
    for name in image.dims:
        if name == "z":
            flat = flat.isel(z=image.sizes["z"] // 2)
        elif name not in ("c", "y", "x"):
            flat = flat.isel({name: 0})
    # Far fewer pixels than the image may have: every so-manieth is enough for a start.
    coarse = max(1, min(flat.sizes["y"], flat.sizes["x"]) // (4 * edge_px))
    flat = flat.isel(y=slice(None, None, coarse), x=slice(None, None, coarse))
    low = high = None
    if flat.dtype != np.uint8:
        finite = flat.values[np.isfinite(flat.values)]
        low, high = np.percentile(finite, (1, 99)) if finite.size else (0.0, 1.0)
    shown = eight_bits(flat, low, high)
    path = (context or Context()).path("thumbnail.jpg")
    save(shown, path, "jpg", quality, pixel_ratio(image), edge_px)
    return File(path, "image/jpeg", "thumbnail")


def eight_bits(
    image: xr.DataArray, low: float | None = None, high: float | None = None
) -> Bytes:
    """Return (..., y, x, 1 or 3) bytes: grey, or colours of up to four channels."""
    others = [str(name) for name in image.dims if name not in ("c", "y", "x")]
    if "c" not in image.dims:
        values = image.transpose(*others, "y", "x").values[..., None]
    else:
        values = image.transpose(*others, "y", "x", "c").values
    if values.dtype != np.uint8 or low is not None or high is not None:
        values = _scaled(values, low, high)
    channels = values.shape[-1]
    if channels in (1, 3):
        return np.asarray(values, dtype=np.uint8)
    mixed = np.zeros((*values.shape[:-1], 3))
    for at in range(channels):
        mixed += values[..., at, None].astype(np.float64) * COLOURS[at]
    return np.clip(mixed, 0, 255).astype(np.uint8)


def _scaled(values: Values, low: float | None, high: float | None) -> Bytes:
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not finite.size:
        return np.zeros(values.shape, np.uint8)
    if low is None or high is None:
        least, most = float(finite.min()), float(finite.max())
        if values.dtype.kind == "f" and least >= 0 and most <= 1:
            least, most = 0.0, 1.0
        low, high = least if low is None else low, most if high is None else high
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    if values.dtype.kind in "iu" and values.dtype.itemsize == 2:
        # A table of all 65536 values: one look-up in place of five passes.
        code = np.arange(65536, dtype=np.uint16).view(values.dtype)
        table = _linear(code.astype(np.float64), low, high)
        plain = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))
        return np.asarray(table[plain.view(np.uint16)])
    return _linear(np.nan_to_num(values.astype(np.float64), nan=low), low, high)


def _linear(values: Values, low: float, high: float) -> Bytes:
    return np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def save(
    pixels: Bytes,
    path: Any,  # whatever Pillow writes to: a path or a stream
    format: Format,
    quality: int,
    ratio: float = 1.0,
    largest_px: int | None = None,
) -> None:
    """Write (y, x, 1 or 3) bytes as a picture, true in shape, within a size."""
    from PIL import Image as Pillow

    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3):
        raise BadValue("A picture is (rows, columns, 1 or 3) bytes.")
    picture = Pillow.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    width, height = picture.width, picture.height
    if not 0.999 < ratio < 1.001:
        # The side with the longer pixels grows, so that no pixel is lost.
        width, height = (
            (width, round(height * ratio))
            if ratio > 1
            else (round(width / ratio), height)
        )
    if largest_px is not None and max(width, height) > largest_px:
        scale = largest_px / max(width, height)
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Pillow.Resampling.LANCZOS)
    if format == "png":
        picture.save(path, "PNG")
    else:
        # No chroma subsampling: thin structures keep their colour.
        kind = {"jpg": "JPEG", "webp": "WEBP"}[format]
        more = {"subsampling": 0} if format == "jpg" else {}
        picture.save(path, kind, quality=quality, **more)
