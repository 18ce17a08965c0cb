"""Analysis as plain typed functions: the same one in a notebook, a flow, a server.

    from theatrum.node import node, Image, Measure

    @node(version="1.0.0")
    def mean_red(image: Image) -> Annotated[float, Measure(title="Mean red")]:
        ...

The package itself can be called as the decorator, so that `from theatrum import node`
gives it whether or not the package was imported before: the import system sets
`theatrum.node` to this module, over any object of that name.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from theatrum.node.arrays import Affine, Array, File, affine_of, spacing_of
from theatrum.node.constraints import Axes, Channels, Dims, DType, Placed, Spacing
from theatrum.node.context import Context
from theatrum.node.definition import (
    Action,
    Node,
    Numbers,
    Pressed,
    Resources,
    node,
)
from theatrum.node.errors import (
    BadInputs,
    BadNode,
    BadOutputs,
    BadValue,
    Cancelled,
    NodeError,
    NoSuchNode,
)
from theatrum.node.finding import find
from theatrum.node.findings import Marks, Measure, Number, Quality, Table
from theatrum.node.outputs import Outputs
from theatrum.node.pixels import ArrayImage, Image, Labels, Volume
from theatrum.node.ports import Constraint, Modality, Port, modality_of
from theatrum.node.shapes import Line, Polygon, polygons_of

__all__ = [
    "Action",
    "Affine",
    "Array",
    "ArrayImage",
    "Axes",
    "BadInputs",
    "BadNode",
    "BadOutputs",
    "BadValue",
    "Cancelled",
    "Channels",
    "Constraint",
    "Context",
    "DType",
    "Dims",
    "File",
    "Image",
    "Labels",
    "Line",
    "Marks",
    "Measure",
    "Modality",
    "NoSuchNode",
    "Node",
    "NodeError",
    "Number",
    "Numbers",
    "Outputs",
    "Placed",
    "Polygon",
    "Port",
    "Pressed",
    "Quality",
    "Resources",
    "Spacing",
    "Table",
    "Volume",
    "affine_of",
    "find",
    "modality_of",
    "node",
    "polygons_of",
    "spacing_of",
]


class _Decorator(ModuleType):
    """This module, which can be called."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return node(*args, **kwargs)


sys.modules[__name__].__class__ = _Decorator
