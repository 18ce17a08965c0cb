"""A whole slide in a notebook cell, to look at and to draw on.

The map is ipyleaflet's on the plane of planes.py: one map unit is one level-0 pixel,
zoom 0 is full resolution, the coarsest level has zoom -n. Two further zooms enlarge
the pixels of full resolution. The slide's layer is given as the map's only layer, so
that ipyleaflet never asks the internet for its default basemap.
"""

from __future__ import annotations

import html
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import ipywidgets
import traitlets
from ipyleaflet import (
    GeomanDrawControl,
    Map,
    TileLayer,
    WidgetControl,
    projections,
)

from theatrum import marks as marking
from theatrum.errors import ImageError
from theatrum.image import Image, open_image
from theatrum.overlay import Drawing, Navigation
from theatrum.planes import latlng

OVER_ZOOM = 2
"""Zooms beyond full resolution."""

ASSUMED_WIDTH_PX = 900
"""Of the map on screen, until the browser has said it."""

MAGNIFICATION_BUTTONS = 5

OBJECTIVES = (1.25, 2.5, 4.0, 5.0, 10.0, 20.0, 40.0, 60.0, 63.0, 80.0, 100.0)
UM_TIMES_MAGNIFICATION = 10.0
"""A scan at 20x has about 0.5 µm per pixel, at 40x about 0.25."""

HISTORY = 100
"""States of the marks that Undo can go back to."""

SHAPES = {"rectangle": "rectangle", "polygon": "polygon", "point": "marker"}
"""Which trait of the draw control each tool is."""


