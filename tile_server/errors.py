"""What can go wrong, base first; `problems` maps each class to an HTTP status.

A message names a file by its name only, never by its folder.
"""

from __future__ import annotations


class TileServerError(Exception):
    """The base of all errors that this package raises on purpose."""


class UnreadableSlide(TileServerError):
    """The file is not a slide, or its pixels cannot be read."""


class DamagedTile(TileServerError):
    """This part of the slide cannot be decoded; other parts may be fine."""


class OutsideTheGrid(TileServerError):
    """There is no such tile, level or associated image."""


class BadRequest(TileServerError):
    """The request's arguments are wrong or contradict each other."""


class NotAcceptable(TileServerError):
    """The answer exists in none of the forms that the request accepts."""


class RegionTooLarge(TileServerError):
    """More pixels were asked for at once than the limit allows."""


class OutsideTheBody(TileServerError):
    """The part that `Range` asks for is none of the answer's."""

    def __init__(self, length: int) -> None:
        """The whole answer has `length` bytes."""
        super().__init__(f"The answer has {length} bytes.")
        self.length = length


class BadToken(TileServerError):
    """The token was not made by this service's key, or was changed."""


class ExpiredToken(TileServerError):
    """The token is genuine and its time is over."""


class SlideMissing(TileServerError):
    """The slide's file is no longer where it was."""


class SlideReplaced(TileServerError):
    """The slide's file has changed since the token was made."""


class Abandoned(TileServerError):
    """Nobody waits for the answer any more."""


class Busy(TileServerError):
    """More work is waiting than can be done in time; stored tiles still come."""


class TookTooLong(TileServerError):
    """The work took longer than anybody should wait."""


class Stopped(TileServerError):
    """The service is stopping; the work was given up."""
