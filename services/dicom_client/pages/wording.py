"""What states, codes and acts are called on the pages, and how figures are written.

Times are told in the time zone of the server, which stands in the hospital; the zone is
named beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from services.dicom_client.states import State


@dataclass(frozen=True)
class Word:
    """A state in words, with the icon that tells it without colour."""

    text: str
    icon: str
    tone: str
    """Class of colours: `calm`, `busy`, `wait`, `good`, `bad`, `over`."""


STATES: dict[State, Word] = {
    "discovered": Word("Arriving", "inbox", "calm"),
    "ignored": Word("Ignored", "minus", "over"),
    "stable": Word("Complete", "inbox", "calm"),
    "held": Word("Held", "hand", "wait"),
    "unmatched": Word("No rule matched", "question", "wait"),
    "ambiguous": Word("Several rules matched", "question", "wait"),
    "matched": Word("Template chosen", "queue", "calm"),
    "deidentified": Word("De-identified", "mask", "busy"),
    "packed": Word("Packed", "box", "busy"),
    "uploading": Word("Uploading", "up", "busy"),
    "submitted": Word("Submitted", "up", "busy"),
    "processing": Word("Segmenting", "play", "busy"),
    "ready": Word("Result ready", "down", "busy"),
    "downloaded": Word("Result here", "down", "busy"),
    "rejected": Word("Result rejected", "warn", "bad"),
    "reidentified": Word("Re-identified", "key", "busy"),
    "exported": Word("Delivered", "out", "busy"),
    "confirmed": Word("Confirmed", "tick", "busy"),
    "done": Word("Done", "tick", "good"),
    "failed": Word("Failed", "cross", "bad"),
    "server_failed": Word("Server failed", "cross", "bad"),
    "lost": Word("Lost by the server", "question", "bad"),
    "cancelled": Word("Cancelled", "stop", "over"),
}

EVENTS = {
    "retry": Word("Retried", "again", "calm"),
    "pause": Word("Paused", "pause", "wait"),
    "resume": Word("Goes on", "play", "calm"),
    "stopped": Word("Stopped for a person", "hand", "wait"),
    "error": Word("Step failed, is tried again", "warn", "wait"),
    "lease-expired": Word("Worker gone, taken over", "again", "wait"),
    "delivery-found": Word("Marked as delivered", "hand", "good"),
    "delivery-again": Word("To be delivered again", "out", "calm"),
    "unknown": Word("Sent, not answered", "question", "wait"),
    "unanswered": Word("Sent, not answered yet", "question", "wait"),
    "upload-sent": Word("All of it sent", "up", "busy"),
    "upload-found": Word("Found at the server", "hand", "good"),
    "upload-again": Word("To be sent again", "up", "calm"),
    "delivered": Word("Stored at", "out", "good"),
    "sent": Word("Stored at", "out", "good"),
    "written": Word("Stored at", "out", "good"),
    "unreachable": Word("Not reached", "warn", "wait"),
    "no_space": Word("No room there", "warn", "wait"),
    "tls": Word("TLS failed", "warn", "bad"),
    "no_context": Word("Takes no such objects", "warn", "bad"),
    "refused": Word("Refused", "cross", "bad"),
    "unauthorized": Word("Not let in", "key", "bad"),
    "denied": Word("No permission", "key", "bad"),
    "conflict": Word("Another file has the name", "warn", "bad"),
    "already_there": Word("Was there already", "out", "good"),
}

LOCALLY = {
    "packed": Word("Images prepared", "box", "busy"),
    "uploading": Word("Handed to the engine", "key", "busy"),
    "submitted": Word("Taken by the engine", "queue", "busy"),
}
"""Steps that are called otherwise where nothing leaves this machine."""

CODES = {
    "upload-unknown": "Nobody knows whether the upload arrived: look at the server.",
    "delivery-unknown": "A node did not answer to what it was sent: look there, then "
    "say whether it has it.",
    "token": "The server refuses the access token: an administrator pastes a new one.",
    "unreachable": "The peer was not reached; it is tried again.",
    "refused": "The server refuses what was sent.",
    "server-failed": "The server says that the segmentation failed.",
    "lost": "The server does not know the task any more.",
    "checksum": "What was downloaded is not what the server said.",
    "not-ready": "The result is not there yet.",
    "deadline": "The server still has it after job_deadline_s.",
    "crash": "The engine's process ended by itself.",
    "memory": "The engine needed more memory than engine_bytes.",
    "time-limit": "The engine took longer than engine_timeout_s.",
    "node": "The engine failed on this series.",
    "crash-loop": "Workers died again and again over this series.",
    "images-changed": "The images are not those that were complete: look at them.",
    "disk": "There is no room: free the disk.",
    "canary": "An identifier was found in the package; nothing was sent.",
    "burned_in": "Text may be burnt into the pixels.",
    "peer": "The PACS did not do what was asked.",
    "template": "The template cannot be used: look at it.",
    "not_dicom": "no DICOM file",
    "damaged": "damaged, or no DICOM file",
    "dicomdir": "a directory (DICOMDIR)",
    "no_uid": "without the UIDs of study, series and instance",
    "different": "another object of the same UID is here",
}
"""What is worth saying of codes beyond the code itself."""

ACTS = {
    "retry": ("Retry", "The series goes on from where it can."),
    "cancel": (
        "Cancel",
        "Work on this series ends. What the server has of it is not asked for any "
        "more. It can be retried later.",
    ),
    "override": (
        "Let through",
        "The checks held this series. You decide that it is segmented all the same, "
        "with the template that the rules choose.",
    ),
    "ignore": ("Ignore", "The series will not be segmented."),
    "consider": ("Consider again", "Checks and rules are tried on it once more."),
    "pause": ("Hold", "The series rests where it is until somebody lets it go on."),
    "resume": ("Go on", "The series goes on from where it rests."),
    "give-up": ("Give up", "The rejected result is not asked for again."),
}
"""Of each act: the button's text, and what is asked before it is done."""


