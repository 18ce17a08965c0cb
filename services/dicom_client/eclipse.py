"""Structure templates of Varian Eclipse, as XML, turned into structures of ours.

Read are each `Structure` with its name, its volume type and its colour; the rest is
left alone. XML can name outside files and grow without end, so entities and document
types are refused (defusedxml).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException, ElementTree

from services.dicom_client.templates import BadTemplate, RoiProperties, short_label

XML_BYTES = 10 << 20
STRUCTURES = 1_000

# Eclipse's volume types as DICOM's interpreted types; what is not here stays open.
_TYPES = {
    "body": "EXTERNAL",
    "external": "EXTERNAL",
    "organ": "ORGAN",
    "oar": "OAR",
    "ptv": "PTV",
    "ctv": "CTV",
    "gtv": "GTV",
    "avoidance": "AVOIDANCE",
    "bolus": "BOLUS",
    "cavity": "CAVITY",
    "contrast agent": "CONTRAST_AGENT",
    "irradiated volume": "IRRAD_VOLUME",
    "treated volume": "TREATED_VOLUME",
    "support": "SUPPORT",
    "fixation": "FIXATION",
    "dose region": "DOSE_REGION",
    "control": "CONTROL",
    "registration": "REGISTRATION",
}


@dataclass(frozen=True)
class EclipseStructure:
    """One structure of the file: its own name, and what it becomes."""

    name: str
    properties: RoiProperties


def read(text: bytes) -> tuple[str, list[EclipseStructure]]:
    """The template's name and its structures, in order; each label once.

    Raises BadTemplate for what is no structure template.
    """
    if len(text) > XML_BYTES:
        raise BadTemplate("a structure template has at most 10 MB")
    try:
        root = ElementTree.fromstring(text, forbid_dtd=True)
    except (ParseError, DefusedXmlException, ValueError) as err:
        raise BadTemplate("this is no XML that can be read safely") from err
    found = [one for one in root.iter() if _bare(one.tag) == "Structure"]
    if not found:
        raise BadTemplate("this XML holds no structures: export a structure template")
    if len(found) > STRUCTURES:
        raise BadTemplate(f"a template has at most {STRUCTURES} structures")
    structures, labels = [], set[str]()
    for one in found:
        name = (one.get("ID") or one.get("Name") or _text(one, "ID") or "").strip()
        if not name:
            continue
        label = _unused(short_label(name), labels)
        labels.add(label.casefold())
        kind = _TYPES.get((_text(one, "VolumeType") or "").strip().casefold(), "")
        structures.append(
            EclipseStructure(name, RoiProperties(label, kind, _colour(one)))
        )
    preview = next((one for one in root.iter() if _bare(one.tag) == "Preview"), None)
    title = preview.get("ID") if preview is not None else None
    return title or "Imported from Eclipse", structures


def suggestions(name: str, offered: Iterable[str], count: int = 3) -> list[str]:
    """The offered names that are most like one of the file, best first."""
    wanted = _plain(name)
    scored = [
        (SequenceMatcher(None, wanted, _plain(one)).ratio(), one) for one in offered
    ]
    good = sorted((entry for entry in scored if entry[0] >= 0.6), reverse=True)
    return [one for _, one in good[:count]]


def _plain(name: str) -> str:
    """A name as it is compared: `Lt Lung`, `Lung_L` and `lung left` are one."""
    words: Sequence[str] = re.findall(r"[a-z0-9]+", name.casefold())
    sides = {"left": "l", "lt": "l", "right": "r", "rt": "r"}
    return " ".join(sorted(sides.get(word, word) for word in words))


def _unused(label: str, taken: set[str]) -> str:
    number = 2
    candidate = label
    while candidate.casefold() in taken:
        mark = f"~{number}"
        candidate = label[: 16 - len(mark)] + mark
        number += 1
    return candidate


def _colour(structure: Element) -> tuple[int, int, int] | None:
    """`Segment - RRR GGG BBB` styles and #RRGGBB; a named style says no colour."""
    text = _text(structure, "ColorAndStyle") or _text(structure, "Color") or ""
    code = re.search(r"#([0-9A-Fa-f]{2})([0-9A-Fa-f]{2})([0-9A-Fa-f]{2})\b", text)
    if code:
        return int(code[1], 16), int(code[2], 16), int(code[3], 16)
    parts = re.search(r"\b(\d{1,3})[ ,;\\]+(\d{1,3})[ ,;\\]+(\d{1,3})\b", text)
    if parts and all(int(part) <= 255 for part in parts.groups()):
        return int(parts[1]), int(parts[2]), int(parts[3])
    return None


def _text(structure: Element, name: str) -> str | None:
    for one in structure.iter():
        if _bare(one.tag) == name and one.text:
            return one.text
    return None


def _bare(tag: str) -> str:
    """A tag's name without its namespace."""
    return tag.rpartition("}")[2]
