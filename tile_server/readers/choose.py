"""Choosing the reader of a file: by its content, with the choice in the log."""

from __future__ import annotations

import logging
import tempfile
from contextlib import ExitStack
from pathlib import Path

import openslide

from tile_server.errors import DamagedTile, UnreadableSlide
from tile_server.readers.bare_tiff import BareTiff
from tile_server.readers.by_content import open_as_last, open_by_content
from tile_server.readers.chunks import ChunkCache
from tile_server.readers.dicom_wsi import DicomPlanes, open_dicom
from tile_server.readers.imports import Imports
from tile_server.readers.limits import refuse_absurd
from tile_server.readers.pass_through import PassThroughReader
from tile_server.readers.protocol import Level, Reader
from tile_server.readers.rendering import rendered
from tile_server.readers.through_openslide import OpenSlideReader
from tile_server.readers.tiff_tiles import TiledReader

log = logging.getLogger(__name__)

# Big enough to force a decode, small enough to cost one tile.
_PROBE = 8


def open_slide(
    path: Path,
    *,
    decoded_cache: openslide.OpenSlideCache | None = None,
    chunks: ChunkCache | None = None,
    imports: Imports | None = None,
) -> Reader:
    """Open a slide and prove that its pixels can be read.

    Parameters
    ----------
    path
        The slide's file.
    decoded_cache
        openslide's cache of decoded tiles, for many slides to share.
    chunks
        The cache of what other readers decode, likewise.
    imports
        Where copies of images are kept that cannot be served as they lie; without it a
        copy is made anew at every opening, and goes when the slide is closed.

    Raises
    ------
    UnreadableSlide
        With the file's name and the reason, for a missing, foreign or cut file.
    """
    if not path.exists():
        raise UnreadableSlide(f"{path.name} is not there.")
    if not (path.is_file() or path.is_dir()):
        # Opening a pipe would wait for ever.
        raise UnreadableSlide(f"{path.name} is neither a file nor a folder.")
    dicom = open_dicom(path)
    if isinstance(dicom, DicomPlanes):
        return _proven(rendered(dicom))
    if dicom is not None:
        return _proven(dicom)
    chunks = chunks or ChunkCache()
    with ExitStack() as passing:
        if imports is None:
            folder = tempfile.TemporaryDirectory(prefix="theatrum-import-")
            imports = Imports(Path(passing.enter_context(folder)))
        other = open_by_content(path, chunks, imports)
        if other is not None:
            return _proven(other)
        if path.is_dir():
            raise UnreadableSlide(
                f"{path.name} is a folder that holds no DICOM slide and no OME-Zarr "
                "image: name one of the slide's files instead."
            )
        try:
            slide = OpenSlideReader(path, decoded_cache=decoded_cache)
        except UnreadableSlide:
            plain = _bare(path) or open_as_last(path, chunks, imports)
            if plain is None:
                raise
            return _proven(plain)
    try:
        reader: Reader = (
            PassThroughReader.probe(slide) or TiledReader.probe(slide) or slide
        )
    except BaseException:
        slide.close()
        raise
    return _proven(reader)


def _bare(path: Path) -> Reader | None:
    """A tiled TIFF in a codec that openslide lacks."""
    bare = BareTiff.open(path)
    return None if bare is None else TiledReader.probe(bare)


def _proven(reader: Reader) -> Reader:
    """The reader, after a look at its pixels; closed where that fails."""
    try:
        refuse_absurd(reader)
        _prove_readable(reader)
    except BaseException:
        reader.close()
        raise
    log.info(
        "chose %s for a slide of format %s", type(reader).__name__, reader.facts.format
    )
    return reader


def _prove_readable(reader: Reader) -> None:
    """Read a little at the corners and the middle of level 0, and of each other level.

    A slide with some damaged tiles is still worth showing, so it is refused only when a
    level gives nothing at all.
    """
    for number, level in enumerate(reader.levels):
        spots = _spots(level) if number == 0 else _spots(level)[:1]
        failure: DamagedTile | None = None
        for l_x, l_y in spots:
            try:
                reader.read(number, l_x, l_y, (_PROBE, _PROBE))
            except DamagedTile as error:
                failure = error
            else:
                break
        else:
            raise UnreadableSlide(
                f"{reader.path.name} opens, but has no pixels to show. {failure}"
            ) from failure


def _spots(level: Level) -> list[tuple[int, int]]:
    right = max(level.width - _PROBE, 0)
    bottom = max(level.height - _PROBE, 0)
    middle = (right // 2, bottom // 2)
    return [(0, 0), (right, 0), (0, bottom), (right, bottom), middle]
