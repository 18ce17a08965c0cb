"""Along a line that was drawn: straighten it, its profile, its length.

Plane: pixels of the image, x before y; a pixel's centre is at its index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from theatrum.node import Array, Axes, BadValue, Dims, DType, Line, Measure, Table, node
from theatrum.nodes.catalog.grid import known_spacing, made

Values = npt.NDArray[Any]  # of any kind of number
Width = Annotated[int, Field(ge=1, le=2000)]


def _walked(line: Line) -> tuple[Values, Values, float]:
    """Return points one pixel apart along a line, their normals, the step."""
    steps = np.diff(line.points, axis=0)
    lengths = np.hypot(steps[:, 0], steps[:, 1])
    if (lengths == 0).any():
        steps, lengths = steps[lengths > 0], lengths[lengths > 0]
    if not lengths.size:
        raise BadValue("This line is a point.")
    corners = np.concatenate(([0.0], np.cumsum(lengths)))
    count = max(2, round(float(corners[-1])) + 1)
    along = np.linspace(0, corners[-1], count)
    segment = np.clip(
        np.searchsorted(corners, along, side="right") - 1, 0, len(steps) - 1
    )
    directions = steps / lengths[:, None]
    starts = np.concatenate(
        ([line.points[0]], line.points[0] + np.cumsum(steps, axis=0))
    )
    points = starts[segment] + directions[segment] * (along - corners[segment])[:, None]
    # Smoothed at corners, so that the normals turn and do not jump.
    normals = np.stack([-directions[segment][:, 1], directions[segment][:, 0]], axis=1)
    return points, normals, float(along[1])


def _sampled(plane: Values, line: Line, width: int, order: int = 1) -> Values:
    """Return (width, length) values beside a line; left of it is up."""
    from scipy import ndimage

    points, normals, _ = _walked(line)
    across = np.arange(width) - (width - 1) / 2
    x = points[:, 0] + across[:, None] * normals[:, 0]
    y = points[:, 1] + across[:, None] * normals[:, 1]
    values: Values = ndimage.map_coordinates(
        plane.astype(np.float64), [y, x], order=order, mode="nearest"
    )
    return values


@node(version="1.0.0", kind="transform")
def straighten_line(
    image: Annotated[Array, Axes("y", "x"), DType("number")],
    line: Line,
    *,
    width: Width = 21,
) -> Annotated[Array, DType("float")]:
    """Cut a band along a line out and lay it straight: x is along it, y across.

    Parameters
    ----------
    width
        Of the band, pixels; odd, so that the line is its middle.
    """
    others = [str(name) for name in image.dims if name not in ("y", "x")]
    ordered = image.transpose(*others, "y", "x").values
    flat = ordered.reshape(-1, *ordered.shape[-2:])
    bands = np.stack([_sampled(plane, line, width) for plane in flat])
    out = bands.reshape(*ordered.shape[:-2], *bands.shape[-2:]).astype(np.float32)
    steps = known_spacing(image, "xy")
    same = steps if steps and np.isclose(steps["x"], steps["y"]) else None
    bare = image.drop_vars([name for name in "xy" if name in image.coords])
    straight = made(bare, out, [*others, "y", "x"], spacing_mm=same)
    straight.attrs.pop("affine", None)
    return straight


@node(version="1.0.0", kind="measure")
def profile(
    image: Annotated[Array, Dims("[c] y x"), DType("number")],
    line: Line,
    *,
    width: Width = 1,
    of: Literal["mean", "max"] = "mean",
) -> Table:
    """Tell the brightness along a line, of each channel.

    Parameters
    ----------
    width
        Of the band that is summed up at each place, pixels.
    """
    _, _, step = _walked(line)
    planes = image.values.reshape(-1, image.sizes["y"], image.sizes["x"])
    reduce = np.mean if of == "mean" else np.max
    curves = [reduce(_sampled(one, line, width), axis=0) for one in planes]
    columns = {"distance_px": (np.arange(len(curves[0])) * step).tolist()}
    units: dict[str, str] = {}
    steps = known_spacing(image, "xy")
    if steps is not None:
        points, _, _ = _walked(line)
        moved = np.diff(points, axis=0) * (steps["x"], steps["y"])
        along = np.concatenate(([0.0], np.cumsum(np.hypot(moved[:, 0], moved[:, 1]))))
        columns["distance"] = along.tolist()
        units["distance"] = "mm"
    several = image.attrs.get("channels", ()) if len(curves) > 1 else ("value",)
    for at, curve in enumerate(curves):
        name = several[at] if at < len(several) else f"channel {at}"
        columns[str(name)] = curve.tolist()
    return Table(columns, units)


@dataclass(frozen=True)
class Length:
    """How long something along a line is."""

    pixels: Annotated[float, Measure(unit="px", title="Length")]
    mm: Annotated[float | None, Measure(unit="mm", title="Length", digits=4)]
    starts_px: Annotated[float | None, Measure(unit="px", title="Starts at")]
    ends_px: Annotated[float | None, Measure(unit="px", title="Ends at")]


@node(version="1.0.0", kind="measure")
def length(
    line: Line,
    image: Annotated[Array, Dims("y x"), DType("number")] | None = None,
    *,
    above: float | None = None,
    width: Width = 1,
) -> Length:
    """Measure a line; or from where to where along it the image is bright.

    Parameters
    ----------
    image
        Gives the scale, and the brightness where `above` is set.
    above
        Only the part between the first and the last place brighter than this counts.
    width
        Of the band whose mean is looked at, pixels.
    """
    steps = None if image is None else known_spacing(image, "xy")
    points, _, step = _walked(line)
    first, last = 0, len(points) - 1
    if above is not None:
        if image is None:
            raise BadValue("To look at brightness an image is needed.")
        bright = np.flatnonzero(
            _sampled(image.values, line, width).mean(axis=0) > above
        )
        if not bright.size:
            return Length(0.0, 0.0 if steps else None, None, None)
        first, last = int(bright[0]), int(bright[-1])
        part = np.diff(points[first : last + 1], axis=0)
        pixels = float((last - first) * step)
    else:
        part = np.diff(line.points, axis=0)
        pixels = line.length()
    mm = None
    if steps is not None:
        mm = float(np.hypot(part[:, 0] * steps["x"], part[:, 1] * steps["y"]).sum())
    return Length(pixels, mm, float(first * step), float(last * step))
