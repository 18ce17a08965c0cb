"""One file's frames as slices with their places, whatever kind of file it is.

A plain file is one slice, an enhanced multi-frame file one a frame (PS3.3, clause
C.7.6.16), a Siemens mosaic one a tile. Planes: a place is LPS millimetres, of the
centre of the first pixel; `across` and `down` are the directions of rising column and
row (PS3.3, clause C.7.6.2.1.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from theatrum.catalog.formats.dicom.coding import Coding, coding_of, spans
from theatrum.catalog.formats.dicom.frames import Source
from theatrum.catalog.formats.dicom.headers import Header, number, numbers
from theatrum.catalog.formats.dicom.mosaic import mosaic_of
from theatrum.catalog.formats.dicom.scaling import (
    UNSCALED,
    Scaling,
    private_groups,
    scaling_of,
)

Triple = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Slice:
    """One plane of pixels.

    Attributes
    ----------
    place, across, down
        Where it lies, or None where the file does not say.
    step_mm
        Millimetres from a row and from a column to the next, or None.
    normal
        Where the next slice of a mosaic lies, of length 1; else None.
    thickness_mm
        From a slice to the next as the header has it, or None.
    kind
        What else tells stacks of one series apart: echo, component, stack.
    when
        What orders slices of one place: lower comes first.
    """

    source: Source
    header: Header
    coding: Coding
    rows: int
    columns: int
    place: Triple | None
    across: Triple | None
    down: Triple | None
    step_mm: tuple[float, float] | None
    thickness_mm: float | None
    kind: tuple[str, ...]
    when: tuple[float, ...]
    frame: int = 0
    normal: Triple | None = None
    seconds: float | None = None
    scaling: Scaling = UNSCALED

    @property
    def padding(self) -> float:
        """What a pixel of nothing holds, rescaled."""
        stored = self.header.number("PixelPaddingValue") or 0.0
        return stored * self.source.slope + self.source.intercept


def slices_of(header: Header, file: int) -> list[Slice]:
    """The slices of one file, which has the place `file` in its series.

    Raises Damaged.
    """
    coding = coding_of(header)
    frames = spans(header, coding)
    if header.dataset.get("PerFrameFunctionalGroupsSequence"):
        return [
            _enhanced(header, coding, file, number, span)
            for number, span in enumerate(frames)
        ]
    if len(frames) == 1:
        tiles = mosaic_of(header)
        if tiles is not None:
            return tiles.slices(_plain(header, coding, file, 0, frames[0]))
    return [
        _plain(header, coding, file, number, span) for number, span in enumerate(frames)
    ]


def _plain(
    header: Header, coding: Coding, file: int, frame: int, span: tuple[int, int]
) -> Slice:
    dataset = header.dataset
    scaling = _scaling(coding, dataset, [dataset])
    cosines = numbers(dataset.get("ImageOrientationPatient"), 6)
    place = numbers(dataset.get("ImagePositionPatient"), 3)
    when = [
        header.number("TemporalPositionIdentifier") or 0.0,
        header.number("DiffusionBValue") or 0.0,
        header.number("AcquisitionNumber") or 0.0,
        header.number("TriggerTime") or 0.0,
        _clock(header.text("AcquisitionTime") or header.text("ContentTime")),
        header.number("InstanceNumber") or 0.0,
        float(frame),
    ]
    return Slice(
        source=Source(file, *span, scaling.slope, scaling.intercept),
        header=header,
        coding=coding,
        rows=coding.rows,
        columns=coding.columns,
        place=None if place is None else (place[0], place[1], place[2]),
        across=None if cosines is None else (cosines[0], cosines[1], cosines[2]),
        down=None if cosines is None else (cosines[3], cosines[4], cosines[5]),
        step_mm=_steps(dataset),
        thickness_mm=_thickness(dataset),
        kind=(
            f"echo {header.number('EchoTime') or 0:g}",
            _component([str(one) for one in dataset.get("ImageType") or ()]),
        ),
        when=tuple(when),
        frame=frame,
        scaling=scaling,
        seconds=_clock(header.text("AcquisitionTime")) or None,
    )


def _enhanced(
    header: Header, coding: Coding, file: int, frame: int, span: tuple[int, int]
) -> Slice:
    shared = (header.dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    own = header.dataset.PerFrameFunctionalGroupsSequence[frame]

    def macro(name: str) -> Dataset:
        """A macro of this frame, or that of all."""
        for group in (own, shared):
            found = group.get(name)
            if found:
                return found[0]  # type: ignore[no-any-return]  # pydicom's Sequence
        return Dataset()

    cosines = numbers(
        macro("PlaneOrientationSequence").get("ImageOrientationPatient"), 6
    )
    place = numbers(macro("PlanePositionSequence").get("ImagePositionPatient"), 3)
    measures = macro("PixelMeasuresSequence")
    content = macro("FrameContentSequence")
    places = [*private_groups(own), *private_groups(shared), header.dataset]
    scaling = _scaling(coding, macro("PixelValueTransformationSequence"), places)
    diffusion = macro("MRDiffusionSequence")
    component = macro("MRImageFrameTypeSequence").get("ComplexImageComponent")
    indices = content.get("DimensionIndexValues") or []
    if isinstance(indices, int):
        indices = [indices]
    when = [
        number(content.get("TemporalPositionIndex")) or 0.0,
        number(diffusion.get("DiffusionBValue")) or 0.0,
        number(content.get("FrameAcquisitionNumber")) or 0.0,
        number(macro("CardiacSynchronizationSequence").get("NominalCardiacTriggerDelayTime"))
        or 0.0,
        _clock(str(content.get("FrameAcquisitionDateTime") or "")[8:]),
        *(float(one) for one in list(indices)[:8]),
        float(frame),
    ]  # fmt: skip
    echo = number(macro("MREchoSequence").get("EffectiveEchoTime")) or 0.0
    return Slice(
        source=Source(file, *span, scaling.slope, scaling.intercept),
        header=header,
        coding=coding,
        rows=coding.rows,
        columns=coding.columns,
        place=None if place is None else (place[0], place[1], place[2]),
        across=None if cosines is None else (cosines[0], cosines[1], cosines[2]),
        down=None if cosines is None else (cosines[3], cosines[4], cosines[5]),
        step_mm=_steps(measures) or _steps(header.dataset),
        thickness_mm=_thickness(measures),
        kind=(
            f"echo {echo:g}",
            str(component or "")[:16],
            f"stack {content.get('StackID', '')}"[:32],
        ),
        when=tuple(when),
        frame=frame,
        scaling=scaling,
        seconds=_clock(str(content.get("FrameAcquisitionDateTime") or "")[8:]) or None,
    )


def _scaling(coding: Coding, rescale: Dataset, groups: Sequence[Dataset]) -> Scaling:
    """How a slice's numbers are scaled; those of colours never are."""
    return UNSCALED if coding.samples == 3 else scaling_of(rescale, groups)


