"""Slices of a scan to look through, with the outlines of structures on them.

Everything is drawn in the kernel and sent as one small PNG a slice, so the viewer works
in a notebook, in a dashboard, and without a connection to anything else. Each control
has a label and works from the keyboard.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import ipywidgets

from theatrum.structures import (
    PLANES,
    Outlined,
    centre_of,
    picture,
    png,
    slice_count,
    window_of,
)

if TYPE_CHECKING:
    from theatrum.series import Series, Structures

SIZE_PX = 512
WINDOWS = {
    "soft tissue": (40.0, 400.0),
    "lung": (-600.0, 1500.0),
    "bone": (400.0, 1800.0),
}
"""Levels and widths of CT, in Hounsfield units, as radiologists set them."""


class SliceViewer(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """A scan with structures: choose the plane, the slice, the window, what is drawn.

    `plane`, `slice`, `window` and `shown` are its controls; their `value` can be read
    and set.
    """

    def __init__(self, series: Series, *structures: Structures) -> None:
        self._volume = series.volume
        self._outlined: dict[str, Outlined] = {}
        for number, each in enumerate(structures, start=1):
            for one in each.outlined():
                # The same name in two sets is two structures.
                known = one.name in self._outlined
                key = f"{one.name} ({number})" if known else one.name
                self._outlined[key] = one
        self._picture = ipywidgets.Image(format="png")
        self._picture.layout = ipywidgets.Layout(width=f"{SIZE_PX}px")
        self.plane = ipywidgets.ToggleButtons(options=PLANES, description="Plane")
        self.slice = ipywidgets.IntSlider(description="Slice")
        level, width = window_of(self._volume)
        choices = {"as usual": (level, width)}
        if self._volume.modality == "CT":
            choices |= WINDOWS
        self.window = ipywidgets.Dropdown(options=choices, description="Window")
        self.shown = ipywidgets.SelectMultiple(
            options=tuple(self._outlined),
            value=tuple(self._outlined),
            description="Structures",
            rows=min(8, max(2, len(self._outlined))),
        )
        self._legend = ipywidgets.HTML(_legend(self._outlined))
        super().__init__(
            [
                ipywidgets.HBox([self.plane, self.window]),
                self.slice,
                ipywidgets.HBox(
                    [self._picture, ipywidgets.VBox([self.shown, self._legend])]
                ),
            ]
        )
        self.plane.observe(self._turn, "value")
        for control in (self.slice, self.window, self.shown):
            control.observe(self._draw, "value")
        self._turn()

    @property
    def picture(self) -> bytes:
        """What is shown now, as PNG."""
        return bytes(self._picture.value)

    def _chosen(self) -> list[Outlined]:
        return [self._outlined[name] for name in self.shown.value]

    # Any: what ipywidgets calls back with.
    def _turn(self, _change: Any = None) -> None:
        plane = self.plane.value
        # The range first: a value beyond it would be cut.
        self.slice.max = slice_count(self._volume, plane) - 1
        middle = centre_of(self._volume, [one.mask for one in self._chosen()])[plane]
        if self.slice.value == middle:
            self._draw()
        else:
            self.slice.value = middle

    def _draw(self, _change: Any = None) -> None:
        plane, at = self.plane.value, self.slice.value
        pixels = picture(
            self._volume,
            plane,
            at,
            self._chosen(),
            window=self.window.value,
            longest_px=SIZE_PX,
        )
        self._picture.value = png(pixels)


def _legend(outlined: dict[str, Outlined]) -> str:
    """The colours by name: nothing is told by colour alone."""
    lines = "".join(
        f'<li><span aria-hidden="true" style="color:rgb{one.colour}">&#9632;</span> '
        f"{html.escape(name)}</li>"
        for name, one in outlined.items()
    )
    return f'<ul style="list-style:none;padding:0;margin:8px 0">{lines}</ul>'
