"""The version of a slide, which is part of every tile's address.

A whole-slide file is gigabytes, so its content is not read: size and the time of
the last change (in nanoseconds) tell one version from the next. A slide of many files
(a DICOM series, an OME-TIFF in parts, MIRAX, VMS, a folder) has the versions of all of
them in its own.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import deque
from pathlib import Path

from tile_server.errors import UnreadableSlide
from tile_server.readers.dicom_files import is_dicom, slide_files
from tile_server.readers.ome_files import ome_files
from tile_server.readers.same_folder import named_files

# Some 40 ms on a warm disk; an image of 25 000 x 25 000 in chunks of 256 has as many.
_MOST_ENTRIES = 10_000
_METADATA = frozenset({"zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"})


def file_version(path: Path) -> str:
    """Sixteen hexadecimal digits that change when the slide's file, or files, do.

    Two different files can share a version, so a key needs the path as well.
    Raises OSError (FileNotFoundError) when the file cannot be looked up.
    """
    status = path.stat()
    text = f"{status.st_size}-{status.st_mtime_ns}"
    if path.is_dir():
        text = _tree(path)
    elif is_dicom(path):
        text = _together(_series(path)) or text
    else:
        text = _together(_parts(path)) or text
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _tree(root: Path) -> str:
    """Name, size and time of what lies below a folder, the upper levels first.

    A Zarr chunk that is written in place changes nothing but itself, so chunks are
    looked up one by one, up to a limit: the look costs some 4 microseconds each, and
    is repeated as long as the image is open. A folder with more entries than are left
    counts by its own time, which tells of new, removed and renamed chunks, and by its
    metadata.
    """
    lines: list[str] = []
    left = _MOST_ENTRIES
    folders = deque([("", root)])
    while folders:
        below, folder = folders.popleft()
        with os.scandir(folder) as listed:
            entries = list(itertools.islice(listed, left + 1))
        if len(entries) > left:
            entries = [one for one in entries if one.name in _METADATA]
            names = {one.name for one in entries}
            for name in sorted(_METADATA - names):
                if (folder / name).is_file():
                    lines.append(_line(below + name, (folder / name).stat()))
        left -= len(entries)
        for entry in sorted(entries, key=lambda one: one.name):
            name = below + entry.name
            try:
                lines.append(_line(name, entry.stat()))
            except FileNotFoundError:
                continue  # it went while we were looking
            if entry.is_dir(follow_symlinks=False):
                folders.append((f"{name}/", Path(entry.path)))
    return "\n".join(lines)


def _line(name: str, status: os.stat_result) -> str:
    return f"{name}\0{status.st_size}-{status.st_mtime_ns}"


def _series(path: Path) -> tuple[Path, ...]:
    """The files of the slide that a DICOM file belongs to."""
    try:
        files = slide_files(path)
    except UnreadableSlide:
        return ()
    return files if len(files) > 1 else ()


def _parts(path: Path) -> tuple[Path, ...]:
    """The files of an OME-TIFF in parts, or of a scanner's slide of several files."""
    if not path.is_file():
        return ()  # opening a pipe would wait for ever
    try:
        files = ome_files(path)
        if files is not None:
            return files.every
        more = tuple(file for file in named_files(path) if file.is_file())
    except UnreadableSlide:
        return ()
    return (path, *more) if more else ()


def _together(paths: tuple[Path, ...]) -> str:
    """Name, size and time of each path."""
    lines = []
    for path in sorted(paths):
        status = path.stat()
        lines.append(_line(path.name, status))
    return "\n".join(lines)
