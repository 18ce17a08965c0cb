"""What people and tools said: regions, labels, annotations, measurements, tables.

Geometry is GeoJSON-like, in pixels of level 0; its box stands in columns of its own so
that regions can be searched by where they are.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from theatrum.catalog.tables.base import (
    Array,
    Base,
    Changed,
    Deleted,
    JsonOrNull,
    Key,
    Made,
    Name,
    Object,
    Prose,
)


class Label(Base):
    """A term of a vocabulary; without a project it is everybody's."""

    __tablename__ = "label"
    __table_args__ = (UniqueConstraint("vocabulary", "code", "project_id"),)

    id: Mapped[Key]
    project_id: Mapped[int | None] = mapped_column(
        ForeignKey("project.id", ondelete="CASCADE"), index=True
    )
    vocabulary: Mapped[str] = mapped_column(String(64), default="local")
    code: Mapped[str] = mapped_column(String(128))
    name: Mapped[Name] = mapped_column(default="")
    color: Mapped[str | None] = mapped_column(String(32))
    parent_id: Mapped[str | None] = mapped_column(
        ForeignKey("label.id", ondelete="SET NULL"), index=True
    )
    created_at: Mapped[Made]
    deleted_at: Mapped[Deleted]


class Roi(Base):
    """A region of an image."""

    __tablename__ = "roi"
    __table_args__ = (Index("ix_roi_box", "image_id", "x0", "x1", "y0", "y1"),)

    id: Mapped[Key]
    project_id: Mapped[int] = mapped_column(
        ForeignKey("project.id", ondelete="CASCADE"), index=True
    )
    image_id: Mapped[str] = mapped_column(
        ForeignKey("image.id", ondelete="CASCADE"), index=True
    )
    name: Mapped[Name] = mapped_column(default="")
    # point, line, polyline, box, ellipse, polygon, mask, cube
    kind: Mapped[str] = mapped_column(String(16))
    # The axes of a coordinate, such as ["x", "y"]
    axes: Mapped[Array]
    geometry: Mapped[Object]
    x0: Mapped[float | None]
    x1: Mapped[float | None]
    y0: Mapped[float | None]
    y1: Mapped[float | None]
    z0: Mapped[float | None]
    z1: Mapped[float | None]
    t0: Mapped[float | None]
    t1: Mapped[float | None]
    label_id: Mapped[str | None] = mapped_column(
        ForeignKey("label.id", ondelete="SET NULL"), index=True
    )
    color: Mapped[str | None] = mapped_column(String(32))
    score: Mapped[float | None] = mapped_column(index=True)
    parent_id: Mapped[str | None] = mapped_column(
        ForeignKey("roi.id", ondelete="CASCADE"), index=True
    )
    run_id: Mapped[str | None] = mapped_column(ForeignKey("run.id"), index=True)
    # draft, final, rejected
    status: Mapped[str] = mapped_column(String(16), default="final", index=True)
    author: Mapped[str] = mapped_column(String(255), default="")
    created_at: Mapped[Made]
    updated_at: Mapped[Changed]
    deleted_at: Mapped[Deleted]


class Annotation(Base):
    """A tag, a key with its value, or a comment, on any row."""

    __tablename__ = "annotation"
    __table_args__ = (
        Index("ix_annotation_target", "target_kind", "target_id", "kind", "key"),
        Index("ix_annotation_key", "target_kind", "kind", "key", "text"),
    )

    id: Mapped[Key]
    project_id: Mapped[int] = mapped_column(
        ForeignKey("project.id", ondelete="CASCADE"), index=True
    )
    # The table's name and the row's id.
    target_kind: Mapped[str] = mapped_column(String(32))
    target_id: Mapped[str] = mapped_column(String(16))
    # tag, value, comment
    kind: Mapped[str] = mapped_column(String(16))
    # A tag's word, a value's key; of a comment empty.
    key: Mapped[str] = mapped_column(String(128), default="")
    # Any: JSON
    value: Mapped[Any] = mapped_column(JsonOrNull, nullable=True)
    # The value or the comment as text, and as a number where it is one.
    text: Mapped[str] = mapped_column(Text, default="")
    number: Mapped[float | None] = mapped_column(index=True)
    unit: Mapped[str | None] = mapped_column(String(32))
    author: Mapped[str] = mapped_column(String(255), default="")
    created_at: Mapped[Made]
    updated_at: Mapped[Changed]
    deleted_at: Mapped[Deleted]


class Measurement(Base):
    """One number or word about an image or a region of it."""

    __tablename__ = "measurement"
    __table_args__ = (
        Index("ix_measurement_name", "image_id", "name"),
        Index("ix_measurement_value", "name", "value"),
    )

    id: Mapped[Key]
    project_id: Mapped[int] = mapped_column(
        ForeignKey("project.id", ondelete="CASCADE"), index=True
    )
    image_id: Mapped[str] = mapped_column(ForeignKey("image.id", ondelete="CASCADE"))
    roi_id: Mapped[str | None] = mapped_column(
        ForeignKey("roi.id", ondelete="CASCADE"), index=True
    )
    # Every number has a run that found it, if only a person's ad-hoc one.
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id"), index=True)
    name: Mapped[str] = mapped_column(String(128))
    value: Mapped[float | None]
    text: Mapped[str | None] = mapped_column(Text)
    unit: Mapped[str | None] = mapped_column(String(32))
    created_at: Mapped[Made]
    deleted_at: Mapped[Deleted]


class DataTable(Base):
    """A table too long for rows here: a Parquet file."""

    __tablename__ = "data_table"

    id: Mapped[Key]
    project_id: Mapped[int] = mapped_column(
        ForeignKey("project.id", ondelete="CASCADE"), index=True
    )
    name: Mapped[Name]
    uri: Mapped[str] = mapped_column(Text)
    schema: Mapped[Object]
    row_count: Mapped[int] = mapped_column(default=0)
    # Which column names images, regions or labels.
    links: Mapped[Object]
    sha256: Mapped[str] = mapped_column(String(64), default="")
    description: Mapped[Prose]
    run_id: Mapped[str] = mapped_column(ForeignKey("run.id"), index=True)
    created_at: Mapped[Made]
    deleted_at: Mapped[Deleted]
