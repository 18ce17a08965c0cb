"""From stored numbers to what they mean: DICOM's rescaling, and Philips' own.

PS3.3, clause C.11.1: DV = PV * RS + RI. Philips' MR scanners normalise the numbers of
each series, or slice, for the display, and say so in RescaleType; what the scanner
measured is comparable between them only as

    FP = (PV * RS + RI) / (RS * SS)

with the scale slope SS of a private element (Chenevert et al. 2014, Transl Oncol 7:65).
It is used where it is there and the rescaling is said to be a normalisation, or nothing
is said of it. A rescaling that gives a quantity (US of enhanced files, milliradians,
mm2/s of a diffusion map) is DICOM's own, and stays.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydicom.dataset import Dataset

from theatrum.catalog.formats.dicom.headers import number

CREATOR: Final = "Philips MR Imaging DD 001"
_GROUP: Final = 0x2005
_SCALE_INTERCEPT, _SCALE_SLOPE = 0x0D, 0x0E
_NORMALISED: Final = frozenset({"", "NORMALIZED"})
FLOATING_POINT: Final = "philips floating point"
DISPLAYED: Final = "dicom rescale"


@dataclass(frozen=True)
class Scaling:
    """How one slice's numbers are scaled; of a picture without a rescaling 1 and 0.

    Attributes
    ----------
    rescale_slope, rescale_intercept
        DICOM's RS and RI.
    scale_slope, scale_intercept
        Philips' SS and SI, or None.
    floating_point
        Whether Philips' formula is used.
    """

    rescale_slope: float = 1.0
    rescale_intercept: float = 0.0
    scale_slope: float | None = None
    scale_intercept: float | None = None
    floating_point: bool = False

    @property
    def slope(self) -> float:
        """What a stored number is multiplied by."""
        if self.floating_point and self.scale_slope:
            return 1.0 / self.scale_slope
        return self.rescale_slope

    @property
    def intercept(self) -> float:
        """What is added to it then."""
        if self.floating_point and self.scale_slope:
            return self.rescale_intercept / (self.rescale_slope * self.scale_slope)
        return self.rescale_intercept


UNSCALED: Final = Scaling()


def scaling_of(rescale: Dataset, groups: Iterable[Dataset]) -> Scaling:
    """The scaling of a slice.

    Parameters
    ----------
    rescale
        Where RescaleSlope is: the data set, or a frame's PixelValueTransformation.
    groups
        Where Philips' elements may be, the nearest first: a frame's functional groups
        and the sequences in them, the data set.
    """
    slope = number(rescale.get("RescaleSlope"))
    intercept = number(rescale.get("RescaleIntercept"))
    known = bool(slope) and intercept is not None
    for group in groups:
        scale_slope = _private(group, _SCALE_SLOPE)
        if not scale_slope:
            continue
        told = str(rescale.get("RescaleType") or "").strip().upper()
        return Scaling(
            (slope or 1.0) if known else 1.0,
            (intercept or 0.0) if known else 0.0,
            scale_slope,
            _private(group, _SCALE_INTERCEPT),
            floating_point=known and told in _NORMALISED,
        )
    return Scaling(slope or 1.0, intercept or 0.0) if known else UNSCALED


def private_groups(group: Dataset) -> Iterable[Dataset]:
    """A functional group, and the items of Philips' private sequences in it."""
    yield group
    for element in group.group_dataset(_GROUP):
        if element.VR == "SQ":
            yield from element.value


def told(scalings: Iterable[Scaling]) -> Mapping[str, Any]:
    """What was done to the numbers, as a fact; {} where there is nothing to tell.

    Factors that differ from slice to slice are given as [least, most].
    """
    kinds = set(scalings)
    if kinds <= {UNSCALED}:
        return {}
    applied = {one.floating_point for one in kinds}
    said: dict[str, Any] = {
        "applied": "mixed"
        if len(applied) > 1
        else FLOATING_POINT
        if applied == {True}
        else DISPLAYED
    }
    for name in (
        "rescale_slope",
        "rescale_intercept",
        "scale_slope",
        "scale_intercept",
        "slope",
        "intercept",
    ):
        found = [one for kind in kinds if (one := getattr(kind, name)) is not None]
        if found:
            least, most = min(found), max(found)
            said[name] = least if least == most else [least, most]
    return {"scaling": said}


def _private(group: Dataset, element: int) -> float | None:
    try:
        value: Any = group.private_block(_GROUP, CREATOR)[element].value
    except KeyError:
        return None
    if isinstance(value, bytes):  # the element's kind was lost on its way
        value = struct.unpack("<f", value)[0] if len(value) == 4 else None
    return number(value)
