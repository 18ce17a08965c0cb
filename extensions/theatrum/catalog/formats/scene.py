"""What a reader of files answers: one scene for each image that a file holds.

Dimensions are a part of `t c z y x`, in this order; `y` and `x` are always there. A
colour picture has its samples as channels. Lengths are millimetres and times seconds,
whatever the file counts in.

Planes: *voxel*, the index (x, y, z), of the voxel's centre; *world*, millimetres in the
scene's `convention`: RAS (right, anterior, superior; NIfTI's) or LPS (left, posterior,
superior; DICOM's, PS3.3 clause C.7.6.2.1.1). Where a file tells no place in a body the
convention is "" and there is no affine.

Nothing here says who a person is: readers take what describes pixels, device and
protocol, and leave the rest in the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import xarray as xr

DIMS = ("t", "c", "z", "y", "x")
Affine = npt.NDArray[np.float64]
Convention = Literal["RAS", "LPS", ""]
Modality = Literal["CT", "MR", "PT", "SM", "FM", "EM", "US", "XR", "OT"]
"""SM is a stained slide, FM fluorescence; the others are DICOM's or nearly so."""


@dataclass(frozen=True)
class Channel:
    """One channel, as far as the file describes it.

    Attributes
    ----------
    name
        As the file calls it, for people.
    color
        `#rrggbb`, or "".
    window
        The numbers to show as dark and as full colour, or None.
    excitation_nm, emission_nm, exposure_ms
        Of a fluorescence channel, or None.
    fluor
        The dye, or "".
    """

    name: str
    color: str = ""
    window: tuple[float, float] | None = None
    excitation_nm: float | None = None
    emission_nm: float | None = None
    exposure_ms: float | None = None
    fluor: str = ""


@dataclass(frozen=True)
class Acquisition:
    """How the pixels came to be; nothing of who lay in the machine.

    Attributes
    ----------
    series_uid, study_uid
        DICOM's, or a file's own identity, or "".
    acquired_at
        ISO 8601 in the device's own time, or "".
    device
        maker, model, software, field strength: short texts and numbers.
    protocol
        Settings of the acquisition by name, units in the name (`echo_time_ms`).
    raw_meta
        Of DICOM the numbers and codes of how it was taken and of its pixels, by tag
        (`00180087`); no text in which a person could be named.
    patient
        A pseudonym of the subject within its source, or "": what groups scenes of one
        subject where no rule says more. Never a name.
    """

    modality: Modality = "OT"
    series_uid: str = ""
    study_uid: str = ""
    description: str = ""
    body_part: str = ""
    laterality: str = ""
    acquired_at: str = ""
    frame_of_reference: str = ""
    device: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    raw_meta: Mapping[str, Any] = field(default_factory=dict)
    patient: str = ""


@dataclass(frozen=True, eq=False)
class Scene:
    """One lazily readable image.

    Attributes
    ----------
    index
        Which of the file's scenes; 0 where it has one.
    name
        Of the scene within its file, for people; often "".
    levels
        The array at falling resolution, full first; each lazy, with coordinates in
        millimetres and seconds.
    spacing
        Of `t`, `z`, `y`, `x` as far as they are known: seconds, millimetres.
    affine
        4 x 4, voxel (x, y, z, 1) to world, or None.
    orientation
        Where rising x, y and z lead to, such as "LPS" or "RAI"; "" if unknown. The
        letters are those of the body, whatever the convention.
    planes
        One row a plane, as columns of equal length: `z`, `c`, `t` and what is known:
        `exposure_ms`, `delta_t_s`, `position_x_mm`, ...; {} if nothing is.
    value_unit
        Of the numbers ("HU", "Bq/ml"), or "".
    warnings
        What a person should know: a gap, a tilt, a duplicate. Sentences.
    facts
        Further short facts of the file, JSON, none of a person.
    """

    format: str
    files: tuple[Path, ...]
    levels: tuple[xr.DataArray, ...]
    index: int = 0
    name: str = ""
    spacing: Mapping[str, float] = field(default_factory=dict)
    affine: Affine | None = None
    convention: Convention = ""
    orientation: str = ""
    channels: tuple[Channel, ...] = ()
    planes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    acquisition: Acquisition = field(default_factory=Acquisition)
    value_unit: str = ""
    warnings: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def array(self) -> xr.DataArray:
        """The image at full resolution."""
        return self.levels[0]

    @property
    def dims(self) -> tuple[str, ...]:
        return tuple(str(one) for one in self.array.dims)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(one) for one in self.array.shape)

    @property
    def affine_ras(self) -> Affine | None:
        """The affine to RAS millimetres, whatever the file's convention."""
        if self.affine is None or self.convention != "LPS":
            return self.affine
        flip: Affine = np.diag([-1.0, -1.0, 1.0, 1.0])
        return np.asarray(flip @ self.affine)

    def size(self, dim: str) -> int:
        """How many there are along a dimension; 1 where the image has no such."""
        return int(self.array.sizes.get(dim, 1))
