"""What TIFF files of planes say of themselves: OME-XML, QPTIFF, resolution tags.

Nothing here is trusted: a value of the wrong kind is as good as none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from tile_server.errors import DamagedTile
from tile_server.pixels import Colour, Pixels
from tile_server.readers.planes import BLACK, Channel, default_colour, rgb_channels
from tile_server.readers.protocol import SlideFacts
from tile_server.readers.tiff_segments import DECODE_ERRORS

_MOST_ASSOCIATED = 2**26
_UM = {"m": 1e6, "mm": 1e3, "µm": 1.0, "um": 1.0, "nm": 1e-3, "cm": 1e4}
_SECONDS = {"s": 1.0, "ms": 1e-3, "min": 60.0, "h": 3600.0}
# QPTIFF's names of its pictures, as they are called elsewhere.
_ASSOCIATED = {"thumbnail": "thumbnail", "label": "label", "overview": "macro"}


def channels(tiff: tifffile.TiffFile, count: int) -> tuple[Channel, ...]:
    """The `count` channels with names and colours."""
    first = tiff.pages.first
    if count == first.samplesperpixel == 3 and first.dtype in (np.uint8, np.uint16):
        return rgb_channels(float(np.iinfo(first.dtype).max))
    named = _qpi_channels(tiff) if tiff.is_qpi else _ome_channels(_ome_pixels(tiff))
    return tuple(
        Channel(name or f"channel {number}", colour or default_colour(number, count))
        for number, (name, colour) in enumerate(_filled(named, count))
    )


def steps(tiff: tifffile.TiffFile) -> tuple[float | None, float | None]:
    """Micrometres from depth to depth and seconds from time to time."""
    pixels = _ome_pixels(tiff)
    unit = str(pixels.get("TimeIncrementUnit", "s"))
    seconds = _positive(pixels.get("TimeIncrement"))
    t_step_s = seconds * _SECONDS[unit] if seconds and unit in _SECONDS else None
    return _length_um(pixels, "PhysicalSizeZ"), t_step_s


def facts(tiff: tifffile.TiffFile, associated: tuple[str, ...]) -> SlideFacts:
    """Pixel size, objective and format."""
    pixels = _ome_pixels(tiff)
    mpp_x, mpp_y = (_length_um(pixels, f"PhysicalSize{axis}") for axis in ("X", "Y"))
    kind = "OME-TIFF" if tiff.is_ome else "QPTIFF" if tiff.is_qpi else "TIFF"
    first = tiff.pages.first
    if tiff.is_qpi:
        mpp_x, mpp_y = (_resolution_um(first, axis) for axis in ("X", "Y"))
    compression = getattr(first.compression, "name", str(first.compression))
    return SlideFacts(
        format=f"{kind}, {compression}",
        mpp_x=mpp_x,
        mpp_y=mpp_y,
        objective=_objective(tiff),
        background=BLACK,
        associated=tuple(sorted(associated)),
    )


def properties(tiff: tifffile.TiffFile) -> Mapping[str, str]:
    """Metadata for people."""
    software = tiff.pages.first.software
    return {"tiff.Software": software} if software else {}


def pictures(tiff: tifffile.TiffFile) -> dict[str, int]:
    """Associated images by name: the numbers of their pages."""
    found: dict[str, int] = {}
    if not tiff.is_qpi:
        return found
    for number, frame in enumerate(tiff.pages):
        page = _whole(frame)
        kind = str(_qpi_fields(page.description).get("ImageType", "")).lower()
        if kind in _ASSOCIATED and page.dtype == np.uint8:
            found.setdefault(_ASSOCIATED[kind], number)
    return found


def picture(path: Path, number: int) -> Pixels:
    """The RGB picture of a page; raises DamagedTile."""
    try:
        with tifffile.TiffFile(path, _multifile=False) as tiff:
            page = _whole(tiff.pages[number])
            if page.imagewidth * page.imagelength > _MOST_ASSOCIATED:
                raise DamagedTile("This image is too large.")
            pixels = page.asarray()
    except DECODE_ERRORS as error:
        raise DamagedTile("This image cannot be decoded.") from error
    if pixels.ndim == 2:
        pixels = np.stack([pixels] * 3, axis=2)
    return np.ascontiguousarray(pixels[:, :, :3])


def _filled(
    named: Sequence[tuple[str, Colour | None]], count: int
) -> list[tuple[str, Colour | None]]:
    return [*named[:count], *[("", None)] * (count - len(named))]


def _ome_pixels(tiff: tifffile.TiffFile) -> dict[str, Any]:
    """The Pixels element of the first image, or nothing."""
    if not tiff.is_ome or not tiff.ome_metadata:
        return {}
    image = tifffile.xml2dict(tiff.ome_metadata).get("OME", {}).get("Image", {})
    first = image[0] if isinstance(image, list) else image
    pixels = first.get("Pixels", {})
    return pixels if isinstance(pixels, dict) else {}


def _ome_channels(pixels: Mapping[str, Any]) -> list[tuple[str, Colour | None]]:
    """Name and colour of each channel; OME packs a colour as a signed RGBA number."""
    channels = pixels.get("Channel", [])
    found: list[tuple[str, Colour | None]] = []
    for channel in channels if isinstance(channels, list) else [channels]:
        colour: Colour | None = None
        packed = channel.get("Color")
        if isinstance(packed, int):
            red, green, blue, _ = (packed & 0xFFFFFFFF).to_bytes(4, "big")
            colour = (red, green, blue)
        samples = channel.get("SamplesPerPixel", 1)
        name = str(channel.get("Name", ""))
        found += [(name, colour)] * (samples if isinstance(samples, int) else 1)
    return found


def _qpi_channels(tiff: tifffile.TiffFile) -> list[tuple[str, Colour | None]]:
    """Name and colour of each channel, from its page's own description."""
    found: list[tuple[str, Colour | None]] = []
    for page in tiff.series[0].levels[0].pages:
        fields = {} if page is None else _qpi_fields(_whole(page).description)
        parts = [one for one in str(fields.get("Color", "")).split(",") if one]
        colour: Colour | None = None
        if len(parts) == 3 and all(one.strip().isdecimal() for one in parts):
            red, green, blue = (min(int(one), 255) for one in parts)
            colour = (red, green, blue)
        found.append((str(fields.get("Name", "")), colour))
    return found


