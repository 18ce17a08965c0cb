"""What was studied: experiments, groups of a cohort, subjects, visits, samples."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from theatrum.catalog.tables.base import (
    Base,
    Changed,
    Deleted,
    Key,
    Made,
    Name,
    Object,
    Prose,
)

_LIVES = text("deleted_at IS NULL")


class Experiment(Base):
    """A study, or a part of one."""

    __tablename__ = "experiment"
    __table_args__ = (
        Index(
            "uq_experiment_name", "project_id", "name", unique=True,
            sqlite_where=_LIVES, postgresql_where=_LIVES,
        ),
        Index("ix_experiment_name", "name"),
    )  # fmt: skip

    id: Mapped[Key]
    project_id: Mapped[int] = mapped_column(
        ForeignKey("project.id", ondelete="CASCADE"), index=True
    )
    name: Mapped[Name]
    description: Mapped[Prose]
    paper_url: Mapped[str | None] = mapped_column(String(1024))
    design: Mapped[Object]
    attrs: Mapped[Object]
    created_at: Mapped[Made]
    updated_at: Mapped[Changed]
    deleted_at: Mapped[Deleted]


class CohortGroup(Base):
    """Subjects or samples of an experiment that are compared with others."""

    __tablename__ = "cohort_group"
    __table_args__ = (
        Index(
            "uq_cohort_group_name", "project_id", "experiment_id", "name", unique=True,
            sqlite_where=_LIVES, postgresql_where=_LIVES,
        ),
    )  # fmt: skip

    id: Mapped[Key]
    project_id: Mapped[int] = mapped_column(
        ForeignKey("project.id", ondelete="CASCADE"), index=True
    )
    experiment_id: Mapped[str | None] = mapped_column(
        ForeignKey("experiment.id", ondelete="CASCADE"), index=True
    )
    name: Mapped[Name]
    is_control: Mapped[bool] = mapped_column(default=False)
    description: Mapped[Prose]
    created_at: Mapped[Made]
    updated_at: Mapped[Changed]
    deleted_at: Mapped[Deleted]


class Subject(Base):
    """A person or an animal, by a label that tells nobody who it is."""

    __tablename__ = "subject"
    __table_args__ = (
        Index(
            "uq_subject_label", "project_id", "label", unique=True,
            sqlite_where=_LIVES, postgresql_where=_LIVES,
        ),
    )  # fmt: skip

    id: Mapped[Key]
    project_id: Mapped[int] = mapped_column(
        ForeignKey("project.id", ondelete="CASCADE"), index=True
    )
    group_id: Mapped[str | None] = mapped_column(
        ForeignKey("cohort_group.id", ondelete="SET NULL"), index=True
    )
    experiment_id: Mapped[str | None] = mapped_column(
        ForeignKey("experiment.id", ondelete="SET NULL"), index=True
    )
    label: Mapped[Name]
    species: Mapped[str | None] = mapped_column(String(128))
    # female, male, other
    sex: Mapped[str | None] = mapped_column(String(16))
    birth_year: Mapped[int | None]
    diagnosis: Mapped[str | None] = mapped_column(String(255), index=True)
    external_ids: Mapped[Object]
    attrs: Mapped[Object]
    created_at: Mapped[Made]
    updated_at: Mapped[Changed]
    deleted_at: Mapped[Deleted]


class Visit(Base):
    """One time at which a subject was seen; BIDS calls it a session."""

    __tablename__ = "visit"
    __table_args__ = (
        Index(
            "uq_visit_label", "subject_id", "label", unique=True,
            sqlite_where=_LIVES, postgresql_where=_LIVES,
        ),
    )  # fmt: skip

    id: Mapped[Key]
    project_id: Mapped[int] = mapped_column(
        ForeignKey("project.id", ondelete="CASCADE"), index=True
    )
    subject_id: Mapped[str] = mapped_column(
        ForeignKey("subject.id", ondelete="CASCADE"), index=True
    )
    label: Mapped[Name]
    days_from_baseline: Mapped[int | None]
    attrs: Mapped[Object]
    created_at: Mapped[Made]
    updated_at: Mapped[Changed]
    deleted_at: Mapped[Deleted]


class Sample(Base):
    """What was put under the instrument: a tissue, a block, a slide, a well."""

    __tablename__ = "sample"
    __table_args__ = (
        Index(
            "uq_sample_name", "project_id", "name", unique=True,
            sqlite_where=_LIVES, postgresql_where=_LIVES,
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
    # A slide's block, a block's tissue.
    parent_id: Mapped[str | None] = mapped_column(
        ForeignKey("sample.id", ondelete="SET NULL"), index=True
    )
    group_id: Mapped[str | None] = mapped_column(
        ForeignKey("cohort_group.id", ondelete="SET NULL"), index=True
    )
    experiment_id: Mapped[str | None] = mapped_column(
        ForeignKey("experiment.id", ondelete="SET NULL"), index=True
    )
    name: Mapped[Name]
    # tissue, block, slide, well, culture, none
    kind: Mapped[str] = mapped_column(String(32), default="none")
    stain: Mapped[str | None] = mapped_column(String(128), index=True)
    marker: Mapped[str | None] = mapped_column(String(128))
    attrs: Mapped[Object]
    created_at: Mapped[Made]
    updated_at: Mapped[Changed]
    deleted_at: Mapped[Deleted]


class FileRule(Base):
    """How the names of files tell what they are: a pattern whose groups are fields."""

    __tablename__ = "file_rule"

    id: Mapped[Key]
    project_id: Mapped[int] = mapped_column(
        ForeignKey("project.id", ondelete="CASCADE"), index=True
    )
    name: Mapped[Name]
    pattern: Mapped[Prose]
    # What a group of the pattern is written to, such as `sample__name`.
    fields: Mapped[Object]
    # The rule with the smallest number is tried first.
    priority: Mapped[int] = mapped_column(default=100)
    created_at: Mapped[Made]
    updated_at: Mapped[Changed]
    deleted_at: Mapped[Deleted]
