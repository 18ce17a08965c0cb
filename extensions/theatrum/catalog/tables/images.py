"""Images: one row is one labelled array, whatever made it, and how it is looked at.

`px_x`, `px_y` and `px_z` are millimetres, `px_t` seconds; `spacing` is the largest of
the three lengths that are known, so that `spacing__lte=1.0` says "at least as fine as
1 mm in every direction". Steps are kept to seven significant digits: those that follow
from an affine would else be 1.0000000252 mm. `affine` takes voxel (x, y, z, 1) to RAS
millimetres, and is kept as exactly as it came.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column, relationship, validates

from theatrum.catalog.facts import in_digits
from theatrum.catalog.tables.base import (
    Array,
    Base,
    Changed,
    Deleted,
    Json,
    JsonOrNull,
    Key,
    Made,
    Moment,
    Name,
    Object,
    Prose,
    now,
)
from theatrum.catalog.tables.projects import Project

DISCARDED = "discarded"
"""The state of an array in between that its flow did not keep: deleted, and still named
in the lineage of what was made of it."""
_LIVES = text("deleted_at IS NULL")


class Image(Base):
    """A registered image: one id for all who point at it."""

    __tablename__ = "image"
    __table_args__ = (
        Index(
            "uq_image_name", "project_id", "name", unique=True,
            sqlite_where=_LIVES, postgresql_where=_LIVES,
        ),
        Index(
            "uq_image_path", "project_id", "path", "scene", unique=True,
            sqlite_where=_LIVES, postgresql_where=_LIVES,
        ),
        Index("ix_image_kind", "project_id", "kind"),
        Index("ix_image_modality_spacing", "modality", "spacing"),
        # Counting images of a modality in samples reads this index and no row.
        Index(
            "ix_image_sample_id", "sample_id", "modality", "spacing", "deleted_at"
        ),
    )  # fmt: skip

    id: Mapped[Key]
    project_id: Mapped[int] = mapped_column(
        ForeignKey("project.id", ondelete="CASCADE"), index=True
    )
    name: Mapped[str] = mapped_column(String(128))
    title: Mapped[str] = mapped_column(String(255), default="")
    description: Mapped[Prose]
    # The file or folder that the tile service opens, and which image of it.
    path: Mapped[str] = mapped_column(Text)
    scene: Mapped[int] = mapped_column(default=0)
    version: Mapped[str] = mapped_column(String(64), default="")
    # What `tile_server.view.describe` says, as JSON; empty where it cannot show it.
    geometry: Mapped[Object]
    # original, initial, derived, crop, label, probability, thumbnail
    kind: Mapped[str] = mapped_column(String(16), default="original")
    # pending, ready, missing, failed, discarded
    state: Mapped[str] = mapped_column(String(16), default="ready", index=True)
    acquisition_id: Mapped[str | None] = mapped_column(
        ForeignKey("acquisition.id", ondelete="SET NULL"), index=True
    )
    sample_id: Mapped[str | None] = mapped_column(
        ForeignKey("sample.id", ondelete="SET NULL")
    )
    subject_id: Mapped[str | None] = mapped_column(
        ForeignKey("subject.id", ondelete="SET NULL"), index=True
    )
    # The run that made it; none for what came from outside.
    run_id: Mapped[str | None] = mapped_column(ForeignKey("run.id"), index=True)
    modality: Mapped[str | None] = mapped_column(String(16))
    # ax, cor, sag, obl: how a scan was acquired
    plane: Mapped[str | None] = mapped_column(String(8), index=True)
    # wsi, dicom, nifti, mgh, nrrd, ome-zarr, ome-tiff, ...
    format: Mapped[str] = mapped_column(String(32), default="", index=True)
    dims: Mapped[Array]
    shape: Mapped[Array]
    dtype: Mapped[str] = mapped_column(String(16), default="")
    chunks: Mapped[Array]
    n_levels: Mapped[int] = mapped_column(default=1)
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    px_x: Mapped[float | None] = mapped_column(index=True)
    px_y: Mapped[float | None] = mapped_column(index=True)
    px_z: Mapped[float | None] = mapped_column(index=True)
    px_t: Mapped[float | None]
    spacing: Mapped[float | None] = mapped_column(index=True)
    n_x: Mapped[int | None]
    n_y: Mapped[int | None]
    n_c: Mapped[int | None]
    n_z: Mapped[int | None]
    n_t: Mapped[int | None]
    # Where the array's x, y, z grow to, such as RAS
    orientation: Mapped[str | None] = mapped_column(String(8), index=True)
    # Any: 4 x 4 numbers
    affine: Mapped[list[Any] | None] = mapped_column(JsonOrNull)
    frame_of_ref: Mapped[str | None] = mapped_column(String(128), index=True)
    value_unit: Mapped[str | None] = mapped_column(String(32))
    vmin: Mapped[float | None]
    vmax: Mapped[float | None]
    p01: Mapped[float | None]
    p99: Mapped[float | None]
    # Of all files of the stored array, in order of their names.
    checksum: Mapped[str | None] = mapped_column(String(64), index=True)
    attrs: Mapped[Object]
    created_at: Mapped[Made]
    updated_at: Mapped[Changed]
    deleted_at: Mapped[Deleted]
    project: Mapped[Project] = relationship(back_populates="images")
    results: Mapped[list[Result]] = relationship(
        back_populates="image", cascade="all, delete-orphan"
    )

    @validates("px_x", "px_y", "px_z", "px_t", "spacing")
    def _in_digits(self, _name: str, step: float | None) -> float | None:
        return in_digits(step)


class Channel(Base):
    """A channel of an image; wavelengths in nanometres, exposure in milliseconds."""

    __tablename__ = "channel"
    __table_args__ = (
        Index("uq_channel_index", "image_id", "index", unique=True),
        Index("ix_channel_name", "name", "image_id"),
    )

    id: Mapped[Key]
    image_id: Mapped[str] = mapped_column(ForeignKey("image.id", ondelete="CASCADE"))
    index: Mapped[int]
    name: Mapped[Name] = mapped_column(default="")
    marker: Mapped[str | None] = mapped_column(String(128), index=True)
    fluor: Mapped[str | None] = mapped_column(String(128))
    excitation_nm: Mapped[float | None]
    emission_nm: Mapped[float | None]
    exposure_ms: Mapped[float | None]
    # As CSS writes it
    color: Mapped[str | None] = mapped_column(String(32))
    window_lo: Mapped[float | None]
    window_hi: Mapped[float | None]
    attrs: Mapped[Object]


class PlaneTable(Base):
    """Where the facts of an image's planes lie: in Parquet, not in millions of rows."""

    __tablename__ = "plane_table"

    id: Mapped[Key]
    image_id: Mapped[str] = mapped_column(
        ForeignKey("image.id", ondelete="CASCADE"), unique=True
    )
    asset_id: Mapped[str] = mapped_column(
        ForeignKey("asset.id", ondelete="CASCADE"), index=True
    )
    n_planes: Mapped[int] = mapped_column(default=0)


