"""One total pixel matrix of a DICOM slide: a level, or its label, overview, thumbnail.

Its frames can lie in several files (concatenations, one file per optical path). They
are found through one table: by optical path, depth, row and column.

Planes: `l_` pixels of the level, `t_` tiles of its grid.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tile_server import jpeg_streams
from tile_server.errors import DamagedTile, UnreadableSlide
from tile_server.readers import dicom_pixels
from tile_server.readers.dicom_files import JPEG_BASELINE, Instance
from tile_server.readers.dicom_frames import read_frame, unpack
from tile_server.reading import Place

_MOST_TILES = 2**24
_SMALLEST_TILE, _LARGEST_TILE = 64, 2048


class Matrix:
    """The frames of one level; owns the descriptors of its files."""

    def __init__(self, instances: Sequence[Instance]) -> None:
        """Open the files of `instances`, which share one size and kind.

        Raises UnreadableSlide.
        """
        first = instances[0]
        self.width, self.height = first.width, first.height
        self.tile_width, self.tile_height = first.tile_width, first.tile_height
        self.samples, self.bits = first.samples, first.bits
        self.columns = -(-self.width // self.tile_width)
        self.rows = -(-self.height // self.tile_height)
        self.identifiers = _unique(
            path.identifier for one in instances for path in one.optical_paths
        )
        depths = _depths(instances)
        self.depths = max(depths.values(), key=len)
        _refuse_contradictions(instances)
        shape = len(self.identifiers), len(self.depths), self.rows, self.columns
        if np.prod(shape, dtype=float) > _MOST_TILES:
            raise UnreadableSlide(
                f"{first.path.name} says that it has more than {_MOST_TILES} tiles."
            )
        self._starts = np.zeros(shape, np.uint64)
        self._ends = np.zeros(shape, np.uint64)
        self._files = np.zeros(shape, np.uint16)
        self._instances = tuple(instances)
        for number, instance in enumerate(instances):
            self._place(number, instance, depths)
        self._fds: list[int] = []
        self._prefixes: tuple[bytes | None, ...] = ()
        try:
            for one in instances:
                flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)
                self._fds.append(os.open(one.path, flags))
            self._prefixes = tuple(
                self._prefix(number) for number in range(len(instances))
            )
        except BaseException:
            self.close()
            raise

    @property
    def instances(self) -> tuple[Instance, ...]:
        """The files of the matrix, in the order of their numbers."""
        return self._instances

    def items(self, number: int, frame: int) -> bytes:
        """What file `number` holds of its frame `frame`, from 0, as it lies there.

        Compressed frames are in their items (PS3.5 A.4). Raises DamagedTile.
        """
        index = self._instances[number].index
        start, end = int(index.starts[frame]), int(index.ends[frame])
        return read_frame(self._fds[number], start, end, encapsulated=False)

    def is_file(self, number: int, status: os.stat_result) -> bool:
        """True where `status` is that of the open file `number`."""
        return os.path.samestat(os.fstat(self._fds[number]), status)

    @property
    def passes(self) -> bool:
        """True where frames are JPEG tiles that a browser can show as they are."""
        return (
            all(prefix is not None for prefix in self._prefixes)
            and self.tile_width == self.tile_height
            and self.tile_width % 16 == 0
            and _SMALLEST_TILE <= self.tile_width <= _LARGEST_TILE
        )

    def encoded(self, t_x: int, t_y: int, *, path: int, depth: int) -> bytes | None:
        """A frame as a JPEG that stands alone; None where there is no such frame."""
        number = int(self._files[path, depth, t_y, t_x])
        prefix = self._prefixes[number]
        frame = self._frame(t_x, t_y, path, depth)
        if frame is None or prefix is None:
            return None
        if not jpeg_streams.starts_like_jpeg(frame):
            raise DamagedTile(f"Frame {t_x}, {t_y} of this level is damaged.")
        return jpeg_streams.complete(prefix, frame)

    def place(self, t_x: int, t_y: int, *, path: int, depth: int) -> Place | None:
        """Where a frame that can leave as a JPEG lies; None where there is none."""
        spot = path, depth, t_y, t_x
        number = int(self._files[spot])
        prefix = self._prefixes[number]
        start, end = int(self._starts[spot]), int(self._ends[spot])
        if end == 0 or prefix is None:
            return None
        encapsulated = self._instances[number].index.encapsulated
        descriptor = self._fds[number]
        return Place(
            descriptor, start, end - start, prefix, unpack if encapsulated else None
        )

    def read(
        self,
        l_x: int,
        l_y: int,
        canvas: npt.NDArray[Any],
        *,
        path: int,
        depth: int,
    ) -> None:
        """Lay what there is of the level over `canvas`, whose corner is (l_x, l_y).

        `canvas` is (height, width) for one sample a pixel, else (height, width, 3).
        Raises DamagedTile.
        """
        across, down = self.tile_width, self.tile_height
        left, top = max(l_x, 0), max(l_y, 0)
        right = min(l_x + canvas.shape[1], self.width)
        bottom = min(l_y + canvas.shape[0], self.height)
        if right <= left or bottom <= top:
            return
        for t_y in range(top // down, -(-bottom // down)):
            for t_x in range(left // across, -(-right // across)):
                tile = self._pixels(t_x, t_y, path, depth)
                if tile is None:
                    continue
                x, y = t_x * across, t_y * down
                x0, x1 = max(x, left), min(x + across, right)
                y0, y1 = max(y, top), min(y + down, bottom)
                part = tile[y0 - y : y1 - y, x0 - x : x1 - x]
                canvas[y0 - l_y : y1 - l_y, x0 - l_x : x1 - l_x] = part

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def _place(
        self, number: int, instance: Instance, depths: Mapping[str, tuple[float, ...]]
    ) -> None:
        """Enter the frames of one file into the table; `depths` are those by path."""
        own = [self.identifiers.index(one.identifier) for one in instance.optical_paths]
        columns, rows = self.columns, self.rows
        if instance.places is None:
            frames = instance.frame_offset + np.arange(instance.frames)
            plane, place = np.divmod(frames, rows * columns)
            path, depth = np.divmod(plane, instance.focal_planes)
            row, column = np.divmod(place, columns)
        else:
            x, y, depth, path = instance.places.T
            column, row = x // self.tile_width, y // self.tile_height
            if np.any(x % self.tile_width) or np.any(y % self.tile_height):
                raise UnreadableSlide(
                    f"{instance.path.name} cannot be read: its frames lie in no grid."
                )
        outside = (
            (path >= len(own)) | (depth >= len(instance.depths_um))
            | (column < 0) | (column >= columns) | (row < 0) | (row >= rows)
        )  # fmt: skip
        if np.any(outside):
            raise UnreadableSlide(
                f"{instance.path.name} cannot be read: {int(outside.sum())} of its "
                "frames lie outside its picture."
            )
        ranks = [
            _ranks(self.depths, depths[one.identifier], instance.depths_um)
            for one in instance.optical_paths
        ]
        spot = np.asarray(own)[path], np.stack(ranks)[path, depth], row, column
        self._starts[spot] = instance.index.starts
        self._ends[spot] = instance.index.ends
        self._files[spot] = number

    def _frame(self, t_x: int, t_y: int, path: int, depth: int) -> bytes | None:
        spot = path, depth, t_y, t_x
        start, end = int(self._starts[spot]), int(self._ends[spot])
        if end == 0:
            return None
        number = int(self._files[spot])
        encapsulated = self._instances[number].index.encapsulated
        frame = read_frame(self._fds[number], start, end, encapsulated=encapsulated)
        # A frame of no bytes is how some writers say that nothing was scanned.
        return frame or None

    def _pixels(
        self, t_x: int, t_y: int, path: int, depth: int
    ) -> npt.NDArray[Any] | None:
        frame = self._frame(t_x, t_y, path, depth)
        if frame is None:
            return None
        number = int(self._files[path, depth, t_y, t_x])
        return dicom_pixels.decode(frame, self._instances[number])

    def _prefix(self, number: int) -> bytes | None:
        """The prefix that all frames of a file ask for, as three of them show."""
        one = self._instances[number]
        if one.syntax != JPEG_BASELINE or one.bits != 8:
            return None
        if one.samples == 1 and one.photometric != "MONOCHROME2":
            return None
        declared = jpeg_streams.Declared(
            one.tile_width, one.tile_height, one.samples, rgb=one.photometric == "RGB"
        )
        found: set[bytes | None] = set()
        for frame in {0, one.frames // 2, one.frames - 1}:
            start, end = int(one.index.starts[frame]), int(one.index.ends[frame])
            try:
                stream = read_frame(self._fds[number], start, end, encapsulated=True)
            except DamagedTile:
                continue  # a damaged frame says nothing of the others
            if jpeg_streams.starts_like_jpeg(stream):
                found.add(jpeg_streams.passing_prefix(None, stream, declared))
        return found.pop() if len(found) == 1 else None


def _unique(names: Iterator[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _depths(instances: Sequence[Instance]) -> dict[str, tuple[float, ...]]:
    """The depths of a level that occur in each of its optical paths, rising."""
    told: dict[str, set[float]] = {}
    for one in instances:
        for number, path in enumerate(one.optical_paths):
            depths = set(one.depths_um)
            if one.places is not None:
                own = one.places[one.places[:, 3] == number, 2]
                depths = {one.depths_um[rank] for rank in np.unique(own)}
            told.setdefault(path.identifier, set()).update(depths)
    return {name: tuple(sorted(depths)) for name, depths in told.items()}


def _ranks(
    depths: Sequence[float], own: Sequence[float], wanted: Sequence[float]
) -> npt.NDArray[np.intp]:
    """The ranks among a level's `depths` of the depths that a file has for a path.

    Dyes are often in focus at different depths. Where a path has as many as the level,
    its `own` ones are counted; else the nearest of the level's is taken.
    """
    table = np.asarray(own if len(own) == len(depths) else depths)
    after = np.searchsorted(table, wanted).clip(0, len(table) - 1)
    before = (after - 1).clip(0)
    is_nearer = np.abs(table[before] - wanted) < np.abs(table[after] - wanted)
    return np.where(is_nearer, before, after)


def _refuse_contradictions(instances: Sequence[Instance]) -> None:
    """Raise UnreadableSlide where the files of one level do not fit together."""
    first = instances[0]
    for one in instances[1:]:
        same = (
            (one.tile_width, one.tile_height, one.samples, one.bits)
            == (first.tile_width, first.tile_height, first.samples, first.bits)
        )  # fmt: skip
        if not same or (one.places is None) != (first.places is None):
            raise UnreadableSlide(
                f"{one.path.name} and {first.path.name} belong to one level and do "
                "not fit together."
            )
