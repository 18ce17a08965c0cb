"""Reading `multipart/related` as it comes in, without keeping it.

Only the bytes around a possible boundary are held back, so that an answer of gigabytes
passes through in small pieces.
"""

from __future__ import annotations

from collections.abc import Iterator
from email.message import Message

from services.dicom_client.errors import PeerError

_HEAD_BYTES = 16 << 10


def parts(
    content_type: str, pieces: Iterator[bytes], largest_bytes: int
) -> Iterator[Iterator[bytes]]:
    """The bodies of all parts, each as an iterator that must be used up in turn.

    Raises
    ------
    PeerError
        It is no multipart answer, is cut off, or a part is too large.
    """
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_param("boundary")
    if message.get_content_maintype() != "multipart" or not isinstance(boundary, str):
        raise PeerError("The server's answer is not multipart.", "answer")
    source = _Source(pieces, b"\r\n--" + boundary.encode("latin-1", "replace"))
    while source.next_part():
        body = source.body(largest_bytes)
        yield body
        for _ in body:
            pass  # what the caller left


class _Source:
    """The incoming bytes; `delimiter` is the boundary with the line end before it."""

    def __init__(self, pieces: Iterator[bytes], delimiter: bytes) -> None:
        self._pieces = pieces
        self._delimiter = delimiter
        # The first boundary may stand at the very beginning.
        self._held = bytearray(b"\r\n")
        self._begun = False

    def next_part(self) -> bool:
        """Go to the next part's body; False at the end."""
        if not self._begun:
            self._begun = True
            for _ in self.body(_HEAD_BYTES):
                pass  # what stands before the first boundary means nothing
        while len(self._held) < 2:
            self._more()
        if self._held[:2] == b"--":
            return False
        while (end := self._held.find(b"\r\n\r\n")) < 0:
            if len(self._held) > _HEAD_BYTES:
                raise PeerError("A part's head is too long.", "answer")
            self._more()
        del self._held[: end + 4]
        return True

    def body(self, largest_bytes: int) -> Iterator[bytes]:
        """Bytes up to the next delimiter, which is taken as well."""
        size, keep = 0, len(self._delimiter) - 1
        while True:
            found = self._held.find(self._delimiter)
            end = found if found >= 0 else max(len(self._held) - keep, 0)
            if end:
                size += end
                if size > largest_bytes:
                    raise PeerError("An object of the server is too large.", "answer")
                yield bytes(self._held[:end])
                del self._held[:end]
            if found >= 0:
                del self._held[: len(self._delimiter)]
                return
            self._more()

    def _more(self) -> None:
        piece = next(self._pieces, None)
        if piece is None:
            raise PeerError("The server's answer is cut off.", "unreachable")
        self._held += piece
