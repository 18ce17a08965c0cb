"""OME-TIFF images that are spread over several files.

The OME-XML in each file, or in a companion file (`.companion.ome`), or in one master
file that the others point at, says which page of which file holds which plane. Files
are named, and a header is not trusted: only plain names are followed, and only to files
that truly lie in the same folder.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tile_server.errors import UnreadableSlide
from tile_server.readers.same_folder import beside
from tile_server.readers.tiff_structure import TIFF_STARTS, first_description

_MOST_TEXT = 8 * 2**20
_COMPANION = ".companion.ome"
_MOST_FILES = 4096
_COMPANION_STARTS = (b"<?xml", b"<OME", b"\xef\xbb\xbf<")


@dataclass(frozen=True)
class OmeFiles:
    """The files of one image.

    Attributes
    ----------
    pixels
        Those with pages, by name.
    described_by
        The file with the OME-XML that counts, which may be another one.
    missing
        Names of files that are not there.
    """

    pixels: tuple[Path, ...]
    described_by: Path
    missing: tuple[str, ...]

    @property
    def every(self) -> tuple[Path, ...]:
        return tuple(sorted({*self.pixels, self.described_by}))


@dataclass(frozen=True)
class _Header:
    """What the OME-XML of a file says of files: its describer, and those it names."""

    described_by: str
    names: frozenset[str]


def is_companion(path: Path, start: bytes) -> bool:
    """True for a file that only describes the pixels in others, by how it begins."""
    return path.name.endswith(_COMPANION) and start.startswith(_COMPANION_STARTS)


def ome_files(path: Path) -> OmeFiles | None:
    """The files of the image that `path` belongs to; None where it is the only one.

    `path` is a TIFF or a companion file. Raises UnreadableSlide where a file is named
    that must not be opened, and OSError.
    """
    header, described_by = _header(path), path
    if header is not None and header.described_by:
        described_by = beside(path, path.parent, header.described_by)
        if not described_by.is_file():
            raise UnreadableSlide(
                f"{path.name} is described by {described_by.name}, which is not there: "
                "put it into the same folder."
            )
        header = _header(described_by)
        if header is None:
            raise UnreadableSlide(f"{described_by.name} is no OME-XML.")
    if header is None:
        return None
    found = [beside(path, path.parent, name) for name in sorted(header.names)]
    there = {one for one in found if one.is_file()}
    if described_by == path and not path.name.endswith(_COMPANION):
        if not there - {path}:
            # A single file, perhaps one that was renamed since it was written.
            return None
        there.add(path)
    missing = tuple(one.name for one in found if one not in there)
    if not there:
        raise UnreadableSlide(f"{path.name} describes files that are not there.")
    return OmeFiles(tuple(sorted(there)), described_by, missing)


def description(files: OmeFiles) -> str:
    """The OME-XML of an image of several files; raises OSError."""
    return _description(files.described_by) or ""


def _header(path: Path) -> _Header | None:
    status = path.stat()
    return _known(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _known(path: Path, _size: int, _mtime_ns: int) -> _Header | None:
    """Kept by size and time: looking a version up asks for the files of an image."""
    text = _description(path)
    if text is None or ("FileName" not in text and "MetadataFile" not in text):
        return None
    try:
        # By the parser that tifffile uses, so that both see the same names; it bounds
        # what entities may grow to.
        root = ElementTree.fromstring(text)  # noqa: S314 - see above
    except ElementTree.ParseError:
        return None
    elsewhere = [one.get("MetadataFile", "") for one in _elements(root, "BinaryOnly")]
    own = root.get("UUID")
    names = {
        one.get("FileName", "")
        for one in _elements(root, "UUID")
        if own is None or one.text != own
    }
    if len(names) > _MOST_FILES:
        raise UnreadableSlide(f"{path.name} names {len(names)} files.")
    return _Header(elsewhere[0] if elsewhere else "", frozenset(names - {""}))


def _description(path: Path) -> str | None:
    """The OME-XML in a TIFF or companion file, or None."""
    with path.open("rb") as file:
        start = file.read(16)
        if start.startswith(TIFF_STARTS):
            text = first_description(file, _MOST_TEXT)
        elif is_companion(path, start):
            text = (start + file.read(_MOST_TEXT)).decode("utf-8-sig", "replace")
        else:
            return None
    text = text.strip()
    return text if text.endswith("OME>") else None


def _elements(root: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (one for one in root.iter() if one.tag.rpartition("}")[2] == name)
