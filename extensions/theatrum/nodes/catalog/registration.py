"""Affine registration of volumes by mutual information, as SimpleITK has it.

Mattes et al., "PET-CT image registration in the chest using free-form deformations",
IEEE Trans Med Imaging 22 (2003) 120-128, on a pyramid of three levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import xarray as xr
from pydantic import Field

from theatrum.node import (
    Affine,
    Array,
    Context,
    Dims,
    DType,
    Measure,
    Placed,
    Resources,
    Table,
    node,
)
from theatrum.nodes.catalog.grid import affine_needed, made

Scan = Annotated[Array, Dims("z y x"), Placed(), DType("number")]


@dataclass(frozen=True)
class Registered:
    """A volume on another's grid, and how it came there."""

    image: Annotated[Array, Dims("z y x"), Placed(), DType("float")]
    transform: Table
    metric: Annotated[float, Measure(title="Mutual information", digits=4)]


@node(
    version="1.0.0",
    kind="transform",
    resources=Resources(memory_bytes=1_000_000_000, seconds=300),
)
def register_affine(
    moving: Scan,
    fixed: Scan,
    *,
    model: Literal["rigid", "affine"] = "affine",
    sampled: Annotated[float, Field(gt=0, le=1)] = 0.2,
    iterations: Annotated[int, Field(ge=1, le=1000)] = 200,
    context: Context | None = None,
) -> Registered:
    """Move one volume onto another; gives it on the other's grid.

    `transform` has the rows of the 4 x 4 that takes RAS millimetres of the fixed volume
    to those of the moving one. The samples are drawn with a fixed seed, so the same
    volumes give the same.

    Parameters
    ----------
    model
        rigid turns and shifts; affine stretches and shears as well.
    sampled
        Share of the voxels that each step looks at.
    iterations
        At each of the three levels, at most.
    """
    import SimpleITK

    context = context or Context()
    still, moved = (_itk(one) for one in (fixed, moving))
    begin: Any = (
        SimpleITK.Euler3DTransform()
        if model == "rigid"
        else SimpleITK.AffineTransform(3)
    )
    centred = SimpleITK.CenteredTransformInitializer(
        still, moved, begin, SimpleITK.CenteredTransformInitializerFilter.GEOMETRY
    )
    method = SimpleITK.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(sampled, seed=20_090_628)
    method.SetInterpolator(SimpleITK.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-5, iterations)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2, 1, 0])
    method.SetInitialTransform(centred, inPlace=False)

    def looked() -> None:
        if context._is_cancelled():
            method.StopRegistration()

    method.AddCommand(SimpleITK.sitkIterationEvent, looked)
    found = method.Execute(still, moved)
    context.check()
    values = SimpleITK.GetArrayFromImage(
        SimpleITK.Resample(moved, still, found, SimpleITK.sitkLinear, 0.0)
    )
    out = made(fixed, values.astype(np.float32), ("z", "y", "x"))
    out.attrs = {**fixed.attrs, "modality": moving.attrs.get("modality", "")}
    # Of the last level: smaller is better, and it is the negative of the information.
    metric = -float(method.GetMetricValue())
    return Registered(out, _table(_matrix(found)), metric)


_FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
"""RAS to LPS, in which ITK counts, and back."""


def _itk(volume: xr.DataArray) -> Any:
    import SimpleITK

    affine = _FLIP @ affine_needed(volume)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image = SimpleITK.GetImageFromArray(volume.values.astype(np.float32))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def _matrix(transform: Any) -> Affine:
    """Return the 4 x 4 of a transform in RAS millimetres."""
    # By what it does to four points: any kind of transform answers that.
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    lps = np.eye(4)
    for axis in range(3):
        lps[:3, axis] = (
            np.array(transform.TransformPoint(tuple(np.eye(3)[axis]))) - origin
        )
    lps[:3, 3] = origin
    ras: Affine = _FLIP @ lps @ _FLIP
    return ras


def _table(matrix: Affine) -> Table:
    return Table({f"column_{at}": matrix[:, at].tolist() for at in range(4)})
