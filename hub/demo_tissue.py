"""The demo slide's pixels: any region of level 0, made when it is asked for.

Upon the layout of ``hub.demo_layout``, *fields* are strewn irregularly: each is one
texture, mirrored, turned, stretched and shifted in its own way, and owns what lies
nearest to its middle. Where two fields meet, the weight of their glands shifts the
border onto a gland's outline. Maps of uneven staining then scale optical density.

Everything is a pure function of the position, so that regions join whatever their
order, and threads need no locks. Coordinates are level-0 pixels, x right, y down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.spatial import cKDTree

from hub.demo_layout import MAP_PX, drift, layers, noise, signed
from hub.demo_structures import (
    FOLD,
    FOLD_HALF_WIDTH,
    FULL_WIDTH,
    INK,
    INK_RADIUS,
    Sprite,
    sprites,
)
from hub.demo_texture import (
    FINENESS,
    GLASS,
    QUILT_SIDE,
    RIM,
    Field,
    Picture,
    plane_colour,
    plane_density,
    textures,
)

PITCH = 370.0
"""Usual distance between the middles of neighbouring fields."""

GRIP = 75.0
"""How far, at most, a gland pushes its field's border outwards."""

SOFT = 5.0
"""Half the width of the blend between two fields."""

MARGIN = 120
"""How far beyond its own ground a field is drawn at all."""

WARP_SIDE = 1536
"""Side of the noise that bends the fields' borders."""

STRANGE = 3.0
"""How much farther a field seems for each pixel that it lies out of its layer."""


@dataclass(frozen=True)
class _Field:
    """One texture laid somewhere: middle, bounds, and how the texture is turned."""

    x: float
    y: float
    left: int
    top: int
    right: int
    bottom: int
    texture: int
    matrix: tuple[float, float, float, float]
    """Slide to texture: a, b, c, d of [[a, b], [c, d]]."""
    origin: tuple[float, float]
    """Where in the texture the field's middle falls."""
    dose: float
    """How strongly this field took up stain, about 1."""
    warp: tuple[int, int]
    """Which part of the warping noise bends this field's borders."""


