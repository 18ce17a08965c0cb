"""Which series are worth a segmentation: taken, ignored, or held for a person.

Decided by headers alone. *Ignored* is what can never be segmented (another kind of
object, a localizer); *held* is what may be, once a person has looked (a gap between
slices, a name burnt into the pixels). Each answer is a short code and a sentence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydicom import Dataset
from pydicom._uid_dict import UID_dictionary
from pydicom.uid import SecondaryCaptureImageStorage
from theatrum.structures import BadGeometry, frames, problems

KINDS = {
    keyword: uid
    for uid, (_name, kind, _more, _retired, keyword) in UID_dictionary.items()
    if kind == "SOP Class" and "Storage" in keyword
}
"""The standard's storage classes by their keywords (PS3.6 annex A)."""
SEGMENTED = (
    *("CTImageStorage", "EnhancedCTImageStorage"),
    "LegacyConvertedEnhancedCTImageStorage",
    *("MRImageStorage", "EnhancedMRImageStorage"),
    "LegacyConvertedEnhancedMRImageStorage",
    *("PositronEmissionTomographyImageStorage", "EnhancedPETImageStorage"),
    "LegacyConvertedEnhancedPETImageStorage",
)
LOCALIZERS = r"\b(topogram|scout|scanogram|surview|localizer|localiser)\b"


class Decision(StrEnum):
    """What becomes of a series."""

    ACCEPTED = "accepted"
    IGNORED = "ignored"
    HELD = "held"


@dataclass(frozen=True)
class Reason:
    """Why a series is not taken as it is; `text` holds no value of a header."""

    code: str
    text: str


@dataclass(frozen=True)
class Verdict:
    """A decision and what led to it; `warnings` go on."""

    decision: Decision
    reasons: tuple[Reason, ...] = ()
    warnings: tuple[Reason, ...] = ()


@dataclass(frozen=True)
class Acceptance:
    """The settings of this step."""

    sop_classes: frozenset[str] = frozenset(
        uid for keyword, uid in KINDS.items() if keyword in SEGMENTED
    )
    """What is segmented; all else is ignored."""
    localizer: str = LOCALIZERS
    """A pattern for series descriptions; empty takes localizers."""
    instances: int = 10
    """Fewer images than this are held: they are rarely a whole scan."""
    study_date_from: str = ""
    """Studies before this day, as 20240131, are ignored; empty takes all."""
    recognisable: bool = False
    """Warn of heads, whose faces can be made out in the images."""


def decide(headers: Sequence[Dataset], settings: Acceptance) -> Verdict:
    """Look at all headers of one series."""
    if not headers:
        return Verdict(Decision.IGNORED, (Reason("empty", "there is no image"),))
    ignored = _ignored(headers, settings)
    if ignored is not None:
        return Verdict(Decision.IGNORED, (ignored,))
    held = tuple(_held(headers, settings))
    warnings = tuple(_warnings(headers[0], settings))
    return Verdict(Decision.HELD if held else Decision.ACCEPTED, held, warnings)


def _ignored(headers: Sequence[Dataset], settings: Acceptance) -> Reason | None:
    classes = {str(one.get("SOPClassUID", "")) for one in headers}
    # Of a series with other objects in it, the images count.
    if not classes & settings.sop_classes:
        if classes == {SecondaryCaptureImageStorage}:
            return None  # a capture is held: names are often burnt into it
        return Reason("sop_class", "objects of this kind are not segmented")
    if all(_is_localizer(one, settings) for one in headers):
        return Reason("localizer", "this is a localizer")
    date = str(headers[0].get("StudyDate", "") or "")
    # A date that is none says nothing: the study is taken.
    if re.fullmatch(r"\d{8}", date) and date < settings.study_date_from:
        return Reason("study_date", "the study is older than the settings take")
    return None


def _is_localizer(header: Dataset, settings: Acceptance) -> bool:
    kinds = header.get("ImageType") or []
    listed = [kinds] if isinstance(kinds, str) else list(kinds)
    if any(str(kind).upper() == "LOCALIZER" for kind in listed):
        return True
    text = str(header.get("SeriesDescription", "") or "")
    return bool(settings.localizer) and bool(
        re.search(settings.localizer, text[:256], re.IGNORECASE)
    )


def _held(headers: Sequence[Dataset], settings: Acceptance) -> list[Reason]:
    reasons = []
    if any(
        str(one.get("BurnedInAnnotation", "")).upper() == "YES"
        or one.get("SOPClassUID") == SecondaryCaptureImageStorage
        for one in headers
    ):
        reasons.append(
            Reason("burned_in", "text may be burnt into the pixels: look at them")
        )
    for keyword in ("PatientID", "IssuerOfPatientID", "PatientBirthDate"):
        if len({str(one.get(keyword) or "").strip() for one in headers}) > 1:
            reasons.append(Reason("patient", "the images name different patients"))
            break
    else:
        if len({_letters(one.get("PatientName")) for one in headers}) > 1:
            reasons.append(Reason("patient", "the images name different patients"))
    if len({str(one.get("StudyInstanceUID", "")) for one in headers}) > 1:
        reasons.append(Reason("study", "the images are of different studies"))
    if len({str(one.get("SOPClassUID", "")) for one in headers}) > 1:
        reasons.append(Reason("mixed", "the images are of different kinds"))
    count = _slices(headers)
    if count < settings.instances:
        reasons.append(
            Reason("few", f"there are {count} images, fewer than {settings.instances}")
        )
    for problem in problems(headers):
        code, _, text = problem.partition(": ")
        reasons.append(Reason(f"geometry_{code}", text))
    return reasons


def _letters(name: object) -> str:
    """A name without the signs in which spellings of one name differ."""
    return "".join(filter(str.isalnum, str(name or "").casefold()))


def _slices(headers: Sequence[Dataset]) -> int:
    """Images, each frame of a multi-frame one counted as one."""
    try:
        return len(frames(headers))
    except BadGeometry:
        return len(headers)


def _warnings(header: Dataset, settings: Acceptance) -> list[Reason]:
    part = str(header.get("BodyPartExamined", "")).upper()
    if settings.recognisable and part in {"HEAD", "BRAIN", "FACE", "SKULL", "HEADNECK"}:
        return [Reason("face", "a face can be made out in images of a head")]
    return []
