"""What was done: definitions, flows, batches, and runs with what went in and came out.

A derived row has one producing run: its `run_id` column, where it has one, and the one
row of `run_output` that names it, which a unique index keeps one. A run names the human
who asked for it, whoever's account worked.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text
from sqlalchemy import UniqueConstraint as Unique
from sqlalchemy.orm import Mapped, mapped_column

from theatrum.catalog.tables.base import (
    Array,
    Base,
    Changed,
    Deleted,
    JsonOrNull,
    Key,
    Made,
    Moment,
    Name,
    Object,
    Prose,
    now,
)

RUN_STATES = (
    "queued",
    "running",
    "waiting",
    "succeeded",
    "failed",
    "cancelled",
    "skipped",
    "cached",
)
"""`waiting` is a run that a person has to review first."""


class NodeDef(Base):
    """What can be run, in one version; without a project it is everybody's."""

    __tablename__ = "node_def"
    __table_args__ = (Unique("project_id", "namespace", "name", "version", "def_hash"),)

    id: Mapped[Key]
    project_id: Mapped[int | None] = mapped_column(
        ForeignKey("project.id", ondelete="CASCADE"), index=True
    )
    namespace: Mapped[str] = mapped_column(String(128), default="")
    name: Mapped[str] = mapped_column(String(128))
    version: Mapped[str] = mapped_column(String(64), default="")
    title: Mapped[Name] = mapped_column(default="")
    # python, notebook, container, cli, manual, bids-app, model, external
    kind: Mapped[str] = mapped_column(String(16), default="python")
    entrypoint: Mapped[str] = mapped_column(Text, default="")
    ports_in: Mapped[Array]
    ports_out: Mapped[Array]
    params_schema: Mapped[Object]
    defaults: Mapped[Object]
    resources: Mapped[Object]
    env: Mapped[Object]
    pure: Mapped[bool] = mapped_column(default=True)
    cancellable: Mapped[bool] = mapped_column(default=True)
    # Of code and interface: another hash is another definition.
    def_hash: Mapped[str] = mapped_column(String(64), index=True)
    # The source of a function that no package holds.
    source: Mapped[Prose]
    created_at: Mapped[Made]


class Flow(Base):
    """A graph of nodes as JSON, in one version."""

    __tablename__ = "flow"
    __table_args__ = (Unique("project_id", "name", "version"),)

    id: Mapped[Key]
    project_id: Mapped[int | None] = mapped_column(
        ForeignKey("project.id", ondelete="CASCADE"), index=True
    )
    name: Mapped[str] = mapped_column(String(128))
    version: Mapped[str] = mapped_column(String(64), default="1")
    title: Mapped[Name] = mapped_column(default="")
    graph: Mapped[Object]
    is_template: Mapped[bool] = mapped_column(default=False)
    description: Mapped[Prose]
    def_hash: Mapped[str] = mapped_column(String(64), default="", index=True)
    author: Mapped[str] = mapped_column(String(255), default="")
    created_at: Mapped[Made]
    updated_at: Mapped[Changed]
    deleted_at: Mapped[Deleted]


class Batch(Base):
    """A node or a flow over a query: many runs under one order."""

    __tablename__ = "batch"

    id: Mapped[Key]
    project_id: Mapped[int] = mapped_column(
        ForeignKey("project.id", ondelete="CASCADE"), index=True
    )
    name: Mapped[Name] = mapped_column(default="")
    flow_id: Mapped[str | None] = mapped_column(ForeignKey("flow.id"), index=True)
    node_def_id: Mapped[str | None] = mapped_column(
        ForeignKey("node_def.id"), index=True
    )
    query: Mapped[Object]
    params: Mapped[Object]
    engine: Mapped[Object]
    requested_by: Mapped[str] = mapped_column(String(255))
    # queued, running, succeeded, failed, cancelled
    state: Mapped[str] = mapped_column(String(16), default="queued", index=True)
    # Why it waits, or ended as it did; empty where there is nothing to say.
    reason: Mapped[str] = mapped_column(Text, default="", server_default="")
    counts: Mapped[Object]
    created_at: Mapped[Made]
    started_at: Mapped[datetime | None] = mapped_column(Moment)
    ended_at: Mapped[datetime | None] = mapped_column(Moment)
    updated_at: Mapped[Changed]


