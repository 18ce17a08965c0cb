"""Files of PS3.10: from a file's bytes to a little-endian data set, and back.

The file meta information is not carried over: it is written anew from the data set
(PS3.15 E.1.1 asks for it), with a preamble of zeros, this library's implementation UID
and no application entity titles or private information.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import Final

from pydicom._uid_dict import UID_dictionary
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from theatrum.deidentify.elements import Damaged, Element, Parsed, encode, parse
from theatrum.deidentify.errors import Refused

# Ours for good: an implementation class says who wrote the file, not from where.
IMPLEMENTATION_UID: Final = "2.25.75210192169545151060461586268414704652"
IMPLEMENTATION_NAME: Final = "THEATRUM_DEID"

MAX_INFLATED_BYTES: Final = 1 << 31
_GROUP_2: Final = b"\x02\x00"
_TRANSFER_SYNTAX: Final = 0x00020010


@dataclass
class DataSet:
    """A data set in little endian, and the transfer syntax it is written with."""

    elements: list[Element]
    syntax: str
    damaged: list[int]

    @property
    def explicit(self) -> bool:
        return self.syntax != ImplicitVRLittleEndian


def read(content: bytes) -> DataSet:
    """Cut a file into elements.

    Raises
    ------
    Refused
        `not_dicom`, `damaged` or `unsupported`.
    """
    if content[128:132] == b"DICM":
        syntax, start = _meta(content, 132)
    elif content[:2] == _GROUP_2 and content[4:6] == b"UL":
        syntax, start = _meta(content, 0)  # without a preamble
    elif content[:2] in (b"\x08\x00", b"\x05\x00") and len(content) > 16:
        syntax, start = "", 0
    else:
        raise Refused("not_dicom", "This is no DICOM file.")
    if syntax and not _is_transfer_syntax(syntax):
        raise Refused("unsupported", "The transfer syntax is none of the standard's.")
    body = content
    if syntax == DeflatedExplicitVRLittleEndian:
        body, start, syntax = _inflate(content[start:]), 0, ExplicitVRLittleEndian
    elif syntax == ExplicitVRBigEndian:
        body, start, syntax = _swap(content), 0, ExplicitVRLittleEndian
    elif not syntax:
        vr = body[start + 4 : start + 6]
        explicit = vr.isalpha() and vr.isupper()
        syntax = ExplicitVRLittleEndian if explicit else ImplicitVRLittleEndian
    try:
        parsed: Parsed = parse(
            body, explicit=syntax != ImplicitVRLittleEndian, start=start
        )
    except (Damaged, struct.error, RecursionError) as err:
        refused = Refused("damaged", "The file is cut off or damaged; fetch it again.")
        if isinstance(err, Damaged):
            refused.before = err.before
        raise refused from err
    return DataSet(parsed.elements, syntax, parsed.damaged)


def _is_transfer_syntax(uid: str) -> bool:
    # Not by pydicom's UID, whose warnings quote what is none.
    return uid in UID_dictionary and UID_dictionary[uid][1] == "Transfer Syntax"


def write(data_set: DataSet, sop_class: str, sop_instance: str) -> list[bytes]:
    """The file as pieces of bytes: preamble, file meta information, data set."""
    meta = [
        Element(0x00020001, "OB", b"\x00\x01"),
        Element(0x00020002, "UI", sop_class.encode()),
        Element(0x00020003, "UI", sop_instance.encode()),
        Element(_TRANSFER_SYNTAX, "UI", data_set.syntax.encode()),
        Element(0x00020012, "UI", IMPLEMENTATION_UID.encode()),
        Element(0x00020013, "SH", IMPLEMENTATION_NAME.encode()),
    ]
    group_2 = b"".join(encode(meta, explicit=True))
    length = Element(0x00020000, "UL", struct.pack("<L", len(group_2)))
    return [
        bytes(128) + b"DICM",
        *encode([length], explicit=True),
        group_2,
        *encode(data_set.elements, explicit=data_set.explicit),
    ]


def _meta(content: bytes, start: int) -> tuple[str, int]:
    """The transfer syntax, and where group 2 ends; it is explicit little endian."""
    at, syntax = start, ""
    while content[at : at + 2] == _GROUP_2 and at + 12 <= len(content):
        vr = content[at + 4 : at + 6]
        if vr in (b"OB", b"UN", b"OW", b"SQ", b"UT"):
            length, value = struct.unpack_from("<L", content, at + 8)[0], at + 12
        else:
            length, value = struct.unpack_from("<H", content, at + 6)[0], at + 8
        if content[at + 2 : at + 4] == b"\x10\x00":
            syntax = content[value : value + length].rstrip(b"\0 ").decode("latin-1")
        at = value + length
    if at + 8 > len(content):
        raise Refused("damaged", "The file ends within its file meta information.")
    return syntax, at


def _inflate(body: bytes) -> bytes:
    machine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = machine.decompress(body, MAX_INFLATED_BYTES)
    except zlib.error as err:
        raise Refused("damaged", "The deflated data set cannot be inflated.") from err
    if machine.unconsumed_tail:
        raise Refused("unsupported", "The deflated data set is larger than 2 GiB.")
    return inflated


def _swap(content: bytes) -> bytes:
    """A big-endian file's data set in little endian."""
    try:
        # Warnings quote what they wonder about, and that may be a name.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _in_little_endian(content)
    except Exception as err:  # pydicom names no common class for damaged files
        raise Refused("damaged", "The big-endian data set cannot be read.") from err


def _in_little_endian(content: bytes) -> bytes:
    """By pydicom, which knows every VR's width but those of bytes of any meaning."""
    from pydicom import dcmread
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_dataset

    data_set = dcmread(io.BytesIO(content), force=True)
    for element in data_set.iterall():
        width = {"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8}.get(element.VR, 1)
        if width > 1 and isinstance(element.value, bytes):
            element.value = _swapped(element.value, width)
    target = DicomBytesIO()
    target.is_little_endian, target.is_implicit_VR = True, False
    write_dataset(target, data_set)
    return bytes(target.getvalue())


def _swapped(value: bytes, width: int) -> bytes:
    import numpy as np

    return np.frombuffer(value, f">u{width}").astype(f"<u{width}").tobytes()
