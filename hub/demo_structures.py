"""What the demo slide's assignment asks about: where it lies and how it is drawn.

Coordinates are level-0 pixels of the slide, x right, y down. ``STRUCTURES`` says where
things lie on the slide of default size; ``scaled`` moves them to a smaller one.

A *sprite* is a picture with its own opacity that replaces the tissue under it; it is
drawn once, and then cut into whatever region is asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hub.demo_texture import (
    QUILT_SIDE,
    Field,
    Picture,
    Textures,
    plane_colour,
    plane_density,
)

FULL_WIDTH = 20_480

Point = tuple[float, float]
Polygon = tuple[Point, ...]


@dataclass(frozen=True)
class Structure:
    """One thing placed on the slide, in level-0 pixels."""

    name: str
    kind: Literal["follicle", "vessel", "ink", "fold"]
    centre: Point
    outline: Polygon
    """What a right answer lies in: the follicle's rim, the vessel's lumen, the ink's
    rim, the fold's band."""
    radius: float = 0.0
    """Of the round ones; 0 for the others."""


def _circle(centre: Point, radius: float, corners: int = 48) -> Polygon:
    return _oval(centre, radius, radius, corners=corners)


def _oval(
    centre: Point,
    half_width: float,
    half_height: float,
    turn: float = 0.0,
    *,
    corners: int = 48,
) -> Polygon:
    """An ellipse turned by ``turn`` radians, as corners rounded to whole pixels."""
    points = []
    for corner in range(corners):
        angle = 2 * math.pi * corner / corners
        x, y = half_width * math.cos(angle), half_height * math.sin(angle)
        points.append(
            (
                round(centre[0] + x * math.cos(turn) - y * math.sin(turn), 1),
                round(centre[1] + x * math.sin(turn) + y * math.cos(turn), 1),
            )
        )
    return tuple(points)


def _band(line: Polygon, half_width: float) -> Polygon:
    """The outline of a broad line."""
    points = np.array(line, np.float64)
    along = np.gradient(points, axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1)
    across *= half_width / np.hypot(*across.T)[:, None]
    rim = np.concatenate([points + across, (points - across)[::-1]])
    return tuple((round(float(x), 1), round(float(y), 1)) for x, y in rim)


FOLLICLE: Point = (4_750.0, 3_650.0)
FOLLICLE_RADIUS = 700.0
VESSEL: Point = (13_300.0, 5_200.0)
LUMEN_HALF_WIDTH, LUMEN_HALF_HEIGHT, LUMEN_TURN = 470.0, 310.0, 0.45
WALL = 190.0
INK: Point = (9_200.0, 8_400.0)
INK_RADIUS = 90.0
FOLD: Polygon = tuple(
    (13_600.0 + 180.0 * step, 9_300.0 + 260.0 * math.sin(step / 4.2) - 40.0 * step)
    for step in range(15)
)
FOLD_HALF_WIDTH = 110.0

STRUCTURES = (
    Structure(
        "lymphoid follicle",
        "follicle",
        FOLLICLE,
        _circle(FOLLICLE, FOLLICLE_RADIUS),
        FOLLICLE_RADIUS,
    ),
    Structure(
        "large vessel",
        "vessel",
        VESSEL,
        _oval(VESSEL, LUMEN_HALF_WIDTH, LUMEN_HALF_HEIGHT, LUMEN_TURN),
    ),
    Structure("pen mark", "ink", INK, _circle(INK, INK_RADIUS, 24), INK_RADIUS),
    Structure("tissue fold", "fold", FOLD[7], _band(FOLD, FOLD_HALF_WIDTH)),
)
"""What was placed on the slide of default size, in level-0 pixels."""


def scaled(structure: Structure, width: int) -> Structure:
    """The same structure on a slide ``width`` pixels wide."""
    factor = width / FULL_WIDTH
    return Structure(
        structure.name,
        structure.kind,
        (structure.centre[0] * factor, structure.centre[1] * factor),
        tuple((x * factor, y * factor) for x, y in structure.outline),
        structure.radius * factor,
    )


