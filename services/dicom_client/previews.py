"""Pictures of a case for the pages: three planes through a structure, with contours.

They hold pixels of a patient, and so are kept where the case is (`phi/`), and given
only to whom may see it. No name or number stands in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pydicom
from theatrum.node import Volume
from theatrum.structures import (
    PLANES,
    Outlined,
    Roi,
    SeriesGeometry,
    StructureSet,
    centre_of,
    draw,
    mask,
    picture,
    png,
    read,
    series_geometry,
    volume,
    window_of,
)

SIZE_PX = 384
"""At the longer side: three of them have some 100 kB."""
PLAIN = (255, 255, 0)


@dataclass(frozen=True)
class Preview:
    """Three pictures of one case, as PNG."""

    axial: bytes = field(repr=False)
    coronal: bytes = field(repr=False)
    sagittal: bytes = field(repr=False)
    structures: tuple[str, ...]
    """The names of the structures that there are, in their order."""
    window: tuple[float, float]
    """Level and width that they are shown with."""


class Case:
    """A series and the structures on it, read once for many pictures."""

    def __init__(self, images: Sequence[Path], structure_set: Path | None) -> None:
        datasets = [pydicom.dcmread(path) for path in images]
        self.geometry: SeriesGeometry = series_geometry(datasets)
        self.volume: Volume = volume(datasets)
        self.structures: StructureSet | None = None
        if structure_set is not None:
            self.structures = read(pydicom.dcmread(structure_set))

    def preview(
        self,
        structure: str | None = None,
        *,
        window: tuple[float, float] | None = None,
        size_px: int = SIZE_PX,
    ) -> Preview:
        """Three planes through the middle of a structure, or of all of them.

        All structures are drawn. Raises BadStructures where there is no such
        structure.
        """
        shown = window or window_of(self.volume)
        at = centre_of(self.volume, self._wanted(structure))
        pictures = {
            plane: picture(
                self.volume, plane, at[plane], window=shown, longest_px=size_px
            )
            for plane in PLANES
        }
        for one in self._rois():
            # One mask at a time: a large CT has fifty of as many bytes as voxels.
            outlined = Outlined(one.name, self._mask(one), one.colour or PLAIN)
            for plane, onto in pictures.items():
                draw(onto, self.volume, plane, at[plane], outlined)
        return Preview(
            **{plane: png(onto) for plane, onto in pictures.items()},
            structures=tuple(one.name for one in self._rois()),
            window=shown,
        )

    def _rois(self) -> tuple[Roi, ...]:
        return self.structures.rois if self.structures is not None else ()

    def _mask(self, roi: Roi) -> npt.NDArray[np.bool_]:
        return mask(roi, self.geometry)

    def _wanted(self, structure: str | None) -> list[npt.NDArray[np.bool_]]:
        """What the planes are to go through: one structure, or all together."""
        if structure is not None and self.structures is not None:
            return [self._mask(self.structures.roi(structure))]
        together: npt.NDArray[np.bool_] | None = None
        for one in self._rois():
            area = self._mask(one)
            together = area if together is None else np.logical_or(together, area)
        return [] if together is None else [together]


def preview(
    images: Sequence[Path],
    structure_set: Path | None = None,
    structure: str | None = None,
    *,
    window: tuple[float, float] | None = None,
    size_px: int = SIZE_PX,
) -> Preview:
    """The pictures of a case that is looked at once."""
    case = Case(images, structure_set)
    return case.preview(structure, window=window, size_px=size_px)