class Asset(Base):
    """A file that belongs to a row: a thumbnail, a sidecar, a report, a mesh."""

    __tablename__ = "asset"
    __table_args__ = (Index("ix_asset_owner", "owner_kind", "owner_id", "role"),)

    id: Mapped[Key]
    project_id: Mapped[int] = mapped_column(
        ForeignKey("project.id", ondelete="CASCADE"), index=True
    )
    owner_kind: Mapped[str] = mapped_column(String(32))
    owner_id: Mapped[str] = mapped_column(String(16))
    # thumbnail, sidecar, report, mesh, table, export, model
    role: Mapped[str] = mapped_column(String(32))
    media_type: Mapped[str] = mapped_column(String(128), default="")
    uri: Mapped[str] = mapped_column(Text)
    size: Mapped[int] = mapped_column(BigInteger, default=0)
    sha256: Mapped[str] = mapped_column(String(64), default="")
    run_id: Mapped[str | None] = mapped_column(ForeignKey("run.id"), index=True)
    created_at: Mapped[Made]
    deleted_at: Mapped[Deleted]


class View(Base):
    """A way to look at an image: which part, which channels, which windows."""

    __tablename__ = "view"

    id: Mapped[Key]
    project_id: Mapped[int] = mapped_column(
        ForeignKey("project.id", ondelete="CASCADE"), index=True
    )
    image_id: Mapped[str] = mapped_column(
        ForeignKey("image.id", ondelete="CASCADE"), index=True
    )
    name: Mapped[Name] = mapped_column(default="")
    slices: Mapped[Object]
    # Channels, windows, gamma, colour map, projection.
    style: Mapped[Object]
    is_default: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[Made]
    updated_at: Mapped[Changed]
    deleted_at: Mapped[Deleted]


class Transform(Base):
    """The way from one image's space to another's."""

    __tablename__ = "transform"

    id: Mapped[Key]
    project_id: Mapped[int] = mapped_column(
        ForeignKey("project.id", ondelete="CASCADE"), index=True
    )
    from_image_id: Mapped[str] = mapped_column(
        ForeignKey("image.id", ondelete="CASCADE"), index=True
    )
    to_image_id: Mapped[str | None] = mapped_column(
        ForeignKey("image.id", ondelete="CASCADE"), index=True
    )
    space_from: Mapped[str] = mapped_column(String(128), default="")
    space_to: Mapped[str] = mapped_column(String(128), default="", index=True)
    # affine, displacement, sequence
    kind: Mapped[str] = mapped_column(String(16), default="affine")
    # Any: rows of numbers
    matrix: Mapped[list[Any] | None] = mapped_column(JsonOrNull)
    uri: Mapped[str | None] = mapped_column(Text)
    run_id: Mapped[str | None] = mapped_column(ForeignKey("run.id"), index=True)
    quality: Mapped[Object]
    created_at: Mapped[Made]
    deleted_at: Mapped[Deleted]


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
    numbers: Mapped[dict[str, float]] = mapped_column(Json)
    # Any: a GeoJSON FeatureCollection in level-0 pixels.
    marks: Mapped[dict[str, Any]] = mapped_column(Json)
    created: Mapped[datetime] = mapped_column(Moment, default=now)
    image: Mapped[Image] = relationship(back_populates="results")