def _qpi_fields(description: str) -> dict[str, Any]:
    if "<PerkinElmer-QPI-ImageDescription" not in description:
        return {}
    # It announces utf-16 and is not.
    start = description.index("<PerkinElmer-QPI-ImageDescription")
    root = tifffile.xml2dict(description[start:])
    fields = next(iter(root.values()))
    return fields if isinstance(fields, dict) else {}


def _objective(tiff: tifffile.TiffFile) -> float | None:
    if tiff.is_qpi:
        text = str(_qpi_fields(tiff.pages.first.description).get("Objective", ""))
        return _positive(text.lower().rstrip("x"))
    if not tiff.is_ome or not tiff.ome_metadata:
        return None
    instrument = tifffile.xml2dict(tiff.ome_metadata)["OME"].get("Instrument", {})
    objective = instrument.get("Objective") if isinstance(instrument, dict) else None
    if not isinstance(objective, dict):
        return None
    return _positive(objective.get("NominalMagnification"))


def _length_um(pixels: Mapping[str, Any], name: str) -> float | None:
    unit = str(pixels.get(f"{name}Unit", "µm"))
    value = _positive(pixels.get(name))
    return value * _UM[unit] if value and unit in _UM else None


def _resolution_um(page: tifffile.TiffPage, axis: str) -> float | None:
    tag, unit = page.tags.get(f"{axis}Resolution"), page.tags.get("ResolutionUnit")
    if tag is None or not isinstance(tag.value, tuple) or len(tag.value) != 2:
        return None
    pixels, units = tag.value
    length = {2: 25_400.0, 3: 10_000.0}.get(unit.value if unit is not None else 2)
    return _positive(length * units / pixels) if length and pixels else None


def _positive(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if 0.0 < number < float("inf") else None


def _whole(page: tifffile.TiffPage | tifffile.TiffFrame) -> tifffile.TiffPage:
    """A page with its own tags; tifffile leaves them out of pages like the first."""
    return page if isinstance(page, tifffile.TiffPage) else page.aspage()
