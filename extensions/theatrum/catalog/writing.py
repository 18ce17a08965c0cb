"""Rows that people write: what may be set, by whom, and how a name becomes a row.

Everything goes through the book (`record.py`). What only the catalogue itself knows
(ids, moments, checksums, which run made a row) cannot be set here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import inspect
from sqlalchemy.exc import IntegrityError, StatementError

from theatrum.catalog.backend import RowData
from theatrum.catalog.errors import BadRecord, NotAllowed, NotFound, near
from theatrum.catalog.fitting import fitted
from theatrum.catalog.query.fields import RESOURCES, table_of
from theatrum.catalog.query.spec import Q, Spec
from theatrum.catalog.record import Book, recording
from theatrum.catalog.tables import (
    Annotation,
    Base,
    Image,
    Label,
    Project,
    Roi,
    SavedQuery,
    new_id,
)

if TYPE_CHECKING:
    from theatrum.catalog.local import LocalBackend

WRITABLE = frozenset(
    {
        *("experiments", "groups", "subjects", "visits", "samples", "file_rules"),
        *("images", "acquisitions", "views", "transforms", "labels", "rois"),
        *("annotations", "saved_queries", "flows", "projects", "tables"),
    }
)
"""What people may write; runs, measurements and files come of work alone."""
NEVER_NEW = frozenset({"images", "tables"})
STAYS = frozenset({"target_kind", "target_id", "image_id", "project_id", "project"})
"""What a row is about: set when it is made, and never again."""
OURS = frozenset(
    {
        *("id", "created_at", "updated_at", "deleted_at", "run_id", "author"),
        *("def_hash", "uri", "sha256", "checksum", "path", "scene"),
    }
)
"""Columns that the catalogue alone sets."""
_OURS_OF_IMAGES = frozenset(
    {
        *("version", "geometry", "state", "format", "size_bytes", "kind"),
        *("dims", "shape", "dtype", "chunks", "n_levels", "acquisition_id"),
    }
)


_OURS_OF_TABLES = frozenset({"schema", "row_count"})


def ours(resource: str) -> frozenset[str]:
    """The columns of a resource that the catalogue alone sets."""
    more = {"images": _OURS_OF_IMAGES, "tables": _OURS_OF_TABLES}
    return OURS | more.get(resource, frozenset())


def model_of(resource: str) -> type[Base]:
    """The class of a resource's rows; raises UnknownField."""
    table = table_of(resource)
    return next(one.class_ for one in Base.registry.mappers if one.local_table is table)


def create(backend: LocalBackend, resource: str, values: Mapping[str, Any]) -> RowData:
    """Write a new row, or set what is one by its nature: a tag, a key's value."""
    _check(resource, values)
    if resource in NEVER_NEW:
        raise BadRecord(f"{resource} come by ingest, or are made by a run: save()")
    with (
        _refusing(),
        recording(
            backend.database, backend.user, on_behalf_of=backend.on_behalf_of
        ) as book,
    ):
        if resource == "projects":
            if backend.writable is not None:
                raise NotAllowed("an administrator makes projects")
            given = dict(values)
            row: Base = book.project(str(given.pop("name", "")), **given)
        else:
            row = _created(backend, book, resource, dict(values))
        return _data(row)


def change(
    backend: LocalBackend, resource: str, key: str, values: Mapping[str, Any]
) -> RowData:
    """Set columns of a row."""
    _check(resource, values)
    if STAYS & values.keys():
        raise BadRecord("a row stays in its project, and about what it is about")
    with (
        _refusing(),
        recording(
            backend.database, backend.user, on_behalf_of=backend.on_behalf_of
        ) as book,
    ):
        row = _mine(backend, book, resource, key)
        _references(backend, model_of(resource), values)
        return _data(book.change(row, **fitted(model_of(resource), values, row)))


def remove(backend: LocalBackend, resource: str, key: str) -> None:
    """Take a row out of sight."""
    _check(resource, {})
    if resource == "projects":
        raise NotAllowed("an administrator removes projects")
    with (
        _refusing(),
        recording(
            backend.database, backend.user, on_behalf_of=backend.on_behalf_of
        ) as book,
    ):
        book.delete(_mine(backend, book, resource, key))


def _created(
    backend: LocalBackend, book: Book, resource: str, values: dict[str, Any]
) -> Base:
    model = model_of(resource)
    name = values.pop("project", None)
    owner = _owner(backend, model, values)
    if owner is not None:
        project = owner
    elif name is not None or "project_id" in values:
        wanted = values.pop("project_id") if name is None else name
        project = project_for(backend, book, wanted).id
    elif model is Label and backend.writable is None:
        project = None
    else:
        raise BadRecord("say which project it belongs to, as project=")
    if project is not None:
        project_for(backend, book, project)
    values.pop("project_id", None)
    _references(backend, model, values)
    values = fitted(model, values)
    if model is Annotation:
        return _annotated(book, values)
    if model is Roi:
        image = book.get(Image, values.pop("image_id"))
        return book.roi(image, **values)
    if model is SavedQuery:
        values["author"] = book.actor
    return book.add(model(id=new_id(), project_id=project, **values))


