"""Uneven and arbitrary brightness of MR images: N4, and Nyul's standard scale.

N4: Tustison et al., "N4ITK: improved N3 bias correction", IEEE Trans Med Imaging 29
(2010) 1310-1320, as SimpleITK has it. Nyul and Udupa, "On standardizing the MR image
intensity scale", Magn Reson Med 42 (1999) 1072-1081: percentiles of each image are
moved to where those of a whole set lie on average.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import xarray as xr
from pydantic import Field

from theatrum.node import Array, BadValue, Context, Dims, DType, Resources, Table, node
from theatrum.nodes.catalog.grid import known_spacing

Scan = Annotated[Array, Dims("z y x"), DType("number")]
Numbers = np.ndarray[tuple[int], np.dtype[np.float64]]
DECILES = (1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 99)
"""Percentiles that are landmarks; the first and last are the ends of the scale."""


@node(
    version="1.0.0",
    kind="filter",
    resources=Resources(memory_bytes=2_000_000_000, seconds=300, processors=1),
)
def n4(
    image: Scan,
    mask: Annotated[Array, Dims("z y x"), DType("whole")] | None = None,
    *,
    shrink: Annotated[int, Field(ge=1, le=16)] = 4,
    iterations: tuple[int, ...] = (50, 50, 50),
    context: Context | None = None,
) -> Annotated[Array, DType("float")]:
    """Take the slow change of brightness off an MR image that its coils make.

    Parameters
    ----------
    mask
        Where to look; without one, what is brighter than Otsu's threshold.
    shrink
        The field is looked for on every so-manieth voxel; it is slow itself.
    iterations
        At each level of the field's spline, coarse to fine.
    """
    import SimpleITK

    context = context or Context()
    values = image.values.astype(np.float32)
    if not np.isfinite(values).all():
        raise BadValue("This image has voxels that are no numbers.")
    steps = known_spacing(image, "xyz") or dict.fromkeys("xyz", 1.0)
    scan = SimpleITK.GetImageFromArray(values)
    scan.SetSpacing([steps[name] for name in "xyz"])
    if mask is None:
        where = SimpleITK.OtsuThreshold(scan, 0, 1, 200)
    else:
        where = SimpleITK.GetImageFromArray((mask.values != 0).astype(np.uint8))
        where.CopyInformation(scan)
    factors = [max(1, min(shrink, size // 4)) for size in scan.GetSize()]
    corrector = SimpleITK.N4BiasFieldCorrectionImageFilter()
    corrector.SetMaximumNumberOfIterations(list(iterations))
    rounds = [0]

    def looked() -> None:
        rounds[0] += 1
        if context._is_cancelled():
            corrector.Abort()

    corrector.AddCommand(SimpleITK.sitkIterationEvent, looked)
    corrector.Execute(SimpleITK.Shrink(scan, factors), SimpleITK.Shrink(where, factors))
    context.check()
    field = SimpleITK.GetArrayFromImage(corrector.GetLogBiasFieldAsImage(scan))
    out = image.copy(data=(values / np.exp(field)).astype(np.float32))
    return out.assign_attrs(image.attrs, bias_rounds=rounds[0])


@node(version="1.0.0", kind="collect")
def nyul_standard(
    images: Annotated[Sequence[Array], DType("number")],
    *,
    low: float = 0.0,
    high: float = 100.0,
) -> Table:
    """Learn the standard scale of a set of images: where their percentiles lie.

    Parameters
    ----------
    low, high
        Ends of the standard scale.
    """
    if not images:
        raise BadValue("There are no images to learn a scale from.")
    total = np.zeros(len(DECILES))
    for image in images:
        marks = _landmarks(image)
        total += low + (marks - marks[0]) / (marks[-1] - marks[0]) * (high - low)
    return Table(
        {
            "percentile": [float(one) for one in DECILES],
            "value": (total / len(images)).tolist(),
        }
    )


@node(version="1.0.0", kind="filter")
def nyul(
    image: Annotated[Array, DType("number")], standard: Table
) -> Annotated[Array, DType("float")]:
    """Bring an image onto the standard scale of its set.

    Piecewise linear between the landmarks, straight on beyond the outermost.

    Parameters
    ----------
    standard
        What `nyul_standard` learned.
    """
    wanted = np.array(standard.columns["value"], dtype=np.float64)
    if tuple(standard.columns["percentile"]) != DECILES:
        raise BadValue("This is no standard scale: learn one with nyul_standard.")
    marks = _landmarks(image)
    if (np.diff(marks) <= 0).any():
        # Percentiles that coincide (many equal voxels) hold no slope of their own.
        keep = np.concatenate(([True], np.diff(marks) > 0))
        marks, wanted = marks[keep], wanted[keep]

    def moved(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> object:
        inside = np.interp(values, marks, wanted)
        below = wanted[0] + (values - marks[0]) * _slope(marks, wanted, 0)
        above = wanted[-1] + (values - marks[-1]) * _slope(marks, wanted, -2)
        out = np.where(values < marks[0], below, inside)
        return np.where(values > marks[-1], above, out).astype(np.float32)

    out: xr.DataArray = xr.apply_ufunc(
        moved,
        image.astype(np.float64),
        dask="parallelized",
        output_dtypes=[np.float32],
        keep_attrs=True,
    )
    return out.assign_attrs(image.attrs, units="")


def _slope(marks: Numbers, wanted: Numbers, at: int) -> float:
    after = at + 1
    return float((wanted[after] - wanted[at]) / (marks[after] - marks[at]))


def _landmarks(image: xr.DataArray) -> Numbers:
    """Return the percentiles of what is brighter than the mean: the body."""
    values = image.values.astype(np.float64).ravel()
    values = values[np.isfinite(values)]
    body = values[values > values.mean()] if values.size else values
    if body.size < 2 or body.max() == body.min():
        raise BadValue("This image is constant: it has no scale.")
    marks: Numbers = np.percentile(body, DECILES)
    if marks[-1] <= marks[0]:
        raise BadValue("This image is all but constant: it has no scale.")
    return marks
