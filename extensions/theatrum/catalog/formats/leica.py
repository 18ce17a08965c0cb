"""Leica's LIF: every image of the file is a scene, its frames read one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import liffile
import numpy as np

from theatrum.catalog.formats.errors import Damaged
from theatrum.catalog.formats.lazy import File, Numbers, Ranges, Stored, labelled
from theatrum.catalog.formats.scene import Acquisition, Channel, Scene

LIF_START: Final = b"\x70\0\0\0"
_DIMS: Final = {"T": "t", "C": "c", "Z": "z", "Y": "y", "X": "x", "S": "c"}
_MOST_IMAGES: Final = 4096
_LIF_ERRORS: Final = (
    liffile.LifFileError, ValueError, KeyError, IndexError, TypeError, OSError,
    AttributeError, ArithmeticError, MemoryError, RuntimeError, SyntaxError,
)  # fmt: skip


@dataclass(frozen=True)
class LifFrames:
    """An opener of one image, in the order of its own axes."""

    file: File
    image: int
    dims: tuple[str, ...]

    def open(self) -> _OpenLif:
        return _OpenLif(self)


class _OpenLif:
    serial = True

    def __init__(self, opener: LifFrames) -> None:
        self._opener = opener
        self._lif = liffile.LifFile(opener.file.checked())
        self._image: Any = self._lif.images[opener.image]

    def read(self, ranges: Ranges) -> Numbers:
        dims = self._opener.dims
        inner = 3 if dims[-1] == "S" else 2
        outer = ranges[:-inner]
        shape = [one.stop - one.start for one in ranges]
        room = np.empty(shape, self._image.dtype)
        try:
            for place in np.ndindex(*shape[:-inner]):
                where = {
                    dim: one.start + at
                    for dim, one, at in zip(dims, outer, place, strict=False)
                }
                room[place] = self._image.frame(**where)[ranges[-inner:]]
        except _LIF_ERRORS as error:
            name = self._opener.file.path.name
            raise Damaged(f"{name} has a frame that cannot be read.") from error
        return room

    def close(self) -> None:
        self._lif.close()


def open_lif(path: Path) -> list[Scene]:
    """The images of a LIF file; raises FormatError."""
    file = File.of(path)
    try:
        with liffile.LifFile(path) as lif:
            images = lif.images
            if not 0 < len(images) <= _MOST_IMAGES:
                raise Damaged(f"{path.name} says that it has {len(images)} images.")
            scenes = [_scene(file, number, one) for number, one in enumerate(images)]
            found = [one for one in scenes if one is not None]
    except _LIF_ERRORS as error:
        raise Damaged(f"{path.name} is a damaged LIF file.") from error
    if not found:
        raise Damaged(f"{path.name} holds no image of axes that are taken in.")
    return found


def _scene(file: File, number: int, image: Any) -> Scene | None:
    dims = tuple(str(one) for one in image.dims)
    names = tuple(_DIMS.get(dim, "") for dim in dims)
    if "" in names or len(set(names)) < len(names) or names[-1 - ("S" in dims)] != "x":
        return None
    shape = tuple(int(one) for one in image.shape)
    spacing = _spacing(image, dims)
    channels = _channels(image, dict(zip(names, shape, strict=True)).get("c", 1))
    array = labelled(
        Stored(LifFrames(file, number, dims), shape, image.dtype),
        names,
        spacing,
        chunks=_chunks(dims, shape),
        channels=[one.name for one in channels],
    )
    return Scene(
        format="LIF",
        files=(file.path,),
        levels=(array,),
        index=number,
        name=str(image.name)[:128],
        spacing=spacing,
        channels=channels,
        acquisition=Acquisition(modality="FM", device={"maker": "Leica"}),
    )


def _spacing(image: Any, dims: Sequence[str]) -> dict[str, float]:
    """The steps of its coordinates: metres and seconds."""
    spacing: dict[str, float] = {}
    coordinates = image.coords
    for dim in dims:
        along = coordinates.get(dim)
        if dim not in "TZYX" or along is None or len(along) < 2:
            continue
        step = abs(float(along[1]) - float(along[0]))
        if step > 0:
            spacing[_DIMS[dim]] = step if dim == "T" else step * 1e3
    return spacing


def _channels(image: Any, count: int) -> tuple[Channel, ...]:
    names = image.coords.get("C")
    if names is None or len(names) != count or np.asarray(names).dtype.kind not in "US":
        names = [f"channel {number}" for number in range(count)]
    return tuple(Channel(str(name)[:128]) for name in names)


def _chunks(dims: Sequence[str], shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(
        size if dim in "YXS" else 1 for dim, size in zip(dims, shape, strict=True)
    )