class SlideViewer(ipywidgets.VBox):  # type: ignore[misc]
    """A slide to look at and to draw on.

    Parameters
    ----------
    image
        An image, a path of a slide, or `"collection/name"` of the catalogue.
    tools
        Any of rectangle, polygon, point.
    height
        Of the map on screen, as CSS writes it.
    marks
        GeoJSON FeatureCollection in level-0 pixels, drawn at the start.
    max_marks
        How many marks there may be; of more only the newest are kept.

    Where the image cannot be had the viewer shows why instead; `image` and `map` are
    None then, and a notebook that is run from top to bottom goes on.
    """

    marks = traitlets.Dict()
    """GeoJSON FeatureCollection in level-0 pixels: what is on the slide now. Each
    feature keeps its `id` through any edit. Set it to draw; observe it to follow."""

    def __init__(
        self,
        image: Image | str | os.PathLike[str],
        *,
        tools: Sequence[str] = ("rectangle", "polygon", "point"),
        height: str = "600px",
        marks: Mapping[str, Any] | None = None,
        max_marks: int | None = None,
    ) -> None:
        unknown = sorted(set(tools) - set(SHAPES))
        if unknown:
            raise ValueError(
                f"There is no tool {unknown[0]!r}: give some of {', '.join(SHAPES)}."
            )
        if max_marks is not None and max_marks < 1:
            raise ValueError("max_marks must be at least 1, or None for any number.")
        self._max_marks = max_marks
        self._undo: list[dict[str, Any]] = []
        self._redo: list[dict[str, Any]] = []
        self._tries = itertools.count(1)
        self._draw: GeomanDrawControl | None = None
        self._stepping = False
        self.image: Image | None = None
        self.map: Map | None = None
        super().__init__(marks=marking.checked(marks or marking.collection([])))
        try:
            self.image = image if isinstance(image, Image) else open_image(image)
        except ImageError as error:
            self.children = [_message(error)]
            return
        self._tiles = _tile_layer(self.image)
        self._nav = _navigation(self.image)
        options = _draw_options(tools)
        self._draw = _draw_control(options)
        self._tool_bar = Drawing(
            tools=list(tools), options=options, max_marks=max_marks
        )
        self.map = _map(self.image, self._tiles, height)
        for control in (
            _over_map(self._nav, "bottomleft"),
            self._draw,
            _over_map(self._tool_bar, "topleft"),
        ):
            self.map.add(control)
        self._nav.map = self._tool_bar.map = self.map
        self._tool_bar.draw = self._draw
        self._draw.data = marking.drawings(self.marks)
        self._draw.observe(self._on_drawn, "data")
        self._nav.on_msg(self._on_message)
        self._tool_bar.on_msg(self._on_message)
        self._place(*_fit(self.image, self._viewport(height)))
        self._height = height
        host = urlsplit(self.image.tiles).netloc
        notes = [_own_machine_only(host)] if host else []
        self.children = [self.map, *notes]

    # ---- view ----------------------------------------------------------------------

    def fit(self) -> None:
        """Show the whole slide."""
        if self.image is None:
            return
        self._place(*_fit(self.image, self._viewport(self._height)))
        self._nav.send({"kind": "fit"})  # the browser knows the map's size best

    def goto(self, x: float, y: float, magnification: float | None = None) -> None:
        """Put a point in the middle of the map.

        Parameters
        ----------
        x, y
            Level-0 pixels.
        magnification
            As an objective has it, for example 10; the nearest zoom is taken. Without
            it the zoom stays.
        """
        if self.map is None or self.image is None:
            return
        zoom = self.map.zoom
        if magnification is not None:
            base = _base_magnification(self.image)
            if base is None:
                raise ValueError(
                    "The magnification of this slide is not known: leave it out, and "
                    "set viewer.map.zoom (0 is full resolution, -1 half of it)."
                )
            wished = round(math.log2(magnification / base))
            zoom = min(max(wished, self.map.min_zoom), self.map.max_zoom)
        self._nav.fitted = False
        self._place(latlng(x, y), zoom)

    def _place(self, center: tuple[float, float], zoom: float) -> None:
        # In one message: the map moves to the new centre when it hears of the zoom.
        assert self.map is not None  # noqa: S101  (for the type checker)
        with self.map.hold_sync():
            self.map.center = list(center)
            self.map.zoom = zoom

    def _viewport(self, height: str) -> tuple[float, float]:
        if len(self._nav.viewport) == 2:
            width_px, height_px = self._nav.viewport
            return width_px, height_px
        pixels = height.removesuffix("px")
        return ASSUMED_WIDTH_PX, float(pixels) if pixels.isdecimal() else 600.0

    # ---- marks ---------------------------------------------------------------------

    def undo(self) -> None:
        """Take back the last change of the marks."""
        self._step(self._undo, self._redo)

    def redo(self) -> None:
        """Make again what was taken back."""
        self._step(self._redo, self._undo)

    def _step(self, source: list[dict[str, Any]], target: list[dict[str, Any]]) -> None:
        if not source:
            return
        target.append(self.marks)
        self._stepping = True
        try:
            self.marks = source.pop()
        finally:
            self._stepping = False

    @traitlets.validate("marks")
    def _checked_marks(self, proposal: Any) -> dict[str, Any]:
        return marking.newest(marking.checked(proposal.value), self._max_marks)

    @traitlets.observe("marks")
    def _on_marks(self, change: Any) -> None:
        if self._draw is None:
            return
        if not self._stepping:
            self._undo[:] = [*self._undo[-HISTORY:], change.old]
            self._redo.clear()
        self._tool_bar.can_undo = bool(self._undo)
        self._tool_bar.can_redo = bool(self._redo)
        # What came from the control is not written back: that would rebuild the
        # shapes under the hand that drags them.
        if marking.marks_from_drawings(self._draw.data, change.new) != change.new:
            self._draw.data = marking.drawings(change.new)

    def _on_drawn(self, change: Any) -> None:
        self.marks = marking.marks_from_drawings(change.new, self.marks)

    # ---- messages from the browser -------------------------------------------------

    def _on_message(self, _widget: Any, content: Mapping[str, Any], _: Any) -> None:
        actions = {"undo": self.undo, "redo": self.redo, "reload": self._reload}
        actions[content["kind"]]()

    def _reload(self) -> None:
        """Renew the capability, and load the tiles again or say why not."""
        assert self.image is not None  # noqa: S101  (only a shown map asks)
        try:
            self.image.renew()
        except ImageError as error:
            self._nav.problem = {
                "title": error.title,
                "detail": error.detail,
                "scope": "slide",
                "time": next(self._tries),  # the same problem is shown again
            }
            return
        self._nav.problem = {}
        self._tiles.url = self.image.tiles
        self._tiles.redraw()


def _map(image: Image, tiles: TileLayer, height: str) -> Map:
    shown = Map(
        layers=(tiles,),
        crs=projections.Simple,
        min_zoom=_min_zoom(image),
        max_zoom=OVER_ZOOM,
        zoom_snap=1,
        zoom_delta=1,
        scroll_wheel_zoom=False,  # the overlay turns it on while the map has the focus
        attribution_control=False,
        layout=ipywidgets.Layout(height=height, width="auto", margin="0"),
    )
    shown.zoom_control_instance.zoom_out_text = "−"
    shown.add_class("theatrum-slide")
    return shown


