"""Images that the tile service reads, as lazy arrays: slides, TIFF stacks, pictures.

One adapter for all its readers: whole slides (Aperio, Hamamatsu, Leica, MIRAX,
Philips, Trestle, Ventana, Zeiss, DICOM, generic TIFF), OME-TIFF of one image in one
file or many, QPTIFF, ImageJ stacks, and plain PNG and JPEG. A colour picture has three
channels. Tiles are the chunks.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from PIL import Image

from theatrum.catalog.formats.errors import Damaged, NotAnImage
from theatrum.catalog.formats.lazy import (
    File,
    Numbers,
    Ranges,
    Stored,
    coarser,
    labelled,
)
from theatrum.catalog.formats.raw import cache_folder
from theatrum.catalog.formats.scene import Acquisition, Channel, Modality, Scene
from tile_server.errors import DamagedTile, UnreadableSlide
from tile_server.readers import open_slide
from tile_server.readers.chunks import ChunkCache, ChunkedPlanes
from tile_server.readers.imports import Imports
from tile_server.readers.ome_files import is_companion
from tile_server.readers.planes import Plane, PlaneReader
from tile_server.readers.protocol import Reader, SlideFacts
from tile_server.readers.rendering import Rendered
from tile_server.readers.style import hexadecimal
from tile_server.readers.tiff_planes import open_tiff_planes
from tile_server.readers.tiff_structure import TIFF_STARTS

_COLOURS: Final = ("red", "green", "blue")
_NOT_PILLOWS: Final = (
    OSError, ValueError, SyntaxError, TypeError, KeyError, IndexError, ArithmeticError,
    RuntimeError,
)  # fmt: skip
"""What Pillow raises for files of other kinds."""
_LARGEST_CHUNK: Final = 4096
_SMALLEST_CHUNK: Final = 1024


@dataclass(frozen=True)
class TilePlanes:
    """An opener of one level, (t, c, z, y, x)."""

    file: File
    level: int

    def open(self) -> _OpenPlanes:
        path = self.file.checked()
        stack = _stack_in(path)
        if stack is not None:
            return _OpenPlanes(stack, self.level)
        return _OpenPlanes(_opened(path), self.level)


class _OpenPlanes:
    serial = False  # the tile service's readers are for many threads

    def __init__(self, reader: Reader | PlaneReader, level: int) -> None:
        self._reader = reader
        self._planes = _planes(reader)
        self._level = level

    def read(self, ranges: Ranges) -> Numbers:
        times, channels, depths, rows, columns = ranges
        shape = [one.stop - one.start for one in ranges]
        planes = self._planes
        corner = columns.start, rows.start
        size = shape[4], shape[3]
        try:
            if planes is None:
                # What has no planes is a slide's reader.
                slide = cast(Reader, self._reader)
                pixels = slide.read(self._level, *corner, size)
                part = pixels.transpose(2, 0, 1)[channels]
                return np.asarray(part[None, :, None])
            room = np.empty(shape, planes.planes.number_type)
            for t in range(shape[0]):
                for c in range(shape[1]):
                    for z in range(shape[2]):
                        plane = Plane(
                            channels.start + c, depths.start + z, times.start + t
                        )
                        room[t, c, z] = planes.read_plane(
                            self._level, *corner, size, plane=plane
                        )
            return room
        except DamagedTile as error:
            raise Damaged(f"{self._reader.path.name} is damaged: {error}") from error

    def close(self) -> None:
        self._reader.close()


def open_tiles(path: Path) -> Scene:
    """The image of a file (or of a DICOM slide's folder); raises FormatError."""
    file = File.of(path)
    with _opened(path) as reader:
        planes = _planes(reader)
        if planes is None:
            return _colour(reader, file, grey=_is_grey(path))
        return _stack(reader, planes, file)


def _opened(path: Path) -> Reader:
    try:
        return open_slide(path, imports=Imports(cache_folder()))
    except UnreadableSlide as error:
        text = str(error)
        kind = NotAnImage if "is none of the formats" in text else Damaged
        raise kind(text) from error


def _stack_in(path: Path) -> PlaneReader | None:
    """The planes of a TIFF stack, without the looks at them that show it."""
    if path.is_dir():
        return None
    with path.open("rb") as file:
        start = file.read(16)
    if not (start.startswith(TIFF_STARTS) or is_companion(path, start)):
        return None
    try:
        return open_tiff_planes(path, ChunkCache(), Imports(cache_folder()))
    except UnreadableSlide as error:
        raise Damaged(str(error)) from error


def _planes(reader: Reader | PlaneReader) -> PlaneReader | None:
    """What a rendered image is rendered from, where it is."""
    if isinstance(reader, ChunkedPlanes):
        return reader
    if not isinstance(reader, Rendered):
        return None
    return reader.source


def _is_grey(path: Path) -> bool:
    """Whether a picture of 8 bits has one number a pixel; its reader gives it thrice.

    A palette's numbers are names of colours.
    """
    if path.is_dir():
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path) as image:
                return image.mode in ("1", "L")
        except (*_NOT_PILLOWS, Image.DecompressionBombError):
            return False  # a slide of a kind that Pillow does not know


