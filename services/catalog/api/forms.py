"""A form with one text and one file, taken as it comes: its sender is judged by the
text before a byte of the file is kept.

FastAPI reads a declared form whole, before it looks at who sends it. Here the route
looks first, and then reads within limits; see RFC 7578.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import IO, Any, Final

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from theatrum.catalog.errors import BadRecord

from services.catalog.errors import TooLargeError

TEXT_BYTES: Final = 1_000_000
_AROUND: Final = 1 << 16
"""What boundaries and headers of two parts may take."""
_BLOCK: Final = 1 << 20


async def receive_form(
    request: Request,
    *,
    text: str,
    file: str,
    into: IO[bytes],
    most: int,
    judge: Callable[[str], None],
) -> str:
    """Write a form's file to `into`; the form's text.

    Parameters
    ----------
    text, file
        The names of the two parts; the text comes first.
    most
        Bytes of the file.
    judge
        Is given the text, and raises where its sender may not go on.

    Raises
    ------
    BadRecord
        Where the body is no such form.
    TooLargeError
        As soon as more is announced, or comes, than is taken.
    """
    kind, options = parse_options_header(request.headers.get("Content-Type", ""))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise BadRecord(f"send a form (multipart/form-data) of {text} and {file}")
    whole = most + TEXT_BYTES + _AROUND
    announced = request.headers.get("Content-Length", "")
    if announced.isdigit() and int(announced) > whole:
        raise _too_large(file, most)
    form = _Form(text, file, into, most, judge)
    parser = MultipartParser(options[b"boundary"], form.callbacks())  # type: ignore[arg-type]  # a plain dictionary
    came = 0
    try:
        async for block in _blocks(request):
            came += len(block)
            if came > whole:
                raise _too_large(file, most)
            await run_in_threadpool(parser.write, block)
        parser.finalize()
    except FormParserError as err:
        raise BadRecord("the form is cut off, or none: send it again") from err
    return form.end()


class _Form:
    """Follows a parser from part to part."""

    def __init__(
        self,
        text: str,
        file: str,
        into: IO[bytes],
        most: int,
        judge: Callable[[str], None],
    ) -> None:
        self._names = {text: "text", file: "file"}
        self._text_name, self._file_name = text, file
        self._into = into
        self._left = self._most = most
        self._judge = judge
        self._header = bytearray(), bytearray()
        self._part = ""
        self._text = bytearray()
        self._done: list[str] = []

    # Any: callbacks of several shapes
    def callbacks(self) -> dict[str, Any]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._field,
            "on_header_value": self._value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers,
            "on_part_data": self._data,
            "on_part_end": self._end,
        }

    def end(self) -> str:
        """The text, where both parts came; raises BadRecord."""
        if self._done != ["text", "file"]:
            raise BadRecord(
                f"send a form of {self._text_name} and {self._file_name}, in this order"
            )
        return self._text.decode("utf-8", "replace")

    def _begin(self) -> None:
        self._part = ""

    def _field(self, data: bytes, start: int, end: int) -> None:
        self._header[0].extend(data[start:end])

    def _value(self, data: bytes, start: int, end: int) -> None:
        self._header[1].extend(data[start:end])

    def _header_end(self) -> None:
        field, value = (bytes(one) for one in self._header)
        self._header = bytearray(), bytearray()
        if field.lower() == b"content-disposition":
            _, options = parse_options_header(value)
            name = options.get(b"name", b"").decode("utf-8", "replace")
            self._part = self._names.get(name, "")

    def _headers(self) -> None:
        wanted = ("text", "file")[len(self._done)] if len(self._done) < 2 else ""
        if not self._part or self._part != wanted:
            raise BadRecord(
                f"a form has one {self._text_name} and then one {self._file_name}"
            )

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part == "text":
            self._text += data[start:end]
            if len(self._text) > TEXT_BYTES:
                raise _too_large(self._text_name, TEXT_BYTES)
            return
        self._left -= end - start
        if self._left < 0:
            raise _too_large(self._file_name, self._most)
        self._into.write(data[start:end])

    def _end(self) -> None:
        self._done.append(self._part)
        if self._part == "text":
            self._judge(self._text.decode("utf-8", "replace"))


async def _blocks(request: Request) -> AsyncIterator[bytes]:
    """The body, in pieces that are worth a thread's time."""
    held = bytearray()
    async for piece in request.stream():
        held += piece
        if len(held) >= _BLOCK:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


def _too_large(name: str, most: int) -> TooLargeError:
    return TooLargeError(f"{name} has {most:,} bytes at most")