class Run(Base):
    """One node over one item; the root of every row that it made."""

    __tablename__ = "run"
    __table_args__ = (
        # A run without a human at its root explains nothing.
        CheckConstraint("requested_by <> ''", name="human"),
        Index("ix_run_batch_id", "batch_id", "state"),
    )

    id: Mapped[Key]
    project_id: Mapped[int] = mapped_column(
        ForeignKey("project.id", ondelete="CASCADE"), index=True
    )
    batch_id: Mapped[str | None] = mapped_column(
        ForeignKey("batch.id", ondelete="CASCADE")
    )
    parent_run_id: Mapped[str | None] = mapped_column(
        ForeignKey("run.id", ondelete="CASCADE"), index=True
    )
    node_def_id: Mapped[str | None] = mapped_column(
        ForeignKey("node_def.id"), index=True
    )
    # Its place in the flow, and which item of the batch it is about.
    node_key: Mapped[str] = mapped_column(String(128), default="")
    item_key: Mapped[str] = mapped_column(String(128), default="", index=True)
    params: Mapped[Object]
    params_hash: Mapped[str] = mapped_column(String(64), default="")
    input_hash: Mapped[str] = mapped_column(String(64), default="")
    cache_key: Mapped[str] = mapped_column(String(64), default="", index=True)
    # One of RUN_STATES.
    state: Mapped[str] = mapped_column(String(16), default="queued", index=True)
    attempt: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[Made]
    started_at: Mapped[datetime | None] = mapped_column(Moment)
    ended_at: Mapped[datetime | None] = mapped_column(Moment)
    # The human, and the service's account where one worked for them.
    requested_by: Mapped[str] = mapped_column(String(255), index=True)
    on_behalf_of: Mapped[str | None] = mapped_column(String(255))
    host: Mapped[str] = mapped_column(String(255), default="")
    engine_key: Mapped[str] = mapped_column(String(255), default="")
    code_version: Mapped[str] = mapped_column(String(128), default="")
    env_hash: Mapped[str] = mapped_column(String(64), default="")
    seed: Mapped[int | None]
    # Any: class, message and traceback
    error: Mapped[dict[str, Any] | None] = mapped_column(JsonOrNull)
    metrics: Mapped[Object]
    updated_at: Mapped[Changed]


class RunInput(Base):
    """What went into a run."""

    __tablename__ = "run_input"
    __table_args__ = (Index("ix_run_input_object", "object_kind", "object_id"),)

    run_id: Mapped[str] = mapped_column(
        ForeignKey("run.id", ondelete="CASCADE"), primary_key=True
    )
    port: Mapped[str] = mapped_column(String(64), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, default=0)
    object_kind: Mapped[str] = mapped_column(String(32))
    object_id: Mapped[str] = mapped_column(String(16))
    checksum: Mapped[str] = mapped_column(String(64), default="")


class RunOutput(Base):
    """What came out of a run; no row comes out of two."""

    __tablename__ = "run_output"
    __table_args__ = (
        Index("uq_run_output_object", "object_kind", "object_id", unique=True),
    )

    run_id: Mapped[str] = mapped_column(
        ForeignKey("run.id", ondelete="CASCADE"), primary_key=True
    )
    port: Mapped[str] = mapped_column(String(64), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, default=0)
    object_kind: Mapped[str] = mapped_column(String(32))
    object_id: Mapped[str] = mapped_column(String(16))
    checksum: Mapped[str] = mapped_column(String(64), default="")


class RunEvent(Base):
    """What happened during a run, in order."""

    __tablename__ = "run_event"

    run_id: Mapped[str] = mapped_column(
        ForeignKey("run.id", ondelete="CASCADE"), primary_key=True
    )
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(Moment, default=now)
    # state, progress, log, warning, artifact
    kind: Mapped[str] = mapped_column(String(16))
    level: Mapped[str] = mapped_column(String(16), default="info")
    percent: Mapped[float | None]
    message: Mapped[Prose]
    data: Mapped[Object]


class DatasetVersion(Base):
    """What a query found at one moment, for ever."""

    __tablename__ = "dataset_version"
    __table_args__ = (Unique("project_id", "name", "version"),)

    id: Mapped[Key]
    project_id: Mapped[int] = mapped_column(
        ForeignKey("project.id", ondelete="CASCADE"), index=True
    )
    name: Mapped[str] = mapped_column(String(128))
    version: Mapped[str] = mapped_column(String(64))
    query: Mapped[Object]
    # Parquet: ids and checksums
    manifest_uri: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(String(64), default="")
    row_count: Mapped[int] = mapped_column(default=0)
    frozen_at: Mapped[Made]
    frozen_by: Mapped[str] = mapped_column(String(255), default="")
    doi: Mapped[str | None] = mapped_column(String(255))


class SavedQuery(Base):
    """A query under a name that can be shared."""

    __tablename__ = "saved_query"
    __table_args__ = (Unique("project_id", "slug"),)

    id: Mapped[Key]
    project_id: Mapped[int] = mapped_column(
        ForeignKey("project.id", ondelete="CASCADE"), index=True
    )
    slug: Mapped[str] = mapped_column(String(64))
    title: Mapped[Name] = mapped_column(default="")
    description: Mapped[Prose]
    spec: Mapped[Object]
    # {"name": {"title": ..., "default": ...}}; the spec says {"$": "name"} for each.
    parameters: Mapped[Object]
    public: Mapped[bool] = mapped_column(default=False)
    author: Mapped[str] = mapped_column(String(255), default="")
    created_at: Mapped[Made]
    updated_at: Mapped[Changed]
    deleted_at: Mapped[Deleted]


class Event(Base):
    """The feed of changes: appended to, never changed."""

    __tablename__ = "event"
    __table_args__ = (
        Index("ix_event_object", "kind", "object_id"),
        {"sqlite_autoincrement": True},  # a number never comes again
    )

    seq: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int | None] = mapped_column(
        ForeignKey("project.id", ondelete="CASCADE"), index=True
    )
    # What one subscribes to, such as `project/3` or `batch/ID`.
    topic: Mapped[str] = mapped_column(String(64), index=True)
    # The table's name.
    kind: Mapped[str] = mapped_column(String(32))
    # create, update, delete
    op: Mapped[str] = mapped_column(String(16))
    object_id: Mapped[str] = mapped_column(String(64))
    # The names of the columns that changed; never their contents.
    changed: Mapped[Array]
    at: Mapped[Made]
    actor: Mapped[str] = mapped_column(String(255), default="")
