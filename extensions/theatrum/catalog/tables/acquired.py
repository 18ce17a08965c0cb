"""What was acquired: original files, acquisitions, and what waits for a review."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from theatrum.catalog.tables.base import (
    Array,
    Base,
    Changed,
    Deleted,
    Key,
    Made,
    Moment,
    Name,
    Object,
    Prose,
)

_LIVES = text("deleted_at IS NULL")
_SERIES = text("series_uid IS NOT NULL AND deleted_at IS NULL")


class SourceFile(Base):
    """An original: never changed, known by its checksum."""

    __tablename__ = "source_file"
    __table_args__ = (
        # What comes twice is one file, whatever it is called the second time.
        Index(
            "uq_source_file_sha256", "project_id", "sha256", unique=True,
            sqlite_where=_LIVES, postgresql_where=_LIVES,
        ),
    )  # fmt: skip

    id: Mapped[Key]
    project_id: Mapped[int] = mapped_column(
        ForeignKey("project.id", ondelete="CASCADE"), index=True
    )
    # A path on this machine, or an address that fsspec opens.
    uri: Mapped[str] = mapped_column(Text)
    # As it was called where it came from; tells no patient.
    name: Mapped[Name] = mapped_column(default="")
    size: Mapped[int] = mapped_column(BigInteger, default=0)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    media_type: Mapped[str] = mapped_column(String(128), default="")
    # The format that read it, such as `dicom`.
    reader: Mapped[str] = mapped_column(String(64), default="")
    deidentified: Mapped[bool] = mapped_column(default=False)
    # inbox, accepted, rejected
    status: Mapped[str] = mapped_column(String(16), default="accepted", index=True)
    reason: Mapped[Prose]
    received_from: Mapped[str] = mapped_column(String(255), default="")
    created_at: Mapped[Made]
    updated_at: Mapped[Changed]
    deleted_at: Mapped[Deleted]


class Acquisition(Base):
    """One run of an instrument: a DICOM series, a slide's scan, a microscope's file."""

    __tablename__ = "acquisition"
    __table_args__ = (
        Index(
            "uq_acquisition_series_uid", "project_id", "series_uid", unique=True,
            sqlite_where=_SERIES, postgresql_where=_SERIES,
        ),
    )  # fmt: skip

    id: Mapped[Key]
    project_id: Mapped[int] = mapped_column(
        ForeignKey("project.id", ondelete="CASCADE"), index=True
    )
    subject_id: Mapped[str | None] = mapped_column(
        ForeignKey("subject.id", ondelete="SET NULL"), index=True
    )
    visit_id: Mapped[str | None] = mapped_column(
        ForeignKey("visit.id", ondelete="SET NULL"), index=True
    )
    sample_id: Mapped[str | None] = mapped_column(
        ForeignKey("sample.id", ondelete="SET NULL"), index=True
    )
    experiment_id: Mapped[str | None] = mapped_column(
        ForeignKey("experiment.id", ondelete="SET NULL"), index=True
    )
    # CT, MR, PT, SM, FM, EM, US, XR, OT
    modality: Mapped[str] = mapped_column(String(16), default="OT", index=True)
    acquired_at: Mapped[datetime | None] = mapped_column(Moment)
    manufacturer: Mapped[str | None] = mapped_column(String(128), index=True)
    model: Mapped[str | None] = mapped_column(String(128))
    # Tesla
    field_strength: Mapped[float | None] = mapped_column(index=True)
    # Maker, model, serial, site, objective, detector and so on.
    device: Mapped[Object]
    study_uid: Mapped[str | None] = mapped_column(String(128), index=True)
    series_uid: Mapped[str | None] = mapped_column(String(128), index=True)
    series_number: Mapped[int | None]
    accession: Mapped[str | None] = mapped_column(String(64))
    description: Mapped[Prose]
    body_part: Mapped[str | None] = mapped_column(String(64), index=True)
    laterality: Mapped[str | None] = mapped_column(String(16))
    # TR, TE, kVp, b-values, objective's aperture, immersion, ... with units in names.
    protocol: Mapped[Object]
    raw_meta: Mapped[Object]
    created_at: Mapped[Made]
    updated_at: Mapped[Changed]
    deleted_at: Mapped[Deleted]


class SeriesMember(Base):
    """A file, or one scene of it, that belongs to an acquisition."""

    __tablename__ = "series_member"
    __table_args__ = (
        Index(
            "uq_series_member_scene", "acquisition_id", "source_file_id",
            "scene_index", "instance_uid", unique=True,
        ),
    )  # fmt: skip

    id: Mapped[Key]
    acquisition_id: Mapped[str] = mapped_column(
        ForeignKey("acquisition.id", ondelete="CASCADE"), index=True
    )
    source_file_id: Mapped[str] = mapped_column(
        ForeignKey("source_file.id", ondelete="CASCADE"), index=True
    )
    scene_index: Mapped[int] = mapped_column(default=0)
    scene_name: Mapped[str] = mapped_column(String(255), default="")
    instance_uid: Mapped[str] = mapped_column(String(128), default="")


class InboxItem(Base):
    """What came in and waits for somebody to let it into a project."""

    __tablename__ = "inbox_item"

    id: Mapped[Key]
    # Where it is meant to go; none while nobody knows.
    project_id: Mapped[int | None] = mapped_column(
        ForeignKey("project.id", ondelete="CASCADE"), index=True
    )
    title: Mapped[Name] = mapped_column(default="")
    # The folder or file in which it waits.
    path: Mapped[str] = mapped_column(Text, default="")
    sha256: Mapped[str] = mapped_column(String(64), default="", index=True)
    modality: Mapped[str | None] = mapped_column(String(16))
    format: Mapped[str] = mapped_column(String(32), default="")
    n_files: Mapped[int] = mapped_column(default=0)
    size: Mapped[int] = mapped_column(BigInteger, default=0)
    # What the rules say that it is: fields of a registration.
    proposal: Mapped[Object]
    rule: Mapped[str] = mapped_column(String(255), default="")
    # What was noticed: gaps, duplicates, tilt; text that may tell a patient.
    findings: Mapped[Array]
    received_from: Mapped[str] = mapped_column(String(255), default="")
    # pending, accepted, rejected, failed
    state: Mapped[str] = mapped_column(String(16), default="pending", index=True)
    reason: Mapped[Prose]
    decided_by: Mapped[str | None] = mapped_column(String(255))
    decided_at: Mapped[datetime | None] = mapped_column(Moment)
    created_at: Mapped[Made]
    updated_at: Mapped[Changed]
