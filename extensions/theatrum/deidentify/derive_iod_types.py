"""Make `data/iod_types.json` from the PS3.3 tables that highdicom ships.

Annex E of PS3.15 leaves the choice between removing, emptying and replacing to the
attribute's type in the IOD ("X/Z: X unless Z is required to maintain IOD
conformance"). PS3.3 in full is 22 MB of JSON; the engine needs the types of the
attributes with such a choice only, which is a hundredth of it. To make it anew:
`python -m theatrum.deidentify.derive_iod_types`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import tag_for_keyword

from theatrum.deidentify.annex_e import attribute_rules
from theatrum.deidentify.rules import DATE_VRS, TEXT_VRS, _keep_list

CLOSED_VRS = TEXT_VRS | DATE_VRS | {"PN", "AE", "UN"}

TARGET = Path(__file__).parent / "data" / "iod_types.json"


def derive() -> dict[str, Any]:
    """Types by module and path, modules by IOD, IOD by SOP class.

    A path is the chain of tags from the top of the data set, joined by dots. Any: the
    three tables have three shapes.
    """
    from highdicom import _standard_utils as standard

    rules = {rule.tag: rule.basic for rule in attribute_rules()}
    kept, _ = _keep_list()
    closed = {
        tag
        for tag, entry in DicomDictionary.items()
        if tag not in rules and tag not in kept and entry[0] in CLOSED_VRS
    }
    choices = {tag for tag, basic in rules.items() if "/" in basic or basic == "Z"}
    wanted = choices | closed
    modules: dict[str, dict[str, str]] = {}
    for module, attributes in standard.get_module_attribute_map().items():
        types: dict[str, str] = {}
        for attribute in attributes:
            path = [*attribute["path"], attribute["keyword"]]
            tags = [tag_for_keyword(keyword) for keyword in path]
            if tags[-1] not in wanted or attribute["type"] == "3":
                continue
            if all(tag is not None for tag in tags):
                types[".".join(f"{tag:08x}" for tag in tags)] = attribute["type"]
        if types:
            modules[module] = types
    iods = {
        iod: [entry["key"] for entry in entries if entry["key"] in modules]
        for iod, entries in standard.get_iod_module_map().items()
    }
    return {
        "source": "PS3.3 through highdicom 0.28 (MIT), made by derive_iod_types.py",
        "sop_classes": standard.get_sop_class_iod_map(),
        "iods": iods,
        "modules": modules,
    }


if __name__ == "__main__":
    TARGET.write_text(json.dumps(derive(), indent=0, sort_keys=True) + "\n")
