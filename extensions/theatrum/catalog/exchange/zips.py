"""A zip that is never held: its layout follows from names and sizes alone.

Members are stored and not deflated (images are compressed already), so that every
byte's place is known before any content is read: the size of the whole, and what lies
between two of its bytes. An interrupted download goes on where it stopped. The same
members give the same bytes, to the last.

A member's checksum (CRC-32) stands behind its content and in the directory at the end,
never before it: no file is read twice to send it once. Members whose size nobody knows
before they are made can be sent too; then the whole has no size and no ranges.

Format: PKWARE APPNOTE 6.3.10, sections 4.3 and 4.5.3 (Zip64).
"""

from __future__ import annotations

import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from theatrum.catalog.errors import BadRecord, CatalogError

STEP: Final = 2**20
"""Bytes that are held of a member at a time."""
MEDIA_TYPE: Final = "application/zip"
_LOCAL: Final = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL: Final = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END: Final = struct.Struct("<4sHHHHIIH")
_END64: Final = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR64: Final = struct.Struct("<4sIQI")
_AFTER: Final = struct.Struct("<4sIII")
_AFTER64: Final = struct.Struct("<4sIQQ")
_FLAGS: Final = 1 << 3 | 1 << 11
"""The checksum follows the content; names are UTF-8."""
_FULL: Final = 0xFFFFFFFF
_MANY: Final = 0xFFFF
_LONG: Final = 0xFFFFFFFF
"""From this size on a member is written in the form of Zip64."""
_TIME: Final = 0
_DAY: Final = 1 << 5 | 1
"""Midnight of 1 January 1980: moments of files would make equal archives differ."""
_MODE: Final = (0o100644 << 16) & _FULL
_KEPT: Final = 100_000


class Changed(CatalogError):
    """A file is not as long as it was when the archive was laid out."""


@dataclass(frozen=True)
class Member:
    """One file of an archive.

    Attributes
    ----------
    name
        With `/` between folders.
    size
        In bytes; None where only making it tells.
    blocks
        Its content from a byte on, in parts of at most some megabytes.
    known
        What the content is known by (a path, a size and a moment): its checksum is then
        computed once for all archives of this process.
    """

    name: str
    size: int | None
    blocks: Callable[[int], Iterator[bytes]]
    known: tuple[str, int, int] | None = None


def of_bytes(name: str, content: bytes) -> Member:
    """A member that is held already."""
    return Member(name, len(content), lambda begin: iter([content[begin:]]))


def of_file(name: str, path: Path) -> Member:
    """A file on disk as a member; raises OSError where there is none."""
    status = path.stat()

    def blocks(begin: int) -> Iterator[bytes]:
        with path.open("rb") as file:
            file.seek(begin)
            while block := file.read(STEP):
                yield block

    known = (str(path), status.st_size, status.st_mtime_ns)
    return Member(name, status.st_size, blocks, known)


@dataclass
class _Sums:
    """Checksums of what was read before; safe in threads."""

    kept: OrderedDict[tuple[str, int, int], int] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, known: tuple[str, int, int] | None) -> int | None:
        with self.lock:
            return None if known is None else self.kept.get(known)

    def put(self, known: tuple[str, int, int] | None, sum_: int) -> None:
        if known is None:
            return
        with self.lock:
            self.kept[known] = sum_
            while len(self.kept) > _KEPT:
                self.kept.popitem(last=False)


_SUMS = _Sums()


@dataclass(frozen=True)
class _Part:
    """A stretch of the archive: how long it is, and its bytes from one of them on."""

    size: int
    blocks: Callable[[int], Iterator[bytes]]


