"""The tables: an image belongs to a collection, which names groups that may see it."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

# Crockford's base 32: no two characters that are taken for one another.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id() -> str:
    """A fresh image id: 12 characters, 60 random bits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(12))


class Base(DeclarativeBase):
    """All tables of the catalogue."""


class Collection(Base):
    """Images that the same people may see."""

    __tablename__ = "collection"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    # The label image of a slide can carry a patient's name.
    shows_label: Mapped[bool] = mapped_column(default=False)
    groups: Mapped[list[CollectionGroup]] = relationship(
        back_populates="collection", cascade="all, delete-orphan"
    )
    images: Mapped[list[Image]] = relationship(
        back_populates="collection", cascade="all, delete-orphan"
    )


class CollectionGroup(Base):
    """A hub group that may see a collection."""

    __tablename__ = "collection_group"

    collection_id: Mapped[int] = mapped_column(
        ForeignKey("collection.id", ondelete="CASCADE"), primary_key=True
    )
    group: Mapped[str] = mapped_column(String(255), primary_key=True)
    collection: Mapped[Collection] = relationship(back_populates="groups")


class Image(Base):
    """A registered image: one id for all who point at it."""

    __tablename__ = "image"
    __table_args__ = (
        UniqueConstraint("collection_id", "name"),
        UniqueConstraint("collection_id", "path"),
    )

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    collection_id: Mapped[int] = mapped_column(
        ForeignKey("collection.id", ondelete="CASCADE")
    )
    name: Mapped[str] = mapped_column(String(128))
    title: Mapped[str] = mapped_column(String(255))
    path: Mapped[str] = mapped_column(Text)
    version: Mapped[str] = mapped_column(String(64))
    # Any: what `tile_server.view.describe` says, as JSON.
    geometry: Mapped[dict[str, Any]] = mapped_column(JSON)
    added: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), default=lambda: datetime.now(UTC)
    )
    collection: Mapped[Collection] = relationship(back_populates="images")
    results: Mapped[list[Result]] = relationship(
        back_populates="image", cascade="all, delete-orphan"
    )


class Result(Base):
    """What an analysis found on an image, and which analysis it was."""

    __tablename__ = "result"

    id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[str] = mapped_column(
        ForeignKey("image.id", ondelete="CASCADE"), index=True
    )
    # The run that found it: what is handed in twice is one result.
    run: Mapped[str] = mapped_column(String(64), unique=True)
    app: Mapped[str] = mapped_column(String(64))
    node: Mapped[str] = mapped_column(String(128))
    node_version: Mapped[str] = mapped_column(String(64))
    node_digest: Mapped[str] = mapped_column(String(128))
    title: Mapped[str] = mapped_column(String(255))
    numbers: Mapped[dict[str, float]] = mapped_column(JSON)
    # Any: a GeoJSON FeatureCollection in level-0 pixels.
    marks: Mapped[dict[str, Any]] = mapped_column(JSON)
    created: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), default=lambda: datetime.now(UTC)
    )
    image: Mapped[Image] = relationship(back_populates="results")
