"""The tables: jobs and their events, tokens, workers, tombstones, the audit log.

No column holds patient data: texts of the laboratory's system stay in the job's folder
and go with it. Times are seconds since 1970 (UTC), so that leases compare alike on
every database.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from hub.durable.liveness import WorkerColumns

# Crockford's base 32: no two characters that are taken for one another.
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_job_id() -> str:
    """A fresh job id: 80 random bits; the only name that a job's folder has."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(16))


class Base(DeclarativeBase):
    """All tables of the service."""


class Job(Base):
    """One request for an analysis (section 8.3 of the interface's description)."""

    __tablename__ = "ia_job"
    __table_args__ = (
        Index("ia_job_due", "state", "not_before"),
        Index("ia_job_slide", "callback_url", "application_id", "slide_id"),
        Index("ia_job_created", "created"),
    )

    job_id: Mapped[str] = mapped_column(String(16), primary_key=True)
    idem_key: Mapped[str] = mapped_column(String(64), unique=True)
    """Of the request: a repeated delivery finds the job instead of making another."""
    active_key: Mapped[str | None] = mapped_column(String(64), unique=True)
    """Of callback, app, slide and input while the job is active: never two at once."""
    app: Mapped[str] = mapped_column(String(64))
    """Our own name of the app, the last segment of its address."""
    application_id: Mapped[str] = mapped_column(String(256))
    """What the pathology server calls it; the administrator may have changed it."""
    slide_id: Mapped[str] = mapped_column(String(1024))
    callback_url: Mapped[str] = mapped_column(String(2048))
    token_ref: Mapped[int | None] = mapped_column(
        ForeignKey("ia_token.id", ondelete="SET NULL")
    )
    action: Mapped[str] = mapped_column(String(16))
    # Any: JSON as it was sent, without members that nobody knows. Both are emptied when
    # the job is done; one that failed or was cancelled can be begun anew with them.
    input_json: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    context_json: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    cancellation_token: Mapped[str | None] = mapped_column(String(64))
    """A digest of it: it is compared, never sent."""

    state: Mapped[str] = mapped_column(String(16))
    attempt: Mapped[int] = mapped_column(Integer, default=1)
    """One more for each failure; waiting for a token is none."""
    crashes: Mapped[int] = mapped_column(Integer, default=0)
    run: Mapped[int] = mapped_column(Integer, default=1)
    """One more each time it goes back to the queue: names the durable workflow."""
    checkpoint: Mapped[int] = mapped_column(Integer, default=0)
    """How many of `states.CHECKPOINTS` are complete."""
    not_before: Mapped[float] = mapped_column(Float, default=0.0)
    deadline: Mapped[float] = mapped_column(Float)
    priority: Mapped[int] = mapped_column(Integer, default=10)
    dispatched: Mapped[int] = mapped_column(Integer, default=0)
    """The run that was handed to the durable queue last; below `run` it is due."""
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[float] = mapped_column(Float, default=0.0)

    result_id: Mapped[int | None] = mapped_column(BigInteger)
    result_version: Mapped[str | None] = mapped_column(String(256))
    progress: Mapped[int] = mapped_column(Integer, default=0)
    error_code: Mapped[str | None] = mapped_column(String(32))
    api_version: Mapped[str | None] = mapped_column(String(16))
    application_version: Mapped[str | None] = mapped_column(String(128))
    """Name and version of the node that makes the result."""
    slide_size: Mapped[list[int] | None] = mapped_column(JSON)
    """(width, height) in level-0 pixels, for the last word on a result."""

    created: Mapped[float] = mapped_column(Float, default=time.time)
    updated: Mapped[float] = mapped_column(Float, default=time.time)
    started: Mapped[float | None] = mapped_column(Float)
    ended: Mapped[float | None] = mapped_column(Float)
    closed: Mapped[float | None] = mapped_column(Float)
    """When the last word was said on the result and all traces were removed."""
    closing_attempts: Mapped[int] = mapped_column(Integer, default=0)
    undo_until: Mapped[float] = mapped_column(Float, default=0.0)
    """A job that was cancelled on the pages keeps its token until then."""


class Alias(Base):
    """Another request that was attached to a job which did the same already."""

    __tablename__ = "ia_alias"

    idem_key: Mapped[str] = mapped_column(String(64), primary_key=True)
    job_id: Mapped[str] = mapped_column(
        ForeignKey("ia_job.job_id", ondelete="CASCADE"), index=True
    )
    cancellation_token: Mapped[str | None] = mapped_column(String(64))


class Event(Base):
    """One change of a job's state, or another thing worth knowing of it."""

    __tablename__ = "ia_event"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    job_id: Mapped[str] = mapped_column(
        ForeignKey("ia_job.job_id", ondelete="CASCADE"), index=True
    )
    at: Mapped[float] = mapped_column(Float, default=time.time)
    kind: Mapped[str] = mapped_column(String(32))
    """The new state, or `checkpoint`, `attached`, `lease-expired`, ..."""
    detail: Mapped[str] = mapped_column(String(256), default="")
    worker: Mapped[str | None] = mapped_column(String(64))


class Token(Base):
    """The newest callback token of a (callback, app), sealed."""

    __tablename__ = "ia_token"
    __table_args__ = (UniqueConstraint("callback_url", "application_id"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    callback_url: Mapped[str] = mapped_column(String(2048))
    application_id: Mapped[str] = mapped_column(String(256))
    sealed: Mapped[bytes] = mapped_column(LargeBinary)
    candidate: Mapped[bytes | None] = mapped_column(LargeBinary)
    """One that came with a request which nobody has proved yet (see `tokens`)."""
    updated: Mapped[float] = mapped_column(Float, default=time.time)


class Tombstone(Base):
    """A result that a person deleted: nothing of ours may bring it back."""

    __tablename__ = "ia_tombstone"

    callback_url: Mapped[str] = mapped_column(String(2048), primary_key=True)
    application_id: Mapped[str] = mapped_column(String(256), primary_key=True)
    result_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    at: Mapped[float] = mapped_column(Float, default=time.time)


class Worker(WorkerColumns, Base):
    """A worker process that is alive, as far as its heartbeat says."""

    __tablename__ = "ia_worker"


class Audit(Base):
    """Who asked for what, and what became of it; never patient data or tokens."""

    __tablename__ = "ia_audit"
    __table_args__ = (Index("ia_audit_at", "at"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    at: Mapped[float] = mapped_column(Float, default=time.time)
    caller: Mapped[str] = mapped_column(String(128))
    """The caller's network address, or the hub's name of a person."""
    action: Mapped[str] = mapped_column(String(32))
    app: Mapped[str] = mapped_column(String(64), default="")
    outcome: Mapped[str] = mapped_column(Text, default="")
    job_id: Mapped[str | None] = mapped_column(String(16))
