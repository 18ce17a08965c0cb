"""A plain function of one array as a node, for a quick try in a notebook."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from typing import Any

from theatrum.node import Array, Node, node


def plain_node(function: Callable[[Any], Any]) -> Node[..., Any]:
    """Return a node that gives what the function gives for an image's array."""
    import cloudpickle

    name = "".join(
        one if one.isalnum() and one.isascii() else "-" for one in function.__name__
    )

    def run(image: Array) -> Array:
        found: Array = function(image)
        return found

    run.__doc__ = function.__doc__ or "A function of a notebook."
    text = _source(function)
    run.told_source = text  # type: ignore[attr-defined]  # keys.source_of reads it
    # What it closes over counts as well: another value there is another function.
    digest = hashlib.sha256(text.encode() + cloudpickle.dumps(function)).hexdigest()
    made: Node[..., Any] = node(
        name=name.strip("-").lower() or "function", version=f"0.0.0+{digest[:12]}"
    )(run)
    return made


def _source(function: Callable[[Any], Any]) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):
        return repr(function)
