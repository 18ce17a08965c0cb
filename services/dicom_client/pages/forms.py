"""What a browser sends of a form: fields, and files where there are some."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from email.message import Message
from urllib.parse import parse_qsl

from services.dicom_client.errors import BadRequest


@dataclass(frozen=True)
class Fields:
    """The fields of a form by their names, in order."""

    texts: dict[str, list[str]] = field(default_factory=dict, repr=False)
    files: dict[str, bytes] = field(default_factory=dict, repr=False)

    def text(self, name: str, most: int = 2048) -> str:
        """The first value of a field, without white space around it."""
        return (self.texts.get(name) or [""])[0][:most].strip()

    def every(self, name: str) -> list[str]:
        """All values of a field, as those of boxes that are ticked."""
        return self.texts.get(name, [])

    def file(self, name: str) -> bytes:
        """A file; BadRequest where none was chosen."""
        content = self.files.get(name, b"")
        if not content:
            raise BadRequest("choose a file first")
        return content

    def plain(self, *besides: str) -> dict[str, str]:
        """The first value of every field but the named ones."""
        return {
            name: values[0]
            for name, values in self.texts.items()
            if name not in besides
        }


def parse(content_type: str, body: bytes) -> Fields:
    """Read a form of either of the two kinds that browsers send."""
    message = Message()
    message["Content-Type"] = content_type
    if message.get_content_type() == "multipart/form-data":
        boundary = message.get_param("boundary")
        if not isinstance(boundary, str) or not boundary:
            raise BadRequest("the form is cut off: send it again")
        return _multipart(body, boundary.encode("latin-1", "replace"))
    fields = Fields()
    for name, value in parse_qsl(
        body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=20_000
    ):
        fields.texts.setdefault(name, []).append(value)
    return fields


def _multipart(body: bytes, boundary: bytes) -> Fields:
    """RFC 7578; browsers write one header that matters, Content-Disposition."""
    fields = Fields()
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary)[1:]:
        if part.startswith(b"--"):
            return fields
        head, _, content = part.partition(b"\r\n\r\n")
        named = re.search(rb'[; ]name="([^"]{0,200})"', head)
        if named is None:
            continue
        name = named[1].decode("utf-8", "replace")
        if re.search(rb"; ?filename=", head):
            fields.files[name] = content
        else:
            text = content.decode("utf-8", "replace")
            fields.texts.setdefault(name, []).append(text)
    raise BadRequest("the form is cut off: send it again")