def _colour(reader: Reader, file: File, *, grey: bool) -> Scene:
    names = () if grey else _COLOURS
    count = 1 if grey else len(_COLOURS)
    outer = {"t": 0, "z": 0, **({"c": 0} if grey else {})}
    facts = reader.facts
    spacing = _spacing(facts.mpp_x, facts.mpp_y)
    levels = []
    for number, level in enumerate(reader.levels):
        shape = (1, count, 1, level.height, level.width)
        steps, offset = _at(spacing, reader, number)
        tile = _tile(level.tile_width, level.tile_height)
        levels.append(
            labelled(
                Stored(TilePlanes(file, number), shape, np.uint8),
                ("t", "c", "z", "y", "x"),
                steps,
                offset=offset,
                chunks=(
                    *(1, count, 1),
                    *(min(tile[1], level.height), min(tile[0], level.width)),
                ),
                channels=names,
            ).isel(outer, drop=True)
        )
    return Scene(
        format=facts.format,
        files=(file.path,),
        levels=tuple(levels),
        spacing=spacing,
        channels=tuple(
            Channel(name, color, (0.0, 255.0))
            for name, color in zip(
                names, ("#ff0000", "#00ff00", "#0000ff")[: len(names)], strict=True
            )
        ),
        acquisition=Acquisition(
            modality="SM" if _is_slide(facts) else "OT",
            series_uid=facts.series,
            protocol=_objective(facts.objective),
        ),
        facts=_facts(reader),
    )


def _stack(reader: Reader, planes: PlaneReader, file: File) -> Scene:
    facts, about = reader.facts, planes.planes
    spacing = _spacing(facts.mpp_x, facts.mpp_y)
    if about.z_step_um:
        spacing["z"] = about.z_step_um / 1000
    if about.t_step_s:
        spacing["t"] = about.t_step_s
    names = [one.name for one in about.channels]
    levels = []
    for number, level in enumerate(planes.levels):
        shape = (
            about.times,
            len(about.channels),
            about.depths,
            level.height,
            level.width,
        )
        tile = _tile(level.tile_width, level.tile_height)
        steps, offset = _at(spacing, planes, number)
        array = labelled(
            Stored(TilePlanes(file, number), shape, about.number_type),
            ("t", "c", "z", "y", "x"),
            steps,
            offset=offset,
            chunks=(1, 1, 1, min(tile[1], level.height), min(tile[0], level.width)),
            channels=names,
        )
        for dim in "tcz":
            if array.sizes[dim] == 1:
                array = array.isel({dim: 0}, drop=True)
        levels.append(array)
    is_rgb = names == list(_COLOURS)
    modality: Modality = "OT" if is_rgb else "FM"
    return Scene(
        format=facts.format,
        files=(file.path,),
        levels=tuple(levels),
        spacing={k: v for k, v in spacing.items() if k in levels[0].sizes},
        channels=tuple(
            Channel(one.name, hexadecimal(one.colour), one.window)
            for one in about.channels
        ),
        acquisition=Acquisition(
            modality=modality,
            series_uid=facts.series,
            protocol=_objective(facts.objective),
        ),
        value_unit=about.unit,
        facts=_facts(reader),
    )


def _is_slide(facts: SlideFacts) -> bool:
    """Whether a colour picture is a slide: it has a scale, an objective or a label."""
    return bool(facts.mpp_x or facts.objective or facts.associated)


def _spacing(mpp_x: float | None, mpp_y: float | None) -> dict[str, float]:
    spacing = {}
    if mpp_y:
        spacing["y"] = mpp_y / 1000
    if mpp_x:
        spacing["x"] = mpp_x / 1000
    return spacing


def _at(
    spacing: dict[str, float], reader: Any, number: int
) -> tuple[dict[str, float], dict[str, float]]:
    """The steps and the first centre of a coarser level."""
    full, level = reader.levels[0], reader.levels[number]
    return coarser(
        spacing,
        {"x": full.width, "y": full.height},
        {"x": level.width, "y": level.height},
    )


def _tile(width: int, height: int) -> tuple[int, int]:
    """Chunks of whole tiles, neither a task for each tile nor a whole slide."""

    def grown(size: int) -> int:
        if size > _LARGEST_CHUNK:
            return _LARGEST_CHUNK
        return size * max(_SMALLEST_CHUNK // max(size, 1), 1)

    return grown(width), grown(height)


def _objective(magnification: float | None) -> dict[str, Any]:
    return {} if not magnification else {"objective": magnification}


def _facts(reader: Reader) -> dict[str, Any]:
    return {
        "reader": type(reader).__name__,
        "associated": list(reader.facts.associated),
        "icc": reader.facts.profile is not None,
    }
