"""Measures of whole images: histogram, and how far two channels lie together.

Colocalisation: Pearson's coefficient, and Manders's of each channel within the other
(Manders, Verbeek and Aten, "Measurement of co-localization of objects in dual-colour
confocal images", J Microsc 169 (1993) 375-382).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from theatrum.node import (
    Array,
    Axes,
    BadValue,
    Channels,
    DType,
    Measure,
    Table,
    node,
)
from theatrum.nodes.catalog.channels import names_of


@node(version="1.0.0", kind="measure")
def histogram(
    image: Annotated[Array, DType("number")],
    *,
    bins: Annotated[int, Field(ge=1, le=65536)] = 256,
    low: float | None = None,
    high: float | None = None,
) -> Table:
    """Count the values, of each channel; a lazy image is read once, block by block.

    Parameters
    ----------
    bins
        Equally wide; the last one includes its upper end.
    low, high
        Ends of the range; without them the darkest and brightest value.
    """
    bottom = float(image.min()) if low is None else low
    top = float(image.max()) if high is None else high
    if not (np.isfinite(bottom) and np.isfinite(top)):
        raise BadValue("This image has values that are no numbers: give low and high.")
    if top <= bottom:
        top = bottom + 1.0
    edges = np.linspace(bottom, top, bins + 1)
    columns: dict[str, list[float | int]] = {
        "from": edges[:-1].tolist(),
        "to": edges[1:].tolist(),
    }
    parts = (
        [(name, image.isel(c=at)) for at, name in enumerate(names_of(image))]
        if "c" in image.dims
        else [("count", image)]
    )
    for name, part in parts:
        if part.chunks is None:
            counts = np.histogram(part.values, edges)[0]
        else:
            import dask.array as da

            counts = da.histogram(part.data, bins=edges)[0].compute()
        columns[name] = counts.tolist()
    return Table(columns)


@dataclass(frozen=True)
class Colocalisation:
    """How far two channels lie together."""

    pearson: Annotated[float | None, Measure(title="Pearson's coefficient", digits=4)]
    manders_1: Annotated[float | None, Measure(title="Manders's M1", digits=4)]
    manders_2: Annotated[float | None, Measure(title="Manders's M2", digits=4)]
    overlap: Annotated[float | None, Measure(title="Overlap", digits=4)]
    threshold_1: Annotated[float, Measure(title="Threshold of the first")]
    threshold_2: Annotated[float, Measure(title="Threshold of the second")]


@node(version="1.0.0", kind="measure")
def colocalise(
    image: Annotated[Array, Axes("c"), Channels(2), DType("number")],
    mask: Annotated[Array, DType("whole")] | None = None,
    *,
    first: Annotated[int, Field(ge=0)] = 0,
    second: Annotated[int, Field(ge=0)] = 1,
    above: tuple[float, float] | None = None,
) -> Colocalisation:
    """Tell how far two channels are bright at the same places.

    None stands where a channel is constant, or nowhere above its threshold.

    Parameters
    ----------
    mask
        Only where it is not 0 counts.
    first, second
        The channels, from 0.
    above
        From where on a channel is there; without it Otsu's thresholds.
    """
    channels = image.sizes["c"]
    if max(first, second) >= channels:
        raise BadValue(f"This image has channels 0 to {channels - 1}.")
    a = image.isel(c=first, drop=True).values.astype(np.float64)
    b = image.isel(c=second, drop=True).values.astype(np.float64)
    if mask is not None:
        within = np.broadcast_to(mask.values != 0, a.shape)
        a, b = a[within], b[within]
    a, b = a.ravel(), b.ravel()
    t1, t2 = above or (_otsu(a), _otsu(b))
    both = a.std() > 0 and b.std() > 0
    squares = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return Colocalisation(
        pearson=float(np.corrcoef(a, b)[0, 1]) if both else None,
        manders_1=_within(a, b > t2),
        manders_2=_within(b, a > t1),
        overlap=float((a * b).sum()) / squares if squares else None,
        threshold_1=t1,
        threshold_2=t2,
    )


def _otsu(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    from skimage.filters import threshold_otsu

    if not values.size:
        raise BadValue("The mask is empty: there is nothing to compare.")
    return float(threshold_otsu(values))


def _within(
    of: np.ndarray[tuple[int], np.dtype[np.float64]],
    where: np.ndarray[tuple[int], np.dtype[np.bool_]],
) -> float | None:
    total = float(of.sum())
    return float(of[where].sum()) / total if total > 0 else None
