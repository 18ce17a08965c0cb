"""What a DICOM file says of itself in its first elements: enough to sort it by.

Pixels are never read: reading stops after group 0020. Nothing is trusted either; a
file may be cut off, endless, or no DICOM at all, and every such answer is a short code.
Values are taken raw, so that a strange value is neither repaired nor repeated in a
warning.
"""

from __future__ import annotations

import io
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydicom import Dataset
from pydicom.filereader import read_dataset, read_partial
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage

_SOP_CLASS, _SOP_INSTANCE, _MODALITY = 0x00080016, 0x00080018, 0x00080060
_STUDY, _SERIES, _EXPECTED = 0x0020000D, 0x0020000E, 0x00201209
_STORED_CLASS = 0x00020002
_TAGS = (_SOP_CLASS, _SOP_INSTANCE, _MODALITY, _STUDY, _SERIES, _EXPECTED)
_WANTED: list[BaseTag | int] = [*_TAGS]
_FIRST_BYTES = 4096
_INFLATED_BYTES = 4 << 20
"""Of a deflated file only so much is unpacked: a small one can unpack to gigabytes."""
# PS3.5 section 9.1: at most 64 characters, no part with a leading zero.
_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")


class Unreadable(ValueError):
    """The file cannot be taken; `code` says why and is safe to log."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class Header:
    """What sorts an instance."""

    sop_class: str
    sop_instance: str
    study: str
    series: str
    modality: str
    expected: int | None
    """Number of Series Related Instances (0020,1209), which senders rarely give."""


def is_uid(text: str) -> bool:
    """Whether it is a legal DICOM UID."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def read_header(path: Path) -> Header:
    """Read a file's header.

    Raises
    ------
    Unreadable
        `not_dicom`, `dicomdir`, `damaged`, or `no_uid` where a UID that names the
        instance, its series or its study is missing or illegal.
    OSError
        The file cannot be opened.
    """
    with path.open("rb") as file:
        return header_of(file)


def header_of(file: BinaryIO) -> Header:
    """Read the header of an open file, or of bytes; see `read_header`."""
    first = file.read(_FIRST_BYTES)
    file.seek(0)
    # Old archives write no preamble; such a file begins with group 2 or group 8.
    if first[128:132] != b"DICM" and first[:2] not in (b"\x02\x00", b"\x08\x00"):
        raise Unreadable("not_dicom")
    try:
        found = _elements(file, deflated=_DEFLATED in first)
        values = {tag: _text(found, tag) for tag in _TAGS}
        stored = _text(getattr(found, "file_meta", Dataset()), _STORED_CLASS)
    except Exception as err:  # pydicom names no common class for damaged files
        raise Unreadable("damaged") from err
    header = Header(
        sop_class=values[_SOP_CLASS],
        sop_instance=values[_SOP_INSTANCE],
        study=values[_STUDY],
        series=values[_SERIES],
        modality=values[_MODALITY][:16],
        expected=_number(values[_EXPECTED]),
    )
    if stored == MediaStorageDirectoryStorage:
        raise Unreadable("dicomdir")
    named = (header.sop_class, header.sop_instance, header.study, header.series)
    if not all(is_uid(one) for one in named):
        raise Unreadable("no_uid")
    return header


_DEFLATED = DeflatedExplicitVRLittleEndian.encode()


def _after(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) > _EXPECTED


def _elements(file: BinaryIO, *, deflated: bool) -> Dataset:
    if not deflated:
        return read_partial(file, _after, force=True, specific_tags=_WANTED)
    start = _end_of_group_2(file.read(_FIRST_BYTES))
    file.seek(start)
    machine = zlib.decompressobj(-zlib.MAX_WBITS)
    body = machine.decompress(file.read(_INFLATED_BYTES), _INFLATED_BYTES)
    return read_dataset(
        io.BytesIO(body),
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=_after,
        specific_tags=_WANTED,
    )


def _end_of_group_2(first: bytes) -> int:
    """Where the data set begins, by the group length that must come first."""
    if first[132:140] != b"\x02\x00\x00\x00UL\x04\x00":
        raise Unreadable("damaged")
    return 144 + int.from_bytes(first[140:144], "little")


def _text(found: Dataset, tag: int) -> str:
    if tag not in found:
        return ""
    raw = found.get_item(tag).value  # not yet decoded
    if not isinstance(raw, bytes):
        return ""
    return raw.decode("latin-1").strip(" \0")


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,9}", text) else None
