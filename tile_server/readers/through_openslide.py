"""The reader for everything that openslide opens: it stitches and decodes.

openslide takes positions in level-0 pixels. Where a level's downsample is not a whole
number, a level pixel falls between two of them and openslide interpolates; the error of
position stays under half a level-0 pixel.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import openslide
from PIL import Image, ImageCms

from tile_server import icc
from tile_server.errors import DamagedTile, UnreadableSlide
from tile_server.pixels import Colour, Pixels
from tile_server.readers.limits import MOST_WHOLE_PIXELS
from tile_server.readers.protocol import Closes, Level, SlideFacts

log = logging.getLogger(__name__)

# A multiple of the tile sizes that scanners use (256, 512), and four times fewer
# requests than 256.
GRID = 512
_WHITE: Colour = (255, 255, 255)


class OpenSlideReader(Closes):
    """A slide read through openslide; see `protocol.Reader` for the methods."""

    def __init__(
        self, path: Path, *, decoded_cache: openslide.OpenSlideCache | None = None
    ) -> None:
        """Open `path`; `decoded_cache` may be shared by many slides.

        Raises UnreadableSlide.
        """
        self._path = path
        self._decoded_cache = decoded_cache
        self._lock = threading.Lock()
        self._closed = False
        slide = self._open()
        self._slide: openslide.OpenSlide | None = slide
        self.properties: Mapping[str, str]
        try:
            self.properties = dict(slide.properties)
            self._downsamples = tuple(slide.level_downsamples)
            self._facts = _facts(slide, self.properties)
            sizes = slide.level_dimensions
            _refuse_absurd_tiles(path, self.properties)
        except UnreadableSlide:
            slide.close()
            raise
        except (openslide.OpenSlideError, KeyError) as error:
            # A KeyError comes from a property without a value, in a damaged file.
            slide.close()
            raise UnreadableSlide(f"{path.name} has damaged metadata.") from error
        self._levels = tuple(
            Level(width, height, GRID, GRID, encoded=False) for width, height in sizes
        )

    @property
    def path(self) -> Path:
        return self._path

    @property
    def levels(self) -> tuple[Level, ...]:
        return self._levels

    @property
    def facts(self) -> SlideFacts:
        return self._facts

    @property
    def vendor(self) -> str:
        """openslide's name of the format."""
        return self.properties.get(openslide.PROPERTY_NAME_VENDOR, "")

    def encoded_tile(self, level: int, t_x: int, t_y: int) -> bytes | None:  # noqa: ARG002
        return None

    def read(self, level: int, l_x: int, l_y: int, size: tuple[int, int]) -> Pixels:
        scale = self._downsamples[level]
        l0_corner = (round(l_x * scale), round(l_y * scale))
        slide = self._handle()
        try:
            region = slide.read_region(l0_corner, level, size)
        except openslide.OpenSlideError as error:
            self._drop(slide)
            raise DamagedTile(f"It cannot be read: {self._reason(error)}.") from error
        return _on_background(region, self._facts.background)

    def associated_image(self, name: str) -> Pixels:
        width, height = (
            _number(self.properties.get(f"openslide.associated.{name}.{side}")) or 0
            for side in ("width", "height")
        )
        if width * height > MOST_WHOLE_PIXELS:
            raise DamagedTile(f"It says that it has {width:g} x {height:g} pixels.")
        with self._lent() as slide:
            try:
                image = slide.associated_images[name]
            except openslide.OpenSlideError as error:
                self._drop(slide)
                reason = self._reason(error)
                raise DamagedTile(f"It cannot be read: {reason}.") from error
        return _on_background(image, self._facts.background)

    def set_aside(self) -> None:
        """Close openslide's handle until it is needed; nobody may be reading."""
        with self._lock:
            slide, self._slide = self._slide, None
        if slide is not None:
            slide.close()

    def close(self) -> None:
        self._closed = True
        self.set_aside()

    def _open(self) -> openslide.OpenSlide:
        try:
            slide = openslide.OpenSlide(str(self._path))
        except openslide.OpenSlideUnsupportedFormatError as error:
            raise UnreadableSlide(
                f"{self._path.name} is not a slide in a format that can be read here, "
                "or it is cut off."
            ) from error
        except (openslide.OpenSlideError, OSError) as error:
            raise UnreadableSlide(
                f"{self._path.name} cannot be opened: {self._reason(error)}."
            ) from error
        if self._decoded_cache is not None:
            slide.set_cache(self._decoded_cache)
        return slide

    def _reason(self, error: Exception) -> str:
        """What openslide says, without the folder in which the slide lies."""
        folders = {self._path.parent, self._path.resolve().parent}
        reason = str(error)
        for folder in folders:
            reason = reason.replace(f"{folder}/", "")
        return reason

    def _drop(self, failed: openslide.OpenSlide) -> None:
        """Forget a handle that met an error: openslide never uses it again.

        The old handle is not closed here, since another thread may be inside it; it
        goes when the last of them lets go of it.
        """
        with self._lock:
            if self._slide is failed:
                self._slide = None

    def _handle(self) -> openslide.OpenSlide:
        """openslide's handle, opened anew after `set_aside` or an error."""
        with self._lock:
            if self._slide is None:
                self._slide = self._reopened()
            return self._slide

    @contextmanager
    def _lent(self) -> Iterator[openslide.OpenSlide]:
        """The handle that is open, else one that is open only as long as this lasts."""
        with self._lock:
            slide = self._slide
        if slide is not None:
            yield slide
            return
        with self._reopened() as passing:
            yield passing

    def _reopened(self) -> openslide.OpenSlide:
        if self._closed:
            raise DamagedTile("It is closed.")
        try:
            return self._open()
        except UnreadableSlide as error:
            raise DamagedTile(f"It cannot be opened again: {error}") from error


