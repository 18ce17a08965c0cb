"""The browser's half of the viewer: two widgets that lie on ipyleaflet's map.

Each is one script made of `map.js`, which both need, and its own file. They reach the
Leaflet map through the models that their traits `map` and `draw` name, so that all
that a hand does (zoom, measure, draw) is answered in the browser while a cell runs.
"""

from __future__ import annotations

from pathlib import Path

import anywidget
import traitlets
from ipywidgets import Widget, widget_serialization

__all__ = ["Drawing", "Navigation"]

_HERE = Path(__file__).parent


def _script(*names: str) -> str:
    return "\n".join((_HERE / name).read_text(encoding="utf-8") for name in names)


class Navigation(anywidget.AnyWidget):
    """Fit, magnification, scale bar, position, and notices about tiles."""

    _esm = _script("map.js", "navigation.js")
    _css = _script("overlay.css")

    map = traitlets.Instance(Widget, allow_none=True).tag(
        sync=True, **widget_serialization
    )
    name = traitlets.Unicode().tag(sync=True)
    background = traitlets.Unicode("#ffffff").tag(sync=True)
    # Level-0 pixels, and micrometres for one of them.
    width = traitlets.Int().tag(sync=True)
    height = traitlets.Int().tag(sync=True)
    mpp_x = traitlets.Float(None, allow_none=True).tag(sync=True)
    # Magnification at zoom 0, and the buttons: [{"label", "zoom"}].
    base_magnification = traitlets.Float(None, allow_none=True).tag(sync=True)
    magnifications: traitlets.List[object] = traitlets.List().tag(sync=True)
    # From the browser: the map's size on screen, and whether all is still in view.
    viewport = traitlets.List(trait=traitlets.Float()).tag(sync=True)
    fitted = traitlets.Bool(True).tag(sync=True)
    # What is wrong, as the kernel knows it: title, detail, scope; or empty.
    problem = traitlets.Dict().tag(sync=True)


class Drawing(anywidget.AnyWidget):
    """The tools that make, change and delete marks."""

    _esm = _script("map.js", "drawing.js")

    map = traitlets.Instance(Widget, allow_none=True).tag(
        sync=True, **widget_serialization
    )
    draw = traitlets.Instance(Widget, allow_none=True).tag(
        sync=True, **widget_serialization
    )
    tools = traitlets.List(trait=traitlets.Unicode()).tag(sync=True)
    # Geoman's options for each tool, the same that the draw control has.
    options = traitlets.Dict().tag(sync=True)
    max_marks = traitlets.Int(None, allow_none=True).tag(sync=True)
    can_undo = traitlets.Bool(False).tag(sync=True)
    can_redo = traitlets.Bool(False).tag(sync=True)
