"""What the user marked, as the inputs of a node.

Planes: the interface's points are fractions of the slide's width; nodes take level-0
pixels. `coordinates` converts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from theatrum.node import BadValue, Image, Polygon

from services.ia_api.apps import App
from services.ia_api.coordinates import level0
from services.ia_api.errors import BadInvocation
from services.ia_api.slide_info import SlideInfo

_Given = Mapping[str, Any]  # Any: the `input` of an invocation, checked already


def regions_needed(app: App, given: _Given) -> None:
    """Raise BadInvocation where the node cannot work on what the user marked."""
    marked = len(_polygons(given))
    for port in app.node.inputs.values():
        if port.kind == "polygon" and not port.many and marked > 1:
            raise BadInvocation(
                f"{app.id} works on one region, and the input holds {marked}"
            )
    try:
        regions_of(given, SlideInfo("", (1, 1), (1, 1), None, streamable=True))
    except BadValue as err:
        raise BadInvocation(f"input.content: {err}") from err


def regions_of(given: _Given, slide: SlideInfo) -> list[Polygon]:
    """The marked regions in level-0 pixels; none for a whole slide."""
    width = slide.size[0]
    return [Polygon(level0(one["points"], width)) for one in _polygons(given)]


def inputs_of(
    app: App, image: Image, regions: Sequence[Polygon], slide: SlideInfo
) -> dict[str, Any]:
    """The node's inputs by name. A whole slide is one region for who needs regions."""
    width, height = slide.size
    whole = Polygon([(0, 0), (width, 0), (width, height), (0, height)])
    inputs: dict[str, Any] = {}
    for name, port in app.node.inputs.items():
        if port.kind == "image":
            inputs[name] = image
        elif port.kind == "polygon" and (regions or not port.optional):
            marked = list(regions) or [whole]
            inputs[name] = marked if port.many else marked[0]
    return inputs


def _polygons(given: _Given) -> list[Mapping[str, Any]]:
    content = given.get("content")
    if not isinstance(content, Mapping):
        return []
    if given.get("type") == "taggedPolygon":
        return [content["polygon"]]
    return list(content["polygons"]) if given.get("type") == "multiArea" else []