def _facts(slide: openslide.OpenSlide, properties: Mapping[str, str]) -> SlideFacts:
    vendor = properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown")
    return SlideFacts(
        format=vendor,
        mpp_x=_number(properties.get(openslide.PROPERTY_NAME_MPP_X)),
        mpp_y=_number(properties.get(openslide.PROPERTY_NAME_MPP_Y)),
        objective=_number(properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER)),
        background=_colour(properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR)),
        associated=tuple(sorted(slide.associated_images)),
        series=properties.get("dicom.SeriesInstanceUID", ""),
        profile=_profile(slide, properties),
    )


def _refuse_absurd_tiles(path: Path, properties: Mapping[str, str]) -> None:
    """Raise UnreadableSlide for a tile that openslide could not hold in memory.

    It takes the memory of a whole tile when it decodes one, believing the header, and
    ends the process where there is not so much.
    """
    for number in range(int(_number(properties.get("openslide.level-count")) or 0)):
        width, height = (
            _number(properties.get(f"openslide.level[{number}].tile-{side}")) or 0
            for side in ("width", "height")
        )
        if width * height > MOST_WHOLE_PIXELS:
            raise UnreadableSlide(
                f"{path.name} says that it has tiles of {width:g} x {height:g} pixels."
            )


def _profile(slide: openslide.OpenSlide, properties: Mapping[str, str]) -> bytes | None:
    """The slide's ICC profile; a damaged one is as good as none."""
    size = _number(properties.get("openslide.icc-size"))
    if size is None or size > icc.MOST_BYTES:
        return None
    try:
        profile = slide.color_profile
        return None if profile is None else _shared(icc.profile_of(profile.tobytes()))
    except (
        openslide.OpenSlideError,
        ImageCms.PyCMSError,
        OSError,
        ValueError,
    ) as error:
        log.info("a slide's ICC profile is damaged (%s)", type(error).__name__)
        return None


@lru_cache(maxsize=16)
def _shared(profile: bytes | None) -> bytes | None:
    """An equal profile that another slide has: those of one scanner are all equal."""
    return profile


def _number(text: str | None) -> float | None:
    """A positive finite number, or None for anything else a header may say."""
    try:
        value = float(text) if text else 0.0
    except ValueError:
        return None
    return value if 0.0 < value < float("inf") else None


def _colour(text: str | None) -> Colour:
    """A colour written as six hexadecimal digits, else white."""
    try:
        red, green, blue = bytes.fromhex(text or "")
    except ValueError:
        return _WHITE
    return red, green, blue


def _on_background(image: Image.Image, background: Colour) -> Pixels:
    """RGB pixels of an RGBA picture laid on the background."""
    rgba = np.asarray(image.convert("RGBA"))
    alpha = rgba[:, :, 3]
    if alpha.min(initial=255) == 255:
        return np.ascontiguousarray(rgba[:, :, :3])
    weight = alpha[:, :, None].astype(np.uint16)
    under = np.asarray(background, np.uint16)
    mixed = (rgba[:, :, :3] * weight + under * (255 - weight) + 127) // 255
    return mixed.astype(np.uint8)
