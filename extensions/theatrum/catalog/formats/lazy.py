"""Arrays that read their file when they are computed, in this process or another.

A `Stored` array holds no open file: it holds an `Opener`, a frozen value that can open
one. So it can be pickled to a worker of a cluster, which opens the file itself. Each
process keeps some files open, and what a chunk does not need is not read.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from theatrum.catalog.formats.errors import Damaged, FileChanged
from theatrum.catalog.formats.scene import DIMS

if TYPE_CHECKING:
    import xarray as xr

Numbers = npt.NDArray[Any]
Ranges = tuple[slice, ...]
"""One slice a dimension, with start and stop, without a step."""

STRIP_BYTES = 8 * 2**20
"""A plane much larger than this is read in strips of rows."""
GROUP_BYTES = 2**17
"""Planes smaller than this go together: a chunk is read whole, so larger ones cost
reading where few planes are wanted, and smaller ones make graphs of many tasks."""
MOST_BYTES = 2**43
"""Of an image; a header that says more is damaged, or made to harm."""
_MOST_OPEN = 48


class Opened(Protocol):
    """An open file; `serial` where two threads must not read at once."""

    serial: bool

    def read(self, ranges: Ranges) -> Numbers: ...

    def close(self) -> None: ...


class Opener(Protocol):
    """A frozen, hashable value that opens a file; raises FormatError."""

    def open(self) -> Opened: ...

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class File:
    """A file as it was when it was described; a later change is an error."""

    path: Path
    bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> File:
        """The file of that name; raises FileChanged where there is none."""
        try:
            status = path.stat()
        except OSError as error:
            raise FileChanged(f"{path.name} is not there.") from error
        return cls(path, status.st_size, status.st_mtime_ns)

    def checked(self) -> Path:
        """The path, where the file is still the same; else FileChanged."""
        if File.of(self.path) != self:
            raise FileChanged(
                f"{self.path.name} has changed since it was opened. Open it again; "
                "originals should stay as they are."
            )
        return self.path


class Stored:
    """Numbers in a file, with the little of an array that dask asks for."""

    def __init__(
        self,
        opener: Opener,
        shape: Sequence[int],
        dtype: npt.DTypeLike,
        axes: Sequence[int] | None = None,
    ) -> None:
        """`axes` are the opener's, in the order of this array's; by default the same.

        The order is changed here and not by dask: it would not hand slices down
        through a transposition, and read whole chunks.
        """
        self.opener = opener
        self.axes = tuple(axes if axes is not None else range(len(shape)))
        self.shape = tuple(int(one) for one in shape)
        self.dtype = np.dtype(dtype)
        self.ndim = len(self.shape)

    def __getitem__(self, key: Any) -> Numbers:  # what numpy takes
        asked = key if isinstance(key, tuple) else (key,)
        asked += (slice(None),) * (self.ndim - len(asked))
        ranges, rest = zip(
            *(_span(one, size) for one, size in zip(asked, self.shape, strict=True)),
            strict=True,
        )
        if any(one.stop <= one.start for one in ranges):
            empty = np.empty([one.stop - one.start for one in ranges], self.dtype)
            return np.asarray(empty[rest])
        theirs = [slice(0, 0)] * self.ndim
        for mine, axis in enumerate(self.axes):
            theirs[axis] = ranges[mine]
        numbers = _read(self.opener, tuple(theirs)).transpose(self.axes)
        wanted = tuple(one.stop - one.start for one in ranges)
        if numbers.shape != wanted:
            raise Damaged(
                f"A part of the image has the shape {numbers.shape} and not {wanted}."
            )
        numbers = numbers.astype(self.dtype, copy=False)
        for axis in range(self.ndim - 1, -1, -1):
            if isinstance(rest[axis], np.ndarray):
                numbers = numbers.take(rest[axis], axis)
            else:
                numbers = numbers[(slice(None),) * axis + (rest[axis],)]
        return numbers

    def __dask_tokenize__(self) -> tuple[str, str, tuple[int, ...], str]:
        text = f"{self.opener!r} {self.axes}"
        return "theatrum-stored", text, self.shape, self.dtype.str

    def transposed(self, order: Sequence[int]) -> Stored:
        """The same numbers with axis `order[i]` as axis i."""
        return Stored(
            self.opener,
            [self.shape[one] for one in order],
            self.dtype,
            [self.axes[one] for one in order],
        )


def _span(asked: Any, size: int) -> tuple[slice, Any]:
    """The contiguous range that holds what is asked for, and how to pick from it."""
    if isinstance(asked, slice):
        start, stop, step = asked.indices(size)
        count = len(range(start, stop, step))
        if count == 0:
            return slice(0, 0), slice(None)
        last = start + (count - 1) * step
        low, high = min(start, last), max(start, last)
        return slice(low, high + 1), slice(None, None, step) if step != 1 else slice(
            None
        )
    if isinstance(asked, int | np.integer):
        at = int(asked) + (size if asked < 0 else 0)
        if not 0 <= at < size:
            raise IndexError(f"index {asked} is outside of {size}")
        return slice(at, at + 1), 0
    places = np.asarray(asked)
    if places.dtype == bool:
        places = np.flatnonzero(places)
    places = np.where(places < 0, places + size, places)
    if not len(places):
        return slice(0, 0), slice(None)
    low, high = int(places.min()), int(places.max())
    return slice(low, high + 1), places - low


class _Handle:
    """An open file with the count of those who read from it now."""

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self.lock = threading.Lock()
        self.users = 0
        self.evicted = False


_handles: OrderedDict[Opener, _Handle] = OrderedDict()
_guard = threading.Lock()


def _read(opener: Opener, ranges: Ranges) -> Numbers:
    handle = _taken(opener)
    try:
        if not handle.opened.serial:
            return handle.opened.read(ranges)
        with handle.lock:
            return handle.opened.read(ranges)
    finally:
        _given_back(handle)


def _taken(opener: Opener) -> _Handle:
    with _guard:
        handle = _handles.get(opener)
        if handle is not None:
            _handles.move_to_end(opener)
            handle.users += 1
            return handle
    fresh = _Handle(opener.open())
    superfluous: list[Opened] = []
    with _guard:
        handle = _handles.setdefault(opener, fresh)
        if handle is not fresh:  # another thread was quicker
            superfluous.append(fresh.opened)
        handle.users += 1
        _handles.move_to_end(opener)
        while len(_handles) > _MOST_OPEN:
            _, oldest = _handles.popitem(last=False)
            oldest.evicted = True
            if oldest.users == 0:
                superfluous.append(oldest.opened)
    for one in superfluous:
        one.close()
    return handle


def _given_back(handle: _Handle) -> None:
    with _guard:
        handle.users -= 1
        close = handle.evicted and handle.users == 0
    if close:
        handle.opened.close()


def forget_open_files() -> None:
    """Close what this process keeps open, for one that wants to remove the files."""
    with _guard:
        idle = [key for key, one in _handles.items() if one.users == 0]
        closing = [_handles.pop(key) for key in idle]
    for one in closing:
        one.opened.close()


def chunked(
    shape: Sequence[int], itemsize: int, tile: tuple[int, int] | None = None
) -> tuple[int, ...]:
    """Chunks of whole planes, or of tiles; small planes go together along z.

    `shape` ends with y and x, and z before them where there is one.
    """
    height, width = int(shape[-2]), int(shape[-1])
    if tile is not None:
        height, width = min(tile[0], height), min(tile[1], width)
    elif height * width * itemsize > 4 * STRIP_BYTES:
        # A plane in strips: a raw one is read by rows.
        height = max(STRIP_BYTES // max(width * itemsize, 1), 1)
    outer = [1] * (len(shape) - 2)
    if outer and tile is None:
        plane = max(height * width * itemsize, 1)
        outer[-1] = max(min(GROUP_BYTES // plane, int(shape[-3])), 1)
    return (*outer, height, width)


def labelled(
    stored: Stored,
    dims: Sequence[str],
    spacing: Mapping[str, float],
    *,
    chunks: Sequence[int] | None = None,
    channels: Sequence[str] = (),
    offset: Mapping[str, float] | None = None,
) -> xr.DataArray:
    """The lazy array with named dimensions, in the order of `DIMS`, and coordinates.

    `dims` are those of the stored array. Dimensions of a body or a slide count in
    millimetres from the first voxel's centre of level 0, time in seconds from the
    first; `offset` is where a coarser level's first centre lies.
    """
    import dask.array as da
    import xarray as xr

    refuse_absurd(stored.shape, stored.dtype)
    blocks = tuple(chunks or chunked(stored.shape, stored.dtype.itemsize))
    order = sorted(range(len(dims)), key=lambda axis: DIMS.index(dims[axis]))
    from_array: Any = da.from_array
    array: Any = from_array(
        stored.transposed(order),
        chunks=tuple(blocks[axis] for axis in order),
        asarray=True,
        # Without it dask hands no slices down, and whole chunks would be read.
        fancy=True,
        inline_array=True,
        meta=np.empty((0,) * stored.ndim, stored.dtype),
    )
    found = xr.DataArray(array, dims=[dims[axis] for axis in order])
    return with_coordinates(found, spacing, channels, offset)


def with_coordinates(
    array: xr.DataArray,
    spacing: Mapping[str, float],
    channels: Sequence[str] = (),
    offset: Mapping[str, float] | None = None,
) -> xr.DataArray:
    """The array with millimetres, seconds and channels' names along its dimensions."""
    coordinates: dict[str, Any] = {}
    for dim in "tzyx":
        if dim in array.sizes and spacing.get(dim):
            start = (offset or {}).get(dim, 0.0)
            along = start + np.arange(array.sizes[dim]) * float(spacing[dim])
            unit = "s" if dim == "t" else "mm"
            coordinates[dim] = (dim, along, {"units": unit})
    names = list(channels)
    if "c" in array.sizes and len(set(names)) == array.sizes["c"] == len(names):
        coordinates["c"] = ("c", np.asarray(names, dtype=str))
    return array.assign_coords(coordinates)


