"""What a reader answers whose image is no RGB picture: channels, depths and times.

Such an image is a stack of planes. A plane is named by its channel, its depth z and its
time t, and holds one number a pixel in the file's own type: counts of a fluorescence
camera, Hounsfield units, float maps. `rendering` makes an RGB picture of some of them,
and behind that everything else (tiles, protocols, regions) works as for any slide.

Planes of coordinates are those of `protocol`: `l_` is a position in the pixels of a
stored level. Everything may be called from several threads at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from tile_server.pixels import Colour
from tile_server.readers.protocol import Level, SlideFacts

# The numbers of a plane, (height, width), in one of many types and native byte order.
Numbers: TypeAlias = npt.NDArray[Any]
# Minimum and maximum: what is shown as dark and as full colour.
Window: TypeAlias = tuple[float, float]

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)
# Where a file names no colours: the first is most often a blue nuclear stain.
_COLOURS: tuple[Colour, ...] = (
    (0, 0, 255),
    (0, 255, 0),
    (255, 0, 0),
    (255, 0, 255),
    (0, 255, 255),
    (255, 255, 0),
    (255, 128, 0),
    (255, 255, 255),
)


@dataclass(frozen=True)
class Plane:
    """The name of one plane; each part counts from 0."""

    channel: int = 0
    z: int = 0
    t: int = 0


@dataclass(frozen=True)
class Channel:
    """One channel.

    Attributes
    ----------
    name
        As the file calls it, for people.
    colour
        In which it is shown unless a style says otherwise.
    window
        What the file says to show as dark and as full colour; a minimum above the
        maximum shows large numbers dark. None: from percentiles.
    shown
        False for one that is shown only where a style names it.
    """

    name: str
    colour: Colour
    window: Window | None = None
    shown: bool = True


@dataclass(frozen=True)
class PlaneFacts:
    """Which planes there are, and of what numbers.

    Attributes
    ----------
    channels
        At least one.
    depths, times
        How many z and t there are; 1 where the image has no such axis.
    dtype
        numpy's name of the numbers' type in native byte order, such as "uint16".
    z_step_um
        Micrometres from one depth to the next, or None.
    t_step_s
        Seconds from one time to the next, or None.
    unit
        What the numbers are (such as "HU"), or "".
    affine_lps
        Of a scan whose place in the patient is known: four rows of four numbers that
        take (x, y, z, 1) of a voxel to LPS millimetres. Else None.
    """

    channels: tuple[Channel, ...]
    depths: int
    times: int
    dtype: str
    z_step_um: float | None = None
    t_step_s: float | None = None
    unit: str = ""
    affine_lps: tuple[tuple[float, ...], ...] | None = None

    @property
    def number_type(self) -> np.dtype[Any]:
        return np.dtype(self.dtype)

    def has(self, plane: Plane) -> bool:
        """True where there is such a plane."""
        return (
            0 <= plane.channel < len(self.channels)
            and 0 <= plane.z < self.depths
            and 0 <= plane.t < self.times
        )


class PlaneReader(Protocol):
    """One open image of planes; a context manager, closed once by its owner."""

    @property
    def path(self) -> Path: ...

    @property
    def levels(self) -> tuple[Level, ...]:
        """Stored levels, full resolution first; `encoded` is False for all."""

    @property
    def facts(self) -> SlideFacts: ...

    @property
    def planes(self) -> PlaneFacts: ...

    @property
    def properties(self) -> Mapping[str, str]:
        """The file's own metadata; nothing of a patient."""

    def read_plane(
        self, level: int, l_x: int, l_y: int, size: tuple[int, int], *, plane: Plane
    ) -> Numbers:
        """The numbers of a rectangle of a stored level, (height, width).

        `plane` is one that the image has. What lies outside the level or is not in the
        file is 0. Raises DamagedTile.
        """

    def associated_image(self, name: str) -> npt.NDArray[np.uint8]:
        """An associated image, (height, width, 3), RGB; raises KeyError if absent."""

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def default_colour(index: int, count: int) -> Colour:
    """The colour of a channel whose file names none; one alone is grey."""
    return WHITE if count == 1 else _COLOURS[index % len(_COLOURS)]


def rgb_channels(largest: float = 255.0) -> tuple[Channel, ...]:
    """The channels of an RGB picture, which show it as it is.

    `largest` is the number of full colour: 255 for 8 bits.
    """
    window = (0.0, largest)
    return (
        Channel("red", (255, 0, 0), window),
        Channel("green", (0, 255, 0), window),
        Channel("blue", (0, 0, 255), window),
    )
