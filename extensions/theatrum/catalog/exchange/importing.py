"""Bundles coming back: checked whole before anything is written, and twice is once.

Files are unpacked beside the catalogue's own, compared with their checksums, synced and
put into their place; then all rows are written in one transaction. A row keeps its id
where that is free here. Where another project has it already, the new id follows from
the project and the old id, so that the same bundle finds its own rows again. Rows that
the project knows by their nature (a subject by its label, an original by its checksum,
an acquisition by its series) are those.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, Final

from sqlalchemy import inspect, select

from theatrum.catalog.backend import Backend, RowData
from theatrum.catalog.boundaries import SHIPPED
from theatrum.catalog.errors import CatalogError, NotAllowed
from theatrum.catalog.exchange.bundle import FORMAT, ROWS, SUMS, VERSION
from theatrum.catalog.exchange.gathering import TABLES
from theatrum.catalog.exchange.places import DATA, PLACED
from theatrum.catalog.ingest.archives import Limits, unpack
from theatrum.catalog.local import LocalBackend
from theatrum.catalog.query.fields import SHARED
from theatrum.catalog.record import Book, recording
from theatrum.catalog.tables import Base, Project
from theatrum.catalog.tables.base import Moment
from theatrum.catalog.writing import _refusing, project_for
from theatrum.catalog.zarr_store import file_digest

IMPORTED: Final = "imported"
"""Below the catalogue's files: a folder for each bundle, by its digest."""
_MOST_ROWS: Final = 5_000_000
_ID: Final = re.compile(r"[0-9A-Za-z_-]{1,16}")
_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_NATURE: Final[Mapping[str, tuple[str, ...]]] = {
    "experiment": ("project_id", "name"),
    "cohort_group": ("project_id", "experiment_id", "name"),
    "subject": ("project_id", "label"),
    "visit": ("project_id", "subject_id", "label"),
    "sample": ("project_id", "name"),
    "source_file": ("project_id", "sha256"),
    "acquisition": ("project_id", "series_uid"),
    "series_member": (
        "acquisition_id", "source_file_id", "scene_index", "instance_uid",
    ),
    "node_def": ("project_id", "namespace", "name", "version", "def_hash"),
    "flow": ("project_id", "name", "version"),
    "image": ("project_id", "path", "scene"),
    "channel": ("image_id", "index"),
    "label": ("project_id", "vocabulary", "code"),
    "plane_table": ("image_id",),
    "result": ("run",),
    "run_output": ("object_kind", "object_id"),
}  # fmt: skip
"""By what a row is known besides its id; never where one of these is empty."""
_MAY_BE_EMPTY: Final = frozenset({"project_id", "experiment_id"})
_POINTERS: Final[Mapping[str, tuple[str, str]]] = {
    "annotation": ("target_kind", "target_id"),
    "asset": ("owner_kind", "owner_id"),
    "run_input": ("object_kind", "object_id"),
    "run_output": ("object_kind", "object_id"),
}


class BadBundle(CatalogError):
    """A bundle is damaged, of another kind, or means harm; nothing of it was taken."""


@dataclass(frozen=True)
class Imported:
    """What an import did, by table.

    Attributes
    ----------
    new, known
        How many rows were written, and how many were here before.
    ids
        The new id of each row that could not keep its own: (table, id) to id.
    missing
        Images whose files the bundle does not hold.
    """

    new: Mapping[str, int]
    known: Mapping[str, int]
    ids: Mapping[tuple[str, str], str]
    missing: tuple[str, ...] = ()


def import_bundle(
    backend: Backend,
    path: Path,
    project: str | None = None,
    *,
    limits: Limits | None = None,
) -> Imported:
    """Take a bundle (a zip or a folder) into the catalogue.

    Parameters
    ----------
    backend
        Whose user may change the project.
    path
        The bundle.
    project
        Where all of it goes; None: to the projects that it names.
    limits
        What its zip may unpack to.

    Raises
    ------
    HostileArchive, BadBundle
        Where the bundle is not what it should be.
    NotFound, NotAllowed
        Where the project is not the user's to change.
    """
    if not isinstance(backend, LocalBackend):
        raise NotAllowed("a bundle is taken in at the catalogue's own machine")
    home = backend.files / IMPORTED
    home.mkdir(parents=True, exist_ok=True)
    staging = home / f".{secrets.token_hex(8)}.partial"
    staging.mkdir()
    try:
        if path.is_dir():
            _copy(path, staging)
        else:
            unpack(path, staging, limits)
        digest = _verify(staging)
        told = _read(staging)
        place = home / digest[:16]
        if not place.exists():
            _sync(staging)
            staging.rename(place)
        with (
            _refusing(),
            recording(
                backend.database, backend.user, on_behalf_of=backend.on_behalf_of
            ) as book,
        ):
            return _Import(book, backend, place, told, project).run()
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    for one in sorted(source.rglob("*")):
        if one.is_symlink():
            raise BadBundle(f"{source.name} holds a link: a bundle holds plain files")
        if one.is_file():
            place = target / one.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(one, place)


