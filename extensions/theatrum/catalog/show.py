"""An image to look at: a picture for the notebook's page, or a viewer to move in.

    image.viewer.show(plane="cor", project="max", window=(0, 500))   # a picture
    image.viewer()                                                   # to move in

The picture is drawn from a level of at most 2000 pixels a side, so that a whole slide
is as quick as a small scan.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from theatrum.catalog import picture
from theatrum.catalog.errors import NotOpened

if TYPE_CHECKING:
    import PIL.Image
    import xarray

    from theatrum.catalog.image import CatalogImage


class Viewer:
    """How one looks at an array; called, it opens what one can move in."""

    def __init__(
        self,
        levels: Sequence[Mapping[str, int]],
        level: Any,
        image: CatalogImage | None = None,
    ) -> None:
        """`levels` are the sizes by dimension, `level` gives the array of a number."""
        self._levels = levels
        self._level = level
        self._image = image

    def show(
        self,
        *,
        plane: str = "ax",
        at: picture.At = "center",
        project: str | None = None,
        channels: Sequence[str | int] | None = None,
        window: picture.Window | Mapping[str, tuple[float, float]] = "auto",
        t: int = 0,
    ) -> PIL.Image.Image:
        """A plane as a picture; the parameters are those of `picture.draw`."""
        array = self._level(picture.level_for(self._levels))
        return picture.draw(
            array,
            plane=plane,
            at=at,
            project=project,
            channels=channels,
            window=window,
            t=t,
            whole=self._levels[0],
        )

    def planes_across(self, dim: str, array: xarray.DataArray) -> int:
        """How many planes level 0 has along a dimension; `at` counts these."""
        return int(self._levels[0].get(dim, array.sizes.get(dim, 1)))

    # Any: widgets have no types
    def __call__(self, **options: Any) -> Any:
        """A viewer of slides where it is one, else planes to leaf through."""
        slide = self._slide()
        if slide is not None:
            from theatrum.viewer import SlideViewer

            return SlideViewer(slide, **options)
        return leafing(self._level(picture.level_for(self._levels)), self)

    def _slide(self) -> Any:
        """What a slide viewer opens; None for what is no slide."""
        image = self._image
        if image is None or (image.n_z or 1) > 1 or image.modality not in ("SM", None):
            return None
        from theatrum.session import current_session

        if current_session().catalog_url is not None:
            from theatrum.hub_images import images

            return images[image.id]
        if image.path is None:
            raise NotOpened(
                f"{image.name} lies at a catalogue far away, and this notebook was not "
                "started by its hub: open it there to move in the slide. Here "
                "viewer.show() draws it, and image.array reads any part."
            )
        path = Path(image.path)
        return path if path.is_file() else None

    def _repr_png_(self) -> bytes:
        drawn = io.BytesIO()
        self.show().save(drawn, "PNG")
        return drawn.getvalue()

    def __repr__(self) -> str:
        return "<viewer: viewer.show(...) draws a picture, viewer() opens one to use>"


def leafing(array: xarray.DataArray, viewer: Viewer) -> Any:
    """Planes of an array to leaf through: plane, place, and window by sliders."""
    import ipywidgets

    from theatrum.catalog.picture import PLANES, _axes

    shown = ipywidgets.Image(format="png")
    shown.layout = ipywidgets.Layout(max_width="640px")
    plane = ipywidgets.ToggleButtons(options=list(PLANES), description="Plane")
    at = ipywidgets.IntSlider(description="Slice", continuous_update=True)
    window = ipywidgets.Dropdown(options=["auto", "full"], description="Window")

    def fit(*_: object) -> None:
        across = _axes(array, plane.value)[0]
        at.max = max(viewer.planes_across(across, array) - 1, 0)
        at.value = (at.max + 1) // 2

    def draw(*_: object) -> None:
        drawn = io.BytesIO()
        try:
            viewer.show(plane=plane.value, at=at.value, window=window.value).save(
                drawn, "PNG"
            )
        except (OSError, ValueError) as err:
            raise NotOpened(f"this plane cannot be drawn: {err}") from err
        shown.value = drawn.getvalue()

    plane.observe(fit, "value")
    for control in (plane, at, window):
        control.observe(draw, "value")
    fit()
    draw()
    return ipywidgets.VBox([ipywidgets.HBox([plane, at, window]), shown])
