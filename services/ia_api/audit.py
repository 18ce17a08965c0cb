"""Who asked for what, and what became of it: the audit log.

Nothing that identifies a patient, and no token, is ever put into it: callers give
short words, ids of jobs, and names of apps.
"""

from __future__ import annotations

from sqlalchemy import delete

from hub.durable.database import Database
from hub.durable.json_log import redacted
from services.ia_api.models import Audit

LOG_FIELDS = ("job", "app", "state", "code", "worker", "caller", "action", "seconds")
"""What lines of the log tell besides the message."""


def line(
    caller: str,
    action: str,
    *,
    app: str = "",
    outcome: str = "",
    job_id: str | None = None,
) -> Audit:
    """A line of the audit log, for a transaction that writes something else as well."""
    return Audit(
        caller=caller[:128],
        action=action[:32],
        app=app[:64],
        outcome=redacted(outcome),
        job_id=job_id,
    )


def note(database: Database, told: Audit) -> None:
    """Write a line of the audit log by itself."""
    with database.writing() as session:
        session.add(told)


def forget(database: Database, before: float) -> None:
    """Remove the lines that are older than the retention allows."""
    with database.writing() as session:
        session.execute(delete(Audit).where(Audit.at < before))
