"""What is known of an image beside its pixels, as data frames.

image.biometa.scan            # one row: sizes, physical sizes, order of dimensions
image.biometa.channels        # a row a channel, wavelengths in nanometres
image.biometa.planes          # a row a plane: z, c, t, positions, exposure, time
image.biometa.physicalsizes   # a row an axis: size, unit, voxels, extent
image.biometa.device          # maker, model, field strength, objective, ...
image.biometa.dicom           # the attributes that were kept, by tag
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from theatrum.catalog.backend import PLANE
from theatrum.catalog.query.tables import frame

if TYPE_CHECKING:
    import pandas

    from theatrum.catalog.image import CatalogImage

_SPACE = ("x", "y", "z")
_UNITS = {"x": "mm", "y": "mm", "z": "mm", "t": "s"}
_CHANNEL = ("index", "name", "marker", "fluor", "excitation_nm", "emission_nm",
            "exposure_ms", "color", "window_lo", "window_hi")  # fmt: skip


class Biometa:
    """An image's metadata; each property asks the catalogue anew."""

    def __init__(self, image: CatalogImage) -> None:
        self._image = image

    @property
    def scan(self) -> pandas.DataFrame:
        """One row in the words of OME's `Pixels`; lengths in mm, times in s."""
        import pandas as pd

        image = self._image
        said: dict[str, Any] = {
            "Name": image.name,
            "DimensionOrder": "".join(str(dim) for dim in reversed(image.dims)).upper(),
            "Type": image.dtype,
            "Modality": image.modality,
            "Orientation": image.orientation,
        }
        for axis in "xyczt":
            said[f"Size{axis.upper()}"] = getattr(image, f"n_{axis}") or 1
        for axis in _SPACE:
            said[f"PhysicalSize{axis.upper()}"] = getattr(image, f"px_{axis}")
            said[f"PhysicalSize{axis.upper()}Unit"] = "mm"
        said |= {"TimeIncrement": image.px_t, "TimeIncrementUnit": "s"}
        return pd.DataFrame([said])

    @property
    def channels(self) -> pandas.DataFrame:
        """A row a channel."""
        query = self._image.channels.order_by("index")
        return frame(query.spec, query._fetched())[list(_CHANNEL)].set_index("index")

    @property
    def planes(self) -> pandas.DataFrame:
        """A row a plane: as the file said, else what follows from the sizes.

        The columns of `PLANE` always, whoever says them; positions are of a plane's
        first pixel, in the patient or on the stage, in the file's own axes.
        """
        import pandas as pd

        said = self._image._backend.planes(self._image.to_dict())
        rows = said or [*self._computed_planes()]
        more = [name for name in (rows[0] if rows else ()) if name not in PLANE]
        found = pd.DataFrame(rows, columns=[*PLANE, *more])
        lengths = dict.fromkeys(PLANE[3:], float)  # NaN where nothing is known
        return found.astype(lengths)

    def _computed_planes(self) -> Iterator[dict[str, Any]]:
        image = self._image
        sizes = [getattr(image, f"n_{axis}") or 1 for axis in "tcz"]
        for t, c, z in itertools.product(*(range(size) for size in sizes)):
            yield dict.fromkeys(PLANE) | {
                "t": t,
                "c": c,
                "z": z,
                "position_z_mm": None if image.px_z is None else z * image.px_z,
                "delta_t_s": None if image.px_t is None else t * image.px_t,
            }

    @property
    def physicalsizes(self) -> pandas.DataFrame:
        """A row an axis: a voxel's size, how many there are, and how far they reach."""
        import pandas as pd

        image = self._image
        rows = []
        for axis in (*_SPACE, "t"):
            size, count = getattr(image, f"px_{axis}"), getattr(image, f"n_{axis}")
            rows.append(
                {
                    "axis": axis,
                    "size": size,
                    "unit": _UNITS[axis],
                    "count": count,
                    "extent": size * count if size and count else None,
                }
            )
        return pd.DataFrame(rows).set_index("axis")

    @property
    def device(self) -> pandas.DataFrame:
        """What took the image: a row a fact."""
        acquisition = self._image.acquisition
        said: dict[str, Any] = {}
        if acquisition is not None:
            for name in ("manufacturer", "model", "field_strength"):
                if getattr(acquisition, name) is not None:
                    said[name] = getattr(acquisition, name)
            said |= acquisition.device
        return _facts(said)

    @property
    def protocol(self) -> pandas.DataFrame:
        """How it was taken (TR, TE, kVp, ...): a row a fact, units in the names."""
        acquisition = self._image.acquisition
        return _facts({} if acquisition is None else acquisition.protocol)

    @property
    def dicom(self) -> pandas.DataFrame:
        """The attributes of DICOM that were kept: a row a tag."""
        acquisition = self._image.acquisition
        return _facts({} if acquisition is None else acquisition.raw_meta, "tag")

    physical_sizes = physicalsizes

    def __repr__(self) -> str:
        return (
            "<biometa: scan, channels, planes, physicalsizes, device, protocol, dicom>"
        )


def _facts(said: Mapping[str, Any], index: str = "name") -> pandas.DataFrame:
    import pandas as pd

    rows = [{index: name, "value": value} for name, value in said.items()]
    return pd.DataFrame(rows, columns=[index, "value"]).set_index(index)