class Archive:
    """An archive of some members, in their order."""

    def __init__(self, members: Iterable[Member]) -> None:
        """Lay the archive out; nothing of a member's content is read.

        Raises
        ------
        BadRecord
            Where two members have one name, or a name is none.
        """
        self.members: Sequence[Member] = tuple(members)
        names = {one.name for one in self.members}
        if len(names) < len(self.members):
            raise BadRecord("two files of an archive cannot have one name")
        for name in names:
            if not name or len(name.encode()) > _MANY or name.startswith("/"):
                raise BadRecord("a file of an archive needs a name of its own")
        self._crcs: dict[int, int] = {}
        self._sizes: dict[int, int] = {}

    @property
    def size(self) -> int | None:
        """Bytes of the whole; None where a member's are not known."""
        if any(one.size is None for one in self.members):
            return None
        return sum(part.size for part in self._parts())

    def stream(self, first: int = 0, last: int | None = None) -> Iterator[bytes]:
        """The bytes from `first` to `last` (with it), a megabyte or so at a time.

        Raises
        ------
        Changed
            Where a file meanwhile became longer or shorter.
        BadRecord
            For a part of an archive whose size is not known.
        """
        if self.size is None:
            if first or last is not None:
                raise BadRecord("an archive of unknown size has no ranges")
            yield from self._whole()
            return
        left = (self.size - first) if last is None else last - first + 1
        begin = first
        for part in self._parts():
            if begin >= part.size:
                begin -= part.size
                continue
            for block in part.blocks(begin):
                if left <= 0:
                    return
                yield block[:left]
                left -= min(left, len(block))
            begin = 0
            if left <= 0:
                return

    # Parts: for each member what is before it, itself, what is behind; the directory

    def _parts(self) -> Iterator[_Part]:
        offset = 0
        offsets: list[int] = []
        for place, one in enumerate(self.members):
            offsets.append(offset)
            assert one.size is not None  # noqa: S101
            head = _head(one)
            behind = _AFTER64.size if _is_long(one) else _AFTER.size
            yield _Part(len(head), _held(head))
            yield _Part(one.size, self._content(place, one))
            yield _Part(behind, self._descriptor(place, one))
            offset += len(head) + one.size + behind
        yield _Part(
            self._directory_size(offsets, offset), self._directory(offsets, offset)
        )

    def _content(self, place: int, one: Member) -> Callable[[int], Iterator[bytes]]:
        def blocks(begin: int) -> Iterator[bytes]:
            crc, left = 0, (one.size or 0) - begin
            for block in one.blocks(begin):
                crc = zlib.crc32(block, crc)
                left -= len(block)
                if left < 0:
                    break
                yield block
            if left:
                raise Changed(f"{one.name} changed while it was sent: ask again.")
            if not begin:
                self._crcs[place] = crc
                _SUMS.put(one.known, crc)

        return blocks

    def _descriptor(self, place: int, one: Member) -> Callable[[int], Iterator[bytes]]:
        def blocks(begin: int) -> Iterator[bytes]:
            yield _descriptor(one, self._crc(place), one.size or 0)[begin:]

        return blocks

    def _directory(
        self, offsets: Sequence[int], begins: int
    ) -> Callable[[int], Iterator[bytes]]:
        def blocks(begin: int) -> Iterator[bytes]:
            entries = (
                _entry(one, self._crc(place), one.size or 0, offsets[place])
                for place, one in enumerate(self.members)
            )
            size = sum(_entry_size(one, offsets[i]) for i, one in _at(self.members))
            yield from _from(begin, _joined(entries, len(self.members), begins, size))

        return blocks

    def _directory_size(self, offsets: Sequence[int], begins: int) -> int:
        size = sum(_entry_size(one, offsets[i]) for i, one in _at(self.members))
        return size + len(_end(len(self.members), begins, size))

    def _crc(self, place: int) -> int:
        """A member's checksum: as it was sent, as it is remembered, else read now."""
        if place not in self._crcs:
            one = self.members[place]
            crc = _SUMS.get(one.known)
            if crc is None:
                for _ in self._content(place, one)(0):
                    pass
            else:
                self._crcs[place] = crc
        return self._crcs[place]

    # Where sizes are not known before

    def _whole(self) -> Iterator[bytes]:
        offset = 0
        entries: list[bytes] = []
        for one in self.members:
            head = _head(one)
            yield head
            crc, size = 0, 0
            for block in one.blocks(0):
                crc = zlib.crc32(block, crc)
                size += len(block)
                yield block
            if one.size is not None and size != one.size:
                raise Changed(f"{one.name} changed while it was sent: ask again.")
            behind = _descriptor(one, crc, size)
            yield behind
            entries.append(_entry(one, crc, size, offset))
            offset += len(head) + size + len(behind)
        size = sum(map(len, entries))
        yield from _joined(iter(entries), len(entries), offset, size)


