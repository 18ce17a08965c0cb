"""Regions and thumbnails: pictures of any place and scale, made of stored levels.

A region is asked for in level-0 pixels and answered at a scale: at one rung of the
ladder, or at so many micrometres per pixel. It is read from the coarsest stored level
that is at least as fine, and averaged down to the scale; no lossy step lies between the
file and the answer. Large regions are made block by block, so memory stays bounded.

Planes: `l0_` level-0 pixels, `s_` pixels of the level that is read, `o_` of the answer.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from tile_server import codecs
from tile_server.errors import BadRequest, DamagedTile, RegionTooLarge
from tile_server.ladder import Rung
from tile_server.pixels import Pixels, plain
from tile_server.pyramid import DAMAGED, Pyramid
from tile_server.readers.planes import Numbers, Plane
from tile_server.readers.protocol import SlideFacts
from tile_server.readers.rendering import planes_of

log = logging.getLogger(__name__)

# What lies at a place of a stored level: (level, l_x, l_y, size) to numbers.
Look: TypeAlias = Callable[[int, int, int, tuple[int, int]], Numbers]

MOST_PIXELS = 2**24
_MOST_SOURCE_PIXELS = 2**30
# A block reads at most about this many source pixels each way.
_BLOCK = 2048


@dataclass(frozen=True)
class Box:
    """A rectangle in level-0 pixels."""

    x: float
    y: float
    width: float
    height: float


def box_of_um(facts: SlideFacts, box: Box) -> Box:
    """`box`, given in micrometres from the slide's corner, in level-0 pixels.

    Raises BadRequest where the slide does not say its pixel size.
    """
    across, down = facts.mpp_x, facts.mpp_y
    if across is None or down is None:
        raise BadRequest("This slide does not say its pixel size: give pixels.")
    return Box(box.x / across, box.y / down, box.width / across, box.height / down)


def downsample_of(
    facts: SlideFacts, *, level: int | None, mpp: float | None
) -> tuple[float, float]:
    """How many level-0 pixels one pixel of the answer spans, across and down.

    `level` is a rung's k, `mpp` micrometres per pixel; with neither it is rung 0.
    Raises BadRequest.
    """
    if level is not None and mpp is not None:
        raise BadRequest("Give level or mpp, not both.")
    if mpp is None:
        return (2.0 ** (level or 0),) * 2
    if facts.mpp_x is None or facts.mpp_y is None:
        raise BadRequest("This slide does not say its pixel size: give level instead.")
    return mpp / facts.mpp_x, mpp / facts.mpp_y


def read_region(pyramid: Pyramid, box: Box, downsample: tuple[float, float]) -> Pixels:
    """The pixels of `box`; blocks while it reads. Background outside the slide.

    Raises RegionTooLarge before anything is read, and DamagedTile.
    """
    kind = np.dtype(np.uint8)
    return _gather(pyramid, (box, downsample), pyramid.reader.read, kind, (3,))


def read_numbers(
    pyramid: Pyramid, box: Box, downsample: tuple[float, float], plane: Plane
) -> Numbers:
    """The file's own numbers in `box` of one plane, as `read_region`; 0 outside.

    Numbers of a scale that is not stored are means, rounded where the file's are whole.
    """
    planes = planes_of(pyramid.reader)

    def look(level: int, l_x: int, l_y: int, size: tuple[int, int]) -> Numbers:
        return planes.read_plane(level, l_x, l_y, size, plane=plane)

    kind = planes.planes.number_type
    return _gather(pyramid, (box, downsample), look, kind, ())


def whole_of(pyramid: Pyramid, longest: int) -> tuple[Box, tuple[float, float]]:
    """The box of the whole slide, and the scale at which it is `longest` pixels long.

    Never larger than the slide.
    """
    full = pyramid.ladder.rungs[0]
    scale = max(1.0, max(full.width, full.height) / longest)
    return Box(0, 0, full.width, full.height), (scale, scale)


def _gather(
    pyramid: Pyramid,
    wanted: tuple[Box, tuple[float, float]],
    look: Look,
    kind: np.dtype[Any],
    parts: tuple[int, ...],
) -> Numbers:
    """What `look` finds in a box at a scale, block by block.

    It finds numbers of `kind`, and so many `parts` of them for each pixel.
    """
    box, downsample = wanted
    across, down = downsample
    size = max(1, round(box.width / across)), max(1, round(box.height / down))
    rung = _source(pyramid, min(downsample))
    s_width, s_height = box.width / rung.downsample, box.height / rung.downsample
    if size[0] * size[1] > MOST_PIXELS:
        raise RegionTooLarge(
            f"That is {size[0]} x {size[1]} pixels, more than {MOST_PIXELS} at once. "
            "Ask for a coarser level or for several smaller regions."
        )
    if s_width * s_height > _MOST_SOURCE_PIXELS:
        raise RegionTooLarge(
            "That needs too much of a level that this slide has no coarser copy of. "
            "Ask for several smaller regions."
        )
    answer = np.empty((size[1], size[0], *parts), kind)
    # Level pixels per pixel of the answer.
    ratio = s_width / size[0], s_height / size[1]
    step = tuple(max(1, math.floor(_BLOCK / max(one, 1e-9))) for one in ratio)
    s_x, s_y = box.x / rung.downsample, box.y / rung.downsample
    for o_y in range(0, size[1], step[1]):
        o_bottom = min(o_y + step[1], size[1])
        for o_x in range(0, size[0], step[0]):
            o_right = min(o_x + step[0], size[0])
            block = (
                s_x + o_x * ratio[0],
                s_y + o_y * ratio[1],
                s_x + o_right * ratio[0],
                s_y + o_bottom * ratio[1],
            )
            pyramid.check_stopping()
            answer[o_y:o_bottom, o_x:o_right] = _block(
                look, rung, block, (o_right - o_x, o_bottom - o_y)
            )
    return answer


def thumbnail(pyramid: Pyramid, longest: int) -> bytes:
    """A JPEG of the whole slide, `longest` pixels at its longer side or less."""
    return codecs.encode_jpeg(small_picture(pyramid, longest))


def small_picture(pyramid: Pyramid, longest: int) -> Pixels:
    """The whole slide, `longest` pixels at its longer side or less.

    It is made of the ladder's tiles, so that a slide with one huge level costs no more
    than its first view does.
    """
    full = pyramid.ladder.rungs[0]
    scale = min(1.0, longest / max(full.width, full.height))
    size = max(1, round(full.width * scale)), max(1, round(full.height * scale))
    rung = next(
        one
        for one in reversed(pyramid.ladder.rungs)
        if one.k == 0 or max(one.width, one.height) >= max(size)
    )
    edge = pyramid.ladder.tile
    whole = plain(
        rung.columns * edge, rung.rows * edge, pyramid.reader.facts.background
    )
    for t_y in range(rung.rows):
        for t_x in range(rung.columns):
            top, left = t_y * edge, t_x * edge
            part = whole[top : top + edge, left : left + edge]
            try:
                part[:] = pyramid.tile(rung, t_x, t_y).decode()
            except DamagedTile as error:
                log.warning("a thumbnail has a hole: %s", error)
                part[:] = DAMAGED
    picture = (0, 0, full.width / rung.downsample, full.height / rung.downsample)
    image = Image.fromarray(whole).resize(size, Image.Resampling.BICUBIC, picture)
    return np.asarray(image)


def _source(pyramid: Pyramid, downsample: float) -> Rung:
    """The coarsest stored rung at least as fine as `downsample`, else the finest."""
    # A wish for 0.5 µm on a slide of 0.499 means its level 0.
    allowed = downsample * 1.01
    fine = [
        rung
        for rung in pyramid.ladder.rungs
        if rung.level is not None and rung.downsample <= allowed
    ]
    return fine[-1] if fine else pyramid.ladder.rungs[0]


def _block(
    look: Look,
    rung: Rung,
    block: tuple[float, float, float, float],
    size: tuple[int, int],
) -> Numbers:
    """`block` (left, top, right, bottom in pixels of `rung`) at `size`."""
    assert rung.level is not None  # noqa: S101 - `_source` chose it so; for mypy
    left, top = math.floor(block[0]), math.floor(block[1])
    right, bottom = math.ceil(block[2]), math.ceil(block[3])
    pixels = look(rung.level, left, top, (right - left, bottom - top))
    if pixels.shape[:2] == (size[1], size[0]):
        return pixels
    within = (block[0] - left, block[1] - top, block[2] - left, block[3] - top)
    shrinks = block[2] - block[0] >= size[0]
    way = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    if pixels.ndim == 3:
        return np.asarray(Image.fromarray(pixels).resize(size, way, within))
    # Pillow averages only bytes and floats; these hold 16 bits exactly.
    image = Image.fromarray(pixels.astype(np.float32))
    means = np.asarray(image.resize(size, way, within))
    whole = np.issubdtype(pixels.dtype, np.integer)
    return (np.rint(means) if whole else means).astype(pixels.dtype)
