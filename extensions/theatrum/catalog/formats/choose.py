"""Which format a file is of, by its content, and its scenes.

`sniff` looks at the first bytes only and decodes nothing. `open_scenes` opens what it
found; a file of nobody known is given to it in a process of its own, see `ingest.look`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from theatrum.catalog.formats.dicom import open_series, read_header
from theatrum.catalog.formats.errors import NotAnImage
from theatrum.catalog.formats.leica import LIF_START, open_lif
from theatrum.catalog.formats.metaimage import is_metaimage, open_metaimage
from theatrum.catalog.formats.nikon import ND2_STARTS, open_nd2
from theatrum.catalog.formats.nrrd_volumes import NRRD_START, open_nrrd
from theatrum.catalog.formats.ome_tiff import ome_text, open_ome_tiff
from theatrum.catalog.formats.ome_zarr import holds_zarr, is_zarr, open_ome_zarr
from theatrum.catalog.formats.pictures import open_picture
from theatrum.catalog.formats.scene import Scene
from theatrum.catalog.formats.tile_planes import open_tiles
from theatrum.catalog.formats.volumes import kind_of, open_volume, sidecar_of
from theatrum.catalog.formats.zeiss import CZI_START, open_czi
from tile_server.readers.tiff_structure import TIFF_STARTS

START_BYTES: Final = 4096
ZIP_START: Final = b"PK\x03\x04"
_PICTURES: Final = (
    b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"BM", b"\0\0\0\x0cjP  \r\n",
    b"\xff\x4f\xff\x51", b"P4\n", b"P5\n", b"P6\n",
)  # fmt: skip
# Slides that openslide knows by name, since their own file says little or nothing.
_SLIDES: Final = frozenset({".mrxs", ".vms", ".vmu", ".svslide"})
# Tags of the groups 2 and 8 with which data sets without a preamble begin.
_BARE_DICOM: Final = tuple(
    bytes([group, 0, element, 0]) for group in (2, 8) for element in (0, 1, 5, 8, 0x16)
)
_TIFF_NAMES: Final = frozenset({".tif", ".tiff"})


def sniff(path: Path) -> str:
    """The format of a file or folder: one of the names in `OPENERS`, or "".

    "" stands for no known image; a name says what the file begins as, not that it can
    be read. Raises NotAnImage where the file cannot be looked at.
    """
    if path.is_dir():
        return "ome-zarr" if is_zarr(path) else ""
    start = _start(path)
    suffix = path.suffix.lower()
    if start[128:132] == b"DICM" or start.startswith(_BARE_DICOM):
        return "dicom"
    volume = kind_of(path, start)
    if volume:
        return volume
    if start.startswith(NRRD_START):
        return "nrrd"
    if is_metaimage(start):
        return "metaimage"
    if start.startswith(CZI_START):
        return "czi"
    if suffix == ".nd2" and start.startswith(ND2_STARTS):
        return "nd2"
    if start.startswith(LIF_START) and suffix in (".lif", ".lof", ".xlif"):
        return "lif"
    if start.startswith(ZIP_START):
        return "ome-zarr" if holds_zarr(path) else "zip"
    if start.startswith(TIFF_STARTS) or path.name.endswith(".companion.ome"):
        return "tiff"
    if suffix in _SLIDES:
        return "slide"
    if start.startswith(_PICTURES) or start[8:12] == b"WEBP":
        return "picture"
    return ""


def open_scenes(
    paths: Sequence[Path], format_name: str = "", *, key: bytes = b""
) -> list[Scene]:
    """The scenes of a file, or of the files of one DICOM series.

    Parameters
    ----------
    paths
        One file or folder; several only of DICOM, where they are one series.
    format_name
        What `sniff` said; without it the first path is looked at.
    key
        Makes pseudonyms of DICOM patients; without it they have none.

    Raises
    ------
    FormatError
        Whose message says what is wrong with the file, and what to do.
    """
    path = paths[0]
    name = format_name or sniff(path)
    if name == "dicom":
        if len(paths) == 1 and path.is_dir():
            paths = sorted(one for one in path.iterdir() if one.is_file())
        if read_header(paths[0]).is_whole_slide:
            return [open_tiles(paths[0])]
        return open_series(paths, key=key)
    if name in ("nifti", "mgh", "analyze"):
        sidecar = sidecar_of(path) if name == "nifti" else None
        return [open_volume(path, name, sidecar)]
    if name == "nrrd":
        return [open_nrrd(path)]
    if name == "metaimage":
        return [open_metaimage(path)]
    if name == "ome-zarr":
        return open_ome_zarr(path)
    if name == "czi":
        return open_czi(path)
    if name == "nd2":
        return open_nd2(path)
    if name == "lif":
        return open_lif(path)
    if name == "tiff":
        text = ome_text(path, _start(path))
        return open_ome_tiff(path, text) if text else [open_tiles(path)]
    if name == "slide":
        return [open_tiles(path)]
    if name == "picture":
        return [_picture(path)]
    if path.is_file() and not path.stat().st_size:
        raise NotAnImage(f"{path.name} is empty. Copy it again.")
    raise NotAnImage(f"{path.name} is of no image format that is taken in.")


def _picture(path: Path) -> Scene:
    """By the tile service where it reads the format, since it reads parts of it."""
    if _start(path).startswith((b"\x89PNG", b"\xff\xd8\xff")):
        return open_tiles(path)
    return open_picture(path)


def _start(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(START_BYTES)
    except OSError as error:
        raise NotAnImage(f"{path.name} cannot be opened.") from error
