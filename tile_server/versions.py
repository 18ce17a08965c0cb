"""The version of a slide, which is part of every tile's address.

A whole-slide file is gigabytes, so its content is not read: size and the time of
the last change (in nanoseconds) tell one version from the next. A slide of many files
(a DICOM series, an OME-TIFF in parts, a folder) has the versions of all of them in its
own.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from tile_server.errors import UnreadableSlide
from tile_server.readers.dicom_files import is_dicom, slide_files
from tile_server.readers.ome_files import ome_files


def file_version(path: Path) -> str:
    """Sixteen hexadecimal digits that change when the slide's file, or files, do.

    Two different files can share a version, so a key needs the path as well.
    Raises OSError (FileNotFoundError) when the file cannot be looked up.
    """
    status = path.stat()
    text = f"{status.st_size}-{status.st_mtime_ns}"
    if path.is_dir():
        text = _together(tuple(Path(entry.path) for entry in os.scandir(path)))
    elif is_dicom(path):
        text = _together(_series(path)) or text
    else:
        text = _together(_parts(path)) or text
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _series(path: Path) -> tuple[Path, ...]:
    """The files of the slide that a DICOM file belongs to."""
    try:
        files = slide_files(path)
    except UnreadableSlide:
        return ()
    return files if len(files) > 1 else ()


def _parts(path: Path) -> tuple[Path, ...]:
    """The files of the image that an OME-TIFF, or its companion, belongs to."""
    if not path.is_file():
        return ()  # opening a pipe would wait for ever
    try:
        files = ome_files(path)
    except UnreadableSlide:
        return ()
    return () if files is None else files.every


def _together(paths: tuple[Path, ...]) -> str:
    """Name, size and time of each path."""
    lines = []
    for path in sorted(paths):
        status = path.stat()
        lines.append(f"{path.name}\0{status.st_size}-{status.st_mtime_ns}")
    return "\n".join(lines)
