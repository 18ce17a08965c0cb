"""DICOM de-identification after PS3.15 Annex E, and its undoing for those who may.

It stands by itself: a library on pydicom that imports nothing else of Theatrum.

    from theatrum import deidentify

    worker = deidentify.Deidentifier(deidentify.load_profile("basic"), key)
    package = worker.package(deidentify.files_below(folder), target)
    package.report.held

`data_set` does one pydicom data set in memory. `save_mapping`, `load_mapping` and
`reidentify` bring back what an owner of the mapping may have back.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from theatrum.deidentify.annex_e import Option
    from theatrum.deidentify.errors import (
        DeidentifyError,
        FolderError,
        Held,
        KeyFileError,
        MappingError,
        NotGivenOut,
        ProfileError,
        Refused,
        ReidentificationError,
    )
    from theatrum.deidentify.in_memory import data_set
    from theatrum.deidentify.mapping import (
        Mapping,
        PatientMapping,
        load_mapping,
        save_mapping,
    )
    from theatrum.deidentify.package import Deidentifier, Package, files_below
    from theatrum.deidentify.profile import Profile, load_profile, parse_profile
    from theatrum.deidentify.pseudonyms import read_key
    from theatrum.deidentify.report import Report
    from theatrum.deidentify.returning import reidentify

# Loaded when first used: the command line names one command of many from here.
_HOME = {
    "annex_e": ["Option"],
    "errors": [
        "DeidentifyError",
        "FolderError",
        "Held",
        "KeyFileError",
        "MappingError",
        "NotGivenOut",
        "ProfileError",
        "Refused",
        "ReidentificationError",
    ],
    "in_memory": ["data_set"],
    "mapping": ["Mapping", "PatientMapping", "load_mapping", "save_mapping"],
    "package": ["Deidentifier", "Package", "files_below"],
    "profile": ["Profile", "load_profile", "parse_profile"],
    "pseudonyms": ["read_key"],
    "returning": ["reidentify"],
    "report": ["Report"],
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Deidentifier",
    "DeidentifyError",
    "FolderError",
    "Held",
    "KeyFileError",
    "Mapping",
    "MappingError",
    "NotGivenOut",
    "Option",
    "Package",
    "PatientMapping",
    "Profile",
    "ProfileError",
    "Refused",
    "ReidentificationError",
    "Report",
    "data_set",
    "files_below",
    "load_mapping",
    "load_profile",
    "parse_profile",
    "read_key",
    "reidentify",
    "save_mapping",
]


def __getattr__(name: str) -> Any:
    # What is behind a name is known only at run time: hence Any.
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_MODULE_OF[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
