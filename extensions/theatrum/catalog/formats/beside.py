"""Files that another file names: only beside it, whatever the name says."""

from __future__ import annotations

from pathlib import Path

from theatrum.catalog.formats.errors import Damaged


def file_beside(path: Path, named: str) -> Path:
    """The file `named` in the folder of `path`.

    A header is not to be believed: one that names a file elsewhere could have any file
    of this account read. Raises Damaged.
    """
    name = named.strip().removeprefix("./")
    if not name or "/" in name or "\\" in name or name in (".", "..") or "\0" in name:
        raise Damaged(f"{path.name} names a file of another folder. Put it beside it.")
    found = path.with_name(name)
    if found.is_symlink() or not found.is_file():
        raise Damaged(f"{path.name} belongs to {name}, which is not beside it.")
    return found
