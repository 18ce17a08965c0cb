"""Numbers of rows are numbers: NaN and the infinities are none that JSON knows.

One of them in a row would break every listing that the row is in, for everybody who
may see it (RFC 8259 has no word for it, and PostgreSQL's `jsonb` refuses it). So no row
is written with one, whoever writes it: this is looked at for every row that a session
flushes. What a file or a step of work says is another matter: nobody could correct it,
so whoever records it makes such a number nothing, by `finite`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sqlalchemy import JSON, Connection, Float, event
from sqlalchemy.orm import Mapper

from theatrum.catalog.errors import BadRecord
from theatrum.catalog.tables.base import Base


# Any here: whatever JSON holds
def finite(value: Any) -> Any:
    """The value with nothing (None) in the place of each number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return value


def not_finite(value: Any) -> tuple[str, float] | None:
    """Where in a value the first number is that is not finite, and that number."""
    if isinstance(value, float):
        return None if math.isfinite(value) else ("", value)
    parts: Any = ()
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    for key, one in parts:
        found = not_finite(one)
        if found is not None:
            return f".{key}{found[0]}", found[1]
    return None


def refuse(value: Any, what: str) -> None:
    """Raise BadRecord where a number in a value is not finite."""
    try:
        found = not_finite(value)
    except RecursionError as err:
        raise BadRecord(f"{what} is nested too deeply: make it flatter") from err
    if found is not None:
        where, number = found
        raise BadRecord(
            f"{what}{where} is {number}: only finite numbers are kept; leave it out, "
            "or say null where nothing is known"
        )


@event.listens_for(Base, "before_insert", propagate=True)
@event.listens_for(Base, "before_update", propagate=True)
def _look(mapper: Mapper[Any], _connection: Connection, row: Base) -> None:
    said = vars(row)
    for name, column in mapper.columns.items():
        if isinstance(column.type, Float | JSON) and said.get(name) is not None:
            refuse(said[name], f"{row.__tablename__}'s {name}")
