"""The version of a slide's file, which is part of every tile's address.

A whole-slide file is gigabytes, so its content is not read: size and the time of
the last change (in nanoseconds) tell one version from the next.
"""

from __future__ import annotations

import hashlib
from pathlib import Path


def file_version(path: Path) -> str:
    """Sixteen hexadecimal digits that change when the file does.

    Two different files can share a version, so a key needs the path as well.
    Raises OSError (FileNotFoundError) when the file cannot be looked up.
    """
    status = path.stat()
    text = f"{status.st_size}-{status.st_mtime_ns}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
