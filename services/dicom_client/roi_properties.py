"""Names, colours and types of the structures in a result, as the template has them.

A planning system takes names of 16 characters, tells no capitals from small letters,
and mixes up structures of one name. So every name is made to fit: a part that tells
left from right stays, and of two alike the second gets a number.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterator

from pydicom import Dataset
from pydicom.charset import convert_encodings, encode_string

from services.dicom_client.result_checks import Finding, Severity
from services.dicom_client.templates import (
    LABEL_LENGTH,
    RoiProperties,
    Template,
    short_label,
)


def apply(dataset: Dataset, template: Template) -> list[Finding]:
    """Give every structure its properties, in place; what could not be is told."""
    rois = list(dataset.get("StructureSetROISequence") or [])
    contours = _by_number(dataset, "ROIContourSequence")
    observations = _by_number(dataset, "RTROIObservationsSequence")
    findings = []
    taken = {made.label.strip().casefold() for made in template.generated}
    chosen = _chosen(rois, template)
    for at, roi in enumerate(rois):
        name = str(roi.get("ROIName", ""))
        properties = chosen.get(at)
        if properties is None:
            properties = RoiProperties()
            if any(
                one.name == name
                for model in template.models
                for one in model.structures
            ):
                findings.append(
                    Finding(
                        7,
                        Severity.WARNING,
                        f"{name} stands several times: which is which is not known, "
                        "so that none is renamed",
                    )
                )
        label = unique_label(encodable(properties.label or name, dataset), taken)
        taken.add(label.casefold())
        roi.ROIName = label
        number = roi.get("ROINumber")
        if properties.colour is not None and number in contours:
            contours[number].ROIDisplayColor = list(properties.colour)
        if number in observations:
            observation = observations[number]
            if properties.interpreted_type:
                observation.RTROIInterpretedType = properties.interpreted_type
            # Type 2: an empty one is right, and none at all is not.
            for keyword in ("RTROIInterpretedType", "ROIInterpreter"):
                if keyword not in observation:
                    setattr(observation, keyword, "")
    return findings


def _chosen(rois: list[Dataset], template: Template) -> dict[int, RoiProperties]:
    """The properties by the structure's place in the result.

    Several models may have a structure of one name. They are told apart by their
    order, which is that of the models, if there are as many as were asked for.
    """
    asked: dict[str, list[RoiProperties]] = defaultdict(list)
    for model in template.models:
        for one in model.structures:
            asked[one.name.casefold()].append(one.properties)
    found: dict[str, list[int]] = defaultdict(list)
    for at, roi in enumerate(rois):
        found[str(roi.get("ROIName", "")).casefold()].append(at)
    chosen: dict[int, RoiProperties] = {}
    for name, places in found.items():
        if len(places) == len(asked[name]):
            chosen.update(zip(places, asked[name], strict=True))
    return chosen


def _by_number(dataset: Dataset, sequence: str) -> dict[int, Dataset]:
    return {
        int(one.ReferencedROINumber): one
        for one in dataset.get(sequence) or []
        if one.get("ReferencedROINumber") is not None
    }


def unique_label(name: str, taken: set[str]) -> str:
    """A name of at most 16 characters that is none of `taken` (case-folded)."""
    label = short_label(name) or "ROI"
    if label.casefold() not in taken:
        return label
    for candidate in _numbered(label):
        if candidate.casefold() not in taken:
            return candidate
    raise AssertionError("there are more numbers than structures")


def _numbered(label: str) -> Iterator[str]:
    """A label with a number before what tells its side, shortened as is needed."""
    # A long name ends, when it is cut, with nothing but its side.
    side = ""
    for length in (2, 3, 5, 6):
        end = label[-length:]
        cut = short_label("x" * LABEL_LENGTH + end)
        if len(end) == length and end[0] in " _-" and cut.endswith(end):
            side = end
    body = label.removesuffix(side)
    for number in range(2, 10_000):
        end = f"_{number}{side}"
        yield body[: LABEL_LENGTH - len(end)].rstrip(" _-") + end


def encodable(text: str, dataset: Dataset) -> str:
    """A text in the data set's character set; letters without their accents if not."""
    said = dataset.get("SpecificCharacterSet") or "ISO_IR 6"
    encodings = convert_encodings(said if isinstance(said, str) else list(said))
    try:
        for one in encodings[:1]:
            text.encode("ascii" if said == "ISO_IR 6" else one)
            encode_string(text, encodings)
    except (UnicodeEncodeError, LookupError, ValueError):
        plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore")
        return plain.decode()
    return text
