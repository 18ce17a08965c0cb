"""Structures made from others: margins, rings, unions, added to a structure set.

The operations are those of `theatrum.structures.run`, in millimetres. A pipeline may
name a structure by the server's name or by its label, and those that were made before
it. One that cannot be made stays empty, with a note; the rest goes on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from theatrum.structures import (
    Drawn,
    Roi,
    SeriesGeometry,
    StructureError,
    StructureSet,
    mask,
    read,
    run,
    structure_set,
)

from services.dicom_client.result_checks import Finding, Severity
from services.dicom_client.roi_properties import encodable
from services.dicom_client.templates import GeneratedRoi, Template

Mask = npt.NDArray[np.bool_]
_GREY = (192, 192, 192)
_SIGMAS = 4.0
"""How far a Gaussian reaches: scipy cuts it there."""


def add_generated(
    dataset: Dataset,
    template: Template,
    images: Sequence[Dataset],
    geometry: SeriesGeometry,
    *,
    whole: bool = True,
) -> list[Finding]:
    """Add the template's generated structures, in place; what failed is told.

    Where images are missing (`whole` is False), all of them stay empty.
    """
    if not template.generated:
        return []
    structures = _Structures(read(dataset), template, geometry)
    findings: list[Finding] = []
    drawn = []
    for made in template.generated:
        shape = geometry.size[::-1]
        try:
            if made.operations and not whole:
                raise StructureError("images are missing")
            area = structures.made(made) if made.operations else np.zeros(shape, bool)
        except (StructureError, ValueError, TypeError) as err:
            area = np.zeros(shape, bool)
            findings.append(
                Finding(7, Severity.WARNING, f"{made.label} stays empty: {err}")
            )
        structures.remember(made.label, area)
        drawn.append(
            Drawn(
                encodable(made.label, dataset),
                area,
                made.properties.colour or _GREY,
                made.properties.interpreted_type,
                "Generated" if made.operations else "",
            )
        )
    _append(dataset, drawn, images, geometry)
    return findings


def drawn_rois(structures: StructureSet, geometry: SeriesGeometry) -> list[Drawn]:
    """All structures as masks."""
    return [
        Drawn(
            one.name,
            mask(one, geometry),
            one.colour or _GREY,
            one.interpreted_type,
        )
        for one in structures.rois
    ]


class _Structures:
    """The masks of a structure set by all names they go by, made when first wanted."""

    def __init__(
        self, found: StructureSet, template: Template, geometry: SeriesGeometry
    ) -> None:
        self._geometry = geometry
        self._masks: dict[str, Mask] = {}
        self._rois: dict[str, Roi] = {one.name.casefold(): one for one in found.rois}
        for model in template.models:
            for one in model.structures:
                label = (one.properties.label or one.name).casefold()
                if label in self._rois:
                    self._rois.setdefault(one.name.casefold(), self._rois[label])

    def remember(self, label: str, area: Mask) -> None:
        self._masks[label.casefold()] = area

    def _mask(self, name: str) -> Mask | None:
        key = name.casefold()
        if key not in self._masks and key in self._rois:
            self._masks[key] = mask(self._rois[key], self._geometry)
        return self._masks.get(key)

    def made(self, wanted: GeneratedRoi) -> Mask:
        """Run a pipeline, on the part of the images that it can touch."""
        named = {
            str(name)
            for step in wanted.operations
            for name in step.get("structures") or []
        }
        masks = {name: area for name in named if (area := self._mask(name)) is not None}
        across, down, along = self._geometry.spacing_mm
        spacing = (along, down, across)
        shape = self._geometry.size[::-1]
        box = _box(list(masks.values()), _reach_mm(wanted.operations), spacing, shape)
        whole = np.zeros(shape, bool)
        whole[box] = run(
            wanted.operations,
            {name: area[box] for name, area in masks.items()},
            spacing,
        )
        return whole


def _reach_mm(operations: Sequence[Mapping[str, Any]]) -> float:
    """How far outside of its structures a pipeline can draw, or look, in all."""
    reach = 0.0
    for step in operations:
        for name, value in (step.get("parameters") or {}).items():
            if name.endswith("_mm"):
                factor = _SIGMAS if name == "sigma_mm" else 1.0
                reach += factor * abs(float(value))
    return reach if math.isfinite(reach) else 0.0


def _box(
    masks: Sequence[Mask],
    reach_mm: float,
    spacing: tuple[float, float, float],
    shape: tuple[int, ...],
) -> tuple[slice, ...]:
    """The part of the images that holds the masks and `reach_mm` around them."""
    box = []
    for axis, (size, step) in enumerate(zip(shape, spacing, strict=True)):
        others = tuple(one for one in range(len(shape)) if one != axis)
        used = np.zeros(size, bool)
        for one in masks:
            used |= one.any(axis=others)
        at = np.flatnonzero(used)
        if not len(at):
            return (slice(0, 1),) * len(shape)
        # One voxel more: what is cut off there has to be seen as outside.
        around = math.ceil(reach_mm / step) + 2
        box.append(
            slice(max(0, int(at[0]) - around), min(size, int(at[-1]) + around + 1))
        )
    return tuple(box)


def _append(
    dataset: Dataset,
    drawn: Sequence[Drawn],
    images: Sequence[Dataset],
    geometry: SeriesGeometry,
) -> None:
    """Move structures over from a structure set of their own, under free numbers."""
    made = structure_set(
        drawn,
        images,
        geometry,
        label="",
        series_description="",
        made_at=datetime(2000, 1, 1, tzinfo=UTC),
    )
    used = [int(one.ROINumber) for one in dataset.get("StructureSetROISequence") or []]
    used += [
        int(one.get("ObservationNumber") or 0)
        for one in dataset.get("RTROIObservationsSequence") or []
    ]
    first = max(used, default=0)
    for keyword in (
        "StructureSetROISequence",
        "ROIContourSequence",
        "RTROIObservationsSequence",
    ):
        if keyword not in dataset:
            setattr(dataset, keyword, [])
        for item in made[keyword].value:
            for number in ("ROINumber", "ReferencedROINumber", "ObservationNumber"):
                if number in item:
                    setattr(item, number, int(item[number].value) + first)
            dataset[keyword].value.append(item)
