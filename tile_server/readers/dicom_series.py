"""The reader for a folder with the files of one CT, MR or PET series: one scan.

Each file is a depth, in the order in which they lie along the normal of the images;
their numbers in the header may say another. Single files are read by `dicom_image`; a
file is opened when one of its pixels is first wanted, and few are open at a time.

Planes: x goes along a row of the image and y down its rows, z from low to high along
the normal. `affine_lps` takes (x, y, z) to the patient's millimetres (PS3.3, clause
C.7.6.2.1.1).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from tile_server.errors import UnreadableSlide
from tile_server.readers.chunks import ChunkCache, ChunkedPlanes
from tile_server.readers.dicom_files import is_dicom
from tile_server.readers.dicom_image import open_dicom_image
from tile_server.readers.planes import Numbers, Plane, PlaneReader

MOST_FILES = 4096
_OPEN = 16
"""Files kept open; what was decoded of others is in the cache of chunks."""
_STEP_PART = 0.1
"""How far one step between slices may differ from the usual, as a part of it."""
_TAGS = [
    "SOPClassUID", "SeriesInstanceUID", "Modality", "Rows", "Columns", "NumberOfFrames",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope",
    "RescaleIntercept",
]  # fmt: skip
_MODALITIES = frozenset({"CT", "MR", "PT"})

Array = npt.NDArray[np.float64]


def open_dicom_series(folder: Path, chunks: ChunkCache) -> PlaneReader | None:
    """The scan whose files a folder holds, or None where it holds none.

    Other files (a structure set, a text) are passed over. Raises UnreadableSlide where
    there are several series, or where the images form no volume.
    """
    headers = _headers(folder)
    if not headers:
        return None
    if len({str(one.get("SeriesInstanceUID")) for one in headers.values()}) > 1:
        raise UnreadableSlide(
            f"{folder.name} holds several series: give each a folder of its own."
        )
    ordered, affine = _volume(folder.name, headers)
    files = _Files(ordered, chunks)
    first = files.of(0)
    kinds = {
        (one.get("RescaleSlope"), one.get("RescaleIntercept"))
        for one in headers.values()
    }
    # PET scales every slice by itself, and then none of them is whole.
    dtype = first.planes.dtype if len(kinds) == 1 else "float32"
    step_um = float(np.linalg.norm(affine[:3, 2])) * 1000
    owner = chunks.owner()

    def chunk(_: int, plane: Plane, _x: int, _y: int) -> Numbers | None:
        level = first.levels[0]

        def read() -> Numbers:
            return files.read(plane.z, (level.width, level.height)).astype(dtype)

        return chunks.chunk(owner, plane.z, read)

    def release() -> None:
        files.close()
        chunks.forget(owner)

    return ChunkedPlanes(
        folder,
        first.levels,
        first.facts,
        replace(
            first.planes,
            depths=len(ordered),
            times=1,
            dtype=dtype,
            z_step_um=step_um,
            affine_lps=tuple(tuple(float(one) for one in row) for row in affine),
        ),
        chunk,
        release,
    )


def is_series_folder(folder: Path) -> bool:
    """Whether a folder holds two or more images of one series, and of no other."""
    try:
        headers = _headers(folder)
    except (UnreadableSlide, OSError):
        return False
    series = {str(one.get("SeriesInstanceUID")) for one in headers.values()}
    return len(headers) > 1 and len(series) == 1


class _Files:
    """The files of a series by their depth, the last few used ones open."""

    def __init__(self, ordered: list[Path], chunks: ChunkCache) -> None:
        self._ordered = ordered
        self._chunks = chunks
        self._open: OrderedDict[int, PlaneReader] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, z: int) -> PlaneReader:
        """The reader of a depth; of several threads only one may ask."""
        reader = self._open.pop(z, None)
        if reader is None:
            reader = open_dicom_image(self._ordered[z], self._chunks)
        self._open[z] = reader
        while len(self._open) > _OPEN:
            _, oldest = self._open.popitem(last=False)
            oldest.close()
        return reader

    def read(self, z: int, size: tuple[int, int]) -> Numbers:
        # One at a time: another thread could close the reader that is read from.
        with self._lock:
            return self.of(z).read_plane(0, 0, 0, size, plane=Plane())

    def close(self) -> None:
        with self._lock:
            for reader in self._open.values():
                reader.close()
            self._open.clear()


def _headers(folder: Path) -> dict[Path, Dataset]:
    """The headers of the images in a folder."""
    found: dict[Path, Dataset] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not is_dicom(path):
            continue
        if len(found) >= MOST_FILES:
            raise UnreadableSlide(f"{folder.name} holds more than {MOST_FILES} images.")
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
        except (InvalidDicomError, OSError, EOFError, ValueError) as error:
            raise UnreadableSlide(f"{path.name} is a damaged DICOM file.") from error
        if str(header.get("Modality")) in _MODALITIES and "Rows" in header:
            found[path] = header
    return found


def _volume(name: str, headers: dict[Path, Dataset]) -> tuple[list[Path], Array]:
    """The files from low to high, and where the voxels lie."""
    listed = list(headers.values())
    if len({(one.get("Rows"), one.get("Columns")) for one in listed}) > 1:
        raise UnreadableSlide(f"{name} holds images of different sizes.")
    places: dict[Path, Array] = {}
    for path, header in headers.items():
        position = _numbers(header, "ImagePositionPatient", 3)
        cosines = _numbers(header, "ImageOrientationPatient", 6)
        spacing = _numbers(header, "PixelSpacing", 2)
        if position is None or cosines is None or spacing is None:
            raise UnreadableSlide(
                f"{path.name} does not say where it lies in the patient, so that "
                f"{name} is no scan; name the file alone."
            )
        places[path] = np.concatenate([position, cosines, spacing])
    table = np.array(list(places.values()))
    if np.ptp(table[:, 3:], axis=0).max() > 1e-3:
        raise UnreadableSlide(f"{name} holds images that are not parallel.")
    normal = np.cross(table[0, 3:6], table[0, 6:9])
    ordered = sorted(places, key=lambda path: float(places[path][:3] @ normal))
    low, high = places[ordered[0]], places[ordered[-1]]
    _require_even_steps(name, np.array([places[one][:3] @ normal for one in ordered]))
    affine = np.eye(4)
    affine[:3, 0] = low[3:6] * low[10]
    affine[:3, 1] = low[6:9] * low[9]
    affine[:3, 2] = normal
    if len(ordered) > 1:
        affine[:3, 2] = (high[:3] - low[:3]) / (len(ordered) - 1)
    affine[:3, 3] = low[:3]
    return ordered, affine


def _require_even_steps(name: str, depths: Array) -> None:
    steps = np.diff(depths)
    if not len(steps):
        return
    usual = float(np.median(steps))
    if steps.min() < 1e-3:
        raise UnreadableSlide(f"{name} holds two images of the same place.")
    if np.abs(steps - usual).max() > _STEP_PART * usual:
        raise UnreadableSlide(
            f"{name} lacks an image: most lie {usual:.2f} mm from the next, and one "
            f"{steps.max():.2f} mm."
        )


def _numbers(header: Dataset, keyword: str, count: int) -> Array | None:
    value = header.get(keyword)
    if value is None or isinstance(value, str) or len(value) != count:
        return None
    numbers = np.array([float(one) for one in value])
    return numbers if np.isfinite(numbers).all() else None
