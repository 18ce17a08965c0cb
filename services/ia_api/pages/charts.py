"""Charts as geometry: where bars and lines lie, in units of the SVG's own view box.

The template draws them; the same figures stand in a table beside, and every mark tells
its own in words.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.ia_api.pages.readings import ENDINGS, Hour
from services.ia_api.pages.wording import STATES, duration

WIDTH, HEIGHT = 480.0, 230.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 6.0, 10.0, 26.0


@dataclass(frozen=True)
class Bar:
    """A rectangle of one hour and one state."""

    x: float
    y: float
    width: float
    height: float
    state: str
    text: str


@dataclass(frozen=True)
class Dot:
    """A value of one hour."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Line:
    """Values hour by hour; `paths` are broken where an hour has none."""

    name: str
    paths: Sequence[str]
    dots: Sequence[Dot]


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """Either bars or lines, with axes."""

    rows: Sequence[Tick]
    columns: Sequence[Tick]
    bars: Sequence[Bar] = ()
    lines: Sequence[Line] = ()
    width: float = WIDTH
    height: float = HEIGHT
    left: float = _LEFT
    right: float = WIDTH - _RIGHT
    floor: float = HEIGHT - _BOTTOM


def ended_per_hour(hours: Sequence[Hour]) -> Chart:
    """Jobs that ended, stacked by what became of them."""
    top = _round_up(max((hour.total for hour in hours), default=0), whole=True)
    width = _slot(hours)
    bars = []
    for number, hour in enumerate(hours):
        below = 0
        for state in ENDINGS:
            count = hour.ended.get(state, 0)
            if not count:
                continue
            low, high = _y(below, top), _y(below + count, top)
            bars.append(
                Bar(
                    x=round(_LEFT + number * width + width * 0.1, 2),
                    y=round(high, 2),
                    width=round(width * 0.8, 2),
                    height=round(low - high, 2),
                    state=state,
                    text=f"{_hour(hour.at)}: {count} {STATES[state].text.lower()}",
                )
            )
            below += count
    return Chart(_rows(top, lambda value: f"{value:g}"), _columns(hours), bars=bars)


def durations(hours: Sequence[Hour]) -> Chart:
    """How long half, and 95 of 100, of the jobs that succeeded ran at most."""
    longest = max((hour.p95_s for hour in hours if hour.p95_s), default=0.0)
    top = _round_up(longest)
    lines = [
        _line("p50", hours, [hour.p50_s for hour in hours], top),
        _line("p95", hours, [hour.p95_s for hour in hours], top),
    ]
    return Chart(_rows(top, _short), _columns(hours), lines=lines)


def _line(
    name: str, hours: Sequence[Hour], values: Sequence[float | None], top: float
) -> Line:
    width = _slot(hours)
    dots: list[Dot] = []
    paths: list[str] = []
    path: list[str] = []
    for number, (hour, value) in enumerate(zip(hours, values, strict=True)):
        if value is None:
            if path:
                paths.append(" ".join(path))
                path = []
            continue
        x = round(_LEFT + (number + 0.5) * width, 2)
        y = round(_y(value, top), 2)
        path.append(f"{'L' if path else 'M'}{x} {y}")
        dots.append(Dot(x, y, f"{_hour(hour.at)}: {name} {duration(value)}"))
    if path:
        paths.append(" ".join(path))
    return Line(name, paths, dots)


def _slot(hours: Sequence[Hour]) -> float:
    return (WIDTH - _LEFT - _RIGHT) / max(1, len(hours))


def _y(value: float, top: float) -> float:
    return HEIGHT - _BOTTOM - value / top * (HEIGHT - _TOP - _BOTTOM)


def _round_up(value: float, *, whole: bool = False) -> float:
    """The next of 1, 2, 5, 10, ... that four even rows can share."""
    if value <= 0:
        return 4.0 if whole else 1.0
    power = 10.0 ** math.floor(math.log10(value))
    for factor in (1, 2, 4, 8, 10):
        if factor * power >= value:
            return max(4.0, factor * power) if whole else factor * power
    return 10 * power


def _rows(top: float, text: Callable[[float], str]) -> list[Tick]:
    return [
        Tick(round(_y(top * part / 4, top), 2), text(top * part / 4))
        for part in range(5)
    ]


def _columns(hours: Sequence[Hour]) -> list[Tick]:
    """About six marks, at hours, or at days where there are many."""
    width = _slot(hours)
    every = max(1, math.ceil(len(hours) / 6))
    many = len(hours) > 48
    return [
        Tick(
            round(_LEFT + (number + 0.5) * width, 2),
            _day(hour.at) if many else _hour(hour.at),
        )
        for number, hour in enumerate(hours)
        if number % every == every // 2
    ]


def _hour(at: float) -> str:
    return f"{datetime.fromtimestamp(at).astimezone():%H:%M}"


def _day(at: float) -> str:
    return f"{datetime.fromtimestamp(at).astimezone():%m-%d}"


def _short(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:g} s"
    if seconds < 3600:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h"