def _verify(folder: Path) -> str:
    """Compare every file with its checksum; the digest of the list."""
    try:
        text = (folder / SUMS).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise BadBundle(f"this is no bundle: it has no list {SUMS}") from error
    told = {}
    for line in text.splitlines():
        digest, _, name = line.partition("  ")
        told[name] = digest
    there = {
        one.relative_to(folder).as_posix()
        for one in folder.rglob("*")
        if one.is_file() and one != folder / SUMS
    }
    odd = sorted(there ^ told.keys())
    if odd:
        raise BadBundle(
            f"the bundle and its list of checksums do not agree about {odd[0]}: "
            "download it again"
        )
    for name, digest in told.items():
        if file_digest(folder / name) != digest:
            raise BadBundle(f"{name} is damaged: download the bundle again")
    return hashlib.sha256(text.encode()).hexdigest()


# Any here: JSON
def _read(folder: Path) -> dict[str, Any]:
    try:
        told = json.loads((folder / ROWS).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise BadBundle(f"this is no bundle: {ROWS} cannot be read") from error
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        raise BadBundle(f"this is no bundle of a catalogue: {ROWS} does not say so")
    if told.get("version") != VERSION:
        raise BadBundle("the bundle is of a newer catalogue: update this one first")
    rows = told.get("rows")
    if not isinstance(rows, dict) or not rows.keys() <= set(TABLES):
        raise BadBundle("the bundle holds tables that no bundle has")
    if sum(len(one) for one in rows.values() if isinstance(one, list)) > _MOST_ROWS:
        raise BadBundle("the bundle has too many rows: export it in parts")
    for table, listed in rows.items():
        _check_rows(folder, table, listed)
    return told


def _check_rows(folder: Path, table: str, listed: Any) -> None:
    columns = set(Base.metadata.tables[table].columns.keys())
    has_text_id = table not in ("project", "result") and "id" in columns
    for row in listed if isinstance(listed, list) else [None]:
        if not isinstance(row, dict) or not row.keys() <= columns:
            raise BadBundle(f"a row of {table} in the bundle has unknown columns")
        if has_text_id and not _ID.fullmatch(str(row.get("id", ""))):
            raise BadBundle(f"a row of {table} in the bundle has an id that is none")
        column = PLACED.get(table)
        if column and row.get(column):
            _inside(folder, row[column])


def _inside(folder: Path, name: Any) -> Path:
    """The file or folder that a row names; BadBundle where it is not of the data."""
    if isinstance(name, str) and "\0" not in name and "\\" not in name:
        parts = PurePosixPath(name).parts
        path = folder.joinpath(*parts)
        if parts[:1] == (DATA,) and ".." not in parts and path.exists():
            return path
    raise BadBundle("a row of the bundle names a file that is not in it")


def _sync(folder: Path) -> None:
    for one in [*folder.rglob("*"), folder]:
        handle = os.open(one, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@dataclass
class _Import:
    """One bundle on its way into the tables."""

    book: Book
    backend: LocalBackend
    place: Path
    told: Mapping[str, Any]
    project: str | None
    ids: dict[tuple[str, str], Any] = field(default_factory=dict)
    """What each row of the bundle is called here."""
    new: dict[str, int] = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def run(self) -> Imported:
        for table in TABLES:
            rows = self.told["rows"].get(table, [])
            if table == "project":
                self._projects(rows)
                continue
            for row in self._parents_first(table, rows):
                self._take(table, row)
        moved = {
            key: str(here)
            for key, here in self.ids.items()
            if key[0] not in ("project", "result") and str(here) != key[1]
        }
        return Imported(self.new, self.known, moved, tuple(self.missing))

    def _projects(self, rows: list[RowData]) -> None:
        for row in rows:
            name = self.project or str(row.get("name"))
            found = self.book.session.scalar(
                select(Project).where(Project.name == name)
            )
            if found is None and self.backend.writable is None:
                kept = ("title", "description", "doi", "licence", "attrs")
                here = self.book.project(name, **{one: row[one] for one in kept})
                self.new["project"] = self.new.get("project", 0) + 1
            else:
                # Says no where it is not the user's to change, or to see.
                here = project_for(self.backend, self.book, name)
                self.known["project"] = self.known.get("project", 0) + 1
            self.ids["project", str(row["id"])] = here.id

    def _parents_first(self, table: str, rows: list[RowData]) -> list[RowData]:
        """Rows that point at others of their table behind those."""
        parents = [
            column.name
            for column in Base.metadata.tables[table].columns
            if any(key.column.table.name == table for key in column.foreign_keys)
        ]
        if not parents:
            return rows
        waiting = {row["id"]: row for row in rows}
        ordered: list[RowData] = []
        while waiting:
            free = [
                row
                for row in waiting.values()
                if not any(row.get(one) in waiting for one in parents)
            ]
            if not free:
                raise BadBundle(f"rows of {table} in the bundle are their own parents")
            ordered += free
            for row in free:
                del waiting[row["id"]]
        return ordered

    def _take(self, table: str, row: RowData) -> None:
        model = _models()[table]
        said = self._translated(table, row)
        if said is None:
            return
        old = str(row["id"]) if "id" in row else ""
        found = self._found(table, model, old, said)
        if found is not None:
            self.known[table] = self.known.get(table, 0) + 1
            if old:
                self.ids[table, old] = found.id
            return
        if table == "result":
            said.pop("id")
        elif old:
            taken = self.book.session.get(model, old) is not None
            said["id"] = self._own_id(table, old, said) if taken else old
        if table == "image":
            project = self.book.get(Project, said["project_id"])
            said["name"] = self.book.free_name(project, str(said["name"]))
        made = model(**said)
        self.book.add(made)
        self.new[table] = self.new.get(table, 0) + 1
        if old:
            self.ids[table, old] = made.id  # type: ignore[attr-defined]

    def _translated(self, table: str, row: RowData) -> RowData | None:
        """A row's columns as they are here; None where it is about nothing here."""
        said: RowData = {}
        for column in Base.metadata.tables[table].columns:
            if column.name not in row:
                continue
            value = row[column.name]
            for key in column.foreign_keys:
                if value is not None:
                    value = self.ids.get((key.column.table.name, str(value)))
                    if value is None and not column.nullable:
                        return None
            if isinstance(column.type, Moment) and isinstance(value, str):
                value = _moment(value)
            said[column.name] = value
        if table in SHARED and said.get("project_id") is None:
            # Nobody makes by a bundle what everybody sees.
            ships = str(said.get("entrypoint", "")).startswith(SHIPPED)
            administers = self.backend.writable is None and table != "node_def"
            said["project_id"] = None if ships or administers else self._first
        if table in _POINTERS:
            kind, key_name = _POINTERS[table]
            here = self.ids.get((str(row[kind]), str(row[key_name])))
            if here is None:
                return None
            said[key_name] = str(here)
        self._placed(table, row, said)
        return said

    @property
    def _first(self) -> int | None:
        """The project that the bundle is about, or the first of them."""
        ids = (here for (table, _), here in self.ids.items() if table == "project")
        return next(ids, None)

    def _placed(self, table: str, row: RowData, said: RowData) -> None:
        column = PLACED.get(table)
        if column is None:
            return
        if row.get(column):
            said[column] = str(_inside(self.place, row[column]))
        elif table == "transform":
            said[column] = None
        else:
            # Where it would lie: what the bundle did not have can be brought later.
            said[column] = str(self.place / "missing" / table / str(row["id"]))
            if table == "image":
                said["state"] = "missing"
                self.missing.append(str(row["name"]))

    def _found(
        self, table: str, model: type[Base], old: str, said: RowData
    ) -> Any | None:
        """The row that is here already: by its id, or by its nature."""
        session = self.book.session
        if old and table != "result":
            for key in (self._own_id(table, old, said), old):
                found = session.get(model, key)
                if found is not None and self._is_ours(table, found, said):
                    return found
        elif not old:
            keys = [column.name for column in inspect(model).primary_key]
            found = session.get(model, tuple(said[name] for name in keys))
            if found is not None:
                return found
        nature = _NATURE.get(table)
        if nature is None or any(
            said.get(name) in (None, "") and name not in _MAY_BE_EMPTY
            for name in nature
        ):
            if table != "series_member":
                return None
            nature = _NATURE[table]
        query = select(model).filter_by(**{name: said[name] for name in nature})
        if "deleted_at" in inspect(model).columns:
            query = query.filter_by(deleted_at=None)
        return session.scalars(query).first()

    def _is_ours(self, table: str, found: Any, said: RowData) -> bool:
        """Whether a row of that id is what the bundle means: it belongs to the same."""
        owners = ("project_id", "image_id", "acquisition_id", "run_id")
        owner = next((one for one in owners if one in said), None)
        same = owner is None or getattr(found, owner) == said[owner]
        # An id alone proves nothing: two catalogues could have drawn the same one.
        telling = {"image": "scene", "source_file": "sha256"}.get(table)
        return same and (telling is None or getattr(found, telling) == said[telling])

    def _own_id(self, table: str, old: str, said: RowData) -> str:
        """The id of a row whose own is taken by another project."""
        owner = said.get("project_id")
        if owner is None:
            owner = said.get("image_id") or said.get("acquisition_id") or ""
        digest = hashlib.sha256(f"{table}/{owner}/{old}".encode()).digest()
        return "".join(_ALPHABET[byte % 32] for byte in digest[:12])


def _models() -> dict[str, type[Base]]:
    return {one.local_table.name: one.class_ for one in Base.registry.mappers}  # type: ignore[attr-defined]


def _moment(value: str) -> datetime:
    try:
        return datetime.fromisoformat(value)
    except ValueError as error:
        raise BadBundle(f"{value!r} in the bundle is no moment") from error
