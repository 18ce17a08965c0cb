"""An OME-Zarr group behind an address as a labelled array, read block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from theatrum.catalog.errors import NotOpened

if TYPE_CHECKING:
    import xarray


# Any: columns of an image, attributes of a group
def opened(
    address: str,
    headers: Mapping[str, str],
    image: Mapping[str, Any],
    level: int,
    channels: Sequence[str],
) -> xarray.DataArray:
    """One level of the group, with coordinates in mm and s and the image's affine.

    Parameters
    ----------
    address
        Of the group.
    headers
        That let one read it.
    image
        The image's row.
    level
        0 the finest, -1 the coarsest.
    channels
        Their names, in order.
    """
    import dask.array
    import xarray as xr
    import zarr

    store = zarr.storage.FsspecStore.from_url(
        address,
        storage_options={"headers": dict(headers), "client_kwargs": {}},
        read_only=True,
    )
    try:
        group = zarr.open_group(store, mode="r")
        multiscale = _multiscale(group.attrs.asdict())
        datasets = multiscale["datasets"]
        chosen = datasets[level]
        # Any: zarr's own types do not tell arrays from groups
        blocks: Any = group[chosen["path"]]
        finest: Any = group[datasets[0]["path"]]
    except (OSError, KeyError, IndexError, ValueError) as err:
        raise NotOpened(
            f"{image['name']} has no level {level} that can be read"
        ) from err
    dims = [axis["name"] for axis in multiscale["axes"]]
    array = xr.DataArray(dask.array.from_zarr(blocks), dims=dims, name=image["name"])
    factors = {
        dim: whole / part
        for dim, whole, part in zip(dims, finest.shape, blocks.shape, strict=True)
    }
    array = array.assign_coords(_coordinates(image, array.sizes, factors, channels))
    return array.assign_attrs(_attributes(image, factors, level % len(datasets)))


def _multiscale(attributes: Mapping[str, Any]) -> Any:
    return attributes.get("ome", attributes)["multiscales"][0]


def _coordinates(
    image: Mapping[str, Any],
    sizes: Mapping[Any, int],
    factors: Mapping[str, float],
    channels: Sequence[str],
) -> dict[str, Any]:
    """Along x, y, z millimetres from the first voxel's centre, along t seconds."""
    found: dict[str, Any] = {}
    for dim, size in sizes.items():
        if dim == "c":
            if len(channels) == size:
                found["c"] = list(channels)
            continue
        step = image[f"px_{dim}"]
        if step:
            factor = factors[dim]
            places = np.arange(size) * factor + (factor - 1) / 2
            units = "s" if dim == "t" else "mm"
            found[str(dim)] = (dim, places * step, {"units": units})
    return found


def _attributes(
    image: Mapping[str, Any], factors: Mapping[str, float], level: int
) -> dict[str, Any]:
    said: dict[str, Any] = {"id": image["id"], "level": level}
    for column, name in (("modality", "modality"), ("value_unit", "units")):
        if image[column]:
            said[name] = image[column]
    if image["affine"] is not None:
        scaling = np.eye(4)
        for place, dim in enumerate("xyz"):
            factor = factors.get(dim, 1.0)
            scaling[place, place], scaling[place, 3] = factor, (factor - 1) / 2
        affine = np.asarray(image["affine"], float) @ scaling
        said |= {
            "affine": affine.tolist(),
            "convention": "RAS",
            "orientation": image["orientation"],
        }
    return said
