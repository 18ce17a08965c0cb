"""The HTTP routes that tell of a plane's numbers: statistics and histogram."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from tornado import web
from tornado.routing import URLSpec

from tile_server.answers import Handler
from tile_server.readers.planes import Plane, PlaneReader
from tile_server.readers.rendering import plane_facts, planes_of
from tile_server.readers.statistics import histogram, statistics

_BINS = range(1, 4097)


def plane_routes(base: str) -> list[URLSpec]:
    """The routes under `base`, which starts and ends with a slash."""
    token = f"{re.escape(base)}s/([A-Za-z0-9_-]+)"
    return [
        web.url(f"{token}/statistics", StatisticsHandler),
        web.url(f"{token}/histogram", HistogramHandler),
    ]


class StatisticsHandler(Handler):
    async def get(self, token: str) -> None:
        await self.answer(token, "statistics", statistics)

    async def answer(
        self, token: str, what: str, look: Callable[[PlaneReader, Plane], Any]
    ) -> None:
        """Answer with what `look` finds of the query's plane; `what` names it."""
        capability = self.service.capability(token)
        async with self.service.slides.hold(capability) as slide:
            reader = slide.pyramid.reader
            facts = plane_facts(reader)
            plane = Plane(
                self.whole_number("channel", range(len(facts.channels)), 0),
                self.whole_number("z", range(facts.depths), facts.depths // 2),
                self.whole_number("t", range(facts.times), 0),
            )
            named = f"{what}-{plane.channel}-{plane.z}-{plane.t}"
            if self.unchanged(f"{slide.version}-{named}", changed_s=slide.changed_s):
                return

            def make() -> bytes:
                found = look(planes_of(reader), plane).plain()
                return json.dumps(asdict(plane) | found).encode()

            body = await self.while_wanted(self.service.made_body(slide, named, make))
        self.give(body, "application/json")


class HistogramHandler(StatisticsHandler):
    async def get(self, token: str) -> None:
        bins = self.whole_number("bins", _BINS, 256)
        await self.answer(
            token,
            f"histogram-{bins}",
            lambda planes, plane: histogram(planes, plane, bins),
        )
