"""No row of one project points at a row of another.

Who sees two projects could else tie them together: a subject of the one in an image of
the other, told to everybody who sees that image. Every pointer of every table is looked
at before it is written. Two may cross: rows of tables in which a row without a project
is everybody's, and what went into a run, since one derives from images of others
(`run_input`, whose reader is told only of what they see).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import Any, Final

from sqlalchemy import inspect, select
from sqlalchemy.orm import Session
from sqlalchemy.orm.util import identity_key

from theatrum.catalog.errors import BadRecord
from theatrum.catalog.tables import Base, NodeDef

POINTERS: Final[Mapping[str, tuple[str, str]]] = {
    "annotation": ("target_kind", "target_id"),
    "asset": ("owner_kind", "owner_id"),
    "run_output": ("object_kind", "object_id"),
}
"""Tables whose rows name a row of any table, and by which columns."""
SHIPPED: Final = "theatrum."
"""What entry points of nodes begin with that are everybody's."""
_AT_ONCE: Final = 500

# A table's name, and the id of a row of it as text.
_Place = tuple[str, str]


def refuse_strangers(
    session: Session, rows: Iterable[Base], changed: Collection[str] | None = None
) -> None:
    """Raise BadRecord where a row points at one of another project.

    `changed`: the columns that were set; None for all, of rows that are new.
    """
    wanted: list[tuple[Base, list[tuple[str, _Place]]]] = []
    for row in rows:
        if isinstance(row, NodeDef):
            _refuse_public(row)
        found = list(_pointers(row))
        if changed is None or any(column in changed for column, _ in found):
            wanted.append((row, found))
    if not wanted:
        return
    places = {place for _, found in wanted for _, place in found}
    owners = _owners(session, places)
    for row, found in wanted:
        own = getattr(row, "project_id", None)
        has_own = hasattr(row, "project_id")
        for column, place in found:
            theirs = owners.get(place)
            if theirs is None:
                continue  # everybody's, or not there, which the database refuses
            if not has_own:
                own, has_own = theirs, True
            if theirs != own:
                raise BadRecord(
                    f"{column} of this {row.__tablename__} names a {place[0]} of "
                    "another project: rows belong together within one project"
                )


def _refuse_public(node: NodeDef) -> None:
    """What ships with Theatrum is everybody's; what somebody wrote, with its source,
    is their project's."""
    ships = (node.entrypoint or "").startswith(SHIPPED)
    if node.project_id is None and not ships:
        raise BadRecord(
            f"the node {node.name} does not ship with Theatrum: say which project it "
            "belongs to"
        )


def _pointers(row: Base) -> Iterable[tuple[str, _Place]]:
    """What a row points at: by which column, and at what."""
    for column, table in _keys(type(row)):
        value = getattr(row, column)
        if value is not None:
            yield column, (table, str(value))
    named = POINTERS.get(row.__tablename__)
    if named is not None:
        table = str(getattr(row, named[0]))
        if table in Base.metadata.tables:
            yield named[1], (table, str(getattr(row, named[1])))


@cache
def _keys(model: type[Base]) -> tuple[tuple[str, str], ...]:
    """The columns of a table that name rows of projects, and of which table."""
    return tuple(
        (column.name, key.column.table.name)
        for column in inspect(model).local_table.columns
        for key in column.foreign_keys
        if "project_id" in key.column.table.columns
    )


@cache
def _model(table: str) -> type[Base]:
    return next(one.class_ for one in Base.registry.mappers if _name(one) == table)


# Any: a mapper of any class
def _name(mapper: Any) -> str:
    return str(mapper.local_table.name)


def _owners(session: Session, places: Iterable[_Place]) -> dict[_Place, int | None]:
    """The project of each row that is there; None of what is everybody's."""
    owners: dict[_Place, int | None] = {}
    asked: dict[str, list[str]] = defaultdict(list)
    for table, key in places:
        if table == "project":
            owners[table, key] = int(key)
            continue
        model = _model(table)
        known: Any = session.identity_map.get(identity_key(model, key))
        if known is None or "project_id" not in inspect(known).dict:
            asked[table].append(key)
        else:
            owners[table, key] = known.project_id
    for table, keys in asked.items():
        columns = Base.metadata.tables[table].columns
        if "project_id" not in columns:
            continue
        for at in range(0, len(keys), _AT_ONCE):
            some = keys[at : at + _AT_ONCE]
            query = select(columns.id, columns.project_id).where(columns.id.in_(some))
            with session.no_autoflush:
                owners |= {
                    (table, str(key)): own for key, own in session.execute(query)
                }
    return owners
