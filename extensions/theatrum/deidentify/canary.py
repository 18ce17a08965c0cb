"""The canary: no identifier of the input may stand in a byte of the output.

Everything that is about to be given out is searched for every identifier of the whole
package: file names, headers, pixels; in ASCII and UTF-8 as in UTF-16, in the bytes that
the input's character set had, and in hexadecimal and base64. Thousands of needles are
looked for at once: a table of two-byte beginnings tells in one pass over the bytes
where any could start, and only there they are compared.

Two kinds of chance meetings are no leaks: digits within a longer number, and anything
within a UID that was made here from the key.
"""

from __future__ import annotations

import base64
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from theatrum.deidentify.identifiers import Identifiers, spelled


class Where(Enum):
    """The kind of bytes that are searched: how short a needle may be in them.

    Compressed pixels are random bytes. Native ones are not: a dark area holds nothing
    but digits and letters for a whole row, also as UTF-16, and so only long needles
    tell anything there.
    """

    HEADER = 3
    COMPRESSED = 6
    NATIVE = 10


_MIN_DIGITS: Final = 5
_LONG_UID: Final = 12
_LONG_RAW: Final = 6
_LONG_WORD: Final = 8
_LEAST_SPARSE: Final = 64
_AROUND: Final = 256
_OWN_UID: Final = re.compile(rb"2\.25\.\d+")
_NUMBER_BYTES: Final = frozenset(b"0123456789.")
_WORD_BYTES: Final = frozenset(
    b"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
) | frozenset(range(0x80, 0x100))


@dataclass(frozen=True)
class Needle:
    """Bytes to look for, lower case. `kind` says which meetings count."""

    content: bytes
    kind: str
    wide: bool = False
    """Whether it is UTF-16."""


class Canary:
    """Looks for the identifiers of a package; made once, used for every file."""

    def __init__(
        self,
        identifiers: Identifiers,
        own_uids: Iterable[str],
        own_dates: Iterable[str],
    ) -> None:
        self._own = {uid.encode() for uid in own_uids}
        needles = _needles(identifiers, set(own_dates))
        self._all = _Index(needles)
        self._long = {
            where: _SparseIndex(
                [
                    needle
                    for needle in needles
                    if len(needle.content) >= where.value
                    and not (needle.wide and where is Where.NATIVE)
                ],
                where.value,
            )
            for where in (Where.COMPRESSED, Where.NATIVE)
        }

    def finds(self, content: bytes, where: Where = Where.HEADER) -> bool:
        """Whether any identifier stands in `content`."""
        if where is not Where.HEADER and len(content) >= _LEAST_SPARSE:
            return any(
                self._counts(
                    bytes(content[start : at + _AROUND]).lower(), at - start, one
                )
                for at, one in self._long[where].candidates(content)
                for start in [max(0, at - _AROUND)]
            )
        lower = bytes(content).lower()
        return any(
            self._counts(lower, at, needle)
            for at, needle in self._all.candidates(lower)
            if len(needle.content) >= where.value
            and not (needle.wide and where is Where.NATIVE)
        )

    def finds_in_name(self, name: str) -> bool:
        """Whether a file name holds an identifier."""
        return self.finds(name.encode("utf-8", "surrogateescape"))

    def _counts(self, lower: bytes, at: int, needle: Needle) -> bool:
        end = at + len(needle.content)
        before, after = lower[at - 1 : at] if at else b"", lower[end : end + 1]
        match needle.kind:
            case "anywhere":
                return True
            case "word":
                return not (
                    (before and before[0] in _WORD_BYTES)
                    or (after and after[0] in _WORD_BYTES)
                )
            case "date":
                return not self._within_number(lower, at, end, right=False)
            case _:
                return not self._within_number(lower, at, end, right=True)

    def _within_number(self, lower: bytes, at: int, end: int, *, right: bool) -> bool:
        """Whether the digits at [at, end) are the middle of a longer number or UID."""
        start, stop = at, end
        while start and lower[start - 1] in _NUMBER_BYTES:
            start -= 1
        while stop < len(lower) and lower[stop] in _NUMBER_BYTES:
            stop += 1
        for own in _OWN_UID.finditer(lower[start:stop]):
            if own[0] in self._own and start + own.start() <= at < start + own.end():
                return True
        if at > start and (lower[at - 1 : at] != b"." or at - 1 > start):
            return True
        following = lower[end:stop]
        return right and following not in (b"", b".")


