"""One pixel: its shown colour, and the numbers that the file has there.

Plane: level-0 pixels; the pixel that holds a point is found by rounding down.
"""

from __future__ import annotations

import json
import math
import re

from tornado import web
from tornado.routing import URLSpec

from tile_server.errors import OutsideTheGrid
from tile_server.handlers import ShowingHandler
from tile_server.pyramid import Pyramid
from tile_server.readers.planes import Plane
from tile_server.readers.rendering import plane_facts, planes_of


def pixel_routes(base: str) -> list[URLSpec]:
    """The routes under `base`, which starts and ends with a slash."""
    return [web.url(f"{re.escape(base)}s/([A-Za-z0-9_-]+)/pixel", PixelHandler)]


class PixelHandler(ShowingHandler):
    async def get(self, token: str) -> None:
        capability = self.service.capability(token)
        l0_x, l0_y = math.floor(self.number("x")), math.floor(self.number("y"))
        async with self.styled(capability) as slide:
            pyramid = slide.pyramid
            facts = plane_facts(pyramid.reader)
            depth = self.whole_number("z", range(facts.depths), facts.depths // 2)
            time = self.whole_number("t", range(facts.times), 0)
            where = f"pixel-{l0_x}-{l0_y}-{depth}-{time}"
            if self.unchanged(f"{slide.version}-{where}", changed_s=slide.changed_s):
                return
            body = await self.while_wanted(
                self.service.made_body(
                    slide,
                    where,
                    lambda: look(pyramid, (l0_x, l0_y), depth, time),
                )
            )
        self.give(body, "application/json")


def look(pyramid: Pyramid, point: tuple[int, int], depth: int, time: int) -> bytes:
    """JSON of the pixel at `point`; raises OutsideTheGrid and DamagedTile."""
    l0_x, l0_y = point
    full, reader = pyramid.reader.levels[0], pyramid.reader
    if not (0 <= l0_x < full.width and 0 <= l0_y < full.height):
        raise OutsideTheGrid(
            f"The slide has {full.width} x {full.height} pixels; "
            f"{l0_x}, {l0_y} lies outside."
        )
    facts, planes = plane_facts(reader), planes_of(reader)
    shown = [int(part) for part in reader.read(0, l0_x, l0_y, (1, 1))[0, 0]]
    values = []
    for number, channel in enumerate(facts.channels):
        where = Plane(number, depth, time)
        plane = planes.read_plane(0, l0_x, l0_y, (1, 1), plane=where)
        value = plane[0, 0].item()
        # JSON knows no infinity.
        known = value if math.isfinite(value) else None
        values.append({"channel": number, "name": channel.name, "value": known})
    mpp_x, mpp_y = reader.facts.mpp_x, reader.facts.mpp_y
    return json.dumps(
        {
            "x": l0_x,
            "y": l0_y,
            "x_um": None if mpp_x is None else (l0_x + 0.5) * mpp_x,
            "y_um": None if mpp_y is None else (l0_y + 0.5) * mpp_y,
            "z": depth,
            "t": time,
            "color": "#{:02x}{:02x}{:02x}".format(*shown),
            "values": values,
            "unit": facts.unit,
        }
    ).encode()
