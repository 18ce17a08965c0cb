"""Where the frames of a DICOM file lie, so that one `pread` gets one of them.

Encapsulated pixel data is a row of *items* (a tag, a length, bytes): first the Basic
Offset Table, which may be empty, then the fragments. A frame is one fragment or several
(PS3.5 A.4). Here a frame is kept as the span of its items, `starts` to `ends`; the
items' own headers are read with it, and tell whether bytes have to be joined.

Three ways lead to the spans, the cheapest first: the Extended Offset Table, the Basic
Offset Table, and one walk over the items' headers.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tile_server.errors import DamagedTile, UnreadableSlide

Offsets = npt.NDArray[np.uint64]

_ITEM, _SEQUENCE_END = 0xE000FFFE, 0xE0DDFFFE
_UNDEFINED = 0xFFFFFFFF
_PIXEL_DATA = 0x00107FE0
_LONG_FORMS = frozenset({b"OB", b"OW", b"UN"})
# A hostile header could announce any length; no scanner's frame comes near this.
LONGEST_FRAME = 64 * 2**20
MOST_FRAMES = 2**24
_WALK_BLOCK = 64 * 2**10


@dataclass(frozen=True)
class FrameIndex:
    """Where the frames of one file lie: frame i has the bytes from start to end.

    Attributes
    ----------
    starts, ends
        Offsets in the file, one each per frame.
    encapsulated
        True where the bytes are items, False where they are plain pixels.
    """

    starts: Offsets
    ends: Offsets
    encapsulated: bool


def find_frames(
    fd: int,
    at: int,
    frames: int,
    *,
    explicit: bool,
    native_bytes: int,
    extended: tuple[Offsets, Offsets] | None,
) -> FrameIndex:
    """Find the frames of the pixel data element that starts at `at`.

    Parameters
    ----------
    fd, at
        The open file, and where the element's tag lies in it.
    frames
        How many there have to be.
    explicit
        True where the transfer syntax writes value representations.
    native_bytes
        What one frame takes where it is not compressed, else 0.
    extended
        Offsets and lengths of the Extended Offset Table, or None.

    Raises
    ------
    UnreadableSlide
        Where the pixel data is missing, cut off or cannot be told apart.
    """
    if not 0 < frames <= MOST_FRAMES:
        raise UnreadableSlide(f"it says that it has {frames} frames")
    file_bytes = os.fstat(fd).st_size
    length, value = _element(fd, at, explicit=explicit)
    if native_bytes:
        if length != _UNDEFINED and length < frames * native_bytes:
            raise UnreadableSlide("its pixel data is shorter than its frames")
        if length == _UNDEFINED or value + frames * native_bytes > file_bytes:
            raise UnreadableSlide("it is cut off within its pixel data")
        starts = value + np.arange(frames, dtype=np.uint64) * np.uint64(native_bytes)
        return FrameIndex(starts, starts + np.uint64(native_bytes), encapsulated=False)
    if length != _UNDEFINED:
        raise UnreadableSlide("its compressed frames are not in items")
    tag, table_bytes = _item_header(fd, value)
    first = value + 8 + table_bytes
    if tag != _ITEM or first > file_bytes:
        raise UnreadableSlide("it is cut off, or its compressed frames are not items")
    if extended is not None and len(extended[0]) == len(extended[1]) == frames:
        index = _from_extended_table(first, *extended)
    elif table_bytes == 4 * frames:
        table = np.frombuffer(os.pread(fd, table_bytes, value + 8), "<u4")
        index = _from_basic_table(fd, first, table.astype(np.uint64), file_bytes)
    else:
        index = _from_walk(fd, first, frames, file_bytes)
    _refuse_impossible(index, file_bytes)
    return index


def read_frame(fd: int, start: int, end: int, *, encapsulated: bool) -> bytes:
    """The bytes of a frame: fragments joined, the pad byte of a JPEG taken off.

    Raises DamagedTile.
    """
    raw = os.pread(fd, end - start, start)
    if len(raw) != end - start:
        raise DamagedTile("The file ends within this frame.")
    return unpack(raw) if encapsulated else raw


def unpack(raw: bytes | bytearray) -> bytes:
    """The frame in the items that hold it; raises DamagedTile."""
    frame = joined(raw)
    # Items have even lengths (PS3.5 A.4), so a stream of odd length ends with a zero.
    return frame[:-1] if frame[-3:] == b"\xff\xd9\0" else frame


def joined(raw: bytes | bytearray) -> bytes:
    """The frame in its items with the pad byte, if it has one; raises DamagedTile."""
    parts = []
    at = 0
    while at + 8 <= len(raw):
        tag, length = struct.unpack_from("<II", raw, at)
        if tag == _SEQUENCE_END:
            break
        if tag != _ITEM or length > len(raw) - at - 8:
            raise DamagedTile("This frame's fragments are damaged.")
        parts.append(raw[at + 8 : at + 8 + length])
        at += 8 + length
    return b"".join(parts)


def _element(fd: int, at: int, *, explicit: bool) -> tuple[int, int]:
    """The length of the pixel data element at `at`, and where its value starts."""
    head = os.pread(fd, 12, at)
    if len(head) < 12 or struct.unpack_from("<I", head)[0] != _PIXEL_DATA:
        raise UnreadableSlide("it has no pixel data")
    if not explicit:
        return int(struct.unpack_from("<I", head, 4)[0]), at + 8
    if head[4:6] not in _LONG_FORMS:
        raise UnreadableSlide("its pixel data has an unknown form")
    return int(struct.unpack_from("<I", head, 8)[0]), at + 12


def _item_header(fd: int, at: int) -> tuple[int, int]:
    head = os.pread(fd, 8, at)
    if len(head) < 8:
        raise UnreadableSlide("it is cut off within its pixel data")
    tag, length = struct.unpack("<II", head)
    return tag, length


def _from_extended_table(first: int, offsets: Offsets, lengths: Offsets) -> FrameIndex:
    # Huge values wrap round here and are refused with all other impossible ones.
    starts = np.uint64(first) + offsets
    ends = starts + np.uint64(8) + lengths + (lengths & np.uint64(1))
    return FrameIndex(starts, ends, encapsulated=True)


def _from_basic_table(
    fd: int, first: int, offsets: Offsets, file_bytes: int
) -> FrameIndex:
    """Each frame ends where the next begins; only the last one's end is looked up."""
    starts = np.uint64(first) + offsets
    order = np.argsort(starts, kind="stable")
    ends = np.empty_like(starts)
    ends[order[:-1]] = starts[order[1:]]
    at = int(starts[order[-1]])
    while at + 8 <= file_bytes:
        tag, length = _item_header(fd, at)
        if tag != _ITEM:
            break
        at += 8 + length
    ends[order[-1]] = at
    return FrameIndex(starts, ends, encapsulated=True)


