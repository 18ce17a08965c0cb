"""Errors as problem documents (RFC 9457): one table from class to status and title.

A title says what to do; `type` tells the kinds of one status apart.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus

from tile_server import errors

MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True)
class Kind:
    """What a client is told about one class of errors."""

    status: int
    name: str
    title: str


TABLE: dict[type[errors.TileServerError], Kind] = {
    errors.BadToken: Kind(403, "bad-token", "Open the image again from its list."),
    errors.ExpiredToken: Kind(
        403, "expired-token", "Open the image again: this address has expired."
    ),
    errors.SlideMissing: Kind(
        410, "slide-missing", "Ask who keeps the images: this slide's file is gone."
    ),
    errors.SlideReplaced: Kind(
        410, "slide-replaced", "Open the image again: its file has been replaced."
    ),
    errors.OutsideTheGrid: Kind(
        404, "outside-the-grid", "Ask for something that this slide has."
    ),
    errors.BadRequest: Kind(400, "bad-request", "Change the request."),
    errors.NotAcceptable: Kind(
        406, "not-acceptable", "Accept one of the forms that this address has."
    ),
    errors.OutsideTheBody: Kind(
        416, "outside-the-body", "Ask for a part that there is, or for the whole."
    ),
    errors.RegionTooLarge: Kind(413, "region-too-large", "Ask for fewer pixels."),
    # Not a server error: the request is fine and so is the service, and asking again
    # will not help; the content of the file cannot be processed.
    errors.DamagedTile: Kind(
        422, "damaged-tile", "Look elsewhere: this part of the slide is damaged."
    ),
    errors.UnreadableSlide: Kind(
        422, "unreadable-slide", "Replace the slide's file: it cannot be read."
    ),
    errors.Busy: Kind(503, "busy", "Try again in a moment: too many ask at once."),
    errors.TookTooLong: Kind(
        503, "took-too-long", "Try again in a moment, or ask for less at once."
    ),
    # Nobody reads this one.
    errors.Abandoned: Kind(503, "abandoned", "Ask again."),
    errors.Stopped: Kind(503, "stopping", "Try again in a moment."),
}


def kind_of(error: errors.TileServerError) -> Kind:
    """The row of an error's class, or of the nearest class above it."""
    for base in type(error).__mro__:
        if base in TABLE:
            return TABLE[base]
    return Kind(500, "internal", "Tell who runs this service.")


def document(kind: Kind, detail: str) -> bytes:
    """The body of a problem answer."""
    return json.dumps(
        {
            "type": f"urn:theatrum:tiles:{kind.name}",
            "title": kind.title,
            "status": kind.status,
            "detail": detail,
        }
    ).encode()


def plain_kind(status: int) -> Kind:
    """The row of a status that has no error class of ours."""
    titles = {
        404: "Check the address: there is nothing here.",
        405: "Use GET, HEAD or OPTIONS.",
        400: "Send a request of HTTP/1.1.",
        408: "Send the request faster.",
        413: "Send no body.",
        431: "Send a shorter address, and fewer headers.",
        503: "Try again in a moment.",
        500: "Tell who runs this service: its log says more.",
    }
    name = reason(status)
    return Kind(status, name.lower().replace(" ", "-"), titles.get(status, name))


def reason(status: int) -> str:
    """The phrase that stands beside a status."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "error"
