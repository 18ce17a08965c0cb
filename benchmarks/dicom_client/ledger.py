"""Why each package came to the server: its notes against the client's history.

The contract has no question by which a client finds out whether a package arrived. So
one that the server stored again is put down to what went before it:

    asked       a person retried what the server had failed or forgotten
    overlooked  a person said that the server has nothing, and it had it by then
    late        a person said so, and a package that was on its way was stored after
    unasked     nobody said so: the client sent it twice of its own accord
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Literal

from tests.draw_server.server import Upload

Why = Literal["first", "asked", "overlooked", "late", "unasked"]
Event = dict[str, Any]
"""A line of a series' history, as the API tells it."""
_ENDED_THERE = {"server_failed", "lost"}
_AGAIN = "upload-again"


def whys(uploads: Iterable[Upload], history: Sequence[Event]) -> list[Why]:
    """For each package that was stored, oldest first, why it came.

    `uploads` are those of one series; `history` is in order.
    """
    stored = sorted((one for one in uploads if one.taken), key=lambda one: one.ended)
    found: list[Why] = ["first"] if stored else []
    return found + [_why(before, one, history) for before, one in pairwise(stored)]


def _why(before: Upload, one: Upload, history: Sequence[Event]) -> Why:
    """Why a package came a further time: what a person said since, or before that."""
    since = [event for event in history if before.ended < event["at"] < one.at]
    ended = [at for at, event in enumerate(since) if event["kind"] in _ENDED_THERE]
    if ended and any(event["kind"] == "retry" for event in since[ended[0] :]):
        return "asked"
    if any(event["kind"] == _AGAIN for event in since):
        return "overlooked"
    said_before = (event["kind"] == _AGAIN for event in history if event["at"] < one.at)
    return "late" if any(said_before) else "unasked"


def told(uploads: Iterable[Upload], history: Sequence[Event]) -> Iterator[str]:
    """Both sides' notes as lines, in the order of their time."""
    notes = [
        (event["at"], f"{event['kind']} {event['detail']} ({event['actor']})")
        for event in history
    ]
    for one in uploads:
        end = f"answered {one.status}, {'stored' if one.taken else 'not stored'}"
        notes += [(one.at, "  the server has the request"), (one.ended, f"  {end}")]
    for at, text in sorted(notes):
        yield f"{at:.3f} {text}"