def _from_walk(fd: int, first: int, frames: int, file_bytes: int) -> FrameIndex:
    """Without a table: every fragment's header is read once.

    Where there are more fragments than frames, those that start as a JPEG or a JPEG
    2000 stream does start a frame.
    """
    starts: list[int] = []
    begins: list[bool] = []
    at, block, block_at = first, b"", first
    while at + 8 <= file_bytes:
        if not block_at <= at <= block_at + len(block) - 12:
            block, block_at = os.pread(fd, _WALK_BLOCK, at), at
        here = at - block_at
        tag, length = struct.unpack_from("<II", block, here)
        if tag != _ITEM:
            break
        starts.append(at)
        begins.append(block[here + 8 : here + 12] in _STARTS or _is_jpeg(block, here))
        at += 8 + length
        if len(starts) > MOST_FRAMES:
            raise UnreadableSlide("it has too many fragments")
    if len(starts) == frames or frames == 1:
        edges = starts[:1] if frames == 1 else starts
    else:
        edges = [start for start, new in zip(starts, begins, strict=True) if new]
    if len(edges) != frames:
        raise UnreadableSlide(
            f"it says that it has {frames} frames, and {len(edges)} were found"
        )
    borders = np.asarray([*edges, at], np.uint64)
    return FrameIndex(borders[:-1], borders[1:], encapsulated=True)


# The start of a JPEG 2000 code stream, with its first marker.
_STARTS = frozenset({b"\xff\x4f\xff\x51"})


def _is_jpeg(block: bytes, here: int) -> bool:
    return block[here + 8 : here + 11] == b"\xff\xd8\xff"


def _refuse_impossible(index: FrameIndex, file_bytes: int) -> None:
    """Raise UnreadableSlide where frames lie past the end, or are absurdly long."""
    starts, ends = index.starts, index.ends
    cut = int(np.count_nonzero((ends > file_bytes) | (starts > file_bytes)))
    if cut:
        raise UnreadableSlide(
            f"it is cut off: {cut} of its {len(starts)} frames lie past the end of the "
            "file. Copy it again"
        )
    if np.any(ends < starts + np.uint64(8)):
        raise UnreadableSlide("the table of its frames is damaged")
    if int((ends - starts).max()) > LONGEST_FRAME:
        raise UnreadableSlide(f"a frame of it is longer than {LONGEST_FRAME} bytes")
