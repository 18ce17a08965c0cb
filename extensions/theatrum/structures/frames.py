"""Multi-frame images as the single images that they are made of.

An Enhanced CT or MR object holds its slices as frames of one instance, and what a
single-frame image says of itself at the top level stands in functional groups (PS3.3,
clause C.7.6.16), shared by all frames or for each. `frames` gives one header a frame,
with the attributes where the rest of this package looks for them, and the frame's
number, from 1, as `ReferencedFrameNumber`: so may a contour name it (clause 10.3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from pydicom import Dataset
from pydicom.tag import Tag

from theatrum.structures.errors import BadGeometry

_GROUPS = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth"),
}
"""What is looked for in which functional group (clause C.7.6.16.2)."""
_LEFT_OUT = frozenset(
    Tag(name)
    for name in (
        "PixelData",
        "SharedFunctionalGroupsSequence",
        "PerFrameFunctionalGroupsSequence",
    )
)


def is_multiframe(image: Dataset) -> bool:
    """Whether an image says of its slices in functional groups where they lie."""
    return "PerFrameFunctionalGroupsSequence" in image


def frames(images: Sequence[Dataset]) -> list[Dataset]:
    """One header for each slice: of multi-frame images their frames, all others as is.

    What is a frame's header already stays so. Raises BadGeometry where an image has
    other functional groups than it has frames.
    """
    found: list[Dataset] = []
    for image in images:
        if is_multiframe(image):
            found += _frames_of(image)
        else:
            found.append(image)
    return found


def frame_number(header: Dataset) -> int | None:
    """Which frame of its instance a header is of; None for a single-frame image."""
    number = header.get("ReferencedFrameNumber")
    return None if number is None else int(number)


def planes(
    images: Sequence[Dataset],
) -> Iterator[tuple[Dataset, npt.NDArray[np.generic]]]:
    """Each slice's header with its stored values, [row, column]."""
    for image in images:
        if not is_multiframe(image):
            yield image, image.pixel_array
            continue
        values = image.pixel_array
        for at, header in enumerate(_frames_of(image)):
            # One frame alone is stored without an axis of its own.
            yield header, values[at] if values.ndim == 3 else values


def _frames_of(image: Dataset) -> list[Dataset]:
    groups = image.PerFrameFunctionalGroupsSequence
    if len(groups) != int(image.get("NumberOfFrames") or 1):
        raise BadGeometry("mixed: an image has other frames than it says")
    shared = next(iter(image.get("SharedFunctionalGroupsSequence") or []), Dataset())
    # As they were read: a malformed element that nobody asks for harms nobody.
    tags = [tag for tag in image.keys() if tag not in _LEFT_OUT]  # noqa: SIM118
    kept = {tag: image.get_item(tag) for tag in tags}
    headers = []
    for number, own in enumerate(groups, start=1):
        header = Dataset(dict(kept))
        if hasattr(image, "file_meta"):
            header.file_meta = image.file_meta
        for sequence, keywords in _GROUPS.items():
            group = _first(own, sequence) or _first(shared, sequence)
            for keyword in keywords:
                if group is not None and keyword in group:
                    setattr(header, keyword, group[keyword].value)
        header.ReferencedFrameNumber = number
        headers.append(header)
    return headers


def _first(groups: Dataset, sequence: str) -> Dataset | None:
    return next(iter(groups.get(sequence) or []), None)
