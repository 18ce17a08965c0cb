"""Multipart answers as a stream: slides have gigabytes, so nothing is held whole.

The format is that of RFC 2046, clause 5.1. More is taken than it allows where real
servers send it: a preamble, an epilogue, header lines that end in LF alone, unquoted
and RFC 5987 file names, and a closing delimiter without a line end after it. A body
that stops before its closing delimiter is an error, and so is one that has no part.

    body:  [preamble CRLF] --boundary CRLF part CRLF --boundary ... CRLF --boundary--
    part:  header lines, an empty line, bytes
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from email.message import Message

from services.ia_api.errors import Permanent, Truncated

BOUNDARY_BYTES = 70
"""The longest boundary that RFC 2046 allows."""
HEADER_BYTES = 16_384
"""What the headers of one part may take."""

# What may stand between a delimiter and its line end, and the line end itself.
_LINE_END = re.compile(rb"[ \t]*\r?\n")
_HEADERS_END = re.compile(rb"\r?\n\r?\n")


@dataclass
class Part:
    """One part; `chunks` has to be read before the next part comes."""

    headers: Message
    chunks: Iterator[bytes]

    @property
    def file_name(self) -> str | None:
        """What the server calls the file, exactly as it does: see `safe_name`."""
        return self.headers.get_filename()


def is_multipart(content_type: str) -> bool:
    """Whether an answer of this type holds several files."""
    return _parsed(content_type).get_content_maintype() == "multipart"


def file_name_of(disposition: str | None) -> str | None:
    """The file name of a Content-Disposition header (RFC 6266), None if it has none."""
    if disposition is None:
        return None
    message = Message()
    message["Content-Disposition"] = disposition
    return message.get_filename()


def parts(chunks: Iterable[bytes], content_type: str) -> Iterator[Part]:
    """Give the parts one after the other, as their bytes come.

    Raises Permanent for a body that is no multipart one, Truncated for one that ends
    too early. A part that was not read to its end is skipped over.
    """
    boundary = _parsed(content_type).get_boundary()
    if not boundary or len(boundary) > BOUNDARY_BYTES:
        raise Permanent("the server sent several files without saying what parts them")
    body = _Body(chunks, b"--" + boundary.encode("latin-1", "replace"))
    closed = body.skip_preamble()
    while not closed:
        part = Part(body.headers(), body.content())
        yield part
        for _ in part.chunks:
            pass
        closed = body.closed


def _parsed(content_type: str) -> Message:
    message = Message()
    message["Content-Type"] = content_type
    return message


class _Body:
    """The bytes that came and were not given out, and where in the body they are."""

    def __init__(self, chunks: Iterable[bytes], delimiter: bytes) -> None:
        self._chunks = iter(chunks)
        self._held = bytearray()
        self._delimiter = delimiter
        self.closed = False

    def skip_preamble(self) -> bool:
        """Go behind the first delimiter; return whether it was the closing one."""
        # A delimiter stands at the start of a line; the body's start is one.
        self._held += b"\r\n"
        for _ in self.content():
            pass
        if self.closed:
            raise Permanent("the server sent an empty list of files")
        return self.closed

    def headers(self) -> Message:
        """Take the header lines of a part and the empty line behind them."""
        while True:
            # A part without headers begins with the empty line.
            empty = re.match(rb"\r?\n", self._held)
            found = empty or _HEADERS_END.search(self._held)
            if found:
                break
            if len(self._held) > HEADER_BYTES:
                raise Permanent("a part's headers in the server's answer never end")
            self._more()
        lines = bytes(self._held[: found.start()]).decode("utf-8", "replace")
        del self._held[: found.end()]
        message = Message()
        for line in re.split(r"\r?\n(?![ \t])", lines):
            name, colon, value = line.partition(":")
            if colon:
                message[name.strip()] = re.sub(r"\s*\r?\n\s*", " ", value.strip())
        # The delimiter that ends a part begins with a line end. Of an empty part
        # some servers leave that out: the empty line's own counts then.
        if self._starts_with_delimiter() and self._behind(len(self._delimiter)):
            self._held[:0] = b"\r\n"
        return message

    def content(self) -> Iterator[bytes]:
        """Give bytes until the next delimiter, and go behind it."""
        mark = b"\r\n" + self._delimiter
        searched = 0
        while True:
            at = self._held.find(mark, searched)
            if at < 0:
                # The last bytes may be the beginning of a delimiter: they wait.
                safe = len(self._held) - len(mark) + 1
                if safe > 0:
                    yield bytes(self._held[:safe])
                    del self._held[:safe]
                searched = max(0, searched - max(0, safe))
                self._more()
                continue
            behind = self._behind(at + len(mark))
            if behind is None:  # only looks like one: `--boundaryX`
                searched = at + 1
                continue
            if at:
                yield bytes(self._held[:at])
            end, self.closed = behind
            del self._held[:end]
            return

    def _behind(self, at: int) -> tuple[int, bool] | None:
        """Where the body goes on after a delimiter that ends at `at`.

        With it comes whether that is the closing one; None if it is no delimiter.
        """
        while True:
            rest = bytes(self._held[at : at + 200])
            if rest.startswith(b"--"):
                return at + 2, True
            found = _LINE_END.match(rest)
            if found:
                return at + found.end(), False
            if not re.fullmatch(rb"-|[ \t]*\r?", rest):
                return None
            self._more()

    def _starts_with_delimiter(self) -> bool:
        while len(self._held) < len(self._delimiter) and self._delimiter.startswith(
            bytes(self._held)
        ):
            self._more()
        return self._held.startswith(self._delimiter)

    def _more(self) -> None:
        """Take the next bytes; Truncated if there are none."""
        for chunk in self._chunks:
            if chunk:
                self._held += chunk
                return
        raise Truncated("the list of files ended before its end; it is fetched again")
