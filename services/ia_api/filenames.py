"""Names for downloaded files: never outside the folder, never one over another."""

from __future__ import annotations

import re
from collections.abc import Container
from pathlib import PurePosixPath

from services.ia_api.errors import HostileName

NAME_BYTES = 255
"""The longest name that common file systems take."""

_DRIVE = re.compile(r"[A-Za-z]:")


def safe_name(raw: str) -> str:
    """Return the last component of a name that a server sent.

    Backslashes count as slashes. Raises HostileName for what names no file: nothing,
    `.`, `..`, a drive, a NUL or another control character, or over 255 bytes.
    """
    name = raw.replace("\\", "/").rpartition("/")[2]
    if (
        name in {"", ".", ".."}
        or _DRIVE.match(name)
        or any(ord(letter) < 32 or ord(letter) == 127 for letter in name)
        or len(name.encode("utf-8", "surrogatepass")) > NAME_BYTES
    ):
        # The name itself may hold patient data: it is not repeated here.
        raise HostileName("the server sent a file name that is none")
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as err:
        raise HostileName("the server sent a file name that is not Unicode") from err
    return name


def unused_name(name: str, taken: Container[str]) -> str:
    """Return `name`, or `name-2`, `name-3`, ... before its suffix if it is taken."""
    if name not in taken:
        return name
    path = PurePosixPath(name)
    number = 2
    while True:
        mark = f"-{number}{path.suffix}"
        # Cut letters, not bytes: the name stays Unicode.
        stem = path.stem
        while len(f"{stem}{mark}".encode()) > NAME_BYTES:
            stem = stem[:-1]
        candidate = f"{stem}{mark}"
        if candidate not in taken:
            return candidate
        number += 1