class _Index:
    """Needles by their first two bytes, and then by length.

    A package has as many UIDs as files, and all begin alike: what stands at a place is
    looked up among those of each length, not compared with every one.
    """

    def __init__(self, needles: Iterable[Needle]) -> None:
        self._by_start: dict[int, dict[int, dict[bytes, list[Needle]]]] = {}
        self._starts: NDArray[np.bool_] = np.zeros(1 << 16, bool)
        fours: set[int] = set()
        self._threes = False
        for needle in needles:
            content = needle.content
            start = content[0] | content[1] << 8
            self._starts[start] = True
            lengths = self._by_start.setdefault(start, {})
            same = lengths.setdefault(len(content), {})
            same.setdefault(content, []).append(needle)
            self._threes |= len(content) < 4
            fours.add(int.from_bytes(content[2:4].ljust(2, b"\0"), "little"))
        self._seconds: NDArray[np.bool_] = np.zeros(1 << 16, bool)
        self._seconds[list(fours)] = True

    def candidates(self, lower: bytes) -> Iterable[tuple[int, Needle]]:
        """Every needle that stands in `lower`, with its place."""
        if len(lower) < 3 or not self._by_start:
            return
        # Room behind the end, so that pairs may be read from every byte.
        content = lower + b"\0\0\0\0"
        for offset in (0, 1):
            pairs = np.frombuffer(
                content, "<u2", (len(lower) - offset) // 2 + 1, offset
            )
            hits = np.flatnonzero(self._starts[pairs[:-1]])
            if not self._threes and len(hits):
                hits = hits[self._seconds[pairs[hits + 1]]]
            for hit in hits.tolist():
                at = hit * 2 + offset
                for length, same in self._by_start[int(pairs[hit])].items():
                    for needle in same.get(lower[at : at + length], ()):
                        yield at, needle


class _SparseIndex:
    """Long needles, looked for at every `stride`th byte only.

    A needle of n bytes covers such a byte within its first `stride`, wherever it
    stands; so four bytes from there must be four bytes of it. Upper and lower case are
    in the tables, so that pixels need not be copied to be searched.
    """

    def __init__(self, needles: list[Needle], shortest: int) -> None:
        self.stride = (shortest - 3) // 2 * 2
        self._first: NDArray[np.bool_] = np.zeros(1 << 16, bool)
        self._second: NDArray[np.bool_] = np.zeros(1 << 16, bool)
        self._by_four: dict[bytes, list[tuple[Needle, int]]] = defaultdict(list)
        for needle in needles:
            for offset in range(self.stride):
                four = needle.content[offset : offset + 4]
                self._by_four[four].append((needle, offset))
        for four in self._by_four:
            self._first[_cases(four[:2])] = True
            self._second[_cases(four[2:])] = True

    def candidates(self, content: bytes) -> Iterable[tuple[int, Needle]]:
        """Every needle that stands in `content`, with its place."""
        pairs = np.frombuffer(content, "<u2", len(content) // 2)
        step = self.stride // 2
        hits = np.flatnonzero(self._first[pairs[:-1:step]]) * step
        hits = hits[self._second[pairs[hits + 1]]]
        for hit in (hits * 2).tolist():
            four = bytes(content[hit : hit + 4]).lower()
            for needle, offset in self._by_four.get(four, ()):
                at = hit - offset
                found = bytes(content[max(0, at) : at + len(needle.content)])
                if at >= 0 and found.lower() == needle.content:
                    yield at, needle


def _cases(pair: bytes) -> list[int]:
    """Two bytes in lower and upper case, as little-endian numbers."""
    return [
        low | high << 8
        for low in {pair[0], pair[:1].upper()[0]}
        for high in {pair[1], pair[1:].upper()[0]}
    ]


def _needles(identifiers: Identifiers, own_dates: set[str]) -> list[Needle]:
    found: set[Needle] = set()
    for word in identifiers.words:
        if word.isdigit():
            if len(word) >= _MIN_DIGITS:
                found |= _encoded(word, "number")
        else:
            long = len(word) >= _LONG_WORD and word.isalpha()
            found |= _encoded(word, "anywhere" if long else "word")
    for phrase in identifiers.phrases:
        if len(phrase) < 4 or phrase.replace(".", "").isdigit():
            found |= _encoded(phrase, "number")
            continue
        found |= _encoded(phrase, "anywhere" if len(phrase) >= 8 else "word")
    for uid in identifiers.uids:
        # A longer UID that begins with one of ours tells it as well.
        digits = uid.replace(".", "").isdigit()
        short = "number" if len(uid) < _LONG_UID else "date"
        found |= _encoded(uid, short if digits else "anywhere")
    for date in identifiers.dates - own_dates:
        found |= _encoded(date, "date")
    for date in spelled(identifiers) - own_dates:
        found |= _encoded(date, "date")
    for raw in identifiers.raw:
        found.add(Needle(raw.lower(), "anywhere" if len(raw) >= _LONG_RAW else "word"))
    return [needle for needle in found if len(needle.content) >= 3]


def _encoded(text: str, kind: str) -> set[Needle]:
    """A text in every form in which it could hide."""
    plain = text.encode("utf-8", "replace")
    forms = {Needle(plain.lower(), kind)}
    if not text.isascii():
        forms.add(Needle(text.encode("latin-1", "ignore").lower(), kind))
    if len(text) >= _MIN_DIGITS:
        forms.add(Needle(text.encode("utf-16-le").lower(), "anywhere", wide=True))
        forms.add(Needle(text.encode("utf-16-be").lower(), "anywhere", wide=True))
        for spelled_text in {text, text.upper(), text.title()}:
            content = spelled_text.encode()
            forms.add(Needle(content.hex().encode(), "anywhere"))
            whole = base64.b64encode(content[: len(content) // 3 * 3])
            if len(whole) >= 8:
                forms.add(Needle(whole.lower(), "anywhere"))
    return forms
