"""An instance as a DICOM file (PS3.10), piece by piece: header, frames, end.

Nothing of it is ever whole in memory. Compressed frames are one fragment each behind an
empty offset table (PS3.5 A.4), which every reader has to walk over anyway.
"""

from __future__ import annotations

import io
import struct

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from tile_server.errors import UnreadableSlide
from tile_server.protocols.dicom_web_kept import DAMAGED
from tile_server.protocols.dicom_web_naming import PLAIN, WHOLE_SLIDE, uid

_PIXEL_DATA = struct.pack("<HH", 0x7FE0, 0x0010)
_ITEM = struct.pack("<HH", 0xFFFE, 0xE000)
_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
_UNDEFINED = 0xFFFFFFFF
_MOST_NATIVE = _UNDEFINED - 1


def head(header: Dataset, syntax: str, frame_bytes: int) -> bytes:
    """All that comes before the first frame.

    `frame_bytes` is the length of all frames together where they are not compressed,
    else it does not matter. Raises UnreadableSlide for a header that cannot be written.
    """
    written = Dataset()
    for element in header:
        written.add(element)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(str(header.get("SOPClassUID") or WHOLE_SLIDE))
    meta.MediaStorageSOPInstanceUID = UID(str(header.SOPInstanceUID))
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = UID(uid("implementation"))
    meta.ImplementationVersionName = "THEATRUM"
    written.file_meta = meta
    buffer = io.BytesIO()
    try:
        pydicom.dcmwrite(
            buffer,
            written,
            implicit_vr=False,
            little_endian=True,
            enforce_file_format=True,
        )
    except DAMAGED as error:
        kind = type(error).__name__
        raise UnreadableSlide(f"The header cannot be written ({kind}).") from error
    form = b"OB" if int(header.get("BitsAllocated") or 8) == 8 else b"OW"
    if syntax != PLAIN:
        start = struct.pack("<HI", 0, _UNDEFINED) + _ITEM + struct.pack("<I", 0)
        return buffer.getvalue() + _PIXEL_DATA + b"OB" + start
    if frame_bytes > _MOST_NATIVE:
        raise UnreadableSlide("Its pixels are too many for one file: ask for frames.")
    length = struct.pack("<HI", 0, frame_bytes + frame_bytes % 2)
    return buffer.getvalue() + _PIXEL_DATA + form + length


def frame(stream: bytes, syntax: str) -> bytes:
    """One frame as it stands in the file."""
    if syntax == PLAIN:
        return stream
    padded = stream + b"\0" * (len(stream) % 2)
    return _ITEM + struct.pack("<I", len(padded)) + padded


def tail(syntax: str, frame_bytes: int) -> bytes:
    """What comes after the last frame."""
    return b"\0" * (frame_bytes % 2) if syntax == PLAIN else _END
