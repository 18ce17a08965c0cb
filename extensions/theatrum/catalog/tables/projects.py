"""Who may see what: a project and the hub groups that have a role in it.

A project is what teaching calls a collection: one table for both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from theatrum.catalog.tables.base import Base, Changed, Made, Object, Prose

if TYPE_CHECKING:
    from theatrum.catalog.tables.images import Image

ROLES = ("viewer", "editor", "maintainer")
"""What a group may do in a project, each role all that the ones before it may."""


class Project(Base):
    """Images that the same people may see, and all that belongs to them."""

    __tablename__ = "project"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    title: Mapped[str] = mapped_column(String(255), default="")
    description: Mapped[Prose]
    doi: Mapped[str | None] = mapped_column(String(255))
    licence: Mapped[str | None] = mapped_column(String(255))
    # private, internal, public
    visibility: Mapped[str] = mapped_column(String(16), default="private")
    # The label image of a slide can carry a patient's name.
    shows_label: Mapped[bool] = mapped_column(default=False)
    attrs: Mapped[Object]
    created_at: Mapped[Made]
    updated_at: Mapped[Changed]
    groups: Mapped[list[ProjectGroup]] = relationship(
        back_populates="project", cascade="all, delete-orphan"
    )
    images: Mapped[list[Image]] = relationship(
        back_populates="project", cascade="all, delete-orphan"
    )


class ProjectGroup(Base):
    """A hub group's role in a project."""

    __tablename__ = "project_group"

    project_id: Mapped[int] = mapped_column(
        ForeignKey("project.id", ondelete="CASCADE"), primary_key=True
    )
    group: Mapped[str] = mapped_column(String(255), primary_key=True)
    # One of ROLES.
    role: Mapped[str] = mapped_column(String(16), default="viewer")
    project: Mapped[Project] = relationship(back_populates="groups")
