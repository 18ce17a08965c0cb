"""Identity in the pixels: which files may show any, and what is done about it.

Rules come from `data/burned_in.json`: declared annotations, SOP classes and modalities
that show text by their nature, screens that a scanner saves beside its images, and the
regions in which known scanners write. A file is held, unless clean_pixel_data is on and
a rule says which region to blacken, and the pixels can be decoded. Graphics that older
scanners keep in unused high bits of the pixels are cleared from them.

A picture that shows text although nothing in its attributes says so is beyond this
module; `ocr` looks at pixels themselves where it is installed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom.datadict import tag_for_keyword
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from theatrum.deidentify import compressed
from theatrum.deidentify.annex_e import Option
from theatrum.deidentify.elements import PIXEL_DATA, Element, parse_items, vr_of
from theatrum.deidentify.errors import Held, Refused
from theatrum.deidentify.part10 import DataSet
from theatrum.deidentify.rules import load_data

BURNED_IN: Final = 0x00280301
VISUAL_FEATURES: Final = 0x00280302
_REGIONS: Final = 0x00186011
_WAVEFORMS: Final = 0x54000100
_FLOATS: Final = {0x7FE00008: 4, 0x7FE00009: 8}  # bytes of a value
_PIXELS: Final = (PIXEL_DATA, *_FLOATS)
NATIVE: Final = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
Rectangle = tuple[int, int, int, int]
"""x, y, width, height in pixels of a frame, from its top-left corner."""


@dataclass(frozen=True)
class Verdict:
    """What the rules say of a file: pass, hold, or blacken what lies (out)side."""

    action: str
    rule: str = ""
    inside: tuple[Rectangle, ...] = ()
    outside: tuple[Rectangle, ...] = ()


class Facts:
    """Top-level attributes of a data set as upper-case text and numbers."""

    def __init__(self, elements: Iterable[Element], *, explicit: bool) -> None:
        self.elements = {element.tag: element for element in elements}
        self.explicit = explicit

    def text(self, tag: int) -> str:
        """A value as text; several are joined by backslashes."""
        element = self.elements.get(tag)
        if element is None or element.items is not None or element.fragments:
            return ""
        if vr_of(element) in ("US", "SS") and len(element.value) == 2:
            return str(struct.unpack("<H", element.value)[0])
        return element.value[:1024].decode("latin-1").strip(" \0").upper()

    def number(self, tag: int, default: int) -> int:
        """A value as a whole number; the default where there is none."""
        text = self.text(tag)
        return int(text) if text.isdigit() else default

    def regions(self) -> list[Rectangle]:
        """The calibrated regions of an ultrasound image; they hold no banner."""
        element = self.elements.get(_REGIONS)
        if element is None:
            return []
        found: list[Rectangle] = []
        for item in parse_items(element, explicit=self.explicit):
            corners = {
                e.tag & 0xFF: e.value for e in item if 0x18 <= e.tag & 0xFF <= 0x1E
            }
            if all(len(corners.get(at, b"")) == 4 for at in (0x18, 0x1A, 0x1C, 0x1E)):
                x0, y0, x1, y1 = (
                    struct.unpack("<L", corners[at])[0]
                    for at in (0x18, 0x1A, 0x1C, 0x1E)
                )
                found.append((x0, y0, max(0, x1 - x0 + 1), max(0, y1 - y0 + 1)))
        return found


@cache
def _table() -> Any:
    return load_data("burned_in.json")


def table_version() -> str:
    """The version of the rules in use, for reports."""
    return str(_table()["version"])


def verdict(facts: Facts, sop_class: str) -> Verdict:
    """What the rules say of a file; pass where it has no pixels and no document."""
    document = 0x00420011 in facts.elements
    if not (document or any(tag in facts.elements for tag in (PIXEL_DATA, _WAVEFORMS))):
        return Verdict("pass")
    for rule in _table()["rules"]:
        if all(_holds(facts, *condition) for condition in rule["when"].items()):
            return _verdict_of(rule, facts)
    if document:
        return Verdict("hold", "document")
    name = _table()["hold_sop_classes"].get(sop_class)
    return Verdict("hold", name) if name else Verdict("pass")


def _verdict_of(rule: Mapping[str, Any], facts: Facts) -> Verdict:
    # Any: a row of the table.
    outside: tuple[Rectangle, ...] = ()
    if rule.get("outside_ultrasound_regions"):
        outside = tuple(facts.regions())
        if not outside:
            return Verdict("hold", rule["name"])
    inside = tuple((x, y, w, h) for x, y, w, h in rule.get("rectangles", ()))
    return Verdict(rule["then"], rule["name"], inside, outside)


def _holds(facts: Facts, keyword: str, wanted: Mapping[str, Any]) -> bool:
    tag = tag_for_keyword(keyword)
    if tag is None:
        return False
    if wanted.get("present"):
        return tag in facts.elements
    text = facts.text(tag)
    if "is" in wanted:
        return text in wanted["is"]
    return any(part in text for part in wanted["has"])


def shows_a_head(facts: Facts) -> bool:
    """Whether a face could be recognised in the pixels, as far as attributes tell."""
    modality = facts.text(0x00080060)
    if modality not in _table()["visual_modalities"]:
        return False
    part = facts.text(0x00180015)
    return not part or any(word in part.replace(" ", "") for word in _table()["head"])


def check(data_set: DataSet, sop_class: str, options: frozenset[Option]) -> None:
    """Clear a file's pixels of identity, in place, or hold it.

    Raises
    ------
    Held
        `burned_in`, or `recognizable_visual_features` where that option is on.
    """
    facts = Facts(data_set.elements, explicit=data_set.explicit)
    found = verdict(facts, sop_class)
    if found.action == "hold" or (
        found.action == "blank" and Option.CLEAN_PIXEL_DATA not in options
    ):
        raise Held(
            "burned_in",
            f"The pixels may show who this is (rule: {found.rule}); look at it, or "
            "turn on clean_pixel_data where the rule knows the region.",
        )
    if Option.CLEAN_VISUAL_FEATURES in options and PIXEL_DATA in facts.elements:
        if shows_a_head(facts):
            raise Held(
                "recognizable_visual_features",
                "A face could be made from this series, and nothing here can take it "
                "out without harm; leave the option out, or deface it first.",
            )
        _set(data_set, VISUAL_FEATURES, b"NO")
    if found.action == "blank":
        _decode(data_set, facts)
        _blacken(data_set, facts, found)
        _set(data_set, BURNED_IN, b"NO")
    _clear_high_bits(data_set, facts, declared=_has_embedded_overlay(facts))


def require_whole(data_set: DataSet) -> None:
    """Refuse pixel data that are not their image's, and clear what follows it."""
    facts = Facts(data_set.elements, explicit=data_set.explicit)
    pixels = facts.elements.get(PIXEL_DATA)
    if sum(tag in facts.elements for tag in _PIXELS) > 1:
        raise Refused("damaged", "The file holds pixel data of two kinds.")
    if pixels is None:
        _require_floats(facts)
        return
    if pixels.fragments:
        if data_set.syntax in NATIVE:
            raise Refused("damaged", "Compressed pixel data in a file of native ones.")
        frames = facts.number(0x00280008, 1)
        data_set.elements = compressed.clear(data_set.elements, data_set.syntax, frames)
        return
    bits = (
        facts.number(0x00280010, 0)
        * facts.number(0x00280011, 0)
        * facts.number(0x00280002, 1)
        * facts.number(0x00280008, 1)
        * facts.number(0x00280100, 0)
    )
    if facts.text(0x00280004) == "YBR_FULL_422":
        bits = bits * 2 // 3
    wanted = (bits + 7) // 8
    if not wanted:
        raise Refused("damaged", "The file does not say how large its image is.")
    if len(pixels.value) < wanted:
        raise Refused("damaged", "The pixel data end too early; fetch the file again.")
    frame = max(1, wanted // facts.number(0x00280008, 1))
    if len(pixels.value) - wanted >= max(frame, 2):
        raise Refused("damaged", "The file holds more frames than it says.")
    if len(pixels.value) > wanted:
        _put(data_set, pixels.value[:wanted])  # what follows the image is no image


def _require_floats(facts: Facts) -> None:
    """Refuse pixels of floating point that are not as many as their image's."""
    for tag, width in _FLOATS.items():
        pixels = facts.elements.get(tag)
        if pixels is None:
            continue
        sides = (facts.number(0x00280010, 0), facts.number(0x00280011, 0))
        wanted = sides[0] * sides[1] * facts.number(0x00280008, 1) * width
        if not wanted or len(pixels.value) != wanted:
            raise Refused("damaged", "The pixel data are not as long as their image.")


def _set(data_set: DataSet, tag: int, value: bytes) -> None:
    data_set.elements = sorted(
        [*(e for e in data_set.elements if e.tag != tag), Element(tag, "CS", value)],
        key=lambda element: element.tag,
    )


def _decode(data_set: DataSet, facts: Facts) -> None:
    """Replace compressed pixels by native ones; regions cannot be cleared in JPEG."""
    if data_set.syntax in NATIVE:
        return
    from theatrum.deidentify import decoding

    pixels = decoding.native(data_set)
    if pixels is None:
        raise Held(
            "burned_in",
            "The compressed pixels cannot be decoded, so nothing is cleared.",
        )
    replaced = {element.tag: element for element in pixels}
    data_set.elements = [replaced.get(e.tag, e) for e in data_set.elements]
    data_set.syntax = ExplicitVRLittleEndian
    facts.elements = {element.tag: element for element in data_set.elements}


def _frames(facts: Facts) -> NDArray[np.uint8]:
    """A writable copy of the pixels as bytes: frame, row, byte of the row."""
    rows, columns = facts.number(0x00280010, 0), facts.number(0x00280011, 0)
    width = facts.number(0x00280100, 8) // 8
    samples = facts.number(0x00280002, 1)
    count = facts.number(0x00280008, 1)
    value = facts.elements[PIXEL_DATA].value
    size = count * rows * columns * width * samples
    planar = samples > 1 and facts.number(0x00280006, 0) == 1
    if not size or len(value) < size or facts.text(0x00280004) == "YBR_FULL_422":
        raise Held(
            "burned_in", "The pixels are laid out in a way that cannot be cleared."
        )
    flat = np.frombuffer(value, np.uint8, size).copy()
    if planar:
        return flat.reshape(count * samples, rows, columns, width)
    return flat.reshape(count, rows, columns, width * samples)


def _blacken(data_set: DataSet, facts: Facts, found: Verdict) -> None:
    frames = _frames(facts)
    rows, columns = frames.shape[1:3]
    mask = np.zeros((rows, columns), bool)
    if found.outside:
        mask[:] = True
        for x, y, width, height in found.outside:
            mask[y : y + height, x : x + width] = False
    for x, y, width, height in found.inside:
        x, y = x % columns, y % rows
        mask[y : y + height, x : x + width] = True
    frames[:, mask] = 0
    _put(data_set, frames.tobytes())


def _has_embedded_overlay(facts: Facts) -> bool:
    """Whether an overlay lies in bits of the pixels (retired, PS3.3 C.9.2 of 2004)."""
    return any(
        tag >> 24 == 0x60 and tag & 0xFFFF == 0x0102 and any(element.value)
        for tag, element in facts.elements.items()
    )


def _clear_high_bits(data_set: DataSet, facts: Facts, *, declared: bool) -> None:
    """Clear the bits that are none of the pixels' (PS3.5 8.1.1), declared or not."""
    facts = Facts(data_set.elements, explicit=data_set.explicit)
    pixels = facts.elements.get(PIXEL_DATA)
    if pixels is None:
        return
    if pixels.fragments or facts.number(0x00280100, 0) != 16:
        if declared:
            raise Held("burned_in", "Graphics lie in bits that cannot be cleared.")
        return
    stored = facts.number(0x00280101, 16)
    if not (declared or 0 < stored < 16):
        return
    shift = 15 - facts.number(0x00280102, stored - 1)
    signed = facts.number(0x00280103, 0) == 1
    even = len(pixels.value) // 2 * 2
    values = np.frombuffer(pixels.value[:even], "<i2" if signed else "<u2")
    low = shift + stored
    cleared = ((values << shift) >> shift) >> (16 - low) << (16 - low)
    if not np.array_equal(cleared, values):
        _put(data_set, cleared.astype(values.dtype).tobytes())


def _put(data_set: DataSet, value: bytes) -> None:
    data_set.elements = [
        Element(e.tag, e.vr, value) if e.tag == PIXEL_DATA else e
        for e in data_set.elements
    ]
