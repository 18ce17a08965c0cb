"""What states, steps and codes are called on the pages, and how figures are written.

Times are told in the time zone of the server, which stands in the laboratory; the zone
is named beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from services.ia_api.states import State


@dataclass(frozen=True)
class Word:
    """A state in words, with the icon that tells it without colour."""

    text: str
    icon: str
    tone: str
    """Class of colours: `calm`, `busy`, `wait`, `good`, `bad`, `over`."""


STATES: dict[State, Word] = {
    "received": Word("Received", "inbox", "calm"),
    "queued": Word("Queued", "queue", "calm"),
    "running": Word("Running", "play", "busy"),
    "retry_wait": Word("Waits to retry", "again", "wait"),
    "waiting_auth": Word("Waits for a token", "key", "wait"),
    "succeeded": Word("Succeeded", "tick", "good"),
    "cancelled": Word("Cancelled", "stop", "over"),
    "superseded": Word("Superseded", "swap", "over"),
    "deleted_by_user": Word("Deleted by user", "bin", "over"),
    "dead": Word("Failed", "cross", "bad"),
}

STEPS = {
    "result_created": "Result created",
    "info": "Slide info",
    "files": "Files",
    "analysed": "Analysed",
    "result_stored": "Result stored",
}

EVENTS = {
    "checkpoint": "Step complete",
    "attached": "Another request joined",
    "dispatched-anew": "Handed out anew",
    "closed": "Closed, traces removed",
}

CODES = {
    "unreachable": "The pathology server was not reached: try the connection test.",
    "truncated": "A download was cut off; it is tried again.",
    "token": "The callback token ran out: ask again in the viewer, or set credentials.",
    "gone": "The slide or its result is no longer on the pathology server.",
    "deleted": "A person deleted the result.",
    "conflict": "Somebody kept changing the result at the same time.",
    "refused": "The pathology server refused the request: look at its log.",
    "disk": "There is no room for the slide: free the disk, or raise the quota.",
    "too-large": "The slide is larger than slide_bytes allows.",
    "file-name": "The download named a file that is not taken.",
    "download": "The download is none that can be read.",
    "unreadable": "The slide's files cannot be read.",
    "analysis": "The analysis failed on this slide.",
    "node": "The analysis failed on this slide.",
    "input": "The analysis cannot work with what was marked.",
    "memory": "The analysis needed more memory than its node declares.",
    "time-limit": "The analysis took longer than its node declares.",
    "crash": "The process of the analysis ended by itself.",
    "crash-loop": "Workers died again and again over this job.",
    "deadline": "The job was not done before job_deadline_s.",
    "answer-deadline": "The pathology server did not answer while the user waited.",
    "abandoned": "The web server stopped while it took the request.",
    "other-size": "The files show a picture of another size than the server tells.",
    "too-late": "A newer request came before this one was shown on the slide.",
    "no-app": "A worker does not have this app: give all workers the same settings.",
    "rules": "The rules for imported slides do not take this one.",
}

INPUTS = {
    "wholeSlide": "Whole slide",
    "taggedPolygon": "Tagged polygon",
    "multiArea": "Several areas",
}

ACTIONS = {"create": "a user", "newImageFiles": "image import"}


def state(name: str) -> Word:
    """A state in words; what is new to the pages is told by its own name."""
    return STATES.get(name, Word(name, "queue", "calm"))  # type: ignore[call-overload, no-any-return]


def event(kind: str) -> Word:
    """A line of a job's history in words."""
    if kind in EVENTS:
        return Word(EVENTS[kind], "tick" if kind == "checkpoint" else "queue", "calm")
    return state(kind)


def sentence(text: str) -> str:
    """A message as a sentence of its own."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""


def clock(at: float | None) -> str:
    """A moment as date and time of the server's zone."""
    if at is None:
        return "–"
    return f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M:%S}"


def iso(at: float) -> str:
    """A moment for machines."""
    return datetime.fromtimestamp(at).astimezone().isoformat(timespec="seconds")


def zone() -> str:
    """The name of the server's time zone."""
    return datetime.now().astimezone().tzname() or "local time"


def duration(seconds: float | None) -> str:
    """A length of time in the two largest units that tell it."""
    if seconds is None:
        return "–"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600:02d} h"


def octets(count: float) -> str:
    """A number of bytes in the unit that suits it (powers of 1024)."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
