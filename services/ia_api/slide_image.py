"""A slide as a node sees it, over the downloaded files or over the server's tiles.

Planes: `l0_` level-0 pixels of the full slide, `l_` pixels of a level. Levels halve;
rung 0 is full resolution, as `theatrum.node.Image` has it.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
from theatrum.node import BadValue

from services.ia_api import tiles
from services.ia_api.errors import Permanent
from services.ia_api.pathology_server import PathologyServer
from services.ia_api.slide_info import SlideInfo
from tile_server import regions
from tile_server.errors import TileServerError
from tile_server.pyramid import Pyramid
from tile_server.readers import open_slide
from tile_server.readers.imports import Imports

Pixels = npt.NDArray[np.uint8]
_MOST_PIXELS = 2**24
_KEPT_TILES = 1024


class Unreadable(Permanent):
    """The files that came are no slide that can be read."""

    code = "unreadable"


class OtherSize(Unreadable):
    """The files hold a picture of another size than the pathology server tells."""

    code = "other-size"


@dataclass(frozen=True)
class Rung:
    """One level: how many level-0 pixels one of its pixels spans."""

    downsample: float


class FileSlide:
    """A slide in files, through the tile service's readers."""

    def __init__(self, pyramid: Pyramid, um_per_pixel: float | None) -> None:
        self._pyramid = pyramid
        self._um_per_pixel = um_per_pixel
        self._full = pyramid.ladder.rungs[0]

    @property
    def width(self) -> int:
        return self._full.width

    @property
    def height(self) -> int:
        return self._full.height

    @property
    def mpp_x(self) -> float | None:
        return self._pyramid.reader.facts.mpp_x or self._um_per_pixel

    @property
    def mpp_y(self) -> float | None:
        return self._pyramid.reader.facts.mpp_y or self._um_per_pixel

    @property
    def levels(self) -> Sequence[Rung]:
        return tuple(Rung(rung.downsample) for rung in self._pyramid.ladder.rungs)

    def region(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        level: int | None = None,
        mpp: float | None = None,
    ) -> Pixels:
        across, down = _downsample(self, level, mpp)
        box = regions.Box(x, y, width, height)
        return regions.read_region(self._pyramid, box, (across, down))


class TileSlide:
    """A slide at the pathology server: only tiles that are looked at are fetched."""

    def __init__(self, server: PathologyServer, slide: SlideInfo) -> None:
        self._server = _Remembering(server)
        self._slide = slide
        self._top = tiles.top_level(slide.size)

    @property
    def width(self) -> int:
        return self._slide.size[0]

    @property
    def height(self) -> int:
        return self._slide.size[1]

    @property
    def mpp_x(self) -> float | None:
        return self._slide.um_per_pixel

    @property
    def mpp_y(self) -> float | None:
        return self._slide.um_per_pixel

    @property
    def levels(self) -> Sequence[Rung]:
        longest = max(self._slide.size)
        halvings = max(0, math.ceil(math.log2(longest / max(self._slide.tile_size))))
        return tuple(Rung(2.0**k) for k in range(halvings + 1))

    def check(self) -> None:
        """Raise Gone where tiles were missing because the slide is.

        A tile that the server does not have is background: at an edge, or where the
        scanner skipped. Of a slide that was removed meanwhile every tile is.
        """
        if self._server.missed:
            self._server.slide(self._slide.id)

    def region(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        level: int | None = None,
        mpp: float | None = None,
    ) -> Pixels:
        downsample, _ = _downsample(self, level, mpp)
        columns = max(1, round(width / downsample))
        rows = max(1, round(height / downsample))
        if columns * rows > _MOST_PIXELS:
            raise BadValue(
                f"That is {columns} x {rows} pixels, more than {_MOST_PIXELS} at once."
            )
        halvings = min(self._top, max(0, math.floor(math.log2(downsample * 1.01))))
        at = tiles.level(self._slide, self._top - halvings)
        l_left, l_upper = x / at.downsample, y / at.downsample
        l_right = (x + width) / at.downsample
        l_lower = (y + height) / at.downsample
        left, upper = math.floor(l_left), math.floor(l_upper)
        right, lower = math.ceil(l_right), math.ceil(l_lower)
        picture = PIL.Image.new(
            "RGB", (max(1, right - left), max(1, lower - upper)), tiles.BACKGROUND
        )
        inside = (
            max(0, left),
            max(0, upper),
            min(at.size[0], right),
            min(at.size[1], lower),
        )
        if inside[0] < inside[2] and inside[1] < inside[3]:
            for t_x, t_y, tile in tiles.pieces(self._server, self._slide, at, inside):
                picture.paste(tile, (t_x - left, t_y - upper))
        if picture.size != (columns, rows) or (left, upper) != (l_left, l_upper):
            shrinks = l_right - l_left >= columns
            picture = picture.resize(
                (columns, rows),
                PIL.Image.Resampling.BOX if shrinks else PIL.Image.Resampling.BILINEAR,
                (l_left - left, l_upper - upper, l_right - left, l_lower - upper),
            )
        return np.asarray(picture)


class _Remembering(PathologyServer):
    """Remembers tiles, still encoded: neighbouring regions share them.

    Safe to share between the threads that fetch the tiles of one region.
    """

    def __init__(self, server: PathologyServer) -> None:
        super().__init__(server.transport, server.callback, server.api_version)
        self.missed = False
        self._kept: OrderedDict[tuple[Any, ...], bytes | None] = OrderedDict()
        self._lock = threading.Lock()

    # Any: what the client's own method takes
    def tile(self, *place: Any, **kind: Any) -> bytes | None:
        key = (*place, *sorted(kind.items()))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        tile = super().tile(*place, **kind)
        with self._lock:
            self.missed = self.missed or tile is None
            self._kept[key] = tile
            if len(self._kept) > _KEPT_TILES:
                self._kept.popitem(last=False)
        return tile


@contextmanager
def opened(
    folder: Path, names: Sequence[str], temporary: Path, um_per_pixel: float | None
) -> Iterator[FileSlide]:
    """The slide in a folder of files; Unreadable where none of them is one.

    Several DICOM files are one slide; of other formats with several files the main one
    is found by trying.
    """
    temporary.mkdir(mode=0o700, exist_ok=True)
    imports = Imports(temporary)
    paths = [folder / name for name in sorted(names)]
    candidates = [folder, *paths] if len(paths) > 1 else paths
    for path in candidates:
        try:
            reader = open_slide(path, imports=imports)
        except (TileServerError, OSError):
            continue
        with reader:
            yield FileSlide(Pyramid(reader), um_per_pixel)
            return
    raise Unreadable("the files that the server sent are no slide that can be read")


def _downsample(
    image: FileSlide | TileSlide, level: int | None, mpp: float | None
) -> tuple[float, float]:
    if level is not None and mpp is not None:
        raise BadValue("Give a level or an mpp, not both.")
    if mpp is None:
        return 2.0 ** (level or 0), 2.0 ** (level or 0)
    if image.mpp_x is None or image.mpp_y is None:
        raise BadValue("This slide does not say its scale: give a level.")
    return mpp / image.mpp_x, mpp / image.mpp_y
