"""DICOM Segmentation objects (SEG) of masks, for viewers that show no contours.

One binary segment for each structure, on the images' own slices, so that structures
may overlap as lungs and body do (PS3.3, C.8.20).
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from theatrum.structures import Drawn, SeriesGeometry, StructureError

_NAME_LENGTH = 64


def segmentation(
    structures: Sequence[Drawn],
    images: Sequence[Dataset],
    geometry: SeriesGeometry,
    *,
    label: str,
    series_description: str,
    made_at: datetime,
    uids: Mapping[str, str],
) -> Dataset:
    """Make a segmentation of the series whose headers are `images`.

    `uids` gives `SOPInstanceUID` and `SeriesInstanceUID`. Structures that are empty are
    left out, as the standard wants; StructureError where all are.
    """
    import highdicom
    from pydicom.sr.codedict import codes

    drawn = [one for one in structures if one.mask.any()]
    if not drawn:
        raise StructureError("a segmentation has at least one structure: all are empty")
    by_uid = {str(one.SOPInstanceUID): one for one in images}
    ordered = [_whole(by_uid[uid]) for uid in geometry.sop_instance_uids]
    algorithms = {one.algorithm or "Theatrum" for one in drawn}
    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=re.sub(r"[\\\x00-\x1f]", " ", one.name)[:_NAME_LENGTH],
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=codes.SCT.AnatomicalStructure,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=highdicom.AlgorithmIdentificationSequence(
                name=(one.algorithm or "Theatrum")[:_NAME_LENGTH],
                family=codes.DCM.ArtificialIntelligence,
                version="1",
            ),
            display_color=highdicom.color.CIELabColor.from_rgb(*one.colour),
        )
        for number, one in enumerate(drawn, start=1)
    ]
    with warnings.catch_warnings():
        # It warns of patients' names in old forms; they are the images' own.
        warnings.simplefilter("ignore")
        made = highdicom.seg.Segmentation(
            source_images=ordered,
            pixel_array=np.stack([one.mask for one in drawn], axis=-1),
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=segments,
            series_instance_uid=uids["SeriesInstanceUID"],
            series_number=1,
            sop_instance_uid=uids["SOPInstanceUID"],
            instance_number=1,
            manufacturer="Theatrum",
            manufacturer_model_name="Theatrum",
            software_versions=sorted(algorithms)[0][:_NAME_LENGTH],
            device_serial_number="1",
            content_label=_code(label),
            series_description=series_description[:_NAME_LENGTH],
            transfer_syntax_uid=ExplicitVRLittleEndian,
        )
    made.SpecificCharacterSet = ordered[0].get("SpecificCharacterSet") or "ISO_IR 192"
    # What is new each time would make another file each time.
    organisation = _organisation(uids["SOPInstanceUID"])
    for element in made.iterall():
        if element.keyword == "DimensionOrganizationUID":
            element.value = organisation
        elif element.keyword == "ContributionDateTime":
            element.value = made_at.strftime("%Y%m%d%H%M%S")
    for what in ("Series", "Content", "InstanceCreation"):
        setattr(made, f"{what}Date", made_at.strftime("%Y%m%d"))
        setattr(made, f"{what}Time", made_at.strftime("%H%M%S"))
    return made


def _whole(image: Dataset) -> Dataset:
    """An image's header with what every image has to have, empty where it has not."""
    # What a vendor wrote for itself may be malformed, and is read by nobody here.
    tags = [tag for tag in image.keys() if not tag.is_private]  # noqa: SIM118
    whole = Dataset({tag: image.get_item(tag) for tag in tags})
    whole.file_meta = image.file_meta
    for keyword in (
        *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
        *("StudyDate", "StudyTime", "StudyID", "AccessionNumber"),
        "ReferringPhysicianName",
    ):
        if keyword not in whole:
            setattr(whole, keyword, "")
    return whole


def _organisation(instance: str) -> str:
    """A UID of its own for how the frames are ordered."""
    hashed = hashlib.sha256(f"organisation\0{instance}".encode()).digest()
    return f"2.25.{int.from_bytes(hashed[:16], 'big')}"


def _code(label: str) -> str:
    """A label as Code String: capitals, digits, spaces and underscores."""
    plain = re.sub(r"[^A-Z0-9 _]", "_", label.upper())[:16].strip(" _")
    return plain if plain[:1].isalpha() else "SEGMENTATION"
