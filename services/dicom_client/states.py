"""The states of a job, and which may follow which.

A job is one series, by its content, with one template version. The table is that of
the documentation (docs/dicom_client.md); `BESIDES` holds what it leaves unsaid. Two
things lie across the states: a job that is *paused* rests until a person lets it go
on, and one that is *stopped* was tried often enough and waits for a person as well;
both keep their state, so that nothing that was done is done again.
"""

from __future__ import annotations

from typing import Literal, get_args

State = Literal[
    "discovered",
    "ignored",
    "stable",
    "held",
    "unmatched",
    "ambiguous",
    "matched",
    "deidentified",
    "packed",
    "uploading",
    "submitted",
    "processing",
    "ready",
    "downloaded",
    "rejected",
    "reidentified",
    "exported",
    "confirmed",
    "done",
    "failed",
    "server_failed",
    "lost",
    "cancelled",
]
STATES: tuple[State, ...] = get_args(State)

SPECIFIED: dict[State, frozenset[State]] = {
    "discovered": frozenset({"stable", "ignored"}),
    "ignored": frozenset({"discovered"}),
    "stable": frozenset({"matched", "unmatched", "ambiguous", "held"}),
    "held": frozenset({"matched", "ignored"}),
    "unmatched": frozenset({"matched", "ignored"}),
    "ambiguous": frozenset({"matched", "ignored"}),
    "matched": frozenset({"deidentified", "failed"}),
    "deidentified": frozenset({"packed"}),
    "packed": frozenset({"uploading"}),
    "uploading": frozenset({"submitted", "packed"}),
    "submitted": frozenset({"processing", "server_failed", "lost"}),
    "processing": frozenset({"ready"}),
    "ready": frozenset({"downloaded"}),
    "downloaded": frozenset({"reidentified", "rejected"}),
    "rejected": frozenset({"ready", "failed"}),
    "reidentified": frozenset({"exported"}),
    "exported": frozenset({"confirmed"}),
    "confirmed": frozenset({"done"}),
    "done": frozenset(),
    "failed": frozenset({"packed", "matched"}),
    "server_failed": frozenset({"packed", "matched"}),
    "lost": frozenset({"packed", "matched"}),
    "cancelled": frozenset({"packed", "matched"}),
}
"""The table of states (section 9.2 of the description)."""

# A person may call off whatever has not been delivered yet.
_CANCELLABLE: tuple[State, ...] = (
    *("matched", "deidentified", "packed", "uploading", "submitted", "processing"),
    *("ready", "downloaded", "rejected", "reidentified"),
)
BESIDES: dict[State, frozenset[State]] = {
    **{state: frozenset({"cancelled"}) for state in _CANCELLABLE},
    # A server fails, or forgets, a task that it has begun as well as one that waits.
    "processing": frozenset({"cancelled", "server_failed", "lost"}),
    "ready": frozenset({"cancelled", "lost"}),
}
"""What may follow besides."""

FOLLOWS: dict[State, frozenset[State]] = {
    state: SPECIFIED[state] | BESIDES.get(state, frozenset()) for state in STATES
}

FOR_A_PERSON: frozenset[State] = frozenset({"held", "unmatched", "ambiguous"})
"""A person chooses the template, or lets it be."""
ENDED: frozenset[State] = frozenset(
    {"ignored", "done", "failed", "server_failed", "lost", "cancelled"}
)
RETRIABLE: frozenset[State] = frozenset(
    {"failed", "server_failed", "lost", "cancelled"}
)
WORK: tuple[State, ...] = (
    *("matched", "deidentified", "packed", "uploading", "submitted", "processing"),
    *("ready", "downloaded", "reidentified", "exported", "confirmed"),
)
"""A worker takes a job that is in one of these, step by step."""
AT_SERVER: frozenset[State] = frozenset(
    {"packed", "uploading", "submitted", "processing", "ready", "exported"}
)
"""The next step asks the segmentation server."""

UPLOAD_SENT = "upload-sent"
"""A line of the history: the last bytes of a package leave."""
UPLOAD_UNKNOWN = "upload-unknown"
"""A job is stopped so where nobody knows whether its package arrived."""
DELIVERY_UNKNOWN = "delivery-unknown"
"""The same of a delivery: sent, not answered, and the node cannot be asked."""
NO_TOKEN = "token"  # noqa: S105 (the code of an error)
"""A job is stopped so where the server refuses the token; a new one lets it go on."""
