"""The states of a job, and which may follow which.

A job that has ended stays what it is; a person who wants it again starts a new one.
"""

from __future__ import annotations

from typing import Literal, get_args

State = Literal[
    "received",
    "queued",
    "running",
    "retry_wait",
    "waiting_auth",
    "succeeded",
    "cancelled",
    "superseded",
    "deleted_by_user",
    "dead",
]
STATES: tuple[State, ...] = get_args(State)

ENDED: frozenset[State] = frozenset(
    {"succeeded", "cancelled", "superseded", "deleted_by_user", "dead"}
)
ACTIVE: frozenset[State] = frozenset(STATES) - ENDED

_BY_A_PERSON: frozenset[State] = frozenset(
    {"cancelled", "superseded", "deleted_by_user"}
)

FOLLOWS: dict[State, frozenset[State]] = {
    "received": _BY_A_PERSON | {"queued", "dead"},
    "queued": _BY_A_PERSON | {"running", "dead"},
    # A lease that ran out goes back to the queue.
    "running": _BY_A_PERSON
    | {"succeeded", "retry_wait", "waiting_auth", "queued", "dead"},
    "retry_wait": _BY_A_PERSON | {"queued", "dead"},
    "waiting_auth": _BY_A_PERSON | {"queued", "dead"},
    **{ended: frozenset[State]() for ended in ENDED},
}

CHECKPOINTS = ("result_created", "info", "files", "analysed", "result_stored")
"""The steps of a job in their order; `job.checkpoint` counts the complete ones."""
