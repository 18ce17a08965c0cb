"""A slide whose colours were converted to sRGB, which then is a slide like any other.

Where a browser does not manage colours, or a program reads pixels, the profile beside
the picture helps nobody: so the service converts, once for each tile, by the slide's
own profile and with perceptual intent, as scanners' profiles are made for. What is
decoded is converted at the level's own pixels, and only then made smaller.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from PIL import Image, ImageCms

from tile_server.errors import BadRequest
from tile_server.pixels import Colour, Pixels
from tile_server.readers.protocol import Level, Reader, SlideFacts


class Converted:
    """A slide in sRGB; see `protocol.Reader` for the methods.

    It does not own the slide that it shows, and must not be used after that is closed.
    """

    def __init__(self, slide: Reader) -> None:
        """Show `slide`, which has a profile; raises BadRequest for a useless one."""
        profile = slide.facts.profile
        assert profile is not None  # noqa: S101 - the caller looked; for mypy
        self._slide = slide
        try:
            self._transform = ImageCms.buildTransform(
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                "RGB",
                "RGB",
                ImageCms.Intent.PERCEPTUAL,
            )
        except (ImageCms.PyCMSError, OSError) as error:
            raise BadRequest(
                "The slide's colour profile cannot be used: ask without icc=srgb."
            ) from error
        one = np.asarray(slide.facts.background, np.uint8).reshape(1, 1, 3)
        red, green, blue = (int(part) for part in self._convert(one)[0, 0])
        background: Colour = (red, green, blue)
        self.facts: SlideFacts = replace(
            slide.facts, background=background, profile=None
        )
        # Its tiles have to be decoded.
        self.levels: tuple[Level, ...] = tuple(
            replace(level, encoded=False) for level in slide.levels
        )

    @property
    def path(self) -> Path:
        return self._slide.path

    @property
    def properties(self) -> Mapping[str, str]:
        return self._slide.properties

    def encoded_tile(self, level: int, t_x: int, t_y: int) -> bytes | None:  # noqa: ARG002
        return None

    def read(self, level: int, l_x: int, l_y: int, size: tuple[int, int]) -> Pixels:
        return self._convert(self._slide.read(level, l_x, l_y, size))

    def associated_image(self, name: str) -> Pixels:
        """As it is: the profile is that of the scan, not of the photographs."""
        return self._slide.associated_image(name)

    def close(self) -> None:
        """Nothing to close."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _convert(self, pixels: Pixels) -> Pixels:
        image = Image.fromarray(np.ascontiguousarray(pixels))
        converted = ImageCms.applyTransform(image, self._transform)
        return np.asarray(converted, np.uint8)
