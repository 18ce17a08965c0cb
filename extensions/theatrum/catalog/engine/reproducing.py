"""A run as Python that does it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

_OTHERS: Final = frozenset({"file", "table", "image", "volume"})
"""Kinds of ports that take something else than an array or a shape."""


# Any: columns of rows
def python_of(
    node: Mapping[str, Any] | None,
    params: Mapping[str, Any],
    inputs: Sequence[Mapping[str, Any]],
) -> str:
    """Return a program that does a run again, or "" where none can be written.

    That is where the node is of no package, or something went in that is no image and
    no region of the catalogue.

    Parameters
    ----------
    node
        The row of its definition.
    inputs
        The rows of `run_input`.
    """
    address, _, name = str((node or {}).get("entrypoint") or "").partition(":")
    if not node or node["kind"] != "python" or not name.isidentifier():
        return ""
    said = []
    for port in node["ports_in"]:
        found = sorted(
            (one for one in inputs if one["port"] == port["name"]),
            key=lambda one: int(one["position"]),
        )
        if not found:
            if port["optional"]:
                continue
            return ""
        values = [_value(one) for one in found]
        if port["kind"] in _OTHERS or not all(values):
            return ""
        many = "[" + ", ".join(values) + "]"
        said.append(f"{port['name']}={many if port['many'] else values[0]}")
    said += [f"{name}={value!r}" for name, value in params.items()]
    lines = [
        "from theatrum import catalog",
        f"from {address} import {name}",
        "",
        f"made = {name}(",
        *(f"    {one}," for one in said),
        ")",
    ]
    if any(one["object_kind"] == "roi" for one in inputs):
        lines.insert(1, "from theatrum.catalog.engine.regions import shape_of")
    return "\n".join(lines) + "\n"


def _value(one: Mapping[str, Any]) -> str:
    key = repr(str(one["object_id"]))
    if one["object_kind"] == "image":
        return f"catalog.images[{key}].array"
    if one["object_kind"] == "roi":
        return f"shape_of(catalog.rois.get(id={key}))"
    return ""
