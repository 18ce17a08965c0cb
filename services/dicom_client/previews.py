"""Pictures of a case for the pages: three planes through a structure, with contours.

They hold pixels of a patient, and so are kept where the case is (`phi/`), and given
only to whom may see it. No name or number stands in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from theatrum.node import Volume
from theatrum.structures import (
    PLANES,
    Outlined,
    SeriesGeometry,
    StructureSet,
    centre_of,
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
        outlined = self._outlined()
        chosen = [one.mask for one in outlined]
        if structure is not None and self.structures is not None:
            wanted = self.structures.roi(structure)
            chosen = [mask(wanted, self.geometry)]
        shown = window or window_of(self.volume)
        at = centre_of(self.volume, chosen)
        pictures = {
            plane: png(
                picture(
                    self.volume,
                    plane,
                    at[plane],
                    outlined,
                    window=shown,
                    longest_px=size_px,
                )
            )
            for plane in PLANES
        }
        return Preview(
            **pictures, structures=tuple(one.name for one in outlined), window=shown
        )

    def _outlined(self) -> list[Outlined]:
        if self.structures is None:
            return []
        return [
            Outlined(one.name, mask(one, self.geometry), one.colour or PLAIN)
            for one in self.structures.rois
        ]


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
