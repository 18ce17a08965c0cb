"""A slide as DICOM has it: one study of one series of instances.

An instance is a header and numbered frames. Its values know nothing of open files: the
frames are read through the slide that a request holds, so none outlives it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt
from pydicom.dataset import Dataset

from tile_server.errors import OutsideTheGrid
from tile_server.pyramid import Pyramid

Frame = npt.NDArray[Any]


class Instance(Protocol):
    """One instance; frames are numbered from 0."""

    @property
    def uid(self) -> str: ...

    @property
    def syntax(self) -> str:
        """The transfer syntax of its frames."""

    @property
    def frames(self) -> int: ...

    @property
    def header(self) -> Dataset:
        """Its attributes, without pixels and without what is told of each frame."""

    @property
    def associated(self) -> str:
        """The name of the associated image that it is, "" for a level."""

    def whole_header(self, pyramid: Pyramid) -> Dataset:
        """Its attributes without pixels; may read. Raises RegionTooLarge."""

    def stored(self, pyramid: Pyramid, number: int) -> bytes | None:
        """The file's own frame; costs a read. Raises DamagedTile."""

    def made(self, pyramid: Pyramid, number: int) -> bytes:
        """A frame that the file does not hold; costs work. Raises DamagedTile."""

    def decoded(self, pyramid: Pyramid, number: int) -> Frame:
        """(height, width) or (height, width, 3), RGB; raises DamagedTile."""


@dataclass(frozen=True)
class Study:
    """The instances of a slide, levels first."""

    uid: str
    series: str
    instances: tuple[Instance, ...]

    def find(
        self, study: str, series: str | None = None, instance: str | None = None
    ) -> Sequence[Instance]:
        """The instances at an address; raises OutsideTheGrid where there are none."""
        found = [
            one
            for one in self.instances
            if study == self.uid
            and series in (None, self.series)
            and instance in (None, one.uid)
        ]
        if not found:
            raise OutsideTheGrid("There is no such study, series or instance.")
        return found
