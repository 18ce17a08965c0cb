"""OME-TIFF: pixels through the tile service's reader, facts out of the OME-XML.

A file of several images is read by tifffile, one scene an image; the tile service shows
the first of them only.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import tifffile

from theatrum.catalog.formats import ome_xml
from theatrum.catalog.formats.errors import Damaged
from theatrum.catalog.formats.lazy import (
    File,
    Numbers,
    Ranges,
    Stored,
    coarser,
    labelled,
)
from theatrum.catalog.formats.ome_xml import OmeImage
from theatrum.catalog.formats.scene import Channel, Scene
from theatrum.catalog.formats.tile_planes import open_tiles
from tile_server.readers.tiff_structure import TIFF_STARTS, first_description

_MOST_TEXT: Final = 64 * 2**20
_MOST_SERIES: Final = 1024
_DIMS: Final = {"T": "t", "C": "c", "Z": "z", "Y": "y", "X": "x", "S": "c"}
# What tifffile raises for files that are not as they should be.
_TIFF_ERRORS: Final = (
    tifffile.TiffFileError, ValueError, KeyError, IndexError, TypeError, OSError,
    AttributeError, ArithmeticError, MemoryError, RuntimeError,
)  # fmt: skip


def ome_text(path: Path, start: bytes) -> str:
    """The OME-XML of a TIFF or companion file, or ""."""
    if start.startswith(TIFF_STARTS):
        with path.open("rb") as file:
            text = first_description(file, _MOST_TEXT)
    elif path.name.endswith(".companion.ome"):
        text = path.read_bytes()[:_MOST_TEXT].decode("utf-8", "replace")
    else:
        return ""
    return text if "<OME" in text[:2000] else ""


def open_ome_tiff(path: Path, text: str) -> list[Scene]:
    """The images of an OME-TIFF whose description is `text`; raises FormatError."""
    images = ome_xml.parse(text, path.name)
    if len(images) > 1:
        return _several(path, images)
    scene = open_tiles(path)
    return [described(scene, images[0])] if images else [scene]


def described(scene: Scene, image: OmeImage) -> Scene:
    """The scene with what its OME-XML says, where the pixels do not say otherwise."""
    channels = scene.channels
    if len(image.channels) == len(channels):
        channels = tuple(
            replace(
                told,
                color=told.color or mine.color,
                window=mine.window,
                name=told.name,
            )
            for told, mine in zip(image.channels, scene.channels, strict=True)
        )
    spacing = {**image.spacing, **scene.spacing}
    return replace(
        scene,
        name=scene.name or image.name,
        channels=channels,
        planes=image.planes,
        spacing={dim: step for dim, step in spacing.items() if dim in scene.dims},
        acquisition=replace(
            image.acquisition,
            modality=scene.acquisition.modality,
            protocol={**scene.acquisition.protocol, **image.acquisition.protocol},
        ),
        facts={
            **scene.facts,
            **(
                {"significant_bits": image.significant_bits}
                if image.significant_bits
                else {}
            ),
        },
    )


@dataclass(frozen=True)
class TiffSeries:
    """An opener of one level of one series of a TIFF file."""

    file: File
    series: int
    level: int

    def open(self) -> _OpenSeries:
        return _OpenSeries(self)


class _OpenSeries:
    serial = True  # tifffile's file handle has one position

    def __init__(self, opener: TiffSeries) -> None:
        import zarr

        self._name = opener.file.path.name
        self._lock = threading.Lock()
        try:
            self._tiff = tifffile.TiffFile(opener.file.checked())
            series = self._tiff.series[opener.series]
            store: Any = series.aszarr(level=opener.level)
            # zarr reads the tiles that a part needs, and no others.
            self._array: Any = zarr.open_array(store, mode="r")
        except _TIFF_ERRORS as error:
            raise Damaged(f"{self._name} is a damaged TIFF file.") from error

    def read(self, ranges: Ranges) -> Numbers:
        try:
            return np.asarray(self._array[ranges])
        except _TIFF_ERRORS as error:
            raise Damaged(f"{self._name} has tiles that cannot be decoded.") from error

    def close(self) -> None:
        self._tiff.close()


def _several(path: Path, images: Sequence[OmeImage]) -> list[Scene]:
    file = File.of(path)
    scenes: list[Scene] = []
    try:
        with tifffile.TiffFile(path) as tiff:
            if not 0 < len(tiff.series) <= _MOST_SERIES:
                raise Damaged(
                    f"{path.name} says that it has {len(tiff.series)} images."
                )
            for number, series in enumerate(tiff.series):
                image = images[number] if number < len(images) else None
                scenes.append(_series_scene(file, number, series, image))
    except _TIFF_ERRORS as error:
        raise Damaged(f"{path.name} is a damaged OME-TIFF file.") from error
    return scenes


def _series_scene(
    file: File, number: int, series: Any, image: OmeImage | None
) -> Scene:
    axes = str(series.axes)
    if any(axis not in _DIMS for axis in axes) or ("S" in axes and "C" in axes):
        raise Damaged(f"{file.path.name} has the axes {axes}, which are not taken in.")
    dims = tuple(_DIMS[axis] for axis in axes)
    names = tuple(one.name for one in image.channels) if image is not None else ()
    spacing = dict(image.spacing) if image is not None else {}
    levels = []
    for level, one in enumerate(series.levels):
        shape = tuple(int(size) for size in one.shape)
        scaled, offset = coarser(
            {dim: step for dim, step in spacing.items() if dim in dims},
            dict(zip(dims, series.shape, strict=True)),
            dict(zip(dims, shape, strict=True)),
        )
        levels.append(
            labelled(
                Stored(TiffSeries(file, number, level), shape, one.dtype),
                dims,
                scaled,
                offset=offset,
                chunks=_chunks(dims, shape),
                channels=names,
            )
        )
    count = levels[0].sizes.get("c", 1)
    channels = (
        image.channels
        if image is not None and len(image.channels) == count
        else tuple(Channel(f"channel {one}") for one in range(count))
    )
    scene = Scene(
        format="OME-TIFF",
        files=(file.path,),
        levels=tuple(levels),
        index=number,
        spacing={dim: step for dim, step in spacing.items() if dim in dims},
        channels=channels,
    )
    if image is None:
        return scene
    return replace(described(scene, image), acquisition=image.acquisition)


def _chunks(dims: Sequence[str], shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(
        min(size, 1024) if dim in "yx" else (size if dim == "c" and at > 2 else 1)
        for at, (dim, size) in enumerate(zip(dims, shape, strict=True))
    )
