"""The browser's half of the atlas: a filter over a grid of thumbnails."""

from __future__ import annotations

from pathlib import Path

import anywidget
import traitlets

__all__ = ["Grid"]

_HERE = Path(__file__).parent


class Grid(anywidget.AnyWidget):
    """Tiles that are buttons, and a filter that works while the kernel is busy.

    A tile that comes into view asks `{"kind": "thumbnail", "id": ...}` and is answered
    in the same form with the JPEG as the message's buffer, or with none. A tile that is
    picked tells `{"kind": "open", "id": ...}`. `{"kind": "focus", "id": ...}` from the
    kernel puts the keyboard's focus back on a tile.
    """

    _esm = (_HERE / "grid.js").read_text(encoding="utf-8")
    _css = (_HERE / "atlas.css").read_text(encoding="utf-8")

    # Of each: id, title, name (collection/name) and size, as text.
    slides: traitlets.List[object] = traitlets.List().tag(sync=True)
    # The id of the slide that is open; the grid steps back for it.
    opened = traitlets.Unicode().tag(sync=True)
    # Why there are no slides: title and detail; or empty.
    problem = traitlets.Dict().tag(sync=True)
