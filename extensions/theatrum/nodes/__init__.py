"""The analyses that ship: each a node, loaded when it is first asked for.

Modules are called after what they look at, nodes after what they give: a module of a
node's name would hide it (the import system sets modules over names).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from theatrum.nodes.areas import measure_areas
    from theatrum.nodes.ct import ct_body_lungs_bone
    from theatrum.nodes.focus import focus_map
    from theatrum.nodes.proliferation import count_nuclei, ki67
    from theatrum.nodes.tissue import tissue_area

_HOME = {
    "count_nuclei": "theatrum.nodes.proliferation",
    "ct_body_lungs_bone": "theatrum.nodes.ct",
    "focus_map": "theatrum.nodes.focus",
    "ki67": "theatrum.nodes.proliferation",
    "measure_areas": "theatrum.nodes.areas",
    "tissue_area": "theatrum.nodes.tissue",
}

__all__ = [
    "count_nuclei",
    "ct_body_lungs_bone",
    "focus_map",
    "ki67",
    "measure_areas",
    "tissue_area",
]


def __getattr__(name: str) -> Any:
    # What is behind a name is known only at run time: hence Any.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
