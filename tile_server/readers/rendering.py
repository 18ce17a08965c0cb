"""An RGB picture made of planes, which then is a slide like any other.

Each channel's numbers go through its window and gamma to a share of its colour, and the
channels' colours are added. Numbers of 8 and 16 bits go through a table, so a pixel
costs one look-up a channel; others are computed. A coarser level that is composed is an
average of shown colours, not of numbers.

Planes of coordinates are those of the readers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from tile_server import patience
from tile_server.errors import DamagedTile, UnreadableSlide
from tile_server.pixels import Colour, Pixels, plain
from tile_server.readers.planes import (
    Numbers,
    Plane,
    PlaneFacts,
    PlaneReader,
    Window,
    rgb_channels,
)
from tile_server.readers.protocol import Closes, Level, Reader, SlideFacts
from tile_server.readers.statistics import automatic_window
from tile_server.readers.style import MOST_CHANNELS, PLAIN, ChannelStyle, Style, check

# The grid of levels whose chunks make no good tiles.
_GRID = 512
_GOOD_GRID = range(256, 1025)
_TABLE_BYTES = 2
# Each is looked at when the image is opened, to find its window.
_MOST_CHANNELS = 512


@dataclass(frozen=True)
class _Layer:
    """One channel to show, with everything decided."""

    channel: int
    colour: Colour
    window: Window
    gamma: float


class Rendered(Closes):
    """Planes shown in a style; see `protocol.Reader` for the methods.

    It owns its planes: closing it closes them. What `restyled` gives shares them and
    must not be used after that.
    """

    def __init__(
        self,
        planes: PlaneReader,
        style: Style = PLAIN,
        *,
        levels: Sequence[Level] | None = None,
    ) -> None:
        """Show `planes`, which are closed with this, on the grid of `levels`.

        Without them it is the chunks' own grid, where that makes good tiles. Reads a
        little to find the windows that the file does not name. Raises BadRequest for a
        style that does not fit, and DamagedTile.
        """
        self.source = planes
        self._windows = tuple(
            channel.window or automatic_window(planes, number)
            for number, channel in enumerate(planes.planes.channels)
        )
        self._levels = tuple(
            replace(level, encoded=False) for level in levels or _regridded(planes)
        )
        self._owner = True
        self._show(style)

    def restyled(self, style: Style) -> Rendered:
        """The same planes in another style; raises BadRequest."""
        other = object.__new__(Rendered)
        other.source = self.source
        other._windows = self._windows
        other._levels = self._levels
        other._owner = False
        other._show(style)
        return other

    def _show(self, style: Style) -> None:
        facts = self.source.planes
        check(style, facts)
        self.style = style
        all_shown = [
            ChannelStyle(number)
            for number, channel in enumerate(facts.channels)
            if channel.shown
        ]
        wanted: Sequence[ChannelStyle] = style.channels or all_shown[:MOST_CHANNELS]
        self._layers = tuple(self._layer(one) for one in wanted)
        dtype = facts.number_type
        self._tables = None
        if dtype.kind in "iu" and dtype.itemsize <= _TABLE_BYTES:
            self._tables = tuple(_table(layer, dtype) for layer in self._layers)
        middle = facts.depths // 2
        depths = range(facts.depths) if style.projection else [style.z]
        self._depths = tuple(middle if z is None else z for z in depths)

    @property
    def path(self) -> Path:
        return self.source.path

    @property
    def levels(self) -> tuple[Level, ...]:
        return self._levels

    @property
    def facts(self) -> SlideFacts:
        return self.source.facts

    @property
    def planes(self) -> PlaneFacts:
        """As the source has them, with every window decided."""
        facts = self.source.planes
        return replace(
            facts,
            channels=tuple(
                replace(channel, window=window)
                for channel, window in zip(facts.channels, self._windows, strict=True)
            ),
        )

    @property
    def properties(self) -> Mapping[str, str]:
        return self.source.properties

    def encoded_tile(self, level: int, t_x: int, t_y: int) -> bytes | None:  # noqa: ARG002
        return None

    def read(self, level: int, l_x: int, l_y: int, size: tuple[int, int]) -> Pixels:
        pixels = plain(*size, self.facts.background)
        shape = self._levels[level]
        left, top = max(l_x, 0), max(l_y, 0)
        right = min(l_x + size[0], shape.width)
        bottom = min(l_y + size[1], shape.height)
        if right <= left or bottom <= top:
            return pixels
        inside = right - left, bottom - top
        shown = np.zeros((inside[1], inside[0], 3), np.uint16)
        for number, layer in enumerate(self._layers):
            numbers = self._numbers(level, (left, top), inside, layer.channel)
            if self._tables is None:
                colours = _computed(layer, numbers)
            else:
                # Signed numbers index the table by their bits.
                bits = numbers.view(f"u{numbers.dtype.itemsize}")
                colours = self._tables[number][bits]
            shown += colours
        part = np.minimum(shown, 255).astype(np.uint8)
        pixels[top - l_y : bottom - l_y, left - l_x : right - l_x] = part
        return pixels

    def associated_image(self, name: str) -> Pixels:
        return self.source.associated_image(name)

    def close(self) -> None:
        if self._owner:
            self.source.close()

    def _layer(self, wanted: ChannelStyle) -> _Layer:
        channel = self.source.planes.channels[wanted.index]
        window = wanted.window or self._windows[wanted.index]
        if window == "auto":
            window = (
                self._windows[wanted.index]
                if channel.window is None
                else automatic_window(self.source, wanted.index)
            )
        return _Layer(
            wanted.index, wanted.colour or channel.colour, window, wanted.gamma
        )

    def _numbers(
        self, level: int, corner: tuple[int, int], size: tuple[int, int], channel: int
    ) -> Numbers:
        """One channel's numbers at the style's depth, or their maximum over depths."""
        first, *others = (Plane(channel, depth, self.style.t) for depth in self._depths)
        numbers = self.source.read_plane(level, *corner, size, plane=first)
        for plane in others:
            patience.check()
            more = self.source.read_plane(level, *corner, size, plane=plane)
            np.fmax(numbers, more, out=numbers)
        return numbers


def rendered(planes: PlaneReader) -> Rendered:
    """Planes as a picture, which owns them; raises UnreadableSlide and closes them."""
    count = len(planes.planes.channels)
    if count > _MOST_CHANNELS:
        planes.close()
        raise UnreadableSlide(
            f"{planes.path.name} has {count} channels, more than {_MOST_CHANNELS}."
        )
    try:
        return Rendered(planes)
    except DamagedTile as error:
        planes.close()
        raise UnreadableSlide(
            f"{planes.path.name} opens, but has no pixels to show. {error}"
        ) from error
    except BaseException:
        planes.close()
        raise


@dataclass(frozen=True)
class RgbPlanes(Closes):
    """An RGB slide as three planes of 8 bits; it does not own the slide."""

    slide: Reader
    planes: PlaneFacts

    @property
    def path(self) -> Path:
        return self.slide.path

    @property
    def levels(self) -> tuple[Level, ...]:
        return self.slide.levels

    @property
    def facts(self) -> SlideFacts:
        return self.slide.facts

    @property
    def properties(self) -> Mapping[str, str]:
        return self.slide.properties

    def read_plane(
        self, level: int, l_x: int, l_y: int, size: tuple[int, int], *, plane: Plane
    ) -> Numbers:
        pixels = self.slide.read(level, l_x, l_y, size)
        return np.ascontiguousarray(pixels[:, :, plane.channel])

    def associated_image(self, name: str) -> Pixels:
        return self.slide.associated_image(name)

    def close(self) -> None:
        """Nothing to close."""


@runtime_checkable
class HasColourPlanes(Protocol):
    """An RGB slide with more than one picture: focal planes, optical paths."""

    @property
    def colour_planes(self) -> PlaneReader:
        """Its pictures as planes of 8 bits, red, green and blue; it owns them."""


def planes_of(reader: Reader) -> PlaneReader:
    """The planes behind a picture: its own numbers, or its red, green and blue."""
    if isinstance(reader, Rendered):
        return reader.source
    if isinstance(reader, HasColourPlanes):
        return reader.colour_planes
    return RgbPlanes(reader, PlaneFacts(rgb_channels(), 1, 1, "uint8"))


def plane_facts(reader: Reader) -> PlaneFacts:
    """What planes a picture has; every window is decided."""
    return reader.planes if isinstance(reader, Rendered) else planes_of(reader).planes


def styled(reader: Reader, style: Style) -> Reader:
    """The same image in a style; the caller goes on owning `reader`.

    Raises BadRequest for a style that does not fit the image, and DamagedTile.
    """
    if isinstance(reader, Rendered):
        return reader.restyled(style)
    # A viewer goes on asking for the tiles of the grid that it was told.
    return Rendered(planes_of(reader), style, levels=reader.levels)


def _regridded(planes: PlaneReader) -> Sequence[Level]:
    """The levels on a grid that makes good tiles."""
    full = planes.levels[0]
    square = full.tile_width == full.tile_height
    edge = full.tile_width if square and full.tile_width in _GOOD_GRID else _GRID
    return [replace(one, tile_width=edge, tile_height=edge) for one in planes.levels]


def _share(layer: _Layer, numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Where numbers lie in the window, 0 to 1, after gamma."""
    low, high = layer.window
    # What is no number (a hole in a map) is shown like the darkest.
    # Numbers beyond all measure in the file: NaN, which becomes the window's foot.
    with np.errstate(invalid="ignore", over="ignore"):
        share = np.nan_to_num((numbers - low) / (high - low), nan=0.0)
    share = np.clip(share, 0.0, 1.0)
    return share if layer.gamma == 1.0 else share**layer.gamma


def _coloured(layer: _Layer, share: npt.NDArray[np.float64]) -> npt.NDArray[np.uint16]:
    colour = np.asarray(layer.colour, np.float64)
    return np.rint(share[..., None] * colour).astype(np.uint16)


def _table(layer: _Layer, dtype: np.dtype[np.generic]) -> npt.NDArray[np.uint16]:
    """The colour of every number of a type of 8 or 16 bits, by the number's bits."""
    bits = np.arange(2 ** (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}")
    return _coloured(layer, _share(layer, bits.view(dtype).astype(np.float64)))


def _computed(layer: _Layer, numbers: Numbers) -> npt.NDArray[np.uint16]:
    return _coloured(layer, _share(layer, numbers.astype(np.float64)))
