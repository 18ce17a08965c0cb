"""Files that a slide's file names: they have to lie in one folder, and truly there.

Whoever may put a slide on the server could else have it show any picture that the
service can read.
"""

from __future__ import annotations

import re
from pathlib import Path

from tile_server.errors import UnreadableSlide

_MOST_TEXT = 2**20
_VALUES = re.compile(rb"^[ \t]*([^=\[\r\n]+?)[ \t]*=[ \t]*([^\r\n]*?)[ \t]*$", re.M)
_MIRAX = re.compile(rb"INDEXFILE|FILE_\d+", re.IGNORECASE)
_HAMAMATSU = re.compile(rb"ImageFile.*|MapFile|OptimisationFile|MacroImage", re.I)
_HAMAMATSU_STARTS = (
    b"[Virtual Microscope Specimen]",
    b"[Uncompressed Virtual Microscope Specimen]",
)


def beside(path: Path, folder: Path, name: str) -> Path:
    """The file in `folder` that `path` calls `name`; it need not be there.

    Raises UnreadableSlide for anything but a plain name, and for a link that leads out.
    """
    plain = name and Path(name).name == name and not {"\\", "\0"} & set(name)
    if not plain or (folder / name).resolve().parent != folder.resolve():
        raise UnreadableSlide(
            f"{path.name} names a file outside of its own folder. Put all files of "
            "the slide into one folder."
        )
    return folder / name


def named_files(path: Path) -> tuple[Path, ...]:
    """The other files of a MIRAX, VMS or VMU slide; () for any other file.

    Raises UnreadableSlide where one of them lies elsewhere, and OSError.
    """
    if path.suffix.lower() == ".mrxs":
        folder = path.with_suffix("")
        index = folder / "Slidedat.ini"
        if not index.is_file():
            return ()
        files = _files(path, folder, (index, _MIRAX))
        return (beside(path, folder, index.name), *files)
    if path.suffix.lower() in (".vms", ".vmu") or is_hamamatsu_index(path):
        return _files(path, path.parent, (path, _HAMAMATSU))
    return ()


def is_hamamatsu_index(path: Path) -> bool:
    """True for a text that begins as VMS and VMU do."""
    with path.open("rb") as file:
        return file.read(64).lstrip().startswith(_HAMAMATSU_STARTS)


def _files(
    path: Path, folder: Path, listed: tuple[Path, re.Pattern[bytes]]
) -> tuple[Path, ...]:
    index, keys = listed
    with index.open("rb") as file:
        text = file.read(_MOST_TEXT)
    names = {
        value.decode("utf-8", "replace")
        for key, value in _VALUES.findall(text)
        if value and keys.fullmatch(key)
    }
    return tuple(beside(path, folder, name) for name in sorted(names))
