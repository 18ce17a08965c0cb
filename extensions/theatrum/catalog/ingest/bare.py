"""Copies of images that hold the pixels and where they lie, and no words.

DICOM has profiles of de-identification (`deid.py`); other formats have none, and hide
names in free texts of headers, in keys and comments, in XML, in sidecars and in labels
of slides. So nothing is removed from such a file: what is kept is listed, and put into
a new one. A slide whose tiles can be copied as they are becomes a TIFF of its levels
(`tile_server.deidentified`); every other image becomes OME-Zarr.

Kept are the numbers, sizes, spacing, affine, colours and wavelengths of channels, the
modality, and of the protocol what is a number. What the pixels themselves show is not
looked at: whoever takes it in is told so.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from theatrum.catalog import zarr_store
from theatrum.catalog.formats import open_scenes
from theatrum.catalog.formats.scene import Acquisition, Scene
from theatrum.catalog.ingest.errors import IngestError
from tile_server.deidentified import CannotCopy, copy_tiff
from tile_server.errors import TileServerError

MOST_BYTES: Final = 64 * 2**30
"""Of the pixels that are written anew; a slide whose tiles are copied may be larger."""
TOLD: Final = (
    "Its numbers and geometry were kept, and all words left behind; what its pixels "
    "show was not looked at."
)
_COLOURS: Final = frozenset({"red", "green", "blue", "R", "G", "B", "alpha"})


@dataclass(frozen=True)
class Bare:
    """A copy without words.

    Attributes
    ----------
    path
        A file, or a folder of OME-Zarr.
    format
        As `formats.sniff` says.
    """

    path: Path
    format: str


def bare(paths: Sequence[Path], format_name: str, folder: Path) -> Bare:
    """Copy an item of another format than DICOM into a new folder.

    Raises
    ------
    IngestError
        Where it cannot be copied without words; the message says why.
    FormatError
        Where it cannot be read.
    """
    folder.mkdir(parents=True)
    if format_name == "tiff":
        target = folder / "image.tiff"
        try:
            copy_tiff(paths[0], target)
        except (CannotCopy, TileServerError):
            target.unlink(missing_ok=True)
        else:
            return Bare(target, "tiff")
    with _own_cache(folder / "cache"):
        scenes = open_scenes(paths, format_name)
        if len(scenes) > 1:
            raise IngestError(
                f"It holds {len(scenes)} images, and is taken in without words only "
                "one by one: save each to a file of its own."
            )
        (scene,) = scenes
        size = int(scene.array.size) * scene.array.dtype.itemsize
        if size > MOST_BYTES:
            raise IngestError(
                f"It is too large to be written without its words: {size >> 30} GiB of "
                f"pixels, and {MOST_BYTES >> 30} are. Convert it to DICOM first."
            )
        target = folder / "image.ome.zarr"
        zarr_store.write(_plain(scene), target, zarr_store.describe(_wordless(scene)))
    return Bare(target, "ome-zarr")


# Any: an xarray
def _plain(scene: Scene) -> Any:
    """The array without names along its channels."""
    return scene.array.drop_vars("c", errors="ignore")


def _wordless(scene: Scene) -> Scene:
    known = scene.acquisition
    channels = [
        replace(
            one,
            name=one.name if one.name in _COLOURS else f"channel {number}",
            fluor="",
        )
        for number, one in enumerate(scene.channels, start=1)
    ]
    strength = known.device.get("field_strength_t")
    return replace(
        scene,
        name="",
        channels=tuple(channels),
        acquisition=Acquisition(
            modality=known.modality,
            device=_numbers({"field_strength_t": strength}),
            protocol=_numbers(known.protocol),
        ),
        planes={},
        warnings=(),
        facts={},
    )


# Any: JSON
def _numbers(told: Mapping[str, Any]) -> dict[str, Any]:
    """What of some values is a number, or a list of numbers."""
    return {
        name: value
        for name, value in told.items()
        if _is_number(value)
        or (isinstance(value, list | tuple) and all(_is_number(one) for one in value))
    }


def _is_number(value: object) -> bool:
    return isinstance(value, bool | int | float) and math.isfinite(value)


@contextmanager
def _own_cache(folder: Path) -> Iterator[None]:
    """Unpack packed files below `folder`, which goes with the rest, while it lasts."""
    before = os.environ.get("XDG_CACHE_HOME")
    folder.mkdir()
    os.environ["XDG_CACHE_HOME"] = os.fspath(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["XDG_CACHE_HOME"]
        else:
            os.environ["XDG_CACHE_HOME"] = before
