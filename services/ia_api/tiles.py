"""Deep Zoom levels of the pathology server, and a thumbnail put together from tiles.

Level 0 is 1 by 1 pixel, the highest is full resolution, each halves the next. Whether
a server rounds a level's size up or down is not public: sizes are rounded up here, and
a last column or row that the server does not have stays background.
"""

from __future__ import annotations

import io
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import PIL.Image

from services.ia_api.errors import Permanent
from services.ia_api.pathology_server import PathologyServer
from services.ia_api.slide_info import SlideInfo

BACKGROUND = (255, 255, 255)
THUMBNAIL_TILES = 400
"""More tiles than this are never fetched for one thumbnail."""

TILES_AT_ONCE = 4
"""Of one region: more would make one job a burden for everybody's viewer."""


@dataclass(frozen=True)
class Level:
    """One level: how often it is halved, its (width, height), its columns and rows."""

    number: int
    downsample: int
    size: tuple[int, int]
    grid: tuple[int, int]


def top_level(size: tuple[int, int]) -> int:
    """The number of the level at full resolution."""
    return max(0, (max(size) - 1).bit_length())


def level(slide: SlideInfo, number: int) -> Level:
    """One level of a slide; 0 <= number <= top_level."""
    downsample = 1 << (top_level(slide.size) - number)
    width, height = (math.ceil(side / downsample) for side in slide.size)
    columns = math.ceil(width / slide.tile_size[0])
    rows = math.ceil(height / slide.tile_size[1])
    return Level(number, downsample, (width, height), (columns, rows))


def level_for(slide: SlideInfo, um_per_pixel: float) -> Level:
    """The coarsest level that is at least as sharp as asked for."""
    top = top_level(slide.size)
    if slide.um_per_pixel is None:
        return level(slide, top)
    halvings = math.floor(math.log2(um_per_pixel / slide.um_per_pixel))
    return level(slide, min(top, max(0, top - halvings)))


def pieces(
    server: PathologyServer, slide: SlideInfo, at: Level, box: tuple[int, int, int, int]
) -> Iterator[tuple[int, int, PIL.Image.Image]]:
    """Tiles of a level that touch `box` (left, upper, right, lower), with their corner.

    All in pixels of that level. Tiles that the server does not have are left out. A
    few are fetched at once, a few ahead of who takes them; the order is by rows.
    """
    if not slide.streamable:
        raise Permanent("the server cannot give tiles of this slide: use its files")
    tile_width, tile_height = slide.tile_size
    left, upper, right, lower = box
    columns = range(left // tile_width, min(at.grid[0], math.ceil(right / tile_width)))
    rows = range(upper // tile_height, min(at.grid[1], math.ceil(lower / tile_height)))
    places = [(column, row) for row in rows for column in columns]

    def fetch(place: tuple[int, int]) -> bytes | None:
        return server.tile(
            slide.id,
            at.number,
            *place,
            extension=slide.tile_extension,
            focal_plane=slide.focal_plane,
        )

    for (column, row), encoded in _fetched(places, fetch):
        if encoded is not None:
            yield column * tile_width, row * tile_height, _decoded(encoded, slide)


def _fetched(
    places: Sequence[tuple[int, int]],
    fetch: Callable[[tuple[int, int]], bytes | None],
) -> Iterator[tuple[tuple[int, int], bytes | None]]:
    """Each place with its tile, in order; at most twice `TILES_AT_ONCE` are held."""
    if len(places) == 1:
        yield places[0], fetch(places[0])
        return
    ahead: deque[tuple[tuple[int, int], Future[bytes | None]]] = deque()
    pool = ThreadPoolExecutor(TILES_AT_ONCE, "tiles")
    try:
        for place in places:
            ahead.append((place, pool.submit(fetch, place)))
            if len(ahead) == 2 * TILES_AT_ONCE:
                first, tile = ahead.popleft()
                yield first, tile.result()
        while ahead:
            first, tile = ahead.popleft()
            yield first, tile.result()
    finally:
        # Also where one failed, or where nobody wants the rest.
        pool.shutdown(cancel_futures=True)


def thumbnail(
    server: PathologyServer,
    slide: SlideInfo,
    um_per_pixel: float = 64.0,
    check: Callable[[], None] = lambda: None,
) -> PIL.Image.Image:
    """The whole slide at about this resolution, put together from tiles."""
    at = level_for(slide, um_per_pixel)
    while at.grid[0] * at.grid[1] > THUMBNAIL_TILES:
        at = level(slide, at.number - 1)
    picture = PIL.Image.new("RGB", at.size, BACKGROUND)
    for x, y, tile in pieces(server, slide, at, (0, 0, *at.size)):
        check()
        picture.paste(tile, (x, y))
    return picture


def _decoded(encoded: bytes, slide: SlideInfo) -> PIL.Image.Image:
    try:
        tile = PIL.Image.open(io.BytesIO(encoded))
        if tile.width > slide.tile_size[0] or tile.height > slide.tile_size[1]:
            raise Permanent("the server sent a tile larger than its own tile size")
        return tile.convert("RGB")
    except (OSError, ValueError, SyntaxError) as err:
        raise Permanent("the server sent a tile that is no picture") from err