class Tissue:
    """The whole slide as a function of position; threads may share it."""

    def __init__(self, width: int, height: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.width, self.height = width, height
        source = textures(rng)
        self._textures = (source.glands, source.stroma, source.muscle)
        self._sprites: tuple[Sprite, ...] = sprites(width, source, rng)
        self._factor = width / FULL_WIDTH
        rows, columns = height // MAP_PX + 24, width // MAP_PX + 24
        inside, self._layer, along = layers(columns, rows, self._factor, rng)
        zones = tuple(signed(self._layer == texture) for texture in range(3))
        self._inside = Image.fromarray(inside)
        self._zones = tuple(Image.fromarray(zone) for zone in zones)
        self._gland_dose = Image.fromarray(drift(columns, rows, 0.17, rng))
        self._ground_dose = Image.fromarray(drift(columns, rows, 0.20, rng))
        self._fields = self._strew(inside, zones, along, rng)
        self._boxes = np.array(
            [(one.left, one.top, one.right, one.bottom) for one in self._fields]
        )
        self._warp = noise(WARP_SIDE, WARP_SIDE, 70, rng) * np.float32(22)
        self._warp += noise(WARP_SIDE, WARP_SIDE, 9, rng) * np.float32(3)
        grain = rng.standard_normal((512, 512)).astype(np.float32)
        rough = ndimage.gaussian_filter(grain, 14, mode="wrap")
        fine = ndimage.gaussian_filter(grain, 3, mode="wrap")
        self._rough = (rough / rough.std() * 14 + fine / fine.std() * 5).astype(
            np.float32
        )

    def _strew(
        self,
        inside: Field,
        zones: tuple[Field, ...],
        along: Field,
        rng: np.random.Generator,
    ) -> tuple[_Field, ...]:
        """Fields of each texture wherever its layer is, none on bare glass."""
        rows, columns = inside.shape
        net = np.mgrid[
            0 : int(rows * MAP_PX / PITCH / 0.866) + 2,
            0 : int(columns * MAP_PX / PITCH) + 2,
        ]
        x = (net[1] + 0.5 * (net[0] % 2)) * PITCH
        y = net[0] * PITCH * 0.866
        middles = np.stack([x.ravel(), y.ravel()], axis=1)
        middles += rng.normal(0, 0.17 * PITCH, middles.shape)
        cells = (np.mgrid[0:rows, 0:columns].reshape(2, -1).T[:, ::-1] + 0.5) * MAP_PX
        nearest = cKDTree(middles).query(cells)[1].reshape(rows, columns)
        bounds = ndimage.find_objects(nearest + 1, max_label=len(middles))
        fields = []
        for number, (middle, bound) in enumerate(zip(middles, bounds, strict=True)):
            chances = rng.random((len(zones), 10))
            if bound is None:
                continue
            own = (nearest[bound] == number) & (inside[bound] > -80)
            for texture, (zone, chance) in enumerate(zip(zones, chances, strict=True)):
                if not (own & (zone[bound] > -3 * MAP_PX)).any():
                    continue
                row = min(rows - 1, max(0, int(middle[1] // MAP_PX)))
                column = min(columns - 1, max(0, int(middle[0] // MAP_PX)))
                spare = (
                    WARP_SIDE
                    - 2 * MARGIN
                    - MAP_PX
                    * np.array(
                        [bound[1].stop - bound[1].start, bound[0].stop - bound[0].start]
                    )
                )
                warp = (chance[8:] * spare).astype(int)
                fields.append(
                    _Field(
                        x=float(middle[0]),
                        y=float(middle[1]),
                        left=bound[1].start * MAP_PX - MARGIN,
                        top=bound[0].start * MAP_PX - MARGIN,
                        right=bound[1].stop * MAP_PX + MARGIN,
                        bottom=bound[0].stop * MAP_PX + MARGIN,
                        texture=texture,
                        matrix=_turned(texture, float(along[row, column]), chance),
                        origin=_origin(texture, chance),
                        dose=float(0.94 + 0.12 * chance[7]),
                        warp=(int(warp[0]), int(warp[1])),
                    )
                )
        return tuple(fields)

    def region(self, x: int, y: int, width: int, height: int) -> Picture | None:
        """RGB of a rectangle of level 0; None where there is nothing but glass."""
        ink = self._near_ink(x, y, width, height)
        if self._is_glass(x, y, width, height) and not ink:
            return None
        margin = self._map(self._inside, x, y, width, height)
        seen, dose = self._compose(x, y, width, height)
        weight = seen[..., 3] * np.float32(1 / 255)
        for sprite in self._sprites:
            _lay(sprite, x, y, seen, weight, dose)
        gland = self._map(self._gland_dose, x, y, width, height)
        ground = self._map(self._ground_dose, x, y, width, height)
        gland -= ground
        gland *= weight
        gland += ground
        dose *= gland
        dose *= self._fold(x, y, width, height)
        if margin.min() < 70:
            dose *= self._rim(margin, weight, x, y)
        inked = self._ink(x, y, width, height) if ink else None
        out = np.empty((height, width, 3), np.uint8)
        for channel in range(3):
            absorbed = plane_density(seen[..., channel], channel)
            absorbed *= dose
            if inked is not None:
                absorbed += inked * _INK_DENSITY[channel]
            out[..., channel] = plane_colour(absorbed, channel)
        return out

    def _is_glass(self, x: int, y: int, width: int, height: int) -> bool:
        cells = max(0, x // MAP_PX - 1), max(0, y // MAP_PX - 1)
        ends = (x + width) // MAP_PX + 2, (y + height) // MAP_PX + 2
        return bool(np.asarray(self._inside.crop((*cells, *ends))).max() <= -60)

    def _map(
        self, coarse: Image.Image, x: int, y: int, width: int, height: int
    ) -> Field:
        """A coarse map at full resolution; Pillow takes neighbours beyond the box."""
        box = x / MAP_PX, y / MAP_PX, (x + width) / MAP_PX, (y + height) / MAP_PX
        fine = coarse.resize((width, height), Image.Resampling.BILINEAR, box=box)
        return np.array(fine)

    def _compose(
        self, x: int, y: int, width: int, height: int
    ) -> tuple[Picture, Field]:
        """What the fields that meet in a rectangle show (RGB and weight), and doses.

        A pixel shows the field that leads there; only in a narrow seam are two mixed,
        so that no structure lies over another like a double exposure.
        """
        shown = np.full((height, width), _GLASS_PIXEL, np.uint32)
        dose = np.ones((height, width), np.float32)
        lead = np.full((height, width), 1e6, np.float32)
        strange = self._strange(x, y, width, height)
        near = (
            (self._boxes[:, 0] < x + width)
            & (self._boxes[:, 1] < y + height)
            & (self._boxes[:, 2] > x)
            & (self._boxes[:, 3] > y)
        )
        waiting = []
        for number in np.flatnonzero(near):
            field = self._fields[number]
            box = (
                max(x, field.left),
                max(y, field.top),
                min(x + width, field.right),
                min(y + height, field.bottom),
            )
            foreign = strange[field.texture]
            if foreign is None:
                continue
            away = self._away(field, box)
            here = slice(box[1] - y, box[3] - y), slice(box[0] - x, box[2] - x)
            away += foreign[here]
            np.minimum(lead[here], away, out=lead[here])
            waiting.append((field, box[0], box[1], here, away))
        lead += np.float32(SOFT)
        for field, left, top, here, away in waiting:
            # A field's glands win it no more than GRIP; most of its box it never leads.
            trim = _bounds(away < lead[here] + np.float32(GRIP))
            if trim is None:
                continue
            rows, columns = trim
            here = (
                slice(here[0].start + rows.start, here[0].start + rows.stop),
                slice(here[1].start + columns.start, here[1].start + columns.stop),
            )
            away = away[trim]
            seen = self._seen(
                field, left + columns.start, top + rows.start, *away.shape[::-1]
            )
            away -= seen[..., 3] * np.float32(GRIP / 255)
            ahead = lead[here] - away
            seam = np.abs(ahead) < SOFT
            mixed = _mixed(shown[here][seam], seen[seam], ahead[seam])
            leads = ahead > 0
            np.copyto(shown[here], seen.view(np.uint32)[..., 0], where=leads)
            shown[here][seam] = mixed
            np.copyto(dose[here], np.float32(field.dose), where=leads)
            np.copyto(lead[here], away, where=leads)
        return shown.view(np.uint8).reshape(height, width, 4), dose

    def _away(self, field: _Field, box: tuple[int, int, int, int]) -> Field:
        """Distance from the field's middle, warped so that no border is straight."""
        left, top, right, bottom = box
        dx = np.arange(left, right, dtype=np.float32) - np.float32(field.x)
        dy = np.arange(top, bottom, dtype=np.float32) - np.float32(field.y)
        away: Field = (dx * dx)[None, :] + (dy * dy)[:, None]
        np.sqrt(away, out=away)
        row = top - field.top + field.warp[1]
        column = left - field.left + field.warp[0]
        away += self._warp[row : row + dy.size, column : column + dx.size]
        return away

    def _strange(
        self, x: int, y: int, width: int, height: int
    ) -> tuple[Field | None, ...]:
        """How far out of its layer each texture is there; None if it grows nowhere."""
        rows = slice(max(0, y // MAP_PX - 6), (y + height) // MAP_PX + 7)
        columns = slice(max(0, x // MAP_PX - 6), (x + width) // MAP_PX + 7)
        present = np.unique(self._layer[rows, columns])
        if present.size == 1:
            at_home = np.zeros((height, width), np.float32)
            return tuple(at_home if n == present[0] else None for n in range(3))
        return tuple(
            np.clip(-STRANGE * self._map(zone, x, y, width, height), 0, 900)
            if number in present
            else None
            for number, zone in enumerate(self._zones)
        )

    def _seen(
        self, field: _Field, left: int, top: int, width: int, height: int
    ) -> Picture:
        """The field's texture as it lies on a rectangle of the slide."""
        a, b, c, d = field.matrix
        dx, dy = left - field.x, top - field.y
        u = a * dx + b * dy + field.origin[0] + RIM
        v = c * dx + d * dy + field.origin[1] + RIM
        affine = tuple(FINENESS * part for part in (a, b, u, c, d, v))
        turned = self._textures[field.texture].transform(
            (width, height),
            Image.Transform.AFFINE,
            affine,
            resample=Image.Resampling.NEAREST,
        )
        return np.asarray(turned)

    def _rim(self, margin: Field, weight: Field, x: int, y: int) -> Field:
        """One inside the tissue, zero on glass; ragged, and kinder to glands."""
        height, width = margin.shape
        rows = np.arange(y, y + height) % 512
        columns = np.arange(x, x + width) % 512
        edge = margin + self._rough[np.ix_(rows, columns)] + 22 * (weight - 0.5)
        inner: Field = np.clip(edge * np.float32(1 / 14), 0, 1)
        return inner

    def _fold(self, x: int, y: int, width: int, height: int) -> Field | np.float32:
        """How many times thicker the tissue lies: about two along the fold."""
        line = np.array(FOLD, np.float32) * np.float32(self._factor)
        half = np.float32(FOLD_HALF_WIDTH * self._factor)
        low, high = line.min(axis=0) - 2 * half, line.max(axis=0) + 2 * half
        if x > high[0] or y > high[1] or x + width < low[0] or y + height < low[1]:
            return np.float32(1)
        px = np.arange(x, x + width, dtype=np.float32)
        py = np.arange(y, y + height, dtype=np.float32)[:, None]
        middle = np.interp(px, line[:, 0], line[:, 1]).astype(np.float32)
        ends = np.minimum(px - line[0, 0], line[-1, 0] - px) / (8 * half)
        share = np.clip(ends, 0, 1)
        across = (py - middle + 8 * np.sin(px / 41)) / half
        # Folded tissue ends in a crisp edge on one side and slopes off on the other.
        thick = np.clip((1 - across) * 10, 0, 1) * np.clip((1.1 + across) * 1.8, 0, 1.6)
        thickness: Field = 1 + thick * share
        return thickness

    def _near_ink(self, x: int, y: int, width: int, height: int) -> bool:
        reach = 1.6 * INK_RADIUS * self._factor
        cx, cy = INK[0] * self._factor, INK[1] * self._factor
        return (
            x - reach < cx < x + width + reach and y - reach < cy < y + height + reach
        )

    def _ink(self, x: int, y: int, width: int, height: int) -> Field:
        """Optical density of a felt pen's dot: dark green, darker at its dried rim."""
        radius = np.float32(INK_RADIUS * self._factor)
        dx = np.arange(x, x + width, dtype=np.float32) + 0.5 - INK[0] * self._factor
        dy = np.arange(y, y + height, dtype=np.float32) + 0.5 - INK[1] * self._factor
        away = np.hypot(dx[None, :], dy[:, None]) / radius
        angle = np.arctan2(dy[:, None], dx[None, :])
        away *= 1 + 0.035 * np.sin(3 * angle + 1) + 0.02 * np.sin(7 * angle)
        body = np.clip((1 - away) * radius / 7, 0, 1)
        ring = 1 + 0.35 * np.exp(-(((away - 0.9) / 0.07) ** 2))
        streaks = 1 + 0.07 * np.sin(0.21 * dx[None, :] + 0.09 * dy[:, None])
        absorbed: Field = (body * ring * streaks).astype(np.float32)
        return absorbed


_INK_DENSITY = np.array((2.3, 1.25, 1.75), np.float32)
_GLASS_PIXEL = np.array([*GLASS, 0], np.uint8).view(np.uint32)[0]


def _lay(
    sprite: Sprite, x: int, y: int, seen: Picture, weight: Field, dose: Field
) -> None:
    """Put the part of ``sprite`` that falls into a region over what is there."""
    height, width = weight.shape
    rows, columns = sprite.opacity.shape
    left, top = max(x, sprite.x), max(y, sprite.y)
    right, bottom = min(x + width, sprite.x + columns), min(y + height, sprite.y + rows)
    if right <= left or bottom <= top:
        return
    here = slice(top - y, bottom - y), slice(left - x, right - x)
    there = (
        slice(top - sprite.y, bottom - sprite.y),
        slice(left - sprite.x, right - sprite.x),
    )
    share = sprite.opacity[there]
    under = seen[here][..., :3].astype(np.float32)
    mixed = under + share[..., None] * (sprite.rgb[there] - under)
    seen[here][..., :3] = mixed + np.float32(0.5)
    weight[here] *= 1 - share
    dose[here] += share * (1 - dose[here])


def _turned(
    texture: int, along: float, chance: NDArray[np.float64]
) -> tuple[float, float, float, float]:
    """How a field's texture is mirrored, turned and stretched.

    Glands are turned anyhow; the fibres of stroma and muscle follow the wall.
    """
    angle = 2 * np.pi * chance[0] if texture == 0 else along + 0.24 * (chance[0] - 0.5)
    flip = -1.0 if chance[1] < 0.5 else 1.0
    wide, high = 0.84 + 0.30 * chance[2], 0.84 + 0.30 * chance[3]
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    return flip * cos / wide, flip * sin / wide, -sin / high, cos / high


def _origin(texture: int, chance: NDArray[np.float64]) -> tuple[float, float]:
    if texture == 0:
        return 175.0 + 160.0 * chance[4], 175.0 + 160.0 * chance[5]
    free = QUILT_SIDE - 480.0
    return 240.0 + free * chance[4], 240.0 + free * chance[5]


def _bounds(where: NDArray[np.bool_]) -> tuple[slice, slice] | None:
    """The rows and columns within which ``where`` holds at all."""
    rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
    if not rows.size:
        return None
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _mixed(
    under: NDArray[np.uint32], over: Picture, ahead: Field
) -> NDArray[np.uint32]:
    """Pixels of a seam: ``over`` takes over as its field gets ``ahead``."""
    share = (ahead * np.float32(0.5 / SOFT) + np.float32(0.5))[:, None]
    below = under.view(np.uint8).reshape(-1, 4).astype(np.float32)
    blend = (below + share * (over - below) + np.float32(0.5)).astype(np.uint8)
    packed: NDArray[np.uint32] = blend.view(np.uint32)[:, 0]
    return packed
