"""The notebook library: slides, questions and images inside a notebook.

Names are loaded when they are first used, so that a grader that only wants `quiz`
does not load the viewer.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from theatrum import catalog, quiz
    from theatrum.hub_images import images
    from theatrum.image import open_image
    from theatrum.node import node
    from theatrum.viewer import SlideViewer

__all__ = ["SlideViewer", "catalog", "images", "node", "open_image", "quiz"]

# No module here is called `images`: the import system would set it over the object.
_HOME = {
    "SlideViewer": "theatrum.viewer",
    "images": "theatrum.hub_images",
    "open_image": "theatrum.image",
}


def __getattr__(name: str) -> Any:
    # What is behind a name is known only at run time: hence Any.
    if name in ("catalog", "node", "quiz"):  # packages; `node` can be called
        return importlib.import_module(f"theatrum.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