def factor_of(l0_size: int, size: int) -> float:
    """How many pixels of level 0 one of a coarser level is wide.

    A whole number where the sizes agree with one: a writer of pyramids takes so many
    together, and a last part of them makes a pixel or is left out.
    """
    whole = max(round(l0_size / size), 1)
    if size in (l0_size // whole, -(-l0_size // whole)):
        return float(whole)
    return l0_size / size


def coarser(
    spacing: Mapping[str, float], l0_sizes: Mapping[str, int], sizes: Mapping[str, int]
) -> tuple[dict[str, float], dict[str, float]]:
    """Steps and first centre of a coarser level, of which a file tells sizes only.

    A coarse pixel's centre is the middle of the pixels that it was made of.
    """
    steps, offset = dict(spacing), {}
    for dim in steps.keys() & l0_sizes.keys() & sizes.keys():
        factor = factor_of(l0_sizes[dim], sizes[dim])
        offset[dim] = steps[dim] * (factor - 1) / 2
        steps[dim] *= factor
    return steps, offset


def refuse_absurd(shape: Sequence[int], dtype: npt.DTypeLike) -> None:
    """Raise Damaged for a shape that no image has."""
    if not shape or min(shape) < 1:
        raise Damaged(f"The header says that the image has the shape {tuple(shape)}.")
    total = 1
    for one in shape:
        total *= int(one)
    if total * np.dtype(dtype).itemsize > MOST_BYTES:
        raise Damaged(
            f"The header says that the image has the shape {tuple(shape)}, more than "
            f"{MOST_BYTES >> 40} TiB."
        )