def _over_map(widget: ipywidgets.Widget, corner: str) -> WidgetControl:
    return WidgetControl(widget=widget, position=corner, transparent_bg=True)


def _tile_layer(image: Image) -> TileLayer:
    north_west, south_east = latlng(0, 0), latlng(image.width, image.height)
    return TileLayer(
        url=image.tiles,
        tile_size=image.levels[0].tile_width,
        zoom_offset=len(image.levels) - 1,
        min_zoom=_min_zoom(image),
        max_zoom=OVER_ZOOM,
        min_native_zoom=_min_zoom(image),
        max_native_zoom=0,
        bounds=[(south_east[0], north_west[1]), (north_west[0], south_east[1])],
        no_wrap=True,
        name=image.name,
    )


def _navigation(image: Image) -> Navigation:
    return Navigation(
        name=image.name,
        background=image.background,
        width=image.width,
        height=image.height,
        mpp_x=image.mpp_x,
        base_magnification=_base_magnification(image),
        magnifications=_magnifications(image),
    )


def _draw_options(tools: Sequence[str]) -> dict[str, dict[str, Any]]:
    line = {"color": marking.STYLE["color"], "weight": 2}
    common = {"snappable": False, "templineStyle": line, "hintlineStyle": line}
    shape = {**common, "pathOptions": dict(marking.STYLE)}
    options: dict[str, dict[str, Any]] = {
        "rectangle": shape,
        "polygon": {**shape, "finishOn": "dblclick"},
        # Points are mostly counted, one after the other, until Escape.
        "point": {"snappable": False, "continueDrawing": True},
    }
    return {tool: options[tool] for tool in tools}


def _draw_control(options: Mapping[str, dict[str, Any]]) -> GeomanDrawControl:
    chosen = {trait: options.get(tool, {}) for tool, trait in SHAPES.items()}
    return GeomanDrawControl(
        **chosen,
        polyline={},
        circle={},
        circlemarker={},
        text={},
        edit=True,
        drag=True,
        remove=True,
        cut=False,
        rotate=False,
        # Its own toolbar is taken away and built anew at each change of the marks,
        # and with it the keyboard's focus (GeomanDrawControl.ts, model_events).
        hide_controls=True,
    )


def _min_zoom(image: Image) -> int:
    return 1 - len(image.levels)


def _fit(
    image: Image, viewport: tuple[float, float]
) -> tuple[tuple[float, float], float]:
    """Return the centre and the zoom that show the whole slide.

    ipyleaflet's own `fit_bounds` never goes below zoom 1 and waits for the browser.
    """
    width, height = viewport
    scale = min(width / image.width, height / image.height)
    zoom = min(max(math.floor(math.log2(scale)), _min_zoom(image)), OVER_ZOOM)
    return latlng(image.width / 2, image.height / 2), zoom


def _base_magnification(image: Image) -> float | None:
    """Return the magnification at full resolution, or None where nothing tells it."""
    if image.objective is not None:
        return image.objective
    if image.mpp_x is None:
        return None
    near = UM_TIMES_MAGNIFICATION / image.mpp_x
    objective = min(OBJECTIVES, key=lambda known: abs(math.log(known / near)))
    return objective if abs(objective / near - 1) < 0.15 else float(f"{near:.2g}")


def _magnifications(image: Image) -> list[dict[str, Any]]:
    """Return the zooms that have a button, coarsest first, with their labels."""
    base = _base_magnification(image)
    coarsest = max(_min_zoom(image), 1 - MAGNIFICATION_BUTTONS)
    return [
        {
            "zoom": zoom,
            "label": f"1:{2**-zoom}" if base is None else f"{base * 2.0**zoom:.3g}×",
        }
        for zoom in range(coarsest, 1)
    ]


def _own_machine_only(host: str) -> ipywidgets.HTML:
    """Return the line that explains a map that stays empty elsewhere."""
    return ipywidgets.HTML(
        "No Jupyter server was found around this kernel: the tiles come from "
        f"{html.escape(host)}, which only a browser on this machine can reach."
    )


def _message(error: ImageError) -> ipywidgets.HTML:
    """Return what is shown in place of an image that cannot be had."""
    return ipywidgets.HTML(
        '<div class="theatrum-message" role="alert" style="border:1px solid #b3261e;'
        "border-left-width:6px;border-radius:8px;background:#fff;color:#1b1f24;"
        'padding:12px 16px;line-height:1.5">'
        f'<strong style="color:#8c1d18">{html.escape(error.title)}.</strong><br>'
        f"{html.escape(error.detail)}</div>"
    )
