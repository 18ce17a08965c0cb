"""An RTSTRUCT that came back, made the patient's again.

Only what the job's mapping knows is undone, and nothing is assumed: a reference to an
instance, series or frame of reference that the job did not give out refuses the file
(spec sections 9.1 no. 28 and 9.3 no. 3 to 5 and 10). The structure set keeps its own
contents; it gets SOP and series UIDs of its own, the same each time it is done.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from typing import Any, Final

from pydicom import Dataset
from pydicom.dataelem import DataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from theatrum.deidentify.canary import Canary
from theatrum.deidentify.errors import ReidentificationError
from theatrum.deidentify.identifiers import Identifiers, is_registered
from theatrum.deidentify.mapping import Mapping
from theatrum.deidentify.words import WORD

RT_STRUCTURE_SET: Final = "1.2.840.10008.5.1.4.1.1.481.3"

# What must be the job's own; anything else of VR UI is the result's own business.
_REFERENCES: Final = {
    0x00081155: "instance",
    0x0020000D: "study",
    0x0020000E: "series",
    0x00200052: "frame of reference",
    0x30060024: "frame of reference",
}
_OWN_UIDS: Final = (0x00080018, 0x0020000E)


def reidentify(returned: Dataset, mapping: Mapping) -> Dataset:
    """A copy of a returned structure set with the original identity.

    UIDs, patient, study and dates are the originals, value for value. The data set's
    own SOP and series UIDs are new.

    Raises
    ------
    ReidentificationError
        Where it is no structure set, is not of this job, or holds an original
        identifier although it came from where none was sent.
    """
    if returned.get("SOPClassUID") != RT_STRUCTURE_SET:
        raise ReidentificationError("This is no RT Structure Set; ask for it again.")
    _require_no_original(returned, mapping)
    code = str(returned.get("PatientID", ""))
    patient = mapping.patients.get(code)
    if patient is None:
        raise ReidentificationError("Its patient is none of the job's; it is refused.")
    study = mapping.studies.get(str(returned.get("StudyInstanceUID", "")))
    if study is None:
        raise ReidentificationError("Its study is none of the job's; it is refused.")
    result = copy.deepcopy(returned)
    instance = str(returned.SOPInstanceUID)
    _restore(result, mapping, {**patient.dates})
    for keyword, value in {**study, **patient.attributes}.items():
        setattr(result, keyword, value)
    for keyword in ("IssuerOfPatientID", "StudyDescription"):
        if keyword not in {**study, **patient.attributes} and keyword in result:
            delattr(result, keyword)
    result.SOPInstanceUID = _new_uid(mapping.job, instance, "instance")
    result.SeriesInstanceUID = _new_uid(mapping.job, instance, "series")
    for keyword in ("PatientIdentityRemoved", "DeidentificationMethod"):
        if keyword in result:
            delattr(result, keyword)
    for keyword in (
        "DeidentificationMethodCodeSequence",
        "LongitudinalTemporalInformationModified",
    ):
        if keyword in result:
            delattr(result, keyword)
    if hasattr(returned, "file_meta"):
        result.file_meta = copy.deepcopy(returned.file_meta)
        result.file_meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID
    _require_nothing_left(result, mapping, code)
    return result


def _restore(result: Dataset, mapping: Mapping, dates: dict[str, str]) -> None:
    """Put original UIDs and dates back at every depth."""

    def undo(element: DataElement, path_length: int) -> None:
        tag = int(element.tag)
        if element.VR == "UI" and not (path_length == 0 and tag in _OWN_UIDS):
            element.value = _mapped(
                element.value, lambda uid: _original_uid(uid, tag, mapping)
            )
        elif element.VR in ("DA", "DT"):
            element.value = _mapped(
                element.value, lambda date: dates.get(date[:8], date[:8]) + date[8:]
            )

    _walk(result, undo)


def _walk(
    data_set: Dataset, visit: Callable[[DataElement, int], None], depth: int = 0
) -> None:
    for element in data_set:
        if element.VR == "SQ":
            for item in element.value:
                _walk(item, visit, depth + 1)
        elif element.value:
            visit(element, depth)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    # Any: pydicom gives one value or several.
    if isinstance(value, str):
        return change(value)
    return [change(str(one)) for one in value]


def _original_uid(uid: str, tag: int, mapping: Mapping) -> str:
    original = mapping.uids.get(uid)
    if original is not None:
        return original
    kind = _REFERENCES.get(tag)
    if kind is not None and not is_registered(uid):
        raise ReidentificationError(
            f"It refers to a {kind} that this job did not give out; it is refused."
        )
    return uid


def _new_uid(job: str, instance: str, what: str) -> str:
    digest = hashlib.sha256(f"{job}\0{instance}\0{what}".encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def _require_no_original(returned: Dataset, mapping: Mapping) -> None:
    """Alarm where the service that got pseudonyms answers with a name (9.3 no. 9)."""
    identifiers = Identifiers(uids=set(mapping.uids.values()))
    for patient in mapping.patients.values():
        name = patient.attributes.get("PatientName", "")
        words = {word.casefold() for word in WORD.findall(name) if len(word) > 3}
        identifiers.words |= words
        patient_id = patient.attributes.get("PatientID", "").casefold()
        if len(patient_id) > 4:
            (identifiers.words if patient_id.isalnum() else identifiers.phrases).add(
                patient_id
            )
    if Canary(identifiers, mapping.uids, ()).finds(_bytes(returned)):
        raise ReidentificationError(
            "It holds an original identifier, which was never sent; find out why."
        )


def _require_nothing_left(result: Dataset, mapping: Mapping, code: str) -> None:
    """No pseudonym is left in what goes back into the record (9.3 no. 10)."""
    content = _bytes(result)
    left = any(uid.encode() in content for uid in mapping.uids)
    if left or (len(code) > 4 and code.encode() in content):
        raise ReidentificationError("A pseudonym would be left in it; it is refused.")


def _bytes(data_set: Dataset) -> bytes:
    target = DicomBytesIO()
    target.is_little_endian, target.is_implicit_VR = True, True
    write_dataset(target, data_set)
    return bytes(target.getvalue())
