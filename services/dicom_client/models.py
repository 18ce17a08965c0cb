"""The tables: jobs with their events and deliveries, files, templates, rules, audit.

What identifies a patient stands here only sealed (`..._sealed`, encrypted with the
installation's key) or as a digest to compare by. Times are seconds since 1970 (UTC), so
that leases compare alike on every database.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
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
    """One series by its content, with one template version."""

    __tablename__ = "dc_job"
    __table_args__ = (
        UniqueConstraint("content_hash", "template_digest"),
        Index("dc_job_due", "state", "next_run_at"),
        Index("dc_job_created", "created"),
        Index("dc_job_series", "series_key"),
    )

    job_id: Mapped[str] = mapped_column(String(16), primary_key=True)
    series_key: Mapped[str] = mapped_column(String(64))
    """A digest of the Series Instance UID."""
    collecting: Mapped[str | None] = mapped_column(String(64), unique=True)
    """The series' key while files are still awaited: a series has one such row."""
    content_hash: Mapped[str | None] = mapped_column(String(64))
    """Of the Series Instance UID and all SOP Instance UIDs, once it is complete."""
    template_digest: Mapped[str] = mapped_column(String(64), default="")
    template_name: Mapped[str] = mapped_column(String(128), default="")
    engine: Mapped[str] = mapped_column(String(128), default="")
    profile_digest: Mapped[str] = mapped_column(String(64), default="")

    state: Mapped[str] = mapped_column(String(16))
    # Any: JSON of codes and sentences, which hold no value of a header.
    reasons: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    warnings: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    findings: Mapped[list[dict[str, Any]]] = mapped_column(JSON, default=list)
    """Of the checks of the structure set."""
    overridden: Mapped[bool] = mapped_column(Boolean, default=False)
    """A person let it through although it was held."""
    paused: Mapped[bool] = mapped_column(Boolean, default=False)
    stopped: Mapped[str | None] = mapped_column(String(32))
    """Why it is not tried any more until a person says so."""

    attempt: Mapped[int] = mapped_column(Integer, default=0)
    """Failures in a row; a step that is complete begins anew at none."""
    crashes: Mapped[int] = mapped_column(Integer, default=0)
    """Workers that died over the same step."""
    polls: Mapped[int] = mapped_column(Integer, default=0)
    run: Mapped[int] = mapped_column(Integer, default=1)
    """One more each time it goes back to the queue: names the durable workflow."""
    dispatched: Mapped[int] = mapped_column(Integer, default=0)
    """The run that was handed to the durable queue last; below `run` it is due."""
    next_run_at: Mapped[float] = mapped_column(Float, default=0.0)
    priority: Mapped[int] = mapped_column(Integer, default=10)
    lease_owner: Mapped[str | None] = mapped_column(String(64))
    lease_until: Mapped[float] = mapped_column(Float, default=0.0)
    last_error_code: Mapped[str | None] = mapped_column(String(32))
    progress: Mapped[int] = mapped_column(Integer, default=0)

    source: Mapped[str] = mapped_column(String(64), default="")
    modality: Mapped[str] = mapped_column(String(16), default="")
    instances: Mapped[int] = mapped_column(Integer, default=0)
    expected: Mapped[int | None] = mapped_column(Integer)
    """How many instances the sender said there are, where it did."""
    released: Mapped[float | None] = mapped_column(Float)
    """When the association that brought its files was released."""
    arrived: Mapped[float] = mapped_column(Float, default=time.time)
    """When its last file came."""
    facts_sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    """Patient and study for the pages: JSON, sealed."""
    files_sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The paths of its images, fixed when it is complete: JSON, packed and sealed."""
    duplicate_of: Mapped[str | None] = mapped_column(String(16))
    result_key: Mapped[str | None] = mapped_column(String(64), index=True)
    """A digest of the structure set's SOP Instance UID, to know it when it is met."""

    package_sha256: Mapped[str | None] = mapped_column(String(64))
    task_sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The server's token of the task."""
    server_status: Mapped[str] = mapped_column(String(100), default="")
    result_sha256: Mapped[str | None] = mapped_column(String(64))
    verified: Mapped[bool] = mapped_column(Boolean, default=False)
    """Whether the server named the result's checksum."""

    created: Mapped[float] = mapped_column(Float, default=time.time)
    updated: Mapped[float] = mapped_column(Float, default=time.time)
    submitted: Mapped[float | None] = mapped_column(Float)
    ended: Mapped[float | None] = mapped_column(Float)
    wiped: Mapped[float | None] = mapped_column(Float)
    """When its staged files were removed."""


class Event(Base):
    """One change of a job's state, or another thing worth knowing of it."""

    __tablename__ = "dc_event"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    job_id: Mapped[str] = mapped_column(
        ForeignKey("dc_job.job_id", ondelete="CASCADE"), index=True
    )
    at: Mapped[float] = mapped_column(Float, default=time.time)
    kind: Mapped[str] = mapped_column(String(32))
    """The new state, or `retry`, `paused`, `delivered`, `lease-expired`, ..."""
    detail: Mapped[str] = mapped_column(String(256), default="")
    actor: Mapped[str | None] = mapped_column(String(64))
    """The worker or the person."""


class File(Base):
    """A file that was seen: an instance of a series, or a reject to pass over."""

    __tablename__ = "dc_file"

    path_key: Mapped[str] = mapped_column(String(64), primary_key=True)
    """A digest of the path; folders may be named after patients."""
    path_sealed: Mapped[bytes] = mapped_column(LargeBinary)
    source: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)
    mtime_ns: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str] = mapped_column(String(32), default="")
    """Why it is no instance for us; it is not opened again until it changes."""
    series_key: Mapped[str] = mapped_column(String(64), default="", index=True)
    sop_key: Mapped[str] = mapped_column(String(64), default="")
    seen: Mapped[float] = mapped_column(Float, default=time.time)


