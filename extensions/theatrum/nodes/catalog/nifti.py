"""Labelled arrays as NIfTI images of nibabel: same affine, same voxels."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from theatrum.node import BadValue, affine_of, spacing_of

_WIDER = {np.dtype(bool): np.uint8, np.dtype(np.float16): np.float32}
"""NIfTI-1 has neither truth nor halves of numbers."""


def nifti_image(image: xr.DataArray) -> Any:
    """Return the image in NIfTI's order of axes: x, y, z, t.

    An image that has no place in a patient gets its spacing and the form code 0
    ("unknown"), and is not said to lie anywhere. nibabel ships no types, hence Any.
    """
    import nibabel

    strange = [name for name in image.dims if name not in ("t", "z", "y", "x")]
    if strange:
        raise BadValue(f"NIfTI has no axis {strange[0]}: split it first.")
    order = [name for name in ("x", "y", "z", "t") if name in image.dims]
    if "z" not in order:
        image, order = image.expand_dims("z"), ["x", "y", "z", *order[2:]]
    values = image.transpose(*order).values
    values = values.astype(_WIDER.get(values.dtype.newbyteorder("="), values.dtype))
    if values.dtype in (np.dtype(np.int64), np.dtype(np.uint64)):
        values = _narrowed(values)
    values = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("="))
    affine = affine_of(image)
    known = spacing_of(image)
    made = nibabel.Nifti1Image(values, affine)
    if affine is None:
        made.header["pixdim"][1:4] = [known[name] or 1.0 for name in "xyz"]
    else:
        made.header.set_sform(affine, 1)  # 1: the scanner's own coordinates
        made.header.set_qform(affine, 1)
    unknown = all(step is None for step in known.values())
    made.header.set_xyzt_units("unknown" if unknown else "mm", "sec")
    if "t" in order and image.sizes["t"] > 1 and "t" in image.coords:
        step = float(image.coords["t"][1] - image.coords["t"][0])
        made.header["pixdim"][4] = step
    return made


def _narrowed(values: Any) -> Any:
    """Return 64-bit whole numbers as 32-bit ones: few programs read the others."""
    if values.size and (values.min() < -(2**31) or values.max() >= 2**31):
        raise BadValue("This image has whole numbers beyond 32 bits: cast it first.")
    return values.astype(np.int32)
