"""What a service says of an image that it opened: a value read from its JSON.

Lengths are level-0 pixels of the full slide unless the name ends in `_um`; `mpp` is
micrometres per level-0 pixel. The levels are the map's ladder: `levels[0]` is full
resolution, and each next one is half as wide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from theatrum.errors import ImageError


@dataclass(frozen=True)
class Level:
    """One rung of the ladder, `downsample` times coarser than full resolution."""

    z: int
    width: int
    height: int
    tile_width: int
    tile_height: int
    downsample: int
    stored: bool


@dataclass(frozen=True)
class Scan:
    """Where the planes of an image lie in a patient: it is a scan, not a slide."""

    slices: int
    affine_lps: tuple[tuple[float, ...], ...]
    """4 x 4: takes (x, y, z, 1) of a voxel to LPS millimetres."""
    modality: str


@dataclass(frozen=True)
class View:
    """An image's geometry, and where its tiles are for now."""

    id: str
    name: str
    version: str
    width: int
    height: int
    levels: tuple[Level, ...]
    mpp_x: float | None
    mpp_y: float | None
    objective: float | None
    background: str
    associated: tuple[str, ...]
    tiles: str
    """URL template with {z}, {x} and {y}, as the page asks for it."""
    kernel_url: str
    """Prefix of the image's other routes, as the kernel asks for them."""
    expires: float
    """End of the capability, seconds since 1970."""
    scan: Scan | None = None
    """Of a series of CT, MR or PET."""


def view_from_json(
    described: Mapping[str, Any], *, kernel_url: str, tiles: str, expires: float
) -> View:
    """Return the view that a description holds, with the addresses given.

    Raises ImageError where the description lacks what every image has.
    """
    try:
        return View(
            id=str(described["id"]),
            name=str(described["name"]),
            version=str(described["version"]),
            width=int(described["width"]),
            height=int(described["height"]),
            levels=tuple(_level(level) for level in described["levels"]),
            mpp_x=_positive(described.get("mpp_x")),
            mpp_y=_positive(described.get("mpp_y")),
            objective=_positive(described.get("objective")),
            background=str(described.get("background") or "#ffffff"),
            associated=tuple(described.get("associated") or ()),
            tiles=tiles,
            kernel_url=kernel_url,
            expires=expires,
            scan=_scan(described),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ImageError(
            f"The service's description of the image cannot be used ({error!r})."
        ) from error


def timestamp(iso: str) -> float:
    """Return an ISO 8601 time as seconds since 1970."""
    return datetime.fromisoformat(iso).timestamp()


def _level(level: Mapping[str, Any]) -> Level:
    return Level(
        z=int(level["z"]),
        width=int(level["width"]),
        height=int(level["height"]),
        tile_width=int(level["tile_width"]),
        tile_height=int(level["tile_height"]),
        downsample=int(level["downsample"]),
        stored=bool(level["stored"]),
    )


def _scan(described: Mapping[str, Any]) -> Scan | None:
    affine = described.get("affine_lps")
    if affine is None:
        return None
    return Scan(
        slices=int(described["z"]),
        affine_lps=tuple(tuple(float(one) for one in row) for row in affine),
        modality=str(described["channels"][0]["name"]),
    )


def _positive(number: float | None) -> float | None:
    """Return a measure, or None where a file says nothing or nonsense such as 0."""
    return float(number) if number is not None and number > 0 else None
