"""A slide as the server knows it, and what it tells of it to whom.

Three circles: the basic fields everybody gets, the extended ones only with
`scope=extended`, and patient data only with `includePHI=true`. Texts from the
laboratory's system (stain, block, specimen) are basic, and anything may stand in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .deepzoom import Pyramid, Rounding
from .files import SlideFiles, dicom_like, single
from .pictures import FilePicture, Pattern, Picture, open_picture
from .versions import QUALITY_CONTROL, Version

# JSON as it travels: its depth is the schema's business, not the type checker's.
Json = dict[str, Any]
Verdict = Literal["NotSet", "QualityOk", "Rejected"]

MIME_TYPES = {"jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png"}


@dataclass(frozen=True, eq=False)
class Slide:
    """One slide.

    Attributes
    ----------
    mpp
        Micrometres per level-0 pixel.
    tile
        Width and height of the tiles, in pixels.
    streamable
        Without it every tile is 404.
    focal_planes
        Id and offset in micrometres of each.
    optical_paths
        Id and description of each.
    formats
        The extensions that tiles may be asked for by.
    quality
        The verdict of the quality control before anybody changed it; None for a slide
        without quality control.
    extended, phi
        Fields of the outer two circles.
    label
        The bytes of the label image, or None.
    """

    slide_id: str
    picture: Picture = field(repr=False)
    mpp: float = 0.25
    tile: tuple[int, int] = (256, 256)
    rounding: Rounding = "ceil"
    streamable: bool = True
    focal_planes: tuple[tuple[str, float], ...] = (("0", 0.0),)
    optical_paths: tuple[tuple[str, str], ...] = ()
    stored_format: tuple[str, str] = ("image/jpeg", "jpg")
    formats: tuple[str, ...] = ("jpg", "png")
    file_format: str = "application/dicom"
    staining: str = "HE"
    block: str = "A 1"
    specimen: Mapping[str, str] | None = None
    quality: Verdict | None = "NotSet"
    extended: Mapping[str, Any] = field(default_factory=dict)
    phi: Mapping[str, Any] = field(default_factory=dict, repr=False)
    label: bytes | None = field(default=None, repr=False)
    files: SlideFiles = field(default_factory=SlideFiles)

    @property
    def pyramid(self) -> Pyramid:
        return Pyramid(
            self.picture.width, self.picture.height, *self.tile, rounding=self.rounding
        )

    @property
    def accession_number(self) -> str | None:
        value = self.phi.get("accessionNumber")
        return None if value is None else str(value)


def synthetic_slide(
    slide_id: str, *, width: int = 1024, height: int = 768, **fields: Any
) -> Slide:
    """A slide whose tiles tell their own place; with three small files, and PHI."""
    given = {
        "extended": {
            "bodyPart": "Breast",
            "examCode": "PAT01",
            "examDescription": "Histology",
            "stationName": "SCANNER-1",
            "priority": 3,
        },
        "phi": invented_phi(slide_id),
        "files": dicom_like(3, 4000),
        **fields,
    }
    return Slide(slide_id, Pattern(width, height), **given)


def slide_of_file(slide_id: str, path: Path, **fields: Any) -> Slide:
    """A slide that a file on disk holds: its tiles are drawn from it, and it is sent.

    Its resolution is the file's own, 0.25 micrometres where the file does not say.
    """
    picture = open_picture(path)
    told = picture.mpp if isinstance(picture, FilePicture) else None
    given = {
        "mpp": told or 0.25,
        "file_format": "image/tiff",
        "phi": invented_phi(slide_id),
        "files": single(path.name, path),
        **fields,
    }
    return Slide(slide_id, picture, **given)


def invented_phi(slide_id: str, accession_number: str = "ACC/2025 0001") -> Json:
    """Patient-like values that nobody has; every one is easily searched for."""
    return {
        "accessionNumber": accession_number,
        "accessionNumberIssuer": "EXAMPLE-LAB",
        "studyInstanceUid": "1.2.826.0.1.3680043.10.999.1",
        "seriesInstanceUid": f"1.2.826.0.1.3680043.10.999.1.{len(slide_id)}",
        "examId": "PHI-EXAM-1",
        "examDateTime": "2025-03-04T10:11:12",
        "examFreeFields": [{"name": "Referring unit", "value": "PHI-WARD-5"}],
        "lisSlideId": f"PHI-LIS;{slide_id};A;1;HE",
    }


def slide_info(
    slide: Slide,
    version: Version,
    quality: Json | None,
    *,
    extended: bool = False,
    phi: bool = False,
) -> Json:
    """What `GET slides/{id}/info` answers, and `imageInfo` of a notification."""
    told: Json = {
        "id": slide.slide_id,
        "isStreamable": slide.streamable,
        "imageSize": {"width": slide.picture.width, "height": slide.picture.height},
        "tileSize": {"width": slide.tile[0], "height": slide.tile[1]},
        "micronsPerPixel": slide.mpp,
        "focalPlanes": [
            {"id": plane, "offsetUm": offset} for plane, offset in slide.focal_planes
        ],
        "opticalPaths": [
            {"id": path, "description": text} for path, text in slide.optical_paths
        ],
        "storedTileFormat": {
            "mimeType": slide.stored_format[0],
            "extension": slide.stored_format[1],
        },
        "availableTileFormats": [
            {"mimeType": MIME_TYPES[one], "extension": one} for one in slide.formats
        ],
        "fileFormat": {"mimeType": slide.file_format},
        **_laboratory_texts(slide),
    }
    if quality is not None and version >= QUALITY_CONTROL:
        told["qualityControl"] = dict(quality)
    if extended:
        told |= slide.extended
    if phi:
        told |= slide.phi
    return told


def case_entry(slide: Slide, *, phi: bool) -> Json:
    """What a list of a case's images says of one."""
    told: Json = {"id": slide.slide_id, **_laboratory_texts(slide)}
    if phi:
        for name in ("seriesInstanceUid", "lisSlideId"):
            told[name] = slide.phi.get(name)
    return told


def phi_values(slide: Slide) -> list[str]:
    """Every patient-like text of a slide, for a search where none should be."""
    values = [value for value in slide.phi.values() if isinstance(value, str)]
    values += [
        field_["value"] for field_ in slide.phi.get("examFreeFields") or () if field_
    ]
    return values


def _laboratory_texts(slide: Slide) -> Json:
    texts: Json = {
        "staining": {"displayName": slide.staining},
        "block": {"displayName": slide.block},
    }
    if slide.specimen is not None:
        texts["specimen"] = dict(slide.specimen)
    return texts
