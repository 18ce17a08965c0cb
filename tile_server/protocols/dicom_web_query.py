"""Searching (QIDO-RS, PS3.18 10.6): the query's words, matching, and what is told.

Everything of a slide lies in memory, so a search looks at every instance: the
instance's header, and what the standard adds of its series and study. A study or series
is found when one of its instances is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset

from tile_server.errors import BadRequest
from tile_server.protocols.dicom_web_naming import PLAIN
from tile_server.protocols.dicom_web_study import Instance, Study

STUDY, SERIES, INSTANCE = "studies", "series", "instances"
MOST_RESULTS = 1000
_LONGEST_VALUE = 1024
_DEEPEST_KEY = 4
_WITH_WILDCARDS = frozenset(
    {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
)
_RANGES = frozenset({"DA", "TM", "DT"})
_NUMBERS = frozenset({"IS", "DS", "US", "SS", "UL", "SL", "FL", "FD", "UV", "SV"})
_YES_OR_NO = ("fuzzymatching", "emptyvaluematching", "multiplevaluematching")
_OTHER = ("includefield", "limit", "offset", "accept", *_YES_OR_NO)
# PS3.18 Tables 10.6.3-3 to 10.6.3-5: what is told without asking.
_TOLD = {
    STUDY: (
        "StudyDate", "StudyTime", "AccessionNumber", "InstanceAvailability",
        "ModalitiesInStudy", "ReferringPhysicianName", "PatientName", "PatientID",
        "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID",
        "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances", "RetrieveURL",
    ),
    SERIES: (
        "Modality", "InstanceAvailability", "RetrieveURL", "SeriesInstanceUID",
        "SeriesNumber", "NumberOfSeriesRelatedInstances",
    ),
    INSTANCE: (
        "SOPClassUID", "SOPInstanceUID", "InstanceAvailability",
        "AvailableTransferSyntaxUID", "InstanceNumber", "Rows", "Columns",
        "BitsAllocated", "NumberOfFrames", "RetrieveURL",
    ),
}  # fmt: skip
_ABOVE = {STUDY: (STUDY,), SERIES: (SERIES, STUDY), INSTANCE: (INSTANCE, SERIES, STUDY)}

Key = tuple[int, ...]


@dataclass(frozen=True)
class Query:
    """What a search asks for.

    Attributes
    ----------
    keys
        Attributes, as tags from the outermost sequence inwards, and wanted values.
    included
        Tags to tell besides; None for all there are.
    limit, offset
        How many results, and how many to leave out before them.
    fuzzy
        True where the visitor would like names to match by their sound.
    """

    keys: tuple[tuple[Key, tuple[str, ...]], ...]
    included: tuple[int, ...] | None
    limit: int
    offset: int
    fuzzy: bool


def parse(arguments: Sequence[tuple[str, str]]) -> Query:
    """The query of an address; raises BadRequest."""
    keys: dict[Key, list[str]] = {}
    included: list[int] | None = []
    numbers = {"limit": MOST_RESULTS, "offset": 0}
    fuzzy = False
    for name, text in arguments:
        if len(text) > _LONGEST_VALUE * 16:
            raise BadRequest(f"{name[:32]} is too long.")
        if name in numbers:
            numbers[name] = _whole(name, text)
        elif name in _YES_OR_NO:
            if text not in ("true", "false"):
                raise BadRequest(f"{name} must be true or false.")
            fuzzy = fuzzy or (name == "fuzzymatching" and text == "true")
        elif name == "includefield":
            for field in text.split(","):
                if field == "all":
                    included = None
                elif included is not None:
                    included.append(_key(field)[0])
        elif name not in _OTHER:
            key = _key(name)
            keys.setdefault(key, []).extend(_values(key, text))
    return Query(
        tuple((key, tuple(values)) for key, values in keys.items()),
        None if included is None else tuple(included),
        min(numbers["limit"], MOST_RESULTS),
        numbers["offset"],
        fuzzy,
    )


def search(
    study: Study, query: Query, level: str, place: tuple[str | None, str | None, str]
) -> tuple[list[tuple[Dataset, str]], int]:
    """The results at a level, and how many there are without limit and offset.

    Each comes with the address of the instance that its values are of. `place` is the
    study and series of the address, and the address of the studies.
    """
    in_study, in_series, home = place
    if in_study not in (None, study.uid) or in_series not in (None, study.series):
        return [], 0
    flat = [_flat(study, one, f"{home}/{study.uid}") for one in study.instances]
    found = [
        one
        for one in flat
        if all(_matches(one, key, values) for key, values in query.keys)
    ]
    if level != INSTANCE:
        found = found[:1]
    address = f"{home}/{study.uid}"
    results = []
    for one in found[query.offset : query.offset + query.limit]:
        instance = str(one.RetrieveURL)
        if level == STUDY:
            one.RetrieveURL = address
        elif level == SERIES:
            one.RetrieveURL = f"{address}/series/{study.series}"
        results.append((_told(one, query, level), instance))
    return results, len(found)


def _told(flat: Dataset, query: Query, level: str) -> Dataset:
    names = [name for above in _ABOVE[level] for name in _TOLD[above]]
    tags = {int(tag_for_keyword(name) or 0) for name in names}
    if query.included is None:
        return flat
    tags |= {key[0] for key, _ in query.keys} | set(query.included)
    told = Dataset()
    for tag in sorted(tags):
        if tag in flat:
            told.add(flat[tag])
    return told


def _flat(study: Study, instance: Instance, address: str) -> Dataset:
    """An instance's header with what is told of its study and series."""
    flat = Dataset()
    for element in instance.header:
        flat.add(element)
    count = len(study.instances)
    flat.InstanceAvailability = "ONLINE"
    flat.ModalitiesInStudy = [str(flat.get("Modality") or "SM")]
    flat.NumberOfStudyRelatedSeries = 1
    flat.NumberOfStudyRelatedInstances = count
    flat.NumberOfSeriesRelatedInstances = count
    flat.AvailableTransferSyntaxUID = list(dict.fromkeys((instance.syntax, PLAIN)))
    flat.RetrieveURL = f"{address}/series/{study.series}/instances/{instance.uid}"
    return flat


