"""What the interface takes and gives of each resource, for its documentation.

It follows from the tables' columns; places on this machine stay inside (`wire.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, create_model
from sqlalchemy import JSON, Boolean, Column, Float, Integer, String
from theatrum.catalog.query.fields import RESOURCES, table_of
from theatrum.catalog.tables.base import Moment
from theatrum.catalog.writing import NEVER_NEW, STAYS, WRITABLE, ours

from services.catalog.api import rights
from services.catalog.api.wire import INSIDE

ANNOTATED = frozenset({"rois", "labels", "annotations", "views", "transforms"})
"""What somebody writes who may not change what the catalogue is about."""
_OWN_ROUTES = frozenset({"projects", "inbox", "events"})

MAX_TEXT = 100_000
"""Characters of text in a field."""


def listed() -> list[str]:
    """The resources that the generic routes show."""
    return sorted(RESOURCES.keys() - {"events", "inbox", "run_events"})


def written() -> list[str]:
    """The resources that the generic routes write."""
    return sorted(WRITABLE - _OWN_ROUTES - {"flows"})


def made() -> list[str]:
    """The resources of which the generic routes make new rows."""
    return [name for name in written() if name not in NEVER_NEW]


def scope_to_write(resource: str) -> str:
    """The scope that writing a resource needs."""
    return rights.ANNOTATE if resource in ANNOTATED else rights.WRITE


@cache
def row_model(resource: str) -> type[BaseModel]:
    """A row as the interface gives it."""
    fields: dict[str, Any] = {
        # A model of pydantic's has a `schema` itself.
        column.name if column.name != "schema" else "schema_": (
            _type(column) | None,
            Field(None, alias=column.name),
        )
        for column in table_of(resource).columns
        if column.name not in INSIDE
    }
    return create_model(
        _title(resource), __config__=ConfigDict(extra="allow"), **fields
    )


@cache
def new_model(resource: str) -> type[BaseModel]:
    """What the interface takes to make a row."""
    fields: dict[str, Any] = {
        "project": (str | None, Field(None, max_length=64, description="Its name"))
    }
    for column in _writable(resource):
        needed = not column.nullable and column.default is None
        kind = _type(column)
        limit = _limit(column)
        fields[column.name] = (
            (kind, Field(**limit)) if needed else (kind | None, Field(None, **limit))
        )
    name = f"New{_title(resource)}"
    return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)


@cache
def change_model(resource: str) -> type[BaseModel]:
    """What the interface takes to change a row."""
    fields: dict[str, Any] = {
        column.name: (_type(column) | None, Field(None, **_limit(column)))
        for column in _writable(resource)
        if column.name not in STAYS
    }
    name = f"Changed{_title(resource)}"
    return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)


@cache
def page_model(resource: str) -> type[BaseModel]:
    """A page of a listing."""
    fields: dict[str, Any] = {
        "items": (list[row_model(resource)], ...),  # type: ignore[misc]
        "next": (str | None, Field(None, description="The cursor of the next page")),
    }
    return create_model(f"{_title(resource)}Page", **fields)


def _writable(resource: str) -> Iterator[Column[Any]]:
    for column in table_of(resource).columns:
        if column.name not in ours(resource) and column.name != "project_id":
            yield column


def _title(resource: str) -> str:
    return "".join(part.title() for part in RESOURCES[resource].split("_"))


def _type(column: Column[Any]) -> Any:
    """The Python type of a column; Any because unions have no class."""
    match column.type:
        case Moment():
            return datetime
        case Boolean():
            return bool
        case Float():
            return float
        case Integer():
            return int
        case JSON():
            return dict[str, Any] | list[Any] | str | float | bool
        case _:
            return str


def _limit(column: Column[Any]) -> dict[str, Any]:
    if isinstance(column.type, String):
        return {"max_length": column.type.length or MAX_TEXT}
    return {}