def _steps(group: Dataset) -> tuple[float, float] | None:
    """Rows first, as PixelSpacing has it (PS3.3, clause 10.7.1.3)."""
    for keyword in (
        "PixelSpacing",
        "ImagerPixelSpacing",
        "NominalScannedPixelSpacing",
    ):
        found = numbers(group.get(keyword), 2)
        if found is not None and min(found) > 0:
            return found[0], found[1]
    for region in group.get("SequenceOfUltrasoundRegions") or ():
        # PS3.3 C.8.5.5.1.15: 3 is centimetres.
        if region.get("PhysicalUnitsXDirection") == 3:
            x, y = (
                number(region.get("PhysicalDeltaX")),
                number(region.get("PhysicalDeltaY")),
            )
            if x and y:
                return abs(y) * 10, abs(x) * 10
    return None


def _thickness(group: Dataset) -> float | None:
    for keyword in ("SpacingBetweenSlices", "SliceThickness"):
        found = number(group.get(keyword))
        if found and 0 < abs(found) < 1e4:
            return abs(found)
    return None


def _component(image_type: Sequence[str]) -> str:
    """Magnitude, phase, real or imaginary, where the image type tells."""
    for one in image_type[2:]:
        short = {
            "M": "M", "MAGNITUDE": "M", "P": "P", "PHASE": "P", "R": "R", "REAL": "R",
            "I": "I", "IMAGINARY": "I", "PHASE MAP": "P",
        }.get(one.upper())  # fmt: skip
        if short:
            return short
    return ""


def _clock(text: str) -> float:
    """Seconds of the day of a DICOM time, 0 where there is none."""
    try:
        whole, _, part = text.strip().partition(".")
        fraction = float(f"0.{part}") if part.isdigit() else 0.0
        return (
            int(whole[0:2] or 0) * 3600
            + int(whole[2:4] or 0) * 60
            + int(whole[4:6] or 0)
            + fraction
        )
    except ValueError:
        return 0.0


def unit_vector(vector: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The vector at length 1; of length 0 it stays."""
    array = np.asarray(vector, float)
    length = float(np.linalg.norm(array))
    return array / length if length else array