def _key(text: str) -> Key:
    """The tags of an attribute or of one in a sequence; raises BadRequest."""
    tags = []
    for part in text.split(".")[: _DEEPEST_KEY + 1]:
        try:
            tag = int(part, 16) if len(part) == 8 else tag_for_keyword(part)
        except ValueError:
            tag = tag_for_keyword(part)
        if tag is None or (not keyword_for_tag(tag) and not (tag >> 16) & 1):
            raise BadRequest(f"{part[:64]} is no attribute of DICOM.")
        tags.append(int(tag))
    if len(tags) > _DEEPEST_KEY:
        raise BadRequest(f"{text[:64]} lies too deep.")
    return tuple(tags)


def _values(key: Key, text: str) -> list[str]:
    """The alternatives: only identifiers can be lists (PS3.18 8.3.4.1)."""
    if _vr(key[-1]) == "UI":
        return [one.strip() for one in text.replace("\\", ",").split(",")]
    if len(text) > _LONGEST_VALUE:
        raise BadRequest("A value to match is too long.")
    return [text]


def _whole(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise BadRequest(f"{name} must be a whole number.")
    return int(text)


def _vr(tag: int) -> str:
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"


def _matches(dataset: Dataset, key: Key, wanted: Sequence[str]) -> bool:
    if all(one in ("", "*") for one in wanted):
        return True  # universal matching
    if key[0] not in dataset:
        return False
    element = dataset[key[0]]
    if len(key) > 1:
        items = element.value if element.VR == "SQ" else ()
        return any(_matches(item, key[1:], wanted) for item in items)
    if element.VR == "SQ" or isinstance(element.value, bytes):
        return False
    held = element.value
    values = [held] if isinstance(held, str) or element.VM <= 1 else list(held)
    return any(
        _fits(element.VR, value, one)
        for value in values
        if value not in (None, "")
        for one in wanted
    )


def _fits(vr: str, value: Any, wanted: str) -> bool:  # as DICOM's values are
    text = str(value)
    if vr in _NUMBERS:
        try:
            return float(text) == float(wanted)
        except ValueError:
            return False
    if vr in _RANGES and "-" in wanted:
        first, _, last = wanted.partition("-")
        return (not first or text >= first) and (not last or text[: len(last)] <= last)
    if vr == "PN":
        text, wanted = text.casefold(), wanted.casefold()
    if vr in _WITH_WILDCARDS:
        return wildcard(wanted, text)
    return text == wanted


def wildcard(pattern: str, text: str) -> bool:
    """True where `pattern` (* any number, ? one character) fits all of `text`.

    It goes back to the last star only, so its time is the product of both lengths.
    """
    p = t = 0
    star, resume = -1, 0
    while t < len(text):
        if p < len(pattern) and pattern[p] == "*":
            star, resume = p, t
            p += 1
        elif p < len(pattern) and pattern[p] in ("?", text[t]):
            p += 1
            t += 1
        elif star >= 0:
            resume += 1
            p, t = star + 1, resume
        else:
            return False
    return pattern[p:].strip("*") == ""
