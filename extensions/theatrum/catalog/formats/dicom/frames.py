"""A stack of DICOM frames as one lazy array: which frame each slice is, and its scale.

The numbers are those that the modality means (Hounsfield units for CT): stored values
after RescaleSlope and RescaleIntercept (PS3.3, clause C.11.1). Whole numbers stay so.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from theatrum.catalog.formats.dicom.coding import (
    DEFLATED,
    Coding,
    decoded,
    inflated,
    read_rows,
)
from theatrum.catalog.formats.errors import Damaged
from theatrum.catalog.formats.lazy import File, Numbers, Ranges

_KEPT_FRAMES = 4
"""Decoded frames kept by an open stack: a mosaic's tiles come out of one."""
_OPEN_FILES = 32


@dataclass(frozen=True)
class Source:
    """Where one slice's numbers come from.

    Attributes
    ----------
    file
        Its place in the stack's files.
    start, end
        Of the frame's bytes.
    slope, intercept
        Of its rescaling.
    corner
        Row and column in a mosaic at which the slice's tile begins, else (0, 0).
    """

    file: int
    start: int
    end: int
    slope: float = 1.0
    intercept: float = 0.0
    corner: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Stack:
    """An opener of (t, z, y, x) numbers, or (t, z, y, x, c) of colour pictures.

    Attributes
    ----------
    slices
        By time, then by place; None where a slice is missing, which then has `fill`.
    rows, columns
        Of a slice; smaller than a frame where that is a mosaic.
    """

    files: tuple[File, ...]
    coding: Coding
    slices: tuple[tuple[Source | None, ...], ...]
    rows: int
    columns: int
    dtype: str
    fill: float = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        shape = (len(self.slices), len(self.slices[0]), self.rows, self.columns)
        return (*shape, 3) if self.coding.samples == 3 else shape

    def open(self) -> _OpenStack:
        return _OpenStack(self)


class _OpenStack:
    serial = True

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._fds: OrderedDict[int, int] = OrderedDict()
        self._frames: OrderedDict[tuple[int, int], Numbers] = OrderedDict()
        self._inflated: tuple[int, bytes] = (-1, b"")

    def read(self, ranges: Ranges) -> Numbers:
        stack = self._stack
        times, places, rows, columns = ranges[:4]
        shape = [one.stop - one.start for one in ranges]
        room = np.full(shape, stack.fill, np.dtype(stack.dtype))
        for t in range(times.start, times.stop):
            for z in range(places.start, places.stop):
                source = stack.slices[t][z]
                if source is None:
                    continue
                part = self._slice(source, rows, columns)
                if stack.coding.samples == 3:
                    part = part[..., ranges[4]]
                room[t - times.start, z - places.start] = part
        return room

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.popitem()[1])

    def _slice(self, source: Source, rows: slice, columns: slice) -> Numbers:
        stack = self._stack
        coding = stack.coding
        down, across = source.corner
        first, last = down + rows.start, down + rows.stop
        name = stack.files[source.file].path.name
        if coding.native and coding.samples == 1 and coding.syntax != DEFLATED:
            fd = self._fd(source.file)
            part = read_rows(fd, source.start, coding, (first, last), name)
        else:
            part = self._frame(source, name)[first:last]
        part = part[:, across + columns.start : across + columns.stop]
        if (source.slope, source.intercept) == (1.0, 0.0):
            return part
        if np.dtype(stack.dtype).kind in "iu":
            return part.astype(np.int64) + int(source.intercept)
        return part * source.slope + source.intercept

    def _frame(self, source: Source, name: str) -> Numbers:
        key = source.file, source.start
        frame = self._frames.pop(key, None)
        if frame is None:
            frame = decoded(self._content(source, name), self._stack.coding, name)
        self._frames[key] = frame
        while len(self._frames) > _KEPT_FRAMES:
            self._frames.popitem(last=False)
        return frame

    def _content(self, source: Source, name: str) -> bytes:
        length = source.end - source.start
        if self._stack.coding.syntax == DEFLATED:
            if self._inflated[0] != source.file:
                path = self._stack.files[source.file].checked()
                self._inflated = source.file, inflated(path.read_bytes())
            content = self._inflated[1][source.start : source.end]
        else:
            content = os.pread(self._fd(source.file), length, source.start)
        if len(content) != length:
            raise Damaged(f"{name} is cut off within its pixel data. Copy it again.")
        return content

    def _fd(self, number: int) -> int:
        if number in self._fds:
            self._fds.move_to_end(number)
            return self._fds[number]
        path = self._stack.files[number].checked()
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        self._fds[number] = fd
        while len(self._fds) > _OPEN_FILES:
            os.close(self._fds.popitem(last=False)[1])
        return fd


def number_type(coding: Coding, scales: set[tuple[float, float]]) -> np.dtype[Any]:
    """What holds every number after its rescaling: whole as long as they are."""
    if coding.samples == 3:
        return np.dtype(np.uint8 if coding.bits == 8 else np.uint16)
    if scales == {(1.0, 0.0)}:
        return coding.dtype
    if any(slope != 1.0 or shift != int(shift) for slope, shift in scales):
        return np.dtype(np.float32)
    low = -(1 << (coding.stored - 1)) if coding.signed else 0
    high = low + (1 << coding.stored) - 1
    shifts = [int(shift) for _, shift in scales]
    low, high = low + min(shifts), high + max(shifts)
    for one in (np.int16, np.int32, np.int64):
        bounds = np.iinfo(one)
        if bounds.min <= low and high <= bounds.max:
            return np.dtype(one)
    return np.dtype(np.float64)
