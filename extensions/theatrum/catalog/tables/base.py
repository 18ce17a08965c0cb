"""What all tables share: ids, moments, JSON, and names for constraints.

Moments are stored in UTC and come back with their time zone from SQLite too, which
keeps none. JSON is `JSONB` on PostgreSQL, so that paths into it can be indexed.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Annotated, Any

from sqlalchemy import JSON, DateTime, Dialect, MetaData, String, Text, TypeDecorator
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, mapped_column

# Crockford's base 32: no two characters that are taken for one another.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id() -> str:
    """A fresh id: 12 characters, 60 random bits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(12))


def now() -> datetime:
    """This moment, in UTC."""
    return datetime.now(UTC)


def _utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Moment(TypeDecorator[datetime]):
    """A point in time: stored as UTC, returned with its zone by every database."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(
        self,
        value: datetime | str | None,
        dialect: Dialect,  # noqa: ARG002
    ) -> datetime | None:
        """Take ISO 8601 text as well; a moment without a zone is meant as UTC."""
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if value is None:
            return None
        return (
            value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        )

    def process_result_value(
        self,
        value: datetime | None,
        dialect: Dialect,  # noqa: ARG002
    ) -> datetime | None:
        """Give the moment its zone back."""
        if value is None:
            return None
        return (
            value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        )


Json = JSON().with_variant(JSONB(), "postgresql")
JsonOrNull = JSON(none_as_null=True).with_variant(
    JSONB(none_as_null=True), "postgresql"
)

Key = Annotated[str, mapped_column(String(16), primary_key=True, default=new_id)]
Made = Annotated[datetime, mapped_column(Moment, default=now)]
Changed = Annotated[datetime, mapped_column(Moment, default=now, onupdate=now)]
Deleted = Annotated[datetime | None, mapped_column(Moment)]
Name = Annotated[str, mapped_column(String(255))]
Word = Annotated[str, mapped_column(String(64))]
Prose = Annotated[str, mapped_column(Text, default="")]
# Any: JSON of whoever wrote it; what people filter by is a column of its own.
Object = Annotated[dict[str, Any], mapped_column(Json, default=dict)]
Array = Annotated[list[Any], mapped_column(Json, default=list)]


class Base(DeclarativeBase):
    """All tables of the catalogue."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