@dataclass(frozen=True)
class Sprite:
    """A drawn structure: ``rgb`` with ``opacity`` 0 to 1, its corner at (x, y)."""

    x: int
    y: int
    rgb: Picture
    opacity: Field


def sprites(
    width: int, textures: Textures, rng: np.random.Generator
) -> tuple[Sprite, ...]:
    """The follicle and the vessel of a slide ``width`` pixels wide."""
    factor = width / FULL_WIDTH
    return (
        _follicle(factor, textures, rng),
        _vessel(factor, textures, rng),
    )


def _wobble(angle: Field, rng: np.random.Generator, share: float) -> Field:
    """A closed, smooth, irregular factor around one, for a rim that nature drew."""
    factor = np.ones_like(angle)
    for wave in range(2, 9):
        factor += _ripple(angle, wave, share / wave, rng)
    return factor


def _phase(angle: Field, rng: np.random.Generator) -> Field:
    """A smooth closed drift of phase, so that waves round a rim are uneven."""
    drift = np.zeros_like(angle)
    for wave in (3, 5, 8, 13):
        drift += _ripple(angle, wave, 1.3, rng)
    return drift


def _ripple(angle: Field, wave: int, height: float, rng: np.random.Generator) -> Field:
    """One sine wave round a rim, from a random start; made in place to save memory."""
    ripple = angle * np.float32(wave)
    ripple += np.float32(rng.uniform(0, 2 * np.pi))
    np.sin(ripple, out=ripple)
    ripple *= np.float32(height)
    return ripple


def _tiled(rgb: Picture, height: int, width: int) -> Picture:
    """``rgb`` mirrored on until it fills the size wanted."""
    rows, columns = rgb.shape[:2]
    pads = (0, max(0, height - rows)), (0, max(0, width - columns)), (0, 0)
    return np.pad(rgb, pads, mode="symmetric")[:height, :width]


LYMPHOCYTE = np.array((1.10, 0.92, 0.44), np.float32)
"""Optical density of a small lymphocyte's chromatin in haematoxylin."""

BROWN = np.array((0.26, 0.50, 0.84), np.float32)
"""Optical density of smooth muscle's cell bodies in DAB."""

PLASMA = np.array((0.012, 0.014, 0.018), np.float32)
"""Optical density of the film that an empty vessel still holds."""


def _stamp_nuclei(
    absorbed: Field,
    centres: NDArray[np.float64],
    sizes: Field,
    depth: Field,
    rng: np.random.Generator,
) -> None:
    """Draw nuclei into ``absorbed``: clumped chromatin in a crisp membrane."""
    height, width = absorbed.shape[:2]
    reach = int(np.ceil(sizes.max() * 1.45)) + 1
    grid = np.arange(-reach, reach + 1, dtype=np.float32)
    clumps = ndimage.gaussian_filter(rng.standard_normal((256, 256), np.float32), 1.3)
    clumps /= clumps.std()
    turns = rng.uniform(0, np.pi, len(centres)).astype(np.float32)
    stretch = rng.uniform(1.0, 1.35, len(centres)).astype(np.float32)
    places = rng.integers(0, 256 - 2 * reach - 1, (len(centres), 2))
    for (cx, cy), size, dark, turn, longer, (row, column) in zip(
        centres, sizes, depth, turns, stretch, places, strict=True
    ):
        x, y = int(cx), int(cy)
        if not (reach <= x < width - reach and reach <= y < height - reach):
            continue
        dx, dy = grid[None, :] - np.float32(cx - x), grid[:, None] - np.float32(cy - y)
        u = (dx * np.cos(turn) + dy * np.sin(turn)) / (size * longer)
        v = (dy * np.cos(turn) - dx * np.sin(turn)) / (size / longer)
        away = np.sqrt(u * u + v * v)
        filled = np.clip((1.0 - away) * size / 1.6 + 0.5, 0, 1)
        membrane = 0.92 + 0.14 * np.exp(-(((away - 0.8) / 0.2) ** 2))
        grain = clumps[row : row + grid.size, column : column + grid.size]
        nucleus = dark * filled * membrane * (1.0 + 0.2 * grain)
        part = absorbed[y - reach : y + reach + 1, x - reach : x + reach + 1]
        np.maximum(part, nucleus, out=part)


