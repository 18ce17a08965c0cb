"""Another table as oracle: no value of an attribute that it lists may come out.

The list is a peer's (`dicom-anonymizer`, edition 2026c, made by other people from the
same standard). A data set holds a value of its own for each attribute of it, at the
top and inside a sequence that is kept; what comes out is searched for every one.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.sequence import Sequence
from theatrum import deidentify

from benchmarks.deidentify.corpus import base, people, write

TEXT = {"LO", "SH", "ST", "LT", "UT", "UC", "PN", "AE"}
KEPT_SEQUENCE = 0x00081115  # ReferencedSeriesSequence
PEER_LIST = """
import json
from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as fields
print(json.dumps([list(tag) for tag in fields.ALL_TAGS]))
"""


def planted(tags: Iterable[tuple[int, int]]) -> tuple[Dataset, dict[int, str]]:
    """An image with a value for each attribute, twice; the values by tag."""
    person = people(1)[0]
    image, inner = base("CT", person, 50, 0), Dataset()
    values: dict[int, str] = {}
    for number, (group, element) in enumerate(sorted(tags)):
        tag = group << 16 | element
        if group < 8:
            continue  # of messages: no file holds them
        try:
            vr = dictionary_VR(tag)
        except KeyError:
            vr = "LO"  # younger than this pydicom: still never to come out
        if vr in TEXT:
            value = f"Orakel{number:04}z"
        elif vr == "UI":
            value = f"1.2.826.0.1.3680043.8.498.{9_000_000 + number}"
        elif vr in ("DA", "DT"):
            value = f"18{number % 97:02}{1 + number % 12:02}{1 + number % 28:02}"
        elif vr == "SQ":
            value = f"Orakel{number:04}z"
            for target in (image, inner):
                item = Dataset()
                item.PatientComments = value
                target.add_new(tag, "SQ", Sequence([item]))
            values[tag] = value
            continue
        else:
            continue
        values[tag] = value
        for target in (image, inner):
            if tag not in (0x00080016, 0x00080005):
                target.add_new(tag, vr, value)
    image.add_new(KEPT_SEQUENCE, "SQ", Sequence([inner]))
    return image, values


def let_out(tags: Iterable[tuple[int, int]], profile: str, folder: Path) -> list[int]:
    """The tags of the list whose value is in our output; empty is right."""
    image, values = planted(tags)
    source, target = folder / "in", folder / "out"
    source.mkdir()
    write(image, source / "all.dcm", implicit=False, person=people(1)[0])
    worker = deidentify.Deidentifier(deidentify.load_profile(profile), bytes(32))
    package = worker.package(deidentify.files_below(source), target)
    if not package.names:
        raise AssertionError(package.report.as_json())
    path = target / package.names[1]
    content = path.read_bytes()
    assert KEPT_SEQUENCE in dcmread(path)
    return [tag for tag, value in values.items() if value.encode() in content]
