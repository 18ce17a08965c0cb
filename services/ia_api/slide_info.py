"""What the pathology server says of a slide, as a value.

Only the basic fields are firm; all else may be absent, null, or of another make in
another version, and then reads as not known. Texts of the laboratory's system can
identify a patient: they are matched by rules and never written to a log or a path.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from services.ia_api.errors import Permanent


@dataclass(frozen=True)
class FocalPlane:
    """One focal plane; `offset_um` from the reference plane."""

    id: str
    offset_um: float


@dataclass(frozen=True)
class SlideInfo:
    """A slide of the pathology server. Sizes are (width, height) in pixels."""

    id: str
    size: tuple[int, int]
    tile_size: tuple[int, int]
    um_per_pixel: float | None
    streamable: bool
    tile_formats: tuple[str, ...] = ()
    focal_planes: tuple[FocalPlane, ...] = ()
    optical_paths: tuple[str, ...] = ()
    file_type: str | None = None
    quality_status: str | None = None
    quality_version: str | None = None
    texts: Mapping[str, str] = field(default_factory=dict, repr=False)
    """staining, block, anatomy, specimen, bodyPart, examCode, stationName."""

    @property
    def focal_plane(self) -> str | None:
        """The plane nearest to the reference; None if the slide names none."""
        if not self.focal_planes:
            return None
        return min(self.focal_planes, key=lambda plane: abs(plane.offset_um)).id

    @property
    def tile_extension(self) -> str:
        """The extension to ask tiles by: JPEG where there is the choice."""
        for wanted in ("jpg", "jpeg", "png"):
            if wanted in self.tile_formats:
                return wanted
        return self.tile_formats[0] if self.tile_formats else "jpg"


def slide_info(said: Mapping[str, Any]) -> SlideInfo:
    """Read a slide info; Permanent if a firm field is missing or makes no sense."""
    try:
        size = _size(said["imageSize"])
        tile = _size(said.get("tileSize") or {"width": 256, "height": 256})
        slide_id = str(said["id"])
    except (KeyError, TypeError, ValueError) as err:
        raise Permanent("the server's slide info lacks the slide's size") from err
    quality = _mapping(said.get("qualityControl"))
    return SlideInfo(
        id=slide_id,
        size=size,
        tile_size=tile,
        um_per_pixel=_positive(said.get("micronsPerPixel")),
        streamable=said.get("isStreamable") is not False,
        tile_formats=tuple(
            str(one["extension"])
            for one in _mappings(said.get("availableTileFormats"))
            if one.get("extension")
        ),
        focal_planes=tuple(
            FocalPlane(str(one.get("id")), _number(one.get("offsetUm")) or 0.0)
            for one in _mappings(said.get("focalPlanes"))
        ),
        optical_paths=tuple(
            str(one.get("id")) for one in _mappings(said.get("opticalPaths"))
        ),
        file_type=_text(_mapping(said.get("fileFormat")).get("mimeType")),
        quality_status=_text(quality.get("status")),
        quality_version=_text(quality.get("versionId")),
        texts=_texts(said),
    )


def _texts(said: Mapping[str, Any]) -> dict[str, str]:
    specimen = _mapping(said.get("specimen"))
    found = {
        "staining": _mapping(said.get("staining")).get("displayName"),
        "block": _mapping(said.get("block")).get("displayName"),
        "anatomy": specimen.get("anatomy"),
        "specimen": specimen.get("description"),
        **{
            name: said.get(name)
            for name in ("bodyPart", "examCode", "examDescription", "stationName")
        },
    }
    return {name: text for name, text in found.items() if isinstance(text, str)}


def _size(value: Mapping[str, Any]) -> tuple[int, int]:
    width, height = int(value["width"]), int(value["height"])
    if min(width, height) < 1:
        raise ValueError("a size is positive")
    return width, height


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    if not isinstance(value, list):
        return []
    return [one for one in value if isinstance(one, dict)]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _positive(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and number > 0 else None
