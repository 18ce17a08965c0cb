"""No row of one project points at a row of another, whatever its table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from sqlalchemy import Column
from theatrum.catalog.boundaries import POINTERS
from theatrum.catalog.database import open_database
from theatrum.catalog.errors import BadRecord
from theatrum.catalog.local import LocalBackend
from theatrum.catalog.record import Book, recording
from theatrum.catalog.tables import Base, Image, Label, Project, RunOutput, new_id

from hub.durable.database import Database

MODELS = {one.local_table.name: one.class_ for one in Base.registry.mappers}  # type: ignore[attr-defined]
# What is written beside the book: words of an image, and events, which point nowhere.
BESIDE = frozenset({"image_text", "event", "project_group"})
CROSSING = [
    (table.name, column.name, key.column.table.name)
    for table in Base.metadata.sorted_tables
    for column in table.columns
    for key in column.foreign_keys
    if "project_id" in key.column.table.columns
    and table.name not in BESIDE
    # With one pointer alone a row is of the project of what it points at.
    and (
        "project_id" in table.columns
        or sum(len(one.foreign_keys) for one in table.columns) > 1
    )
]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    opened = open_database(tmp_path_factory.mktemp("home"))
    yield opened
    opened.close()


def _value(column: Column[Any]) -> Any:
    """Something that fits a column which needs a value and has no default."""
    kind = column.type.python_type
    if kind is str:
        return new_id()[: getattr(column.type, "length", None) or 12]
    return kind()


def _filled(book: Book, table: str, project: Project, **given: Any) -> Any:
    """A row that could be written, with all that it needs in its project."""
    columns: dict[str, Any] = {}
    for column in Base.metadata.tables[table].columns:
        if column.name in given:
            columns[column.name] = given[column.name]
            continue
        if column.name == "project_id":
            columns["project_id"] = project.id
            continue
        if column.nullable or column.default is not None or column.server_default:
            continue
        if column.primary_key and column.autoincrement is True:
            continue
        if column.foreign_keys:
            (key,) = column.foreign_keys
            columns[column.name] = _made(book, key.column.table.name, project).id
        elif table in POINTERS and column.name == POINTERS[table][0]:
            columns[column.name] = "subject"
        elif table in POINTERS and column.name == POINTERS[table][1]:
            columns[column.name] = _made(book, "subject", project).id
        else:
            columns[column.name] = _value(column)
    return MODELS[table](**columns)


def _made(book: Book, table: str, project: Project, **given: Any) -> Any:
    return book.add(_filled(book, table, project, **given))


def test_there_are_pointers_to_look_at() -> None:
    assert len(CROSSING) >= 40
    assert ("image", "subject_id", "subject") in CROSSING
    assert ("plane_table", "asset_id", "asset") in CROSSING


@pytest.mark.parametrize(("table", "column", "target"), CROSSING)
def test_no_row_points_into_another_project(
    database: Database, table: str, column: str, target: str
) -> None:
    with recording(database, "erika") as book:
        mine, other = book.project(new_id()), book.project(new_id())
        theirs = _made(book, target, other)
        ours = _made(book, target, mine)
        with pytest.raises(BadRecord, match="another project"):
            _made(book, table, mine, **{column: theirs.id})
        row = _made(book, table, mine, **{column: ours.id})
        with pytest.raises(BadRecord, match="another project"):
            book.change(row, **{column: theirs.id})
        assert getattr(row, column) == ours.id


@pytest.mark.parametrize("table", sorted(POINTERS))
def test_no_named_row_is_of_another_project(database: Database, table: str) -> None:
    with recording(database, "erika") as book:
        mine, other = book.project(new_id()), book.project(new_id())
        image = _made(book, "image", other)
        kind, key = POINTERS[table]
        with pytest.raises(BadRecord, match="another project"):
            _made(book, table, mine, **{kind: "image", key: image.id})


def test_a_row_stays_in_its_project_and_everybodys_rows_are_pointed_at(
    database: Database,
) -> None:
    with recording(database, "erika") as book:
        mine, other = book.project(new_id()), book.project(new_id())
        subject = book.subject(mine, "m1")
        with pytest.raises(BadRecord, match="stays in its project"):
            book.change(subject, project_id=other.id)
        label = book.label("neuron")
        assert label.project_id is None
        image = _made(book, "image", mine)
        assert book.roi(image, kind="point", label_id=label.id).label_id == label.id
        theirs = book.label("secret", project_id=other.id)
        everybodys = Label(id=new_id(), vocabulary="x", code="x", name="x")
        everybodys.parent_id = theirs.id
        with pytest.raises(BadRecord, match="another project"):
            book.add(everybodys)


def test_only_nodes_that_ship_are_everybodys(database: Database) -> None:
    with recording(database, "erika") as book:
        mine = book.project("mine")
        shipped = "theatrum.nodes.catalog.threshold:threshold"
        public = book.node_def(name="otsu", def_hash="a" * 64, entrypoint=shipped)
        assert public.project_id is None
        for written in ("", "secret.work:unmix", "theatrumlike:x"):
            with pytest.raises(BadRecord, match="which project it belongs to"):
                book.node_def(name="unmix", def_hash="b" * 64, entrypoint=written)
        node = book.node_def(name="unmix", def_hash="b" * 64, project_id=mine.id)
        assert book.run(mine, node=node).node_def_id == node.id


def test_what_is_made_of_anothers_image_takes_none_of_their_rows_along(
    database: Database, tmp_path: Path
) -> None:
    with recording(database, "erika") as book:
        other = book.project("other")
        book.project("mine")
        subject = book.subject(other, "m1")
        source = _made(
            book, "image", other, subject_id=subject.id, modality="MR", name="a"
        )
    backend = LocalBackend(database, tmp_path / "home", "erika")
    kept = {"project": "mine", "name": "half", "inputs": [source.id]}
    row = backend.keep(xr.DataArray(np.zeros((4, 5)), dims=["y", "x"]), kept)
    assert row["subject_id"] is None
    assert row["modality"] == "MR"
    with database.reading() as session:
        made = session.get(Image, row["id"])
        assert made is not None
        output = session.query(RunOutput).filter_by(object_id=made.id).one()
        assert output.run_id == made.run_id
