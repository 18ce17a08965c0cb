"""Who asked for what, and what became of it: the audit log, and logs as lines of JSON.

Nothing that identifies a patient, and no token, is ever put into either: callers give
short words, ids of jobs, and names of apps.
"""

from __future__ import annotations

import json
import logging
import re
import time
from typing import Any

from sqlalchemy import delete

from services.ia_api.database import Database
from services.ia_api.models import Audit

log = logging.getLogger("theatrum.ia_api")

# What looks like a token or a query, should a message of another library hold one.
_SECRET = re.compile(r"(?i)(bearer\s+|token=|launchUrl=|accession\w*=)[^\s\"'&]+")
_FIELDS = ("job", "app", "state", "code", "worker", "caller", "action", "seconds")


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, message, and the fields that are known."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "message": redacted(record.getMessage()),
        }
        for name in _FIELDS:
            if (value := getattr(record, name, None)) is not None:
                told[name] = value
        if record.exc_info and record.exc_info[1] is not None:
            # Where, not what: a message of somebody's code can hold anything.
            told["error"] = type(record.exc_info[1]).__name__
            trace = record.exc_info[2]
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            if trace is not None:
                code = trace.tb_frame.f_code
                told["where"] = f"{code.co_name}:{trace.tb_lineno}"
        return json.dumps(told, ensure_ascii=False)


def redacted(text: str) -> str:
    """A message without what looks like a secret, and not longer than a screen."""
    return _SECRET.sub(r"\1[redacted]", text)[:2000]


def start_logging() -> None:
    """Log of this process: lines of JSON on standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # These say addresses at level info, and an address may hold a name.
    for chatty in ("httpx", "httpcore", "dbos", "alembic", "PIL"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


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