def _scatter(side: int, pitch: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Points about ``pitch`` apart over a square: a jittered hexagonal net."""
    rows = int(side / (pitch * 0.866)) + 1
    columns = int(side / pitch) + 1
    row, column = np.mgrid[0:rows, 0:columns].astype(np.float64)
    x = (column + 0.5 * (row % 2)) * pitch
    y = row * pitch * 0.866
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    points += rng.normal(0, 0.22 * pitch, points.shape)
    return points


def _follicle(factor: float, textures: Textures, rng: np.random.Generator) -> Sprite:
    """A lymphoid follicle: dense mantle, paler centre, lymphocytes straying off it."""
    radius = FOLLICLE_RADIUS * factor
    side = int(2 * radius * 1.3) // 2 * 2
    middle = side / 2
    grid = np.arange(side, dtype=np.float32) + np.float32(0.5 - middle)
    reach = np.hypot(grid[None, :], grid[:, None])
    # Slightly inside the nominal radius, so that its rim is safely in the tissue.
    reach /= np.float32(radius * 0.97)
    reach /= _wobble(np.arctan2(grid[:, None], grid[None, :]), rng, 0.06)

    pitch = 13.5
    points = _scatter(side, pitch, rng)
    kept = (points.min(axis=1) >= 0) & (points.max(axis=1) < side)
    points = points[kept]
    at = reach[points[:, 1].astype(int), points[:, 0].astype(int)]
    chance = np.clip((1.06 - at) / 0.16, 0, 1) * 0.97
    chance = np.maximum(chance, 0.32 * np.exp(-np.clip(at - 1, 0, None) / 0.07))
    centre = np.clip((0.50 - at) / 0.12, 0, 1)
    chance *= 1.0 - 0.42 * centre
    drawn = rng.random(len(points)) < chance
    points, centre = points[drawn], centre[drawn]
    sizes = rng.normal(6.3, 0.55, len(points)) + 2.9 * centre
    depth = rng.normal(1.08, 0.16, len(points)) * (1.0 - 0.34 * centre)
    nuclei = np.zeros((side, side), np.float32)
    _stamp_nuclei(
        nuclei,
        points,
        np.clip(sizes, 4.5, 11).astype(np.float32),
        np.clip(depth, 0.35, 1.5).astype(np.float32),
        rng,
    )
    opacity = ndimage.gaussian_filter((nuclei > 0.1).astype(np.float32), 0.8)
    np.subtract(np.float32(1.04), reach, out=reach)
    reach /= np.float32(0.16)
    np.maximum(opacity, np.clip(reach, 0, 1, out=reach), out=opacity)
    del reach
    ground = _tiled(textures.connective, side, side)
    for channel, share in enumerate(LYMPHOCYTE):
        absorbed = plane_density(ground[..., channel], channel)
        absorbed *= np.float32(0.7)
        absorbed += np.float32(0.13) * share
        np.maximum(absorbed, nuclei * share, out=absorbed)
        absorbed = ndimage.gaussian_filter(absorbed, 0.6)
        ground[..., channel] = plane_colour(absorbed, channel)
    corner_x = round(FOLLICLE[0] * factor - middle)
    corner_y = round(FOLLICLE[1] * factor - middle)
    return Sprite(corner_x, corner_y, ground, opacity)


def _lumen_plane(
    factor: float, side: int, rng: np.random.Generator
) -> tuple[Field, Field]:
    """Angle around the lumen, and distance outwards from its rim in pixels."""
    half_width, half_height = LUMEN_HALF_WIDTH * factor, LUMEN_HALF_HEIGHT * factor
    grid = np.arange(side, dtype=np.float32) + np.float32(0.5 - side / 2)
    cos, sin = np.float32(math.cos(LUMEN_TURN)), np.float32(math.sin(LUMEN_TURN))
    u = grid[None, :] * cos + grid[:, None] * sin
    v = grid[:, None] * cos - grid[None, :] * sin
    angle = np.arctan2(v / np.float32(half_height), u / np.float32(half_width))
    # Signed distance to an ellipse, to first order.
    level = np.sqrt((u / half_width) ** 2 + (v / half_height) ** 2)
    slope = np.hypot(u / half_width**2, v / half_height**2) / np.maximum(level, 1e-6)
    depth = (level - 1.0) / np.maximum(slope, 1e-6)
    # The inner elastic lamina lies in small uneven folds, as in any fixed artery.
    waves = np.sin(47 * angle + _phase(angle, rng))
    depth += 3.5 * factor * (1 + 0.6 * np.sin(5 * angle + 0.7)) * waves
    return angle, depth.astype(np.float32)


def _cloud(side: int, width: float, rng: np.random.Generator) -> Field:
    """Smooth noise of unit spread."""
    smooth: Field = ndimage.gaussian_filter(
        rng.standard_normal((side, side), np.float32), width
    )
    smooth /= smooth.std()
    return smooth


def _vessel(factor: float, textures: Textures, rng: np.random.Generator) -> Sprite:
    """A muscular vessel cut aslant: bare lumen, endothelium, thick brown wall."""
    wall = WALL * factor
    side = int(2 * (LUMEN_HALF_WIDTH * factor + wall) * 1.22) // 2 * 2
    middle = side / 2
    angle, depth = _lumen_plane(factor, side, rng)
    thickness = wall * _wobble(angle, rng, 0.12)
    patchy = _cloud(side, 24, rng)
    radius = (LUMEN_HALF_WIDTH + LUMEN_HALF_HEIGHT + WALL) / 2 * factor
    fibres = _tiled(textures.connective, 2 * QUILT_SIDE, QUILT_SIDE)
    period = 2 * fibres.shape[0] - 2
    rows = (angle + np.pi) * np.float32(0.55 * radius) + 9 * patchy
    rows %= np.float32(period)
    np.minimum(rows, period - rows, out=rows)
    columns = depth * np.float32(1.1) + 40 + 12 * _cloud(side, 24, rng)
    np.clip(columns, 0, fibres.shape[1] - 1, out=columns)
    rgb = np.empty((side, side, 3), np.uint8)
    mean = np.zeros((side, side), np.float32)
    for channel in range(3):
        plane = np.ascontiguousarray(fibres[..., channel])
        ndimage.map_coordinates(
            plane, (rows, columns), order=1, output=rgb[..., channel]
        )
        mean += plane_density(rgb[..., channel], channel) * np.float32(0.3)
    del rows, columns
    share = np.clip(depth / thickness, 0, 1)
    strength = 0.42 + 0.30 * np.sin(np.pi * share) + 0.07 * patchy
    strength *= 0.7 + 1.6 * ndimage.gaussian_filter(mean, 1.2)
    fine = max(factor, 0.3)
    strength += 0.20 * np.exp(-(((depth - 7 * factor) / (2.6 * fine)) ** 2))

    # Endothelial nuclei lie flat on the lamina; the lumen holds a film of plasma.
    lining = np.clip(np.sin(angle * 43 + _phase(angle, rng)) - 0.8, 0, 1) * 4
    lining *= np.exp(-(((depth + 1) / (3.5 * fine)) ** 2))
    inside = np.clip(0.5 - depth / 2.5, 0, 1)
    for channel in range(3):
        absorbed = plane_density(rgb[..., channel], channel)
        absorbed *= np.float32(0.9)
        absorbed += strength * BROWN[channel]
        absorbed += inside * (PLASMA[channel] - absorbed)
        absorbed += lining * LYMPHOCYTE[channel]
        absorbed = ndimage.gaussian_filter(absorbed, 0.6)
        rgb[..., channel] = plane_colour(absorbed, channel)

    outer = (thickness + 16 * _cloud(side, 16, rng) - depth) / (50.0 * fine)
    opacity = np.clip(outer, 0, 1).astype(np.float32)
    corner_x = round(VESSEL[0] * factor - middle)
    corner_y = round(VESSEL[1] * factor - middle)
    return Sprite(corner_x, corner_y, rgb, opacity)
