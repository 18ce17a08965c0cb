"""Functions of numpy arrays, done to lazy ones block by block.

An array that is no dask array is worked on at once. Of a dask array the result is lazy
as well: each block is computed with as many neighbours as the function reaches, and so
equals what the function gives for the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

Values = npt.NDArray[Any]  # of any kind of number


def is_lazy(array: xr.DataArray) -> bool:
    """Whether its values are still to be computed."""
    return array.chunks is not None


def nearby(
    array: xr.DataArray,
    function: Callable[[Values], Values],
    reach: Mapping[str, int],
    dtype: npt.DTypeLike,
) -> xr.DataArray:
    """Return `function` of every pixel's surroundings.

    Parameters
    ----------
    function
        Of all axes at once, of the same shape as what it is given. Beyond the edge it
        has to do with what it is given, as scipy's filters do with their `mode`.
    reach
        Pixels along each axis that a result depends on; 0 where it is not named.
    """
    if not is_lazy(array):
        return array.copy(data=np.asarray(function(array.values), dtype=dtype))
    import dask.array as da

    chunks = array.chunks or ()
    depth = {
        axis: int(reach.get(str(name), 0)) if len(chunks[axis]) > 1 else 0
        for axis, name in enumerate(array.dims)
    }
    data = da.map_overlap(
        lambda block: np.asarray(function(block), dtype=dtype),
        array.data,
        depth=depth,
        # At the image's own edge a block ends there, and the function's mode holds.
        boundary="none",
        dtype=dtype,
        meta=np.empty((0,) * array.ndim, dtype=dtype),
    )
    return array.copy(data=data)


def whole_axes(
    array: xr.DataArray,
    function: Callable[[Values], Values],
    axes: tuple[str, ...],
    dtype: npt.DTypeLike,
) -> xr.DataArray:
    """Return `function` of each sub-array along `axes`, of the same shape.

    The axes named are the last ones of what the function is given, and whole.
    """
    out: xr.DataArray = xr.apply_ufunc(
        function,
        array.chunk(dict.fromkeys(axes, -1)) if is_lazy(array) else array,
        input_core_dims=[list(axes)],
        output_core_dims=[list(axes)],
        vectorize=True,
        dask="parallelized",
        output_dtypes=[np.dtype(dtype)],
        keep_attrs=True,
    )
    return out.transpose(*array.dims)
