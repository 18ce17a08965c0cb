"""How well a result agrees with a structure set that a person drew.

Structures are paired by their names, or as somebody says. The measures are those of
`theatrum.structures.compare`: Dice, the 95th percentile of the Hausdorff distance, the
surface Dice and more. Everything is a value that a page or a table can show.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pydicom
from pydicom import Dataset
from theatrum.structures import (
    BadStructures,
    Comparison,
    StructureSet,
    compare,
    mask,
    read,
    series_geometry,
)
from theatrum.structures.comparison import TOLERANCE_MM

_SIDES = {"left": "l", "lt": "l", "right": "r", "rt": "r"}


@dataclass(frozen=True)
class Overlap:
    """One structure against the one that a person drew."""

    structure: str
    reference: str
    comparison: Comparison

    def as_json(self) -> dict[str, str | float | None]:
        """Plain values; None for a distance that is infinite, as to nothing."""
        measures = asdict(self.comparison)
        return {"structure": self.structure, "reference": self.reference} | {
            name: value if math.isfinite(value) else None
            for name, value in measures.items()
        }


def overlaps(
    result: Path,
    reference: Path,
    headers: Sequence[Dataset],
    *,
    pairs: Mapping[str, str] | None = None,
    tolerance_mm: float = TOLERANCE_MM,
    progress: Callable[[float], None] = lambda _share: None,
    check: Callable[[], None] = lambda: None,
) -> list[Overlap]:
    """Measure a result against a manual structure set on the same images.

    `pairs` are the reference's names by the result's; without it names decide
    (`paired`). `check` is called for every pair, and stops by what it raises.

    Raises BadStructures where the reference is of other images, or has a structure
    that is not there.
    """
    geometry = series_geometry(headers)
    ours, theirs = read(pydicom.dcmread(result)), read(pydicom.dcmread(reference))
    frames = {one for one in theirs.frame_of_reference_uids if one}
    if frames and geometry.frame_of_reference_uid not in frames:
        raise BadStructures(
            "the reference lies in another frame of reference: choose one that was "
            "drawn on these images"
        )
    across, down, along = geometry.spacing_mm
    measured = []
    chosen = pairs or paired(ours, theirs)
    for ours_name, theirs_name in chosen.items():
        check()
        measures = compare(
            mask(ours.roi(ours_name), geometry),
            mask(theirs.roi(theirs_name), geometry),
            (along, down, across),
            tolerance_mm,
        )
        measured.append(Overlap(ours_name, theirs_name, measures))
        progress(len(measured) / len(chosen))
    return measured


def paired(result: StructureSet, reference: StructureSet) -> dict[str, str]:
    """The reference's names by the result's, where both say the same.

    `Lung_L`, `lung left` and `Left Lung` are one; a name that stands several times in
    one of them pairs with none.
    """
    ours, theirs = _by_meaning(result), _by_meaning(reference)
    return {name: theirs[key] for key, name in ours.items() if key in theirs}


def _by_meaning(structures: StructureSet) -> dict[str, str]:
    found: dict[str, list[str]] = {}
    for one in structures.rois:
        words = re.findall(r"[a-z]+|\d+", one.name.casefold())
        key = " ".join(sorted(_SIDES.get(word, word) for word in words))
        found.setdefault(key, []).append(one.name)
    return {key: names[0] for key, names in found.items() if len(names) == 1}
