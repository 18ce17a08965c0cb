"""The reader for TIFF files of planes: OME-TIFF, QPTIFF, ImageJ stacks, deep pixels.

tifffile says which pages are which plane and level; `TiffSegments` reads them. A large
image without tiles is imported first, since a strip as wide as the image serves badly.

An OME-TIFF of several files is opened by any of them.

Files that hold one RGB picture of 8 bits are left to the other readers.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tifffile

from tile_server.errors import UnreadableSlide
from tile_server.readers import tiff_metadata
from tile_server.readers.chunks import ChunkCache, ChunkedPlanes
from tile_server.readers.imports import Imports
from tile_server.readers.ome_files import OmeFiles, description, ome_files
from tile_server.readers.planes import (
    Numbers,
    Plane,
    PlaneFacts,
    PlaneReader,
)
from tile_server.readers.protocol import Level
from tile_server.readers.pyramid_file import MOST_PIXELS, read_pyramid, write_pyramid
from tile_server.readers.tiff_segments import DECODE_ERRORS, Page, TiffSegments
from tile_server.readers.tiff_structure import forget_tables, refuse_cut

log = logging.getLogger(__name__)

_MOST_PLANES = 2**16
# Above this an image in strips is imported; below, its strips are read as they are.
_LARGE = 2**22


@dataclass(frozen=True)
class _Stack:
    """Which page of a level holds which plane.

    Attributes
    ----------
    axes
        Names of the axes of pages, slowest first: T, Z and C.
    sizes
        Their lengths.
    samples
        Numbers a pixel in each page, which are channels too.
    levels
        Pages by level.
    """

    axes: str
    sizes: tuple[int, ...]
    samples: int
    levels: tuple[tuple[Page, ...], ...]

    def size(self, axis: str) -> int:
        return self.sizes[self.axes.index(axis)] if axis in self.axes else 1

    def page(self, plane: Plane) -> tuple[int, int]:
        """The number of the page of a plane, and of the sample in it."""
        channel, sample = divmod(plane.channel, self.samples)
        at = {"C": channel, "Z": plane.z, "T": plane.t}
        number = 0
        for axis, size in zip(self.axes, self.sizes, strict=True):
            number = number * size + at[axis]
        return number, sample


def open_tiff_planes(
    path: Path, chunks: ChunkCache, imports: Imports
) -> PlaneReader | None:
    """A reader of the planes of a TIFF, or None for one that is no such file.

    Raises UnreadableSlide for one whose planes cannot be served.
    """
    try:
        files = ome_files(path)
        if files is not None and files.missing:
            raise UnreadableSlide(
                f"{path.name} is one of several files, of which {files.missing[0]} is "
                "not there: put all of them into one folder."
            )
        with _tiff(path, files) as tiff:
            first = tiff.pages.first
            if not _has_planes(tiff, first):
                forget_tables([first])
                return None
            for one in files.pixels if files else (path,):
                refuse_cut(one)
            stack = _stack(path.name, tiff)
            if stack is None:
                return None
            if files is None and _is_rgb_picture(stack, first):
                return None
            reader = _reader(path, tiff, stack, chunks, imports)
            return (
                reader
                if files is None
                else replace(
                    reader, facts=replace(reader.facts, series=_series_of(files))
                )
            )
    except (*DECODE_ERRORS, OSError) as error:
        kind = type(error).__name__
        log.info("tifffile finds no planes in a file (%s)", kind)
        return None


def _tiff(path: Path, files: OmeFiles | None) -> tifffile.TiffFile:
    """The file, with the others that its header names only where they were judged."""
    if files is None:
        return tifffile.TiffFile(path, _multifile=False)
    own = path if path in files.pixels else files.pixels[0]
    text = description(files)
    return tifffile.TiffFile(own, omexml=text, _multifile=True)


def _series_of(files: OmeFiles) -> str:
    """What all files of an image share, and those of no other image."""
    text = "\0".join(os.fspath(one.resolve()) for one in files.every)
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def is_tiled(path: Path) -> bool:
    """True for a TIFF whose first page has tiles, or that cannot be read at all."""
    try:
        with tifffile.TiffFile(path, _multifile=False) as tiff:
            return bool(tiff.pages.first.is_tiled)
    except (*DECODE_ERRORS, OSError):
        return True


def _has_planes(tiff: tifffile.TiffFile, first: tifffile.TiffPage) -> bool:
    """A quick look: most slides are told from their first page alone."""
    scanners = (
        tiff.is_svs,
        tiff.is_ndpi,
        tiff.is_scn,
        tiff.is_philips,
        tiff.is_bif,
        tiff.is_eer,
    )
    if any(scanners):
        return False
    described = tiff.is_ome or tiff.is_qpi or tiff.is_imagej or tiff.is_shaped
    return bool(described) or first.dtype != np.uint8 or first.samplesperpixel == 2


def _is_rgb_picture(stack: _Stack, first: tifffile.TiffPage) -> bool:
    return (
        math.prod(stack.sizes) == 1
        and first.dtype == np.uint8
        and stack.samples in (1, 3, 4)
    )


def _stack(name: str, tiff: tifffile.TiffFile) -> _Stack | None:
    """The planes of the first series; None where it is an RGB picture in strips."""
    series = tiff.series[0]
    levels = [series, *list(series.levels)[1:]]
    axes, shape = series.get_axes(False), series.get_shape(False)
    sizes = dict(zip(axes, shape, strict=True))
    if "Y" not in sizes or "X" not in sizes:
        raise UnreadableSlide(f"{name} has no axes x and y.")
    samples = sizes.pop("S", 1)
    pages = {axis: size for axis, size in sizes.items() if axis not in "YX"}
    odd = [axis for axis, size in pages.items() if axis not in "TZC" and size > 1]
    if odd and ("Z" in pages or len(odd) > 1):
        raise UnreadableSlide(
            f"{name} has axes {axes}; only channels, z and t can be shown."
        )
    # An axis without a meaning, such as a plain sequence, is leafed through like z.
    named = {("Z" if axis in odd else axis): size for axis, size in pages.items()}
    named = {axis: size for axis, size in named.items() if axis in "TZC"}
    count = math.prod(named.values())
    if count > _MOST_PLANES:
        raise UnreadableSlide(f"{name} has {count} planes, more than {_MOST_PLANES}.")
    found = []
    for level in levels:
        level_pages = tuple(level.pages)
        if len(level_pages) != count or any(page is None for page in level_pages):
            if level is series:
                raise UnreadableSlide(
                    f"{name} says it has {count} planes and holds "
                    f"{sum(page is not None for page in level_pages)} pages."
                )
            break
        found.append(tuple(page for page in level_pages if page is not None))
    return _Stack("".join(named), tuple(named.values()), samples, tuple(found))


def _reader(
    path: Path,
    tiff: tifffile.TiffFile,
    stack: _Stack,
    chunks: ChunkCache,
    imports: Imports,
) -> ChunkedPlanes:
    dtype = np.dtype(tiff.pages.first.dtype or "V1")
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise UnreadableSlide(f"{path.name} holds {dtype.name}, which cannot be shown.")
    pictures = tiff_metadata.pictures(tiff)
    facts = tiff_metadata.facts(tiff, tuple(pictures))
    properties = tiff_metadata.properties(tiff)
    z_step_um, t_step_s = tiff_metadata.steps(tiff)
    count = stack.size("C") * stack.samples
    planes = PlaneFacts(
        tiff_metadata.channels(tiff, count),
        stack.size("Z"),
        stack.size("T"),
        dtype.newbyteorder("=").name,
        z_step_um,
        t_step_s,
    )
    source = TiffSegments(path, stack.levels, chunks)
    if not _needs_import(source.levels):
        segments, at = source, stack.page
    else:
        try:
            segments = _imported(path, stack, source, imports, chunks)
        finally:
            source.close()

        def at(plane: Plane) -> tuple[int, int]:
            page, sample = stack.page(plane)
            return page * stack.samples + sample, 0

    def chunk(level: int, plane: Plane, t_x: int, t_y: int) -> Numbers | None:
        return segments.segment(level, *at(plane), t_x, t_y)

    return ChunkedPlanes(
        path,
        segments.levels,
        facts,
        planes,
        chunk,
        segments.close,
        properties,
        lambda name: tiff_metadata.picture(path, pictures[name]),
    )


def _needs_import(levels: Sequence[Level]) -> bool:
    full = levels[0]
    tiled = full.tile_width < full.width or full.tile_height * 4 >= full.height
    return not tiled and full.width * full.height > _LARGE


def _imported(
    path: Path,
    stack: _Stack,
    source: TiffSegments,
    imports: Imports,
    chunks: ChunkCache,
) -> TiffSegments:
    """A pyramid with one page for each sample of each page of `source`."""
    full = source.levels[0]
    if full.width * full.height > MOST_PIXELS:
        raise UnreadableSlide(
            f"{path.name} has {full.width} x {full.height} pixels in strips, more than "
            "can be imported; write it as a tiled pyramidal TIFF."
        )

    def planes() -> Iterator[Numbers]:
        for page in range(math.prod(stack.sizes)):
            for sample in range(stack.samples):
                yield source.plane(page, sample)

    copy = imports.copy(path, ".tiff", lambda to: write_pyramid(to, planes()))
    return read_pyramid(copy, chunks)
