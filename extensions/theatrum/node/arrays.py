"""Labelled arrays: any image of the catalogue, whatever its modality.

An array is an `xarray.DataArray`, most often over dask, so that nothing is read before
it is asked for. Its dimensions are among t, c, z, y, x; coordinates along z, y and x
carry their `units`. A scan says where it lies by `attrs["affine"]`: 4 x 4, which takes
the index (x, y, z, 1) of a voxel, note the order, to the millimetres of its centre in
RAS (right, anterior, superior), as NIfTI has it; where `attrs["convention"]` is "LPS",
in DICOM's left, posterior, superior.

xarray is heavy, so this module does not import it: what is asked of a value here is
only what the ports need.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from theatrum.node.errors import BadValue

if TYPE_CHECKING:
    from xarray import DataArray

    Array = DataArray
else:

    @runtime_checkable
    class Array(Protocol):
        """What an `xarray.DataArray` has; asking for it reads no pixel."""

        @property
        def dims(self) -> Any:
            """Names of the axes, slowest first."""

        @property
        def sizes(self) -> Any:
            """Length of each axis."""

        @property
        def coords(self) -> Any:
            """Positions along the axes."""

        @property
        def attrs(self) -> Any:
            """What else is known: affine, modality, channel names."""


Affine = npt.NDArray[np.float64]
SPATIAL = ("x", "y", "z")
"""In the order of an affine's columns: the opposite of the dimensions' order."""

_MM = {"mm": 1.0, "millimeter": 1.0, "um": 1e-3, "µm": 1e-3, "micrometer": 1e-3}
_MM |= {"nm": 1e-6, "nanometer": 1e-6, "m": 1e3, "meter": 1e3, "cm": 10.0}


def affine_of(array: Array) -> Affine | None:
    """Return the 4 x 4 of RAS millimetres, or None where the array has no place."""
    found = array.attrs.get("affine")
    if found is None:
        return None
    affine = np.array(found, dtype=np.float64)
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise BadValue("The affine of this image is not 4 x 4 finite numbers.")
    if abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise BadValue("The affine of this image is flat: it gives voxels no volume.")
    if array.attrs.get("convention") == "LPS":
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    return affine


def spacing_of(array: Array) -> dict[str, float | None]:
    """Return millimetres between neighbours along x, y and z, as far as known.

    The affine says it, or else the coordinates by their units; without units there is
    no telling.
    """
    affine = affine_of(array)
    if affine is not None:
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        return {name: float(lengths[at]) for at, name in enumerate(SPATIAL)}
    return {name: _step(array, name) for name in SPATIAL}


def _step(array: Array, name: str) -> float | None:
    if name not in array.coords:
        return None
    along = array.coords[name]
    unit = _MM.get(str(along.attrs.get("units", "")).lower())
    if unit is None or along.size < 2:
        return None
    return abs(float(along[1]) - float(along[0])) * unit


@dataclass(frozen=True)
class File:
    """A file or a folder that a node wrote, into the folder that its context gave it.

    Attributes
    ----------
    path
        Absolute. Whoever ran the node takes it over, and moves it.
    media_type
        Such as image/jpeg; of a folder the type of the whole, such as
        application/vnd+zarr.
    role
        What the catalogue files it under.
    """

    path: Path
    media_type: str
    role: Literal["thumbnail", "render", "report", "export", "table", "model"] = (
        "export"
    )
    title: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        if not self.path.exists():
            raise BadValue(f"The node wrote no {self.path.name}.")
