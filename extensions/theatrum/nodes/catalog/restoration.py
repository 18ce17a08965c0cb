"""Deconvolution after Richardson and Lucy.

W. H. Richardson, "Bayesian-based iterative method of image restoration", J Opt Soc Am
62 (1972) 55-59; L. B. Lucy, "An iterative technique for the rectification of observed
distributions", Astron J 79 (1974) 745-754.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from theatrum.node import Array, Axes, BadValue, Context, Dims, DType, Resources, node

Values = npt.NDArray[Any]  # of any kind of number


@node(
    version="1.0.0",
    kind="filter",
    resources=Resources(memory_bytes=2_000_000_000, seconds=300),
)
def deconvolve(
    image: Annotated[Array, Axes("y", "x"), DType("number")],
    psf: Annotated[Array, Dims("[z] y x"), DType("number")] | None = None,
    *,
    sigma: Annotated[float, Field(gt=0, le=50)] = 2.0,
    rounds: Annotated[int, Field(ge=1, le=500)] = 20,
    context: Context | None = None,
) -> Annotated[Array, DType("float")]:
    """Take the microscope's blur off an image.

    Along the axes of the point spread function, so a flat one works plane by plane.
    Negative values count as none.

    Parameters
    ----------
    psf
        What the microscope makes of a point; scaled to a sum of 1.
    sigma
        Of a Gaussian in the plane, pixels, where no psf is given.
    rounds
        The more, the sharper, and the more noise.
    """
    context = context or Context()
    spread = _gaussian(sigma) if psf is None else psf.values.astype(np.float64)
    if spread.min() < 0 or spread.sum() <= 0:
        raise BadValue("A point spread function has no negative values, and a sum.")
    spread /= spread.sum()
    axes = ("z", "y", "x")[-spread.ndim :]
    if not set(axes) <= set(image.dims):
        raise BadValue("The point spread function has more axes than the image.")
    others = [str(name) for name in image.dims if name not in axes]
    ordered = image.transpose(*others, *axes)
    values = np.maximum(ordered.values.astype(np.float64), 0)
    if not np.isfinite(values).all():
        raise BadValue("This image has pixels that are no numbers.")
    places = list(np.ndindex(values.shape[: len(others)]))
    out = np.empty(values.shape, np.float32)
    for done, place in enumerate(places):
        part = context.part(done / len(places), (done + 1) / len(places))
        out[place] = _restored(values[place], spread, rounds, part)
    return ordered.copy(data=out).transpose(*image.dims)


def _gaussian(sigma: float) -> Values:
    radius = int(4 * sigma + 0.5)
    line = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return np.asarray(np.outer(line, line))


def _restored(seen: Values, spread: Values, rounds: int, context: Context) -> Values:
    from scipy.signal import fftconvolve

    back = spread[tuple(slice(None, None, -1) for _ in spread.shape)]
    guess = np.full(seen.shape, 0.5)
    for done in range(rounds):
        blurred = fftconvolve(guess, spread, mode="same")
        # FFTs leave crumbs below nothing where nothing is.
        ratio = np.divide(seen, blurred, out=np.zeros_like(seen), where=blurred > 1e-12)
        guess *= np.maximum(fftconvolve(ratio, back, mode="same"), 0)
        context.progress((done + 1) / rounds, "deconvolving")
    return guess
