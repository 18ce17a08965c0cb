"""Images that openslide does not know, told by how their files begin.

* TIFF files of planes: OME-TIFF (one file or several), QPTIFF, ImageJ stacks, deep
  pixels;
* plain PNG and JPEG, and TIFF in strips, through an import;
* OME-Zarr, a folder or zipped;
* NIfTI, DICOM files that are no whole slide, and folders of a CT, MR or PET series.
"""

from __future__ import annotations

from pathlib import Path

from tile_server.errors import UnreadableSlide
from tile_server.readers.chunks import ChunkCache
from tile_server.readers.dicom_image import open_dicom_image
from tile_server.readers.dicom_series import open_dicom_series
from tile_server.readers.imports import Imports
from tile_server.readers.nifti import is_nifti, open_nifti
from tile_server.readers.ome_files import is_companion
from tile_server.readers.ome_zarr import (
    ZIP_START,
    is_zarr,
    open_zarr_folder,
    open_zarr_zip,
)
from tile_server.readers.pictures import open_jpeg, open_png, open_strips
from tile_server.readers.protocol import Reader
from tile_server.readers.rendering import rendered
from tile_server.readers.same_folder import named_files
from tile_server.readers.tiff_planes import is_tiled, open_tiff_planes
from tile_server.readers.tiff_structure import TIFF_STARTS

_PNG_START, _JPEG_START = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
# Tags of the groups 2 and 8 with which DICOM and ACR-NEMA data sets begin.
_BARE_DICOM = tuple(
    bytes([group, 0, element, 0]) for group in (2, 8) for element in (0, 1, 5, 8, 0x16)
)
_START_BYTES = 4096


def open_by_content(path: Path, chunks: ChunkCache, imports: Imports) -> Reader | None:
    """A reader by the first bytes of `path`, or None where they say nothing.

    Raises UnreadableSlide.
    """
    if path.is_dir():
        if is_zarr(path):
            return rendered(open_zarr_folder(path, chunks))
        scan = open_dicom_series(path, chunks)
        return None if scan is None else rendered(scan)
    start = _start(path)
    named_files(path)  # refused where it leads elsewhere
    if path.suffix.lower() == ".mrxs":
        # The one slide format whose own file says nothing: it is a small JPEG, or
        # empty, and the slide lies in a folder of its name.
        return None
    if start.startswith(ZIP_START):
        zipped = open_zarr_zip(path, chunks)
        return None if zipped is None else rendered(zipped)
    if start.startswith(TIFF_STARTS) or is_companion(path, start):
        planes = open_tiff_planes(path, chunks, imports)
        return None if planes is None else rendered(planes)
    if start.startswith(_PNG_START):
        return open_png(path, chunks, imports)
    if start.startswith(_JPEG_START):
        return open_jpeg(path, chunks, imports)
    if start[128:132] == b"DICM":
        return rendered(open_dicom_image(path, chunks))
    if is_nifti(start):
        return rendered(open_nifti(path, start, chunks, imports))
    if not start:
        raise UnreadableSlide(f"{path.name} is empty. Copy it again.")
    if start.startswith(_BARE_DICOM):
        # PS3.10 7.1: without the preamble nothing says how values are written.
        raise UnreadableSlide(
            f"{path.name} is DICOM or ACR-NEMA data without the preamble of a DICOM "
            "file. Export it again as a DICOM file (part 10)."
        )
    return None


def open_as_last(path: Path, chunks: ChunkCache, imports: Imports) -> Reader | None:
    """A reader of a TIFF without tiles that nothing else reads, or None.

    Raises UnreadableSlide.
    """
    if not _start(path).startswith(TIFF_STARTS) or is_tiled(path):
        return None
    return open_strips(path, chunks, imports)


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_START_BYTES)
    except OSError as error:
        raise UnreadableSlide(f"{path.name} cannot be opened.") from error
