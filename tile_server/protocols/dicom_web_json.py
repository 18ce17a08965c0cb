"""The DICOM JSON model (PS3.18 F): headers as JSON, long values by address.

A value of bytes that is longer than a few kilobytes is named by a BulkDataURI, which
spells the way to it: `bulkdata/00480105/1/00282000` is the ICC profile in the first
item of the Optical Path Sequence.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from tile_server.errors import OutsideTheGrid
from tile_server.protocols.dicom_web_kept import DAMAGED

MEDIA_TYPE = "application/dicom+json"
# Lookup tables and small profiles come along; scanners' profiles have 64 kB and more.
LONGEST_INLINE = 4096
_BYTES = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_STEP = re.compile(r"([0-9A-F]{8})(?:/([0-9]{1,5})/)?")


def document(datasets: list[Any]) -> bytes:
    """The body of an answer."""
    return json.dumps(datasets, separators=(",", ":"), ensure_ascii=False).encode()


def model(dataset: Dataset, address: str) -> dict[str, Any]:
    """The JSON of a header whose instance has this address.

    What cannot be written, in a damaged header, is left out.
    """
    return _model(dataset, f"{address}/bulkdata/")


def _model(dataset: Dataset, way: str) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for element in dataset:
        key = f"{int(element.tag):08X}"
        try:
            told[key] = _element(element, f"{way}{key}")
        except DAMAGED:
            continue
    return told


def _element(element: DataElement, way: str) -> dict[str, Any]:
    if element.VR == "SQ":
        items = [
            _model(item, f"{way}/{number}/")
            for number, item in enumerate(element.value, start=1)
        ]
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
    if element.VR in _BYTES and len(element.value or b"") > LONGEST_INLINE:
        return {"vr": element.VR, "BulkDataURI": way}
    told = element.to_json_dict(None, 0)
    if not all(
        math.isfinite(one) for one in told.get("Value", ()) if isinstance(one, float)
    ):
        raise ValueError("JSON has no word for such a number")
    return told


def bulk_data(dataset: Dataset, way: str) -> bytes:
    """The value that the end of a BulkDataURI spells; raises OutsideTheGrid."""
    absent = OutsideTheGrid("This instance has no such bulk data.")
    at = 0
    while found := _STEP.match(way, at):
        tag = int(found[1], 16)
        if tag not in dataset:
            break
        element = dataset[tag]
        at = found.end()
        if found[2] is None:
            if at == len(way) and element.VR in _BYTES and element.value:
                return bytes(element.value)
            break
        number = int(found[2])
        if element.VR != "SQ" or not 1 <= number <= len(element.value):
            break
        dataset = element.value[number - 1]
    raise absent
