"""How many series were segmented, how long it took, and what people thought of it.

GET /statistics     `days`: how many, up to today

Charts are geometry in units of the SVG's own view box; the same figures stand in a
table beside, and every mark tells its own in words.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Response
from sqlalchemy import select

from services.dicom_client import read_models
from services.dicom_client.models import Job, Rating
from services.dicom_client.opening import Service
from services.dicom_client.pages.rendering import Here
from services.dicom_client.pages.rights import Seer
from services.dicom_client.pages.wording import STATES

WIDTH, HEIGHT, LEFT, FLOOR, TOP = 480.0, 200.0, 34.0, 176.0, 8.0
ENDINGS = ("done", "failed", "server_failed", "lost", "cancelled", "ignored")
_DAY_S = 86_400


@dataclass(frozen=True)
class Bar:
    """A rectangle of one day and one state."""

    x: float
    y: float
    width: float
    height: float
    state: str
    text: str


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True)
class Chart:
    """Series that ended, day by day, stacked by what became of them."""

    bars: Sequence[Bar]
    rows: Sequence[Tick]
    columns: Sequence[Tick]


@dataclass(frozen=True)
class Period:
    """A stretch of days up to now, in words, with its figures."""

    text: str
    done: int
    failed: int
    median_s: float | None


@dataclass(frozen=True)
class Rated:
    """What was said of one structure's name."""

    roi: str
    counts: dict[str, int]
    score: float | None
    minutes: float | None


def add_routes(router: APIRouter) -> None:
    router.add_api_route("/statistics", page, methods=["GET"])


def page(
    here: Here, member: Seer, days: Annotated[int, Query(ge=1, le=365)] = 30
) -> Response:
    """The figures of the last days."""
    told = read_models.figures(here.service, days)
    labels = _days(days, time.time())
    by_day = [(label, told["by_day"].get(label, {})) for label in labels]
    return here.page(
        member,
        "statistics.html",
        tab="statistics",
        days=days,
        periods=_periods(here.service, time.time()),
        states={name: count for name, count in told["states"].items() if count},
        most=max([*told["states"].values(), 1]),
        by_day=by_day,
        chart=chart(by_day),
        by_template=sorted(told["by_template"].items(), key=lambda one: -one[1]),
        most_of_template=max([*told["by_template"].values(), 1]),
        ratings=_rated(here.service),
        endings=ENDINGS,
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
    )


def _days(count: int, now: float) -> list[str]:
    """The days up to today, as `figures` names them (UTC)."""
    return [
        time.strftime("%Y-%m-%d", time.gmtime(now - back * _DAY_S))
        for back in range(count - 1, -1, -1)
    ]


def _periods(service: Service, now: float) -> list[Period]:
    """Today, this week and the week before it."""
    today = now - now % _DAY_S
    monday = today - time.gmtime(now).tm_wday * _DAY_S
    spans = (
        ("Today", today, now),
        ("This week", monday, now),
        ("Last week", monday - 7 * _DAY_S, monday),
    )
    with service.database.reading() as session:
        rows = session.execute(
            select(Job.state, Job.created, Job.ended).where(
                Job.ended >= monday - 7 * _DAY_S
            )
        ).all()
    found = []
    for text, begin, end in spans:
        within = [row for row in rows if begin <= row.ended <= end]
        took = [row.ended - row.created for row in within if row.state == "done"]
        failed = sum(row.state in {"failed", "server_failed", "lost"} for row in within)
        median = statistics.median(took) if took else None
        found.append(Period(text, len(took), failed, median))
    return found


def chart(by_day: Sequence[tuple[str, dict[str, int]]]) -> Chart:
    """The bars of the days; each day stands where it is in the list."""
    most = max((sum(counts.values()) for _, counts in by_day), default=0)
    step = next(
        one
        for one in (1, 2, 5, 10, 25, 50, 100, 250, 1000, 10_000, 10**9)
        if one * 4 >= most
    )
    top = step * 4
    slot = (WIDTH - LEFT) / max(1, len(by_day))
    bars = []
    for number, (day, counts) in enumerate(by_day):
        below = 0
        for state in ENDINGS:
            count = counts.get(state, 0)
            if not count:
                continue
            low, high = _y(below, top), _y(below + count, top)
            word = STATES[state].text.lower()  # type: ignore[index]
            bars.append(
                Bar(
                    round(LEFT + (number + 0.1) * slot, 2),
                    round(high, 2),
                    round(slot * 0.8, 2),
                    round(low - high, 2),
                    state,
                    f"{day}: {count} {word}",
                )
            )
            below += count
    every = max(1, len(by_day) // 5)
    columns = [
        Tick(round(LEFT + (number + 0.5) * slot, 2), day[5:])
        for number, (day, _) in enumerate(by_day)
        if number % every == every // 2
    ]
    rows = [Tick(round(_y(step * at, top), 2), str(step * at)) for at in range(5)]
    return Chart(bars, rows, columns)


def _y(value: float, top: float) -> float:
    return FLOOR - value / top * (FLOOR - TOP)


def _rated(service: Service) -> list[Rated]:
    """The newest rating of each person counts, by the structure's name."""
    with service.database.reading() as session:
        rows = session.scalars(select(Rating).order_by(Rating.id)).all()
    newest = {(row.job_id, row.who, row.roi): row for row in rows}
    by_roi: dict[str, list[Rating]] = {}
    for row in newest.values():
        by_roi.setdefault(row.roi, []).append(row)
    found = []
    for roi, said in sorted(by_roi.items()):
        counts: dict[str, int] = {}
        for one in said:
            kind = one.content.get("modification")
            if kind:
                counts[kind] = counts.get(kind, 0) + 1
        found.append(Rated(roi, counts, _mean(said, "score"), _mean(said, "minutes")))
    return found


def _mean(said: Sequence[Rating], field: str) -> float | None:
    values = [one.content[field] for one in said if one.content.get(field) is not None]
    return statistics.fmean(values) if values else None
