"""Any registered image as a lazy labelled array, whatever file it lies in.

    array = open_array("/srv/images/brain.nii.gz")     # nothing is read yet
    array.sel(z=slice(10, 20))                         # millimetres
    array.max("z").compute()

Dimensions are among t, c, z, y, x. Coordinates along z, y and x are millimetres from
the first voxel's centre, along t seconds from the first time, along c names.
The attributes say where the voxels lie: `affine` takes (x, y, z, 1) of a voxel to RAS
millimetres, whatever the file's own convention, `orientation` names the directions; and
`protocol` how a scan was taken (`echo_time_ms`, ...).

Arrays hold no open file, so they can be sent to the workers of a cluster, which must
see the file under the same path.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from theatrum.catalog.errors import Gone, NotOpened
from theatrum.catalog.formats import FormatError, Scene, open_scenes, sniff
from theatrum.catalog.formats.lazy import factor_of
from theatrum.catalog.formats.scene import Affine
from tile_server.readers.dicom_files import is_dicom

if TYPE_CHECKING:
    import xarray as xr

GONE = (
    "{} is not where the catalogue knows it: restore it, or ingest it again from where "
    "it is now."
)
_KEPT = 32
"""Scenes whose headers are kept: a series of a thousand files has as many."""


def open_scene(path: str | os.PathLike[str], scene: int = 0) -> Scene:
    """The image in a file or folder, with everything that it says of itself.

    Raises
    ------
    Gone
        Where there is nothing at the path any more.
    NotOpened
        Where it is there and cannot be read; the message says why.
    """
    place = Path(path)
    try:
        status = place.stat()
    except OSError as error:
        raise Gone(GONE.format(place.name)) from error
    return _scene(place, scene, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=_KEPT)
def _scene(path: Path, scene: int, _mtime_ns: int, _size: int) -> Scene:
    try:
        if path.is_dir() and not sniff(path):
            files = sorted(one for one in path.iterdir() if is_dicom(one))
            if not files:
                raise NotOpened(f"{path.name} is a folder without images.")
            scenes = open_scenes(files, "dicom")
        else:
            scenes = open_scenes([path])
    except FormatError as error:
        raise NotOpened(str(error)) from error
    if not 0 <= scene < len(scenes):
        raise NotOpened(f"{path.name} has {len(scenes)} images and no number {scene}.")
    return scenes[scene]


def open_array(
    path: str | os.PathLike[str], scene: int = 0, level: int = 0
) -> xr.DataArray:
    """One level of an image, 0 the finest; raises Gone and NotOpened."""
    return level_of(open_scene(path, scene), level, Path(path).name)


def level_of(scene: Scene, level: int, name: str) -> xr.DataArray:
    """One level of a scene, from the end where it is negative; raises NotOpened."""
    if not -len(scene.levels) <= level < len(scene.levels):
        raise NotOpened(
            f"{name} has {len(scene.levels)} levels: name one of 0 to "
            f"{len(scene.levels) - 1}."
        )
    return labelled(scene, level % len(scene.levels))


def open_tree(path: str | os.PathLike[str], scene: int = 0) -> xr.DataTree:
    """All levels as `scale0`, `scale1`, ..., each a dataset of one `image`."""
    import xarray as xr

    found = open_scene(path, scene)
    return xr.DataTree.from_dict(
        {
            f"scale{level}": labelled(found, level).to_dataset(name="image")
            for level in range(len(found.levels))
        },
        name=found.name or None,
    )


def labelled(scene: Scene, level: int = 0) -> xr.DataArray:
    """One level of a scene with the attributes that nodes and viewers go by."""
    array = scene.levels[level]
    attrs: dict[str, object] = {
        "modality": scene.acquisition.modality,
        "format": scene.format,
        "level": level,
    }
    protocol = dict(scene.acquisition.protocol)
    if "field_strength_t" in scene.acquisition.device:
        protocol["field_strength_t"] = scene.acquisition.device["field_strength_t"]
    if protocol:
        attrs["protocol"] = protocol
    if scene.value_unit:
        attrs["units"] = scene.value_unit
    if scene.affine_ras is not None:
        affine = _at_level(scene.affine_ras, scene, level)
        attrs["affine"] = affine.tolist()
        attrs["convention"] = "RAS"
        attrs["orientation"] = scene.orientation
    if scene.channels:
        attrs["channels"] = [one.name for one in scene.channels]
        colours = {one.name: one.color for one in scene.channels if one.color}
        if colours and "c" in array.dims:
            attrs["channel_colors"] = colours
    return array.assign_attrs(attrs)


def _at_level(affine: Affine, scene: Scene, level: int) -> Affine:
    """The affine of a coarser level: its voxels are larger, around the same place."""
    full, coarse = scene.levels[0], scene.levels[level]
    scaling = np.eye(4)
    for axis, dim in enumerate("xyz"):
        scaling[axis, axis], scaling[axis, 3] = factor_and_shift(full, coarse, dim)
    return np.asarray(affine @ scaling)


def factor_and_shift(
    full: xr.DataArray, coarse: xr.DataArray, dim: str
) -> tuple[float, float]:
    """How many pixels of level 0 one of a level is wide, and where the first one lies.

    Both in pixels of level 0, the shift between centres. The coordinates say it; where
    there are none, the sizes.
    """
    if dim not in full.dims or dim not in coarse.dims:
        return 1.0, 0.0
    factor = factor_of(full.sizes[dim], coarse.sizes[dim])
    if dim not in full.coords or dim not in coarse.coords or full.sizes[dim] < 2:
        return factor, (factor - 1) / 2
    fine, wide = full.coords[dim].values, coarse.coords[dim].values
    if fine.dtype.kind not in "fiu":
        return factor, (factor - 1) / 2
    step = float(fine[1]) - float(fine[0])
    if wide.size > 1:
        factor = (float(wide[1]) - float(wide[0])) / step
    return factor, (float(wide[0]) - float(fine[0])) / step
