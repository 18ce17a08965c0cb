"""Logs as lines of JSON, without what looks like a secret.

Nothing that identifies a patient, and no token, is ever put into them: callers give
short words, ids of jobs, and names of apps.
"""

from __future__ import annotations

import json
import logging
import re
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

# What looks like a token or a query, should a message of another library hold one.
_SECRET = re.compile(
    r"(?i)(bearer\s+|token=|launchUrl=|accession\w*=|patient\w*=)[^\s\"'&]+"
)
# These say addresses and paths at level info, and those may hold a name.
_CHATTY = ("httpx", "httpcore", "dbos", "alembic", "PIL", "pydicom", "pynetdicom")

# It quotes values of files that it wonders about; its own level it sets when it is
# imported, so that what it says is replaced where it is written.
_QUOTING = "pydicom"


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, message, and the fields that are known."""

    def __init__(self, fields: Sequence[str]) -> None:
        super().__init__()
        self._fields = fields

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "message": _message(record),
        }
        for name in self._fields:
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


def _message(record: logging.LogRecord) -> str:
    if record.name.partition(".")[0] == _QUOTING:
        return f"{record.name} wonders at {record.filename}:{record.lineno}"
    return redacted(record.getMessage())


def redacted(text: str) -> str:
    """A message without what looks like a secret, and not longer than a screen."""
    return _SECRET.sub(r"\1[redacted]", text)[:2000]


def start_logging(fields: Sequence[str]) -> None:
    """Log of this process: lines of JSON on standard error, with these fields."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(fields))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)
    warnings.showwarning = _told_where


def _told_where(
    message: Warning | str,  # noqa: ARG001 (its names are the standard library's)
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    """A warning by its place alone: its text may quote what a file says of a person."""
    place = f"{Path(filename).name}:{lineno}"
    logging.getLogger("warnings").warning("%s at %s", category.__name__, place)
