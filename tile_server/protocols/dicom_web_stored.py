"""The instances of a slide that is DICOM already: its files, frames undecoded.

Headers are read when somebody asks for them, and leave without the patient
(`dicom_web_kept`). Frames are the bytes of the file, pad byte included.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from tile_server.errors import RegionTooLarge, SlideReplaced, UnreadableSlide
from tile_server.protocols.dicom_web_kept import (
    DAMAGED,
    PER_FRAME,
    TAGS,
    without_identity,
)
from tile_server.protocols.dicom_web_naming import IMPLICIT, PLAIN, sound_uid
from tile_server.protocols.dicom_web_study import Frame, Study
from tile_server.pyramid import Pyramid
from tile_server.readers.dicom_files import Instance
from tile_server.readers.dicom_frames import joined
from tile_server.readers.dicom_matrix import Matrix
from tile_server.readers.dicom_pixels import decode
from tile_server.readers.dicom_wsi import DicomPlanes, DicomReader
from tile_server.readers.protocol import Reader
from tile_server.readers.rendering import Rendered
from tile_server.view import SHOW_THE_LABEL

# The places of frames take half a kilobyte each as JSON.
MOST_PLACES = 65_536


@dataclass(frozen=True)
class StoredInstance:
    """One file; see `dicom_web_study.Instance`.

    `matrix` and `number` say where the open slide has it.
    """

    uid: str
    syntax: str
    frames: int
    header: Dataset = field(repr=False)
    associated: str
    matrix: int
    number: int

    def whole_header(self, pyramid: Pyramid) -> Dataset:
        matrix = self._matrix(pyramid)
        instance = matrix.instances[self.number]
        if instance.places is None:
            return self.header
        if self.frames > MOST_PLACES:
            raise RegionTooLarge(
                f"This instance tells the places of {self.frames} frames, more than "
                f"{MOST_PLACES}."
            )
        header = _header(matrix, self.number, self.uid, per_frame=True)
        header.StudyInstanceUID = self.header.StudyInstanceUID
        header.SeriesInstanceUID = self.header.SeriesInstanceUID
        return header

    def stored(self, pyramid: Pyramid, number: int) -> bytes | None:
        matrix = self._matrix(pyramid)
        raw = matrix.items(self.number, number)
        encapsulated = matrix.instances[self.number].index.encapsulated
        return joined(raw) if encapsulated else raw

    def made(self, pyramid: Pyramid, number: int) -> bytes:
        frame = self.stored(pyramid, number)
        return b"" if frame is None else frame

    def decoded(self, pyramid: Pyramid, number: int) -> Frame:
        header = self._matrix(pyramid).instances[self.number]
        frame = self.made(pyramid, number)
        if not frame:
            shape = (header.tile_height, header.tile_width, 3)[
                : 2 + header.samples // 3
            ]
            return np.zeros(shape, np.uint8 if header.bits == 8 else np.uint16)
        return decode(frame, header)

    def _matrix(self, pyramid: Pyramid) -> Matrix:
        reader = dicom_reader(pyramid.reader)
        assert reader is not None  # noqa: S101 - `stored_study` saw it; for mypy
        return reader.matrices[self.matrix][1]


def dicom_reader(reader: Reader) -> DicomReader | DicomPlanes | None:
    """The reader of the DICOM files behind a picture, where there are any."""
    source = reader.source if isinstance(reader, Rendered) else reader
    return source if isinstance(source, DicomReader | DicomPlanes) else None


def stored_study(
    reader: DicomReader | DicomPlanes, version: str, *, label: bool
) -> Study:
    """The instances that may be seen; reads their headers.

    Raises UnreadableSlide and SlideReplaced.
    """
    found: list[StoredInstance] = []
    for place, (name, matrix) in enumerate(reader.matrices):
        if name in SHOW_THE_LABEL and not label:
            continue
        for number, one in enumerate(matrix.instances):
            uid = sound_uid(one.uid, version, f"{place}-{number}")
            syntax = PLAIN if one.syntax == IMPLICIT else one.syntax
            header = _header(matrix, number, uid, per_frame=False)
            found.append(
                StoredInstance(uid, syntax, one.frames, header, name, place, number)
            )
    first = found[0].header
    study, series = str(first.StudyInstanceUID), str(first.SeriesInstanceUID)
    for instance in found:
        # The files of one series can disagree about their study; one slide is one.
        instance.header.StudyInstanceUID = study
        instance.header.SeriesInstanceUID = series
    return Study(study, series, tuple(found))


def _header(matrix: Matrix, number: int, uid: str, *, per_frame: bool) -> Dataset:
    """The header of a file of the matrix, as it may leave."""
    path = matrix.instances[number].path
    names = [name for name in TAGS.values() if per_frame or name != PER_FRAME]
    try:
        dataset = _read(path, matrix, number, names)
        header = without_identity(dataset, matrix.instances[number].series)
    except DAMAGED as error:
        kind = type(error).__name__
        raise UnreadableSlide(f"{path.name} has a damaged header ({kind}).") from error
    header.SOPInstanceUID = uid
    _complete(header, matrix.instances[number])
    return header


def _complete(header: Dataset, instance: Instance) -> None:
    """Set what the frames are read by, and add what viewers cannot do without.

    A damaged header can lack any of it; the reader has understood what it uses.
    """
    header.NumberOfFrames = instance.frames
    header.TotalPixelMatrixColumns = instance.width
    header.TotalPixelMatrixRows = instance.height
    header.Columns, header.Rows = instance.tile_width, instance.tile_height
    header.SamplesPerPixel = instance.samples
    header.BitsAllocated, header.BitsStored = instance.bits, instance.bits_stored
    header.PhotometricInterpretation = instance.photometric
    if instance.spacing_mm is None or header.get("ImagedVolumeWidth"):
        return
    across, down = instance.spacing_mm
    header.ImagedVolumeWidth = instance.width * across
    header.ImagedVolumeHeight = instance.height * down


def _read(path: Path, matrix: Matrix, number: int, names: list[str]) -> Dataset:
    with path.open("rb") as file:
        if not matrix.is_file(number, os.fstat(file.fileno())):
            raise SlideReplaced("The slide's file has changed since it was opened.")
        return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(names))
