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
    channels: Sequence[Mapping[str, Any]],
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
        Their rows, in order.
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
    moves = _moves(dims, (datasets[0], chosen), (finest.shape, blocks.shape))
    names = [str(one["name"]) for one in channels]
    array = array.assign_coords(_coordinates(image, array.sizes, moves, names))
    if names:
        array.attrs["channels"] = names
    colours = {str(one["name"]): one["color"] for one in channels if one.get("color")}
    if colours and "c" in array.dims:
        array.attrs["channel_colors"] = colours
    return array.assign_attrs(_attributes(image, moves, level % len(datasets)))


def _multiscale(attributes: Mapping[str, Any]) -> Any:
    return attributes.get("ome", attributes)["multiscales"][0]


# Factor and shift of a level by dimension, in pixels of level 0, between centres.
_Moves = dict[str, tuple[float, float]]


def _moves(
    dims: Sequence[str],
    datasets: tuple[Mapping[str, Any], Mapping[str, Any]],
    shapes: tuple[Sequence[int], Sequence[int]],
) -> _Moves:
    """How a level lies on level 0: as the group says, else as the sizes do.

    `datasets` and `shapes` are those of level 0 and of the level.
    """
    from theatrum.catalog.formats.lazy import factor_of

    found: _Moves = {}
    fine, wide = (_transform(one, len(dims)) for one in datasets)
    for axis, dim in enumerate(dims):
        factor = factor_of(shapes[0][axis], shapes[1][axis])
        if fine is None or wide is None:
            found[dim] = factor, (factor - 1) / 2
            continue
        step = fine[0][axis]
        found[dim] = wide[0][axis] / step, (wide[1][axis] - fine[1][axis]) / step
    return found


def _transform(
    dataset: Mapping[str, Any], count: int
) -> tuple[list[float], list[float]] | None:
    """Scale and translation of a level; None where the group tells no scale."""
    told = {
        one.get("type"): one for one in dataset.get("coordinateTransformations") or ()
    }
    scale = told.get("scale", {}).get("scale")
    if not scale or len(scale) != count or 0 in scale:
        return None
    moved = told.get("translation", {}).get("translation") or [0.0] * count
    return [float(one) for one in scale], [float(one) for one in moved]


def _coordinates(
    image: Mapping[str, Any],
    sizes: Mapping[Any, int],
    moves: _Moves,
    channels: Sequence[str],
) -> dict[str, Any]:
    """Along x, y, z millimetres from the first voxel's centre, along t seconds."""
    found: dict[str, Any] = {}
    for dim, size in sizes.items():
        if dim == "c":
            if len(set(channels)) == size == len(channels):
                found["c"] = list(channels)
            continue
        step = image[f"px_{dim}"]
        if step:
            factor, shift = moves[str(dim)]
            places = np.arange(size) * factor + shift
            units = "s" if dim == "t" else "mm"
            found[str(dim)] = (dim, places * step, {"units": units})
    return found


def _attributes(image: Mapping[str, Any], moves: _Moves, level: int) -> dict[str, Any]:
    said: dict[str, Any] = {"id": image["id"], "level": level}
    for column, name in (("modality", "modality"), ("value_unit", "units")):
        if image[column]:
            said[name] = image[column]
    if image["affine"] is not None:
        scaling = np.eye(4)
        for place, dim in enumerate("xyz"):
            scaling[place, place], scaling[place, 3] = moves.get(dim, (1.0, 0.0))
        affine = np.asarray(image["affine"], float) @ scaling
        said |= {
            "affine": affine.tolist(),
            "convention": "RAS",
            "orientation": image["orientation"],
        }
    return said