def _owner(
    backend: LocalBackend, model: type[Base], values: Mapping[str, Any]
) -> int | None:
    """The project of the row that a new one is about; None where it is about none."""
    about: tuple[str, Any] | None = None
    if model is Annotation:
        kind, key = values.get("target_kind"), values.get("target_id")
        resource = next((one for one, name in RESOURCES.items() if name == kind), None)
        if resource is None or key is None:
            raise BadRecord("say what it is about, as target_kind and target_id")
        about = resource, key
    elif "image_id" in inspect(model).columns:
        if "image_id" not in values:
            raise BadRecord("say which image it is about, as image_id")
        about = "images", values["image_id"]
    elif "subject_id" in values and values["subject_id"] is not None:
        about = "subjects", values["subject_id"]
    if about is None:
        return None
    row = _seen(backend, *about)
    return int(row["id"] if about[0] == "projects" else row["project_id"])


def _annotated(book: Book, values: dict[str, Any]) -> Annotation:
    kind = values.pop("target_kind")
    resource = next(one for one, name in RESOURCES.items() if name == kind)
    model = model_of(resource)
    key: Any = values.pop("target_id")
    target = book.get(model, int(key) if model is Project else key)
    match values.pop("kind", None):
        case "tag":
            return book.tag(target, _word(values, "key"))
        case "value":
            said = values.get("value", values.get("text"))
            return book.value(
                target, _word(values, "key"), said, unit=values.get("unit")
            )
        case "comment":
            return book.comment(target, _word(values, "text"))
    raise BadRecord("an annotation's kind is tag, value or comment")


def _word(values: Mapping[str, Any], name: str) -> str:
    word = values.get(name)
    if not isinstance(word, str) or not word.strip():
        raise BadRecord(f"give a text as {name}")
    return word


def project_for(backend: LocalBackend, book: Book, wanted: str | int) -> Project:
    """The project, where the user may write to it; raises NotFound or NotAllowed."""
    by = {"name": wanted} if isinstance(wanted, str) else {"id": wanted}
    spec = Spec("projects", (Q(**by),))
    found = backend.rows(spec)
    if not found:
        raise NotFound(
            f"there is no project {wanted} that you may see: name another, or make it "
            "first (POST /projects) if you may"
        )
    name = found[0]["name"]
    if backend.writable is not None and name not in backend.writable:
        raise NotAllowed(
            f"you may look at {name} and not change it: a maintainer of the project "
            "gives your group the role editor"
        )
    return book.get(Project, found[0]["id"])


def _mine(backend: LocalBackend, book: Book, resource: str, key: str) -> Base:
    """The row, where the user may change it."""
    found = _seen(backend, resource, key)
    project = found["id"] if resource == "projects" else found.get("project_id")
    if project is None:
        if backend.writable is not None:
            raise NotAllowed("this is everybody's: an administrator changes it")
    else:
        project_for(backend, book, project)
    return book.get(model_of(resource), found["id"])


def _seen(backend: LocalBackend, resource: str, key: Any) -> RowData:
    """The row, where the user may see it; raises NotFound."""
    column = table_of(resource).c.id
    if column.type.python_type is int and not str(key).isdigit():
        raise NotFound(f"there is no {RESOURCES[resource]} {key} that you may see")
    found = backend.rows(Spec(resource, (Q(id=key),)))
    if not found:
        raise NotFound(f"there is no {RESOURCES[resource]} {key} that you may see")
    return found[0]


def _references(
    backend: LocalBackend, model: type[Base], values: Mapping[str, Any]
) -> None:
    """Refuse to point at a row that the user may not see."""
    tables = {name: resource for resource, name in RESOURCES.items()}
    for column in inspect(model).local_table.columns:
        for key in column.foreign_keys:
            target = key.column.table.name
            if values.get(column.name) is not None and target in tables:
                _seen(backend, tables[target], values[column.name])


def _check(resource: str, values: Mapping[str, Any]) -> None:
    if resource not in WRITABLE:
        if resource in RESOURCES:
            raise BadRecord(f"{resource} are written by the catalogue alone")
        table_of(resource)
    columns = {*inspect(model_of(resource)).columns.keys(), "project"}
    for name in values:
        if name not in columns:
            raise BadRecord(f"{resource} have no {name!r}.{near(name, columns)}")
        if name in ours(resource):
            raise BadRecord(f"{name} is set by the catalogue alone")


def _data(row: Base) -> RowData:
    return {name: getattr(row, name) for name in _columns(type(row))}


def _columns(model: type[Base]) -> list[str]:
    return [*inspect(model).columns.keys()]


class _refusing:  # noqa: N801  (reads as a verb in a with)
    """Turns what the database refuses into a BadRecord."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _kind: object, error: BaseException | None, _trace: object
    ) -> None:
        if isinstance(error, IntegrityError):
            raise BadRecord(
                "there is such a row already, or a column that is needed is missing: "
                f"{error.orig}"
            ) from error
        if isinstance(error, StatementError):
            raise BadRecord(f"a value does not fit its column: {error.orig}") from error
        if isinstance(error, OverflowError):  # SQLite's driver, of numbers over 64 bits
            raise BadRecord("a number is larger than any column holds") from error