def state(name: str) -> Word:
    """A state in words; what is new to the pages is told by its own name."""
    return STATES.get(name, Word(name, "queue", "calm"))  # type: ignore[call-overload, no-any-return]


def event(kind: str, detail: str = "") -> Word:
    """A line of a series' history in words; `detail` tells the steps of a local engine
    from those of a server."""
    if detail == "a local engine" and kind in LOCALLY:
        return LOCALLY[kind]
    return EVENTS[kind] if kind in EVENTS else state(kind)


def clock(at: float | None) -> str:
    """A moment as date and time of the server's zone."""
    if at is None:
        return "–"
    return f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M:%S}"


def iso(at: float) -> str:
    """A moment for machines."""
    return datetime.fromtimestamp(at).astimezone().isoformat(timespec="seconds")


def day(text: str) -> str:
    """A DICOM date as people write it; another text as it is."""
    if len(text) == 8 and text.isdigit():
        return f"{text[:4]}-{text[4:6]}-{text[6:]}"
    return text


def person(name: str) -> str:
    """A DICOM name as people write it: `Muster^Eva` is `Muster, Eva`."""
    alphabetic = name.partition("=")[0]
    family, _, others = alphabetic.partition("^")
    given = " ".join(part for part in others.split("^") if part)
    return f"{family}, {given}" if given else family


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


def size(count: int) -> str:
    """Bytes in the largest unit that tells them."""
    if count < 1 << 20:
        return f"{-(-count // 1024)} KiB"
    if count < 1 << 30:
        return f"{count / (1 << 20):.1f} MiB".replace(".0 ", " ")
    return f"{count / (1 << 30):.1f} GiB".replace(".0 ", " ")


def hex_colour(colour: Sequence[int] | None) -> str:
    """Red, green, blue as #rrggbb; empty for none."""
    return "" if colour is None else "#" + "".join(f"{part:02x}" for part in colour)
