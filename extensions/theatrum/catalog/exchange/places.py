"""Where files lie in an archive: as they lie beside each other here, and no further.

Folders that hold files of the images become `data/1`, `data/2`, ...; below them all is
as it was, since formats of several files find each other by name. No name of a folder
above them leaves this machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from theatrum.catalog.exchange.gathering import Rows
from theatrum.catalog.zarr_store import CHECKSUMS

DATA: Final = "data"
PLACED: Final[Mapping[str, str]] = {
    "image": "path",
    "source_file": "uri",
    "asset": "uri",
    "data_table": "uri",
    "transform": "uri",
}
"""Tables whose rows name a file or a folder, and the column that does."""
_COMPANIONS: Final = (".mrxs",)
"""Slides whose pixels lie in a folder of the same name."""


@dataclass(frozen=True)
class Places:
    """Files and what they are called in the archive.

    Attributes
    ----------
    files
        By their names in the archive, in order.
    named
        What each row's file or folder is called: (table, id) to name; only of those
        that are there.
    missing
        Rows whose file is not here: (table, id).
    digests
        SHA-256 by name, where it is known without reading.
    """

    files: Mapping[str, Path]
    named: Mapping[tuple[str, str], str]
    missing: tuple[tuple[str, str], ...]
    digests: Mapping[str, str]


@dataclass
class _Folders:
    """The topmost folders that hold what is placed, by number."""

    tops: list[Path] = field(default_factory=list)

    def name(self, path: Path) -> str:
        for number, top in enumerate(self.tops, 1):
            if path.is_relative_to(top):
                inside = PurePosixPath(*path.relative_to(top).parts)
                return str(PurePosixPath(DATA, str(number), inside))
        raise ValueError(path)


def place(rows: Rows, *, tables: Mapping[str, str] = PLACED) -> Places:
    """Find the files of rows and give them names."""
    there: dict[tuple[str, str], Path] = {}
    missing = []
    for table, column in tables.items():
        for row in rows.of(table):
            key = table, str(row["id"])
            path = _path(row[column])
            if path is not None and path.exists():
                there[key] = path
            elif row[column]:
                missing.append(key)
    folders = _Folders()
    for parent in sorted({path.parent for path in there.values()}, key=_parts):
        if not any(parent.is_relative_to(top) for top in folders.tops):
            folders.tops.append(parent)
    files: dict[str, Path] = {}
    for path in there.values():
        for one in files_of(path):
            files[folders.name(one)] = one
    files = {name: files[name] for name in sorted(files)}
    named = {key: folders.name(path) for key, path in there.items()}
    return Places(files, named, tuple(missing), _known(rows, named, files))


def _parts(path: Path) -> tuple[str, ...]:
    return path.parts


# Any: a column
def _path(value: Any) -> Path | None:
    """A place on this machine; None for an address."""
    if not isinstance(value, str) or not value or "://" in value:
        return None
    path = Path(value)
    return path if path.is_absolute() else None


def files_of(path: Path) -> Iterator[Path]:
    """The file, or all of a folder: no links, which could lead anywhere."""
    if not path.is_dir():
        yield path
        if path.suffix.lower() in _COMPANIONS and path.with_suffix("").is_dir():
            yield from files_of(path.with_suffix(""))
        return
    for one in sorted(path.rglob("*")):
        if one.is_file() and not one.is_symlink():
            yield one
    beside = path.with_name(path.name + CHECKSUMS)
    if beside.is_file():
        yield beside


def _known(
    rows: Rows, named: Mapping[tuple[str, str], str], files: Mapping[str, Path]
) -> dict[str, str]:
    digests: dict[str, str] = {}
    for table in ("source_file", "asset", "data_table"):
        for row in rows.of(table):
            name = named.get((table, str(row["id"])))
            if name is not None and name in files and row["sha256"]:
                digests[name] = row["sha256"]
    for row in rows.of("image"):
        name = named.get(("image", row["id"]))
        lists = None if name is None else files.get(name + CHECKSUMS)
        if lists is not None and name is not None:
            top = PurePosixPath(name).parent
            for line in lists.read_text().splitlines():
                digest, _, inside = line.partition("  ")
                if str(top / inside) in files:
                    digests[str(top / inside)] = digest
    return digests
