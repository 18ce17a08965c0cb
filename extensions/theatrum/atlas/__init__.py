"""The slide atlas: every slide that a person may see, as a page to browse and open.

`atlas()` is a whole dashboard: a filter, a grid of thumbnails, and, for the slide that
is picked, a viewer with the slide's facts. It asks the catalogue in the name of whoever
looks at it, and lays no code before them.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import ipywidgets

from theatrum.atlas.grid import Grid
from theatrum.errors import ImageError
from theatrum.hub_images import Catalog, Entry, images
from theatrum.image import Image
from theatrum.session import current_session
from theatrum.viewer import SlideViewer

__all__ = ["atlas"]


def atlas(collection: str | None = None) -> ipywidgets.Widget:
    """Return the atlas of one collection, or of all that the person may see.

    A catalogue that does not answer, or that has nothing for this person, is said on
    the page in place of the slides.
    """
    grid = Grid()
    page = ipywidgets.VBox([grid])
    page.add_class("theatrum-atlas")
    try:
        entries = {entry.id: entry for entry in images.list(collection)}
    except ImageError as error:
        grid.problem = {"title": f"{error.title}.", "detail": error.detail}
        return page
    grid.slides = [_tile(entry) for entry in entries.values()]

    def close(_button: object) -> None:
        shown = page.children
        page.children = [grid]
        opened, grid.opened = grid.opened, ""
        grid.send({"kind": "focus", "id": opened})
        for widget in shown[1:]:
            _close(widget)

    def answer(_grid: object, message: Mapping[str, Any], _buffers: object) -> None:
        # The browser knows only the slides that it was given.
        entry = entries.get(message["id"])
        if entry is None:
            return
        if message["kind"] == "thumbnail":
            _send_thumbnail(grid, entry)
        elif message["kind"] == "open" and not grid.opened:
            grid.opened = entry.id
            page.children = [grid, _slide_page(entry, close)]

    grid.on_msg(answer)
    return page


def _close(widget: ipywidgets.Widget) -> None:
    """Let go of a widget with all that it holds, in the kernel and in the browser."""
    for child in getattr(widget, "children", ()):
        _close(child)
    widget.close()


def _tile(entry: Entry) -> dict[str, str]:
    """What a tile of the grid shows of an image before it is opened."""
    return {
        "id": entry.id,
        "title": entry.title or entry.name,
        "name": f"{entry.collection}/{entry.name}",
        "size": _extent(entry.width, entry.height, entry.mpp_x, entry.mpp_y),
    }


def _send_thumbnail(grid: Grid, entry: Entry) -> None:
    """Answer a tile that has come into view; without bytes where there is none."""
    try:
        jpeg = [Catalog(current_session()).thumbnail(entry.id)]
    except ImageError:
        jpeg = []
    grid.send({"kind": "thumbnail", "id": entry.id}, jpeg)


# Any: what a button calls back with is a widget, of an untyped package.
def _slide_page(entry: Entry, close: Any) -> ipywidgets.Widget:
    """One slide: the way back, its name and facts, and the viewer."""
    back = ipywidgets.Button(
        description="← All slides",
        tooltip="Back to all slides",
        layout={"width": "auto"},
    )
    back.add_class("theatrum-back")
    back.on_click(close)
    try:
        image = entry.open()
    except ImageError as error:
        shown = ipywidgets.HTML(
            f'<p role="alert"><b>{html.escape(error.title)}.</b> '
            f"{html.escape(error.detail)}</p>"
        )
        return ipywidgets.VBox([back, _heading(entry, {}), shown])
    viewer = SlideViewer(image, tools=())
    return ipywidgets.VBox([back, _heading(entry, _facts(image)), viewer])


def _heading(entry: Entry, facts: Mapping[str, str]) -> ipywidgets.Widget:
    pairs = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in facts.items()
    )
    return ipywidgets.HTML(
        f"<h2>{html.escape(entry.title or entry.name)}</h2>"
        f'<dl class="theatrum-facts">{pairs}</dl>'
    )


def _facts(image: Image) -> dict[str, str]:
    """What the file says about a slide, in words; what it does not say is left out."""
    facts = {"Size": _extent(image.width, image.height, image.mpp_x, image.mpp_y)}
    if image.mpp_x and image.mpp_y:
        same = abs(image.mpp_x - image.mpp_y) < 1e-4
        across = f"{image.mpp_x:.4g}"
        facts["Pixel size"] = (
            f"{across} µm" if same else f"{across} × {image.mpp_y:.4g} µm"
        )
    if image.objective:
        facts["Objective"] = f"{image.objective:g}×"
    return facts


def _extent(width: int, height: int, mpp_x: float | None, mpp_y: float | None) -> str:
    """Width and height in pixels and, where the pixel size is known, in mm."""
    thin = "\N{NARROW NO-BREAK SPACE}"  # groups of three, after ISO 80000-1
    pixels = f"{width:,} × {height:,} px".replace(",", thin)
    if not (mpp_x and mpp_y):
        return pixels
    across, down = width * mpp_x / 1000, height * mpp_y / 1000
    places = 1 if min(across, down) >= 1 else 2
    return f"{pixels} · {across:.{places}f} × {down:.{places}f} mm"
