"""Flows: graphs of nodes as JSON, built in Python, run over queries.

from theatrum.catalog.flows import Builder

flow = Builder("edges")
image = flow.input("image")
smooth = flow.add(gauss, image=image, sigma=2.0)
edges = flow.add(prewitt, image=smooth)
flow.output("edges", edges)
run_flow(catalog.images.filter(modality="FM"), flow.build())
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from theatrum.catalog.flows.builder import Builder
    from theatrum.catalog.flows.graph import Flow, Step
    from theatrum.catalog.flows.running import load_flow, run_flow, save_flow
    from theatrum.catalog.flows.validation import problems

_HOME = {
    "Builder": "builder",
    "Flow": "graph",
    "Step": "graph",
    "load_flow": "running",
    "problems": "validation",
    "run_flow": "running",
    "save_flow": "running",
}
__all__ = ["Builder", "Flow", "Step", "load_flow", "problems", "run_flow", "save_flow"]


def __getattr__(name: str) -> Any:
    # What is behind a name is known only at run time: hence Any.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"theatrum.catalog.flows.{_HOME[name]}")
    return getattr(module, name)