class Delivery(Base):
    """How a file of a job stands with one target."""

    __tablename__ = "dc_delivery"

    job_id: Mapped[str] = mapped_column(
        ForeignKey("dc_job.job_id", ondelete="CASCADE"), primary_key=True
    )
    target: Mapped[str] = mapped_column(String(64), primary_key=True)
    file: Mapped[str] = mapped_column(String(16), primary_key=True)
    """Of its name: a structure set and a segmentation are two files."""
    node: Mapped[str] = mapped_column(String(64), default="")
    required: Mapped[bool] = mapped_column(Boolean, default=True)
    delivered: Mapped[float | None] = mapped_column(Float)
    """When the target was seen to hold it."""
    code: Mapped[str] = mapped_column(String(32), default="")
    text: Mapped[str] = mapped_column(String(256), default="")


class DeliveryAttempt(Base):
    """What was noted of a delivery before its first byte, and after its last."""

    __tablename__ = "dc_attempt"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    job_id: Mapped[str] = mapped_column(
        ForeignKey("dc_job.job_id", ondelete="CASCADE"), index=True
    )
    at: Mapped[float] = mapped_column(Float, default=time.time)
    file: Mapped[str] = mapped_column(String(16))
    target: Mapped[str] = mapped_column(String(64))
    node: Mapped[str] = mapped_column(String(64))
    code: Mapped[str] = mapped_column(String(16))


class StoredTemplate(Base):
    """A template version; rows are only ever added, and one of a name is in force."""

    __tablename__ = "dc_template"
    __table_args__ = (UniqueConstraint("name", "version"),)

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(128), index=True)
    version: Mapped[int] = mapped_column(Integer)
    content: Mapped[dict[str, Any]] = mapped_column(JSON)  # Any: templates.to_json
    in_force: Mapped[bool] = mapped_column(Boolean, default=True)
    at: Mapped[float] = mapped_column(Float, default=time.time)
    who: Mapped[str] = mapped_column(String(128))


class StoredRules(Base):
    """All rules together, as they were from one moment on; the newest are in force."""

    __tablename__ = "dc_rules"

    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    content: Mapped[str] = mapped_column(Text)
    """JSON, as `rules_to_json` writes it."""
    at: Mapped[float] = mapped_column(Float, default=time.time)
    who: Mapped[str] = mapped_column(String(128))


class Kept(Base):
    """A value that the pages change and every process reads, by its name."""

    __tablename__ = "dc_kept"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[Any] = mapped_column(JSON)  # Any: JSON
    at: Mapped[float] = mapped_column(Float, default=time.time)


class Secret(Base):
    """A secret, sealed; it is written and used, never shown."""

    __tablename__ = "dc_secret"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    sealed: Mapped[bytes] = mapped_column(LargeBinary)
    at: Mapped[float] = mapped_column(Float, default=time.time)


class Breaker(Base):
    """Whether a peer is asked at all after it did not answer."""

    __tablename__ = "dc_breaker"

    peer: Mapped[str] = mapped_column(String(64), primary_key=True)
    failures: Mapped[int] = mapped_column(Integer, default=0)
    open_until: Mapped[float] = mapped_column(Float, default=0.0)


class Duty(Base):
    """What one worker at a time does for all, such as watching folders."""

    __tablename__ = "dc_duty"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    owner: Mapped[str] = mapped_column(String(64))
    until: Mapped[float] = mapped_column(Float)


class Rating(Base):
    """What a person thinks of a structure set, or of one structure in it."""

    __tablename__ = "dc_rating"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    job_id: Mapped[str] = mapped_column(
        ForeignKey("dc_job.job_id", ondelete="CASCADE"), index=True
    )
    who: Mapped[str] = mapped_column(String(128))
    at: Mapped[float] = mapped_column(Float, default=time.time)
    roi: Mapped[str] = mapped_column(String(64), default="")
    """Empty for the whole set."""
    content: Mapped[dict[str, Any]] = mapped_column(JSON)  # Any: JSON of the form


class Overlap(Base):
    """How a structure set agrees with a manual one."""

    __tablename__ = "dc_overlap"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    job_id: Mapped[str] = mapped_column(
        ForeignKey("dc_job.job_id", ondelete="CASCADE"), index=True
    )
    who: Mapped[str] = mapped_column(String(128))
    at: Mapped[float] = mapped_column(Float, default=time.time)
    content: Mapped[list[dict[str, Any]]] = mapped_column(JSON)  # Any: rows of metrics


class Worker(WorkerColumns, Base):
    """A worker process that is alive, as far as its heartbeat says."""

    __tablename__ = "dc_worker"


class Audit(Base):
    """Who did what, in a chain of digests: a line that is changed or gone shows."""

    __tablename__ = "dc_audit"
    __table_args__ = (Index("dc_audit_at", "at"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    """1, 2, 3, ... without gaps."""
    at: Mapped[float] = mapped_column(Float)
    who: Mapped[str] = mapped_column(String(128))
    action: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str] = mapped_column(String(16), default="")
    before: Mapped[str] = mapped_column(Text, default="")
    after: Mapped[str] = mapped_column(Text, default="")
    chain: Mapped[str] = mapped_column(String(64))
    """SHA-256 over the line before's and this line's own values."""
