"""The JSON sidecar of BIDS: an acquisition's fields, under the names used here.

Only fields of this table are taken, so that no name or date of birth can come along;
times are given by BIDS in seconds and kept in milliseconds, as DICOM has them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, TypeGuard, cast

from theatrum.catalog.formats.scene import Acquisition, Modality

_DEVICE: Final = {
    "Manufacturer": "maker",
    "ManufacturersModelName": "model",
    "SoftwareVersions": "software",
    "MagneticFieldStrength": "field_strength_t",
    "ReceiveCoilName": "coil",
}
_MS: Final = {
    "EchoTime": "echo_time_ms",
    "RepetitionTime": "repetition_time_ms",
    "InversionTime": "inversion_time_ms",
}
_PLAIN: Final = {
    "FlipAngle": "flip_angle_deg",
    "EffectiveEchoSpacing": "effective_echo_spacing_s",
    "TotalReadoutTime": "total_readout_time_s",
    "PhaseEncodingDirection": "phase_encoding",
    "SliceTiming": "slice_timing_s",
    "SliceThickness": "slice_thickness_mm",
    "SpacingBetweenSlices": "slice_step_mm",
    "ScanningSequence": "sequence",
    "SequenceName": "sequence_name",
    "MRAcquisitionType": "acquisition_type",
    "ProtocolName": "protocol",
    "TaskName": "task",
    "ParallelReductionFactorInPlane": "acceleration",
    "EchoNumber": "echo",
    "ImageType": "image_type",
    "PatientPosition": "patient_position",
}
_MODALITIES: Final = frozenset({"CT", "MR", "PT", "US", "XR"})


def acquisition(fields: Mapping[str, Any], known: Acquisition) -> Acquisition:
    """What a sidecar says, laid over what is `known` of the file itself."""
    device = dict(known.device)
    protocol = dict(known.protocol)
    for name, ours in _DEVICE.items():
        if _is_short(fields.get(name)):
            device[ours] = fields[name]
    for name, ours in _MS.items():
        value = fields.get(name)
        if _is_number(value):
            protocol[ours] = round(float(value) * 1000, 6)
    for name, ours in _PLAIN.items():
        if _is_short(fields.get(name)):
            protocol[ours] = fields[name]
    modality = str(fields.get("Modality", ""))
    chosen = cast(Modality, modality) if modality in _MODALITIES else known.modality
    if chosen == "OT" and "MagneticFieldStrength" in fields:
        chosen = "MR"
    return Acquisition(
        modality=chosen,
        series_uid=known.series_uid,
        study_uid=known.study_uid,
        description=str(fields.get("SeriesDescription", known.description))[:200],
        body_part=str(fields.get("BodyPartExamined", known.body_part))[:64],
        laterality=known.laterality,
        acquired_at=known.acquired_at,
        frame_of_reference=known.frame_of_reference,
        device=device,
        protocol=protocol,
        patient=known.patient,
    )


def _is_number(value: Any) -> TypeGuard[int | float]:
    """Whether it is a number that a float holds; JSON has integers of any length."""
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:
        return False


def _is_short(value: Any) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= 200
    if isinstance(value, bool | int | float):
        return _is_number(value)
    if isinstance(value, list):
        return len(value) <= 4096 and all(
            _is_number(one) or (isinstance(one, str) and len(one) < 65) for one in value
        )
    return False
