"""How planes are shown: a small value, written as JSON in an address.

A style names channels with their colours and windows, the depth and time, and whether
depths are projected. Every part may be left out:

    {"channels": [{"index": 0, "color": "#0000ff", "window": [100, 4000], "gamma": 1}],
     "z": 3, "t": 0, "projection": "max"}

Two texts that mean the same give the same value and the same `key`, which is part of
the keys and ETags of all that is made with it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tile_server.errors import BadRequest
from tile_server.pixels import Colour
from tile_server.readers.planes import PlaneFacts, Window

# An address of this length still passes through every proxy.
LONGEST_TEXT = 4096
MOST_CHANNELS = 32
MOST_PROJECTED = 1024
_GAMMAS = (0.01, 100.0)
_LARGEST = 1e38


@dataclass(frozen=True)
class ChannelStyle:
    """One channel of a style.

    Attributes
    ----------
    index
        Of the channel.
    colour
        At and above the window's maximum; None: the channel's own.
    window
        Two numbers, "auto" for percentiles, or None for the channel's own.
    gamma
        Exponent of the way from minimum to maximum; above 1 darkens the middle.
    """

    index: int
    colour: Colour | None = None
    window: Window | Literal["auto"] | None = None
    gamma: float = 1.0


@dataclass(frozen=True)
class Style:
    """What to show, and how.

    Attributes
    ----------
    channels
        Added up in this order; None: those of the image, up to `MOST_CHANNELS`.
    z, t
        Depth and time; z None: the middle one.
    projection
        True shows the maximum over all depths in place of one depth.
    """

    channels: tuple[ChannelStyle, ...] | None = None
    z: int | None = None
    t: int = 0
    projection: bool = False

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits that stand for this style."""
        text = json.dumps(_plain(self), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


PLAIN = Style()


def parse(text: str) -> Style:
    """The style that `text` writes; raises BadRequest with what is wrong."""
    if len(text) > LONGEST_TEXT:
        raise BadRequest(f"style must be at most {LONGEST_TEXT} characters.")
    try:
        # A deep nest overflows the parser's stack.
        style = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest("style must be JSON.") from error
    fields = _fields(style, "style", {"channels", "z", "t", "projection"})
    projection = fields.get("projection")
    if projection not in (None, "max"):
        raise BadRequest('projection must be "max".')
    channels = fields.get("channels")
    if channels is not None:
        if not isinstance(channels, list) or not 1 <= len(channels) <= MOST_CHANNELS:
            raise BadRequest(f"channels must be a list of 1 to {MOST_CHANNELS}.")
        channels = tuple(_channel(one) for one in channels)
    z = fields.get("z")
    return Style(
        channels=channels,
        # A projection is over all depths, so two styles that differ in z are one.
        z=None if z is None or projection else _index(z, "z"),
        t=_index(fields.get("t", 0), "t"),
        projection=projection is not None,
    )


def check(style: Style, planes: PlaneFacts) -> None:
    """Raise BadRequest where an image has not what a style names."""
    for channel in style.channels or ():
        if channel.index >= len(planes.channels):
            raise BadRequest(
                f"There is no channel {channel.index}; "
                f"this image has 0 to {len(planes.channels) - 1}."
            )
    if style.z is not None and style.z >= planes.depths:
        raise BadRequest(
            f"There is no z {style.z}; this image has 0 to {planes.depths - 1}."
        )
    if style.t >= planes.times:
        raise BadRequest(
            f"There is no t {style.t}; this image has 0 to {planes.times - 1}."
        )
    if style.projection and planes.depths > MOST_PROJECTED:
        raise BadRequest(f"More than {MOST_PROJECTED} depths cannot be projected.")


def hexadecimal(colour: Colour) -> str:
    """A colour as `#rrggbb`."""
    return "#{:02x}{:02x}{:02x}".format(*colour)


def _fields(value: Any, name: str, allowed: set[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadRequest(f"{name} must be a JSON object.")
    unknown = sorted(set(value) - allowed)
    if unknown:
        raise BadRequest(
            f"{name} has no {unknown[0][:40]!r}; it has {', '.join(sorted(allowed))}."
        )
    return value


def _channel(value: Any) -> ChannelStyle:
    fields = _fields(value, "a channel", {"index", "color", "window", "gamma"})
    gamma = _number(fields.get("gamma", 1.0), "gamma")
    if not _GAMMAS[0] <= gamma <= _GAMMAS[1]:
        raise BadRequest(f"gamma must be from {_GAMMAS[0]} to {_GAMMAS[1]}.")
    return ChannelStyle(
        _index(fields.get("index"), "index"),
        _colour(fields.get("color")),
        _window(fields.get("window")),
        gamma,
    )


def _index(value: Any, name: str) -> int:
    # JSON's true is an int to Python.
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise BadRequest(f"{name} must be a whole number, 0 or more.")
    return value


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRequest(f"{name} must be a number.")
    # Compared before it becomes a float, which a huge integer cannot.
    if not -_LARGEST <= value <= _LARGEST or not math.isfinite(value):
        raise BadRequest(f"{name} is out of range.")
    return float(value)


def _window(value: Any) -> Window | Literal["auto"] | None:
    if value is None:
        return None
    if value == "auto":
        return "auto"
    if not isinstance(value, list) or len(value) != 2:
        raise BadRequest('window must be [minimum, maximum] or "auto".')
    low, high = (_number(one, "window") for one in value)
    if low == high:
        raise BadRequest("window must have two different numbers.")
    return low, high


def _colour(value: Any) -> Colour | None:
    if value is None:
        return None
    digits = value.removeprefix("#") if isinstance(value, str) else ""
    try:
        red, green, blue = bytes.fromhex(digits)
    except ValueError:
        raise BadRequest("color must be six hexadecimal digits.") from None
    return red, green, blue


def _plain(style: Style) -> dict[str, Any]:
    channels = None
    if style.channels is not None:
        channels = [
            [one.index, one.colour, one.window, one.gamma] for one in style.channels
        ]
    return {
        "channels": channels,
        "z": style.z,
        "t": style.t,
        "projection": style.projection,
    }
