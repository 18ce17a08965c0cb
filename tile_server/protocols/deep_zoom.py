"""Deep Zoom: one small XML file, and tiles of levels that end at a single pixel.

A Deep Zoom level is a rung counted from the other end: level `deepest` is rung 0, and
below the ladder's last rung follow levels smaller than a tile. The tile size is the
file's own and there is no overlap, so stored tiles leave undecoded. Deep Zoom draws a
tile at its own size, so tiles at the right and bottom edge are cut, not filled.
"""

from __future__ import annotations

import re

from tornado import web
from tornado.routing import URLSpec

from tile_server import codecs
from tile_server.derived import VARIANT
from tile_server.errors import OutsideTheGrid
from tile_server.handlers import GridHandler, Handler
from tile_server.ladder import Ladder, Rung
from tile_server.pyramid import PNG, Pyramid, shrink
from tile_server.slides import OpenedSlide

_DESCRIPTION = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" Format="jpg" '
    'Overlap="0" TileSize="{tile}"><Size Width="{width}" Height="{height}"/></Image>\n'
)


def deep_zoom_routes(base: str) -> list[URLSpec]:
    """The routes under `base`, which starts and ends with a slash."""
    below = f"{re.escape(base)}s/([A-Za-z0-9_-]+)/dzi"
    number = r"(\d{1,9})"
    return [
        web.url(rf"{below}/slide\.dzi", DescriptionHandler),
        web.url(
            rf"{below}/slide_files/{number}/{number}_{number}\.jpe?g", CutTileHandler
        ),
    ]


def deepest(ladder: Ladder) -> int:
    """The Deep Zoom level of full resolution."""
    full = ladder.rungs[0]
    return (max(full.width, full.height) - 1).bit_length()


class DescriptionHandler(Handler):
    async def get(self, token: str) -> None:
        capability = self.service.capability(token)
        async with self.service.slides.hold(capability) as slide:
            if self.unchanged(f"{slide.version}-dzi", changed_s=slide.changed_s):
                return
            ladder = slide.pyramid.ladder
        full = ladder.rungs[0]
        description = _DESCRIPTION.format(
            tile=ladder.tile, width=full.width, height=full.height
        )
        self.give(description.encode(), "application/xml")


class CutTileHandler(GridHandler):
    async def get(self, token: str, level: str, x: str, y: str) -> None:
        capability = self.service.capability(token)
        async with self.styled(capability) as slide:
            ladder, t_x, t_y = slide.pyramid.ladder, int(x), int(y)
            k = deepest(ladder) - int(level)
            if k < 0:
                raise OutsideTheGrid(f"The last level is {deepest(ladder)}.")
            # Below the ladder there is one tile, made of the last rung's.
            rung = ladder.tile_rung(max(ladder.n - k, 0), t_x, t_y)
            edge = ladder.tile
            right, bottom = (t_x + 1) * edge, (t_y + 1) * edge
            whole = right <= rung.width and bottom <= rung.height
            if k == rung.k and whole:
                await self.answer(slide, ladder.z(rung), t_x, t_y)
            else:
                await self._cut(slide, rung, k, (t_x, t_y))

    async def _cut(
        self, slide: OpenedSlide, rung: Rung, k: int, place: tuple[int, int]
    ) -> None:
        """A tile without what lies past the picture, as PNG: nothing more is lost."""
        what = f"dzi-{k}-{place[0]}-{place[1]}"
        if self.unchanged(f"{slide.version}-{what}-{VARIANT}"):
            return
        pyramid = slide.pyramid
        body = await self.while_wanted(
            self.service.made_body(
                slide, what, lambda: cut_tile(pyramid, rung, k, place)
            )
        )
        self.kind = "made"
        self.set_header("Content-Type", PNG)
        self.finish(body)


def cut_tile(pyramid: Pyramid, rung: Rung, k: int, place: tuple[int, int]) -> bytes:
    """The picture part of a tile of `rung`, 2**(k - rung.k) times smaller."""
    t_x, t_y = place
    edge = pyramid.ladder.tile
    pixels = pyramid.tile(rung, t_x, t_y).decode()
    picture = pixels[: rung.height - t_y * edge, : rung.width - t_x * edge]
    return codecs.encode_png(shrink(picture, 1 << (k - rung.k)))
