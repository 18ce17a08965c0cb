"""The instances of a slide that is no DICOM file: one for each rung of its ladder.

A rung that is a level of JPEG tiles keeps them: its frames are the file's own tiles,
undecoded, also those at the right and bottom edge, which the file has filled up as
DICOM wants it.
All other frames are encoded once, in the colours of their level. The associated images
are instances of one frame each.

Planes: `t_` tiles of a rung's grid.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import imagecodecs
import numpy as np
from pydicom.dataset import Dataset

from tile_server import codecs, jpeg_streams
from tile_server.errors import DamagedTile
from tile_server.ladder import Rung
from tile_server.pixels import Pixels
from tile_server.protocols.dicom_web_dataset import Shape, header
from tile_server.protocols.dicom_web_naming import JPEG_BASELINE
from tile_server.protocols.dicom_web_study import Frame, Study
from tile_server.pyramid import JPEG, Pyramid
from tile_server.readers.protocol import SlideFacts
from tile_server.readers.rendering import Rendered
from tile_server.view import associated_names

log = logging.getLogger(__name__)

_KINDS = {"label": "LABEL", "macro": "OVERVIEW", "thumbnail": "THUMBNAIL"}
# libjpeg's longest side.
_LONGEST_SIDE = 65_500
_USUAL_RATIO = 10.0
_APP14 = 0xEE


@dataclass(frozen=True)
class LevelInstance:
    """A rung; see `dicom_web_study.Instance`."""

    header: Dataset = field(repr=False)
    rung: Rung
    passes: bool
    columns: int
    frames: int
    photometric: str
    associated: str = ""
    syntax: str = JPEG_BASELINE

    @property
    def uid(self) -> str:
        return str(self.header.SOPInstanceUID)

    def whole_header(self, pyramid: Pyramid) -> Dataset:  # noqa: ARG002
        return self.header

    def stored(self, pyramid: Pyramid, number: int) -> bytes | None:
        if not self.passes or self.rung.level is None:
            return None
        t_y, t_x = divmod(number, self.columns)
        stream = pyramid.reader.encoded_tile(self.rung.level, t_x, t_y)
        if stream is None or self.photometric != "YBR_FULL_422":
            return stream
        return without_adobe(stream)

    def made(self, pyramid: Pyramid, number: int) -> bytes:
        t_y, t_x = divmod(number, self.columns)
        tile = pyramid.tile(self.rung, t_x, t_y)
        if tile.media_type == JPEG and self.photometric == "YBR_FULL_422":
            return tile.body
        return encoded(tile.decode(), self.photometric)

    def decoded(self, pyramid: Pyramid, number: int) -> Frame:
        stream = self.stored(pyramid, number) or self.made(pyramid, number)
        pixels = codecs.decode_jpeg(stream)
        return pixels[:, :, 0] if self.photometric == "MONOCHROME2" else pixels


@dataclass(frozen=True)
class PictureInstance:
    """An associated image; see `dicom_web_study.Instance`."""

    header: Dataset = field(repr=False)
    associated: str
    frames: int = 1
    syntax: str = JPEG_BASELINE

    @property
    def uid(self) -> str:
        return str(self.header.SOPInstanceUID)

    def whole_header(self, pyramid: Pyramid) -> Dataset:  # noqa: ARG002
        return self.header

    def stored(self, pyramid: Pyramid, number: int) -> bytes | None:  # noqa: ARG002
        return None

    def made(self, pyramid: Pyramid, number: int) -> bytes:  # noqa: ARG002
        return codecs.encode_jpeg(pyramid.reader.associated_image(self.associated))

    def decoded(self, pyramid: Pyramid, number: int) -> Frame:
        return codecs.decode_jpeg(self.made(pyramid, number))


def made_study(pyramid: Pyramid, version: str, *, label: bool) -> Study:
    """The instances that may be seen; reads a few tiles and the associated images."""
    fluorescence = isinstance(pyramid.reader, Rendered)
    facts, levels = pyramid.reader.facts, []
    for rung in pyramid.ladder.rungs:
        shape, passes = _shape(pyramid, rung)
        columns = -(-shape.width // shape.tile_width)
        told = header(version, facts, shape, fluorescence=fluorescence)
        levels.append(
            LevelInstance(told, rung, passes, columns, shape.frames, shape.photometric)
        )
    pictures = []
    for name in associated_names(pyramid.reader, label=label):
        picture = _picture(pyramid, name)
        if picture is None:
            continue
        number = len(levels) + 1 + list(_KINDS).index(name)
        shape = _picture_shape(pyramid, name, number, picture)
        told = header(version, facts, shape, fluorescence=False)
        pictures.append(PictureInstance(told, name))
    first = levels[0].header
    return Study(
        str(first.StudyInstanceUID),
        str(first.SeriesInstanceUID),
        (*levels, *pictures),
    )


def _shape(pyramid: Pyramid, rung: Rung) -> tuple[Shape, bool]:
    """The shape of a rung, and whether its frames are the file's own tiles."""
    facts, edge = pyramid.reader.facts, pyramid.ladder.tile
    width, height, passes = rung.width, rung.height, False
    if rung.level is not None:
        level = pyramid.reader.levels[rung.level]
        # A stored level can be a pixel smaller than its rung.
        width, height = min(width, level.width), min(height, level.height)
        passes = rung.stored and level.encoded
    columns, rows = -(-width // edge), -(-height // edge)
    photometric, ratio = "YBR_FULL_422", _USUAL_RATIO
    if passes and rung.level is not None:
        photometric, ratio = _coding(pyramid, rung.level, (columns, rows))
    across, down = _spacing_mm(facts)
    step = rung.downsample
    shape = Shape(
        kind="VOLUME",
        number=rung.k + 1,
        original=rung.k == 0,
        width=width,
        height=height,
        tile_width=edge,
        tile_height=edge,
        frames=columns * rows,
        photometric=photometric,
        ratio=ratio,
        spacing_mm=(across * step, down * step),
    )
    return shape, passes


def _spacing_mm(facts: SlideFacts) -> tuple[float, float]:
    """Millimetres per level-0 pixel, across and down.

    Viewers open nothing without it. Where the slide does not say, a pixel is called a
    millimetre: nobody takes that for a measurement, and lengths still count pixels.
    """
    if facts.mpp_x is None or facts.mpp_y is None:
        return 1.0, 1.0
    return facts.mpp_x / 1000, facts.mpp_y / 1000


def _coding(pyramid: Pyramid, level: int, grid: tuple[int, int]) -> tuple[str, float]:
    """What a level's tiles hold, and how small they are, as one of them shows."""
    columns, rows = grid
    for number in sorted({0, columns * rows // 2, columns * rows - 1}):
        t_y, t_x = divmod(number, columns)
        try:
            stream = pyramid.reader.encoded_tile(level, t_x, t_y)
        except DamagedTile:
            continue
        told = None if stream is None else jpeg_streams.read_header(stream)
        if stream is None or told is None:
            continue
        ratio = told.width * told.height * told.components / len(stream)
        if told.components == 1:
            return "MONOCHROME2", ratio
        return "RGB" if told.transform == 0 else "YBR_FULL_422", ratio
    return "YBR_FULL_422", _USUAL_RATIO


def _picture(pyramid: Pyramid, name: str) -> Pixels | None:
    if name not in _KINDS:
        return None
    try:
        picture = pyramid.reader.associated_image(name)
    except (DamagedTile, KeyError) as error:
        log.info("an associated image is left out: %s", type(error).__name__)
        return None
    fits = 0 < max(picture.shape[:2]) <= _LONGEST_SIDE and picture.size
    return picture if fits else None


def _picture_shape(pyramid: Pyramid, name: str, number: int, picture: Pixels) -> Shape:
    height, width = picture.shape[:2]
    spacing = None
    if name == "thumbnail":
        full = pyramid.ladder.rungs[0]
        across, down = _spacing_mm(pyramid.reader.facts)
        spacing = across * full.width / width, down * full.height / height
    return Shape(
        kind=_KINDS[name],
        number=number,
        original=name != "thumbnail",
        width=width,
        height=height,
        tile_width=width,
        tile_height=height,
        frames=1,
        photometric="YBR_FULL_422",
        ratio=_USUAL_RATIO,
        spacing_mm=spacing,
    )


def without_adobe(stream: bytes) -> bytes:
    """A JPEG of YCbCr without the Adobe marker, which its header says as well.

    pydicom, by Pillow, takes such a frame for RGB and turns its colours once more; what
    has no marker is YCbCr for everybody. The coded picture stays as it is.
    """
    at = 2
    while stream[at : at + 1] == b"\xff" and stream[at + 1 : at + 2] != b"\xda":
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4])
        if stream[at + 1] == _APP14 and stream[at + 4 : at + 9] == b"Adobe":
            return stream[:at] + stream[end:]
        at = end
    return stream


def encoded(pixels: Pixels, photometric: str) -> bytes:
    """A baseline JPEG in the components of its level."""
    options: dict[str, Any] = {"level": codecs.QUALITY}
    if photometric == "MONOCHROME2":
        grey = np.ascontiguousarray(pixels[:, :, 0])
        return bytes(imagecodecs.jpeg8_encode(grey, **options))
    if photometric == "RGB":
        return bytes(
            imagecodecs.jpeg8_encode(
                np.ascontiguousarray(pixels),
                colorspace="RGB",
                outcolorspace="RGB",
                subsampling="444",
                **options,
            )
        )
    return codecs.encode_jpeg(pixels)