def _held(content: bytes) -> Callable[[int], Iterator[bytes]]:
    return lambda begin: iter([content[begin:]])


def _at(members: Sequence[Member]) -> Iterator[tuple[int, Member]]:
    return iter(enumerate(members))


def _is_long(one: Member) -> bool:
    """Whether a member needs the 64-bit form; of one of unknown size it is assumed."""
    return one.size is None or one.size >= _LONG


def _head(one: Member) -> bytes:
    name = one.name.encode()
    # Sizes come behind the content; this says that they come as 64 bits.
    extra = struct.pack("<HHQQ", 1, 16, 0, 0) if _is_long(one) else b""
    return (
        _LOCAL.pack(
            b"PK\3\4", 45 if extra else 20, _FLAGS, 0, _TIME, _DAY, 0,
            _FULL if extra else 0, _FULL if extra else 0, len(name), len(extra),
        )
        + name
        + extra
    )  # fmt: skip


def _descriptor(one: Member, crc: int, size: int) -> bytes:
    form = _AFTER64 if _is_long(one) else _AFTER
    return form.pack(b"PK\7\x08", crc, size, size)


def _entry(one: Member, crc: int, size: int, offset: int) -> bytes:
    name = one.name.encode()
    extra = _entry_extra(one, size, offset)
    is_long = _is_long(one)
    return (
        _CENTRAL.pack(
            b"PK\1\2", 3 << 8 | 45, 45 if extra else 20, _FLAGS, 0, _TIME, _DAY, crc,
            _FULL if is_long else size, _FULL if is_long else size, len(name),
            len(extra), 0, 0, 0, _MODE, _FULL if offset >= _FULL else offset,
        )
        + name
        + extra
    )  # fmt: skip


def _entry_extra(one: Member, size: int, offset: int) -> bytes:
    numbers = ([size, size] if _is_long(one) else []) + (
        [offset] if offset >= _FULL else []
    )
    if not numbers:
        return b""
    return struct.pack(f"<HH{len(numbers)}Q", 1, 8 * len(numbers), *numbers)


def _entry_size(one: Member, offset: int) -> int:
    return _CENTRAL.size + len(one.name.encode()) + len(_entry_extra(one, 0, offset))


def _joined(
    entries: Iterator[bytes], count: int, begins: int, size: int
) -> Iterator[bytes]:
    """The directory, in blocks that are worth sending."""
    held = bytearray()
    for entry in entries:
        held += entry
        if len(held) >= STEP:
            yield bytes(held)
            held.clear()
    yield bytes(held) + _end(count, begins, size)


def _end(count: int, begins: int, size: int) -> bytes:
    wide = b""
    if count >= _MANY or begins >= _FULL or size >= _FULL:
        wide = _END64.pack(
            b"PK\6\6", _END64.size - 12, 3 << 8 | 45, 45, 0, 0, count, count, size,
            begins,
        ) + _LOCATOR64.pack(b"PK\6\7", 0, begins + size, 1)  # fmt: skip
    return wide + _END.pack(
        b"PK\5\6", 0, 0, min(count, _MANY), min(count, _MANY), min(size, _FULL),
        min(begins, _FULL), 0,
    )  # fmt: skip


def _from(begin: int, blocks: Iterator[bytes]) -> Iterator[bytes]:
    for block in blocks:
        if begin >= len(block):
            begin -= len(block)
            continue
        yield block[begin:]
        begin = 0
