"""The original files of a slide as the server streams them.

Several files travel as `multipart/related`, one file as it is. Every liberty that
RFC 2046 leaves, and that clients get wrong, is a field: a quoted boundary, a preamble,
an epilogue, names with commas or without quotes, header names in any case.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from .faults import Stall, Truncate, WrongLength

Form = Literal["multipart", "single"]


@dataclass(frozen=True)
class FilePart:
    """One file: the name that the server gives it, and its bytes or where they are."""

    name: str
    content: bytes | Path = field(repr=False)

    @property
    def length(self) -> int:
        if isinstance(self.content, bytes):
            return len(self.content)
        return self.content.stat().st_size


@dataclass(frozen=True)
class SlideFiles:
    """How a slide's files are sent.

    Attributes
    ----------
    form
        "single" sends the first part alone, as `application/octet-stream`.
    boundary, quoted_boundary, more_parameters
        Of the Content-Type; `more_parameters` follow the boundary, such as "start=x".
    preamble, epilogue
        Bytes before the first and after the last delimiter.
    closing_crlf
        Whether a line end follows the last delimiter.
    lower_case_headers, quoted_names, utf8_names, lf_headers
        The shape of the parts' headers; `utf8_names` writes `filename*=UTF-8''...`.
    chunk_bytes
        The body leaves in writes of so many bytes.
    chunked
        Sent without a Content-Length, in chunks.
    fault
        Meets every download of this slide, besides the fault plan of the route.
    raw
        A whole Content-Type and body instead of everything above.
    """

    parts: tuple[FilePart, ...] = ()
    form: Form = "multipart"
    boundary: str = "sps-7f3a-91c2"
    quoted_boundary: bool = False
    more_parameters: str = ""
    preamble: bytes = b""
    epilogue: bytes = b""
    closing_crlf: bool = True
    lower_case_headers: bool = False
    quoted_names: bool = True
    utf8_names: bool = False
    lf_headers: bool = False
    chunk_bytes: int = 65536
    chunked: bool = False
    fault: Truncate | WrongLength | Stall | None = None
    raw: tuple[str, bytes] | None = field(default=None, repr=False)

    @property
    def length(self) -> int:
        """How many bytes the body has."""
        if self.raw is not None:
            return len(self.raw[1])
        if self.form == "single":
            return self.parts[0].length
        pieces = self._pieces()
        return sum(len(one) if isinstance(one, bytes) else one.length for one in pieces)

    def headers(self) -> dict[str, str]:
        if self.raw is not None:
            return {"Content-Type": self.raw[0]}
        if self.form == "single":
            return {
                "Content-Type": "application/octet-stream",
                "Content-Disposition": f"attachment; {self._named(self.parts[0])}",
            }
        boundary = f'"{self.boundary}"' if self.quoted_boundary else self.boundary
        more = f"; {self.more_parameters}" if self.more_parameters else ""
        return {"Content-Type": f"multipart/related; boundary={boundary}{more}"}

    def chunks(self) -> Iterator[bytes]:
        """The body, in chunks of `chunk_bytes`."""
        held = bytearray()
        for piece in self._bytes():
            held += piece
            while len(held) >= self.chunk_bytes:
                yield bytes(held[: self.chunk_bytes])
                del held[: self.chunk_bytes]
        if held:
            yield bytes(held)

    def _bytes(self) -> Iterator[bytes]:
        if self.raw is not None:
            yield self.raw[1]
            return
        pieces = (self.parts[0],) if self.form == "single" else self._pieces()
        for piece in pieces:
            if isinstance(piece, bytes):
                yield piece
            elif isinstance(piece.content, bytes):
                yield piece.content
            else:
                with piece.content.open("rb") as source:
                    while block := source.read(1 << 18):
                        yield block

    def _pieces(self) -> Iterator[bytes | FilePart]:
        if self.preamble:
            yield self.preamble + b"\r\n"
        end = "\n" if self.lf_headers else "\r\n"
        for part in self.parts:
            lines = [
                f"Content-Disposition: attachment; {self._named(part)}",
                "Content-Type: application/octet-stream",
            ]
            if self.lower_case_headers:
                lines = [
                    name.lower() + colon + value
                    for name, colon, value in (line.partition(":") for line in lines)
                ]
            yield f"--{self.boundary}\r\n".encode()
            yield (end.join(lines) + end + end).encode()
            yield part
            yield b"\r\n"
        yield f"--{self.boundary}--".encode()
        if self.closing_crlf:
            yield b"\r\n"
        yield self.epilogue

    def _named(self, part: FilePart) -> str:
        if self.utf8_names:
            return f"filename*=UTF-8''{quote(part.name, safe='')}"
        if not self.quoted_names:
            return f"filename={part.name}"
        return 'filename="{}"'.format(part.name.replace('"', '\\"'))


def single(name: str, content: bytes | Path) -> SlideFiles:
    """One file, sent as it is."""
    return SlideFiles((FilePart(name, content),), form="single")


def dicom_like(parts: int, part_bytes: int) -> SlideFiles:
    """Files with the commas and gaps in their names that a DICOM slide has."""
    return SlideFiles(
        tuple(
            FilePart(f"i{3 * number:04d},0000b.dcm", _filled(number, part_bytes))
            for number in range(parts)
        )
    )


def _filled(number: int, length: int) -> bytes:
    """Bytes that differ from part to part and hold line ends and dashes."""
    unit = b"\r\n--part %d " % number + bytes(range(256))
    return (unit * (length // len(unit) + 1))[:length]
