"""Masks and labels: thresholds, connected things, the brain, and their measures.

A mask is whole numbers, 0 and 1; labels count on from 1. Both say `is_label`, by which
the catalogue files them.
"""

from __future__ import annotations

import shutil
import subprocess  # of the tools that `brain_mask` can ask
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr
from pydantic import Field

from theatrum.node import (
    Array,
    Axes,
    BadInputs,
    BadValue,
    Context,
    Dims,
    DType,
    Measure,
    Table,
    node,
)
from theatrum.nodes.catalog.grid import known_spacing, made

Values = npt.NDArray[Any]  # of any kind of number
Whole = Annotated[Array, DType("integer")]
Rule = Literal["otsu", "li", "triangle", "yen", "isodata", "mean", "minimum", "fixed"]


@dataclass(frozen=True)
class Thresholded:
    """What is brighter than a threshold."""

    mask: Whole
    threshold: Annotated[float, Measure(title="Threshold", digits=4)]
    share: Annotated[float, Measure(unit="%", title="Share above")]


@node(version="1.0.0", kind="filter")
def threshold(
    image: Annotated[Array, DType("number")], *, rule: Rule = "otsu", value: float = 0.0
) -> Thresholded:
    """Part an image into what is brighter than a threshold, and the rest.

    Parameters
    ----------
    rule
        How the threshold is found from the whole image's values.
    value
        The threshold itself, where the rule is "fixed".
    """
    level = value if rule == "fixed" else _level(image, rule)
    mask = (image > level).astype(np.uint8)
    share = float(mask.mean()) * 100
    return Thresholded(mask.assign_attrs(image.attrs, is_label=True), level, share)


def _level(image: xr.DataArray, rule: str) -> float:
    from skimage import filters

    values = image.values
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    if not values.size or values.min() == values.max():
        raise BadValue("This image is constant, so no threshold parts it.")
    find: Callable[[Values], float] = getattr(filters, f"threshold_{rule}")
    return float(find(values))


@dataclass(frozen=True)
class Labelled:
    """Connected things, each with a number."""

    labels: Whole
    count: Annotated[int, Measure(title="Things")]


@node(version="1.0.0", kind="filter")
def label(
    mask: Annotated[Array, Axes("y", "x"), DType("whole")],
    *,
    smallest: Annotated[int, Field(ge=1)] = 1,
    corners: bool = False,
) -> Labelled:
    """Number what hangs together in a mask; each volume or plane by itself.

    Parameters
    ----------
    smallest
        Pixels; smaller things are left out.
    corners
        Whether touching at a corner counts as touching.
    """
    axes = tuple(name for name in ("z", "y", "x") if name in mask.dims)
    others = [str(name) for name in mask.dims if name not in axes]
    ordered = mask.transpose(*others, *axes)
    values = ordered.values != 0
    out = np.zeros(values.shape, np.int32)
    count = 0
    for place in np.ndindex(values.shape[: len(others)]):
        found, number = _things(values[place], smallest, corners)
        out[place] = np.where(found > 0, found + count, 0)
        count += number
    labels = ordered.copy(data=out).transpose(*mask.dims)
    return Labelled(labels.assign_attrs(mask.attrs, is_label=True), count)


def _things(mask: Values, smallest: int, corners: bool) -> tuple[Values, int]:
    from scipy import ndimage

    near = ndimage.generate_binary_structure(mask.ndim, mask.ndim if corners else 1)
    found, number = ndimage.label(mask, near)
    sizes = np.bincount(found.ravel(), minlength=number + 1)
    keep = sizes >= smallest
    keep[0] = False
    names = np.cumsum(keep) * keep
    return np.asarray(names[found], dtype=np.int32), int(keep.sum())


@dataclass(frozen=True)
class Clusters:
    """What an image's bright things measure."""

    labels: Whole
    count: Annotated[int, Measure(title="Clusters")]
    table: Table


@node(version="1.0.0", kind="measure")
def clusters(
    image: Annotated[Array, Dims("y x"), DType("number")],
    *,
    smallest: Annotated[int, Field(ge=1)] = 20,
    rule: Rule = "otsu",
) -> Clusters:
    """Find bright things by a threshold and tell the size of each.

    Parameters
    ----------
    smallest
        Pixels; smaller ones are left out.
    """
    parted = threshold(image, rule=rule)
    numbered = label(parted.mask, smallest=smallest)
    sizes = np.bincount(numbered.labels.values.ravel())[1:]
    steps = known_spacing(image, "xy")
    columns: dict[str, list[float | int]] = {
        "cluster": list(range(1, numbered.count + 1)),
        "pixels": sizes[: numbered.count].tolist(),
    }
    units = {}
    if steps is not None:
        one = steps["x"] * steps["y"]
        columns["area"] = [size * one for size in columns["pixels"]]
        units["area"] = "mm2"
    return Clusters(numbered.labels, numbered.count, Table(columns, units))


_ALWAYS = ("label", "area", "centroid", "bbox", "equivalent_diameter_area", "solidity")
_IN_PLANE = ("perimeter", "eccentricity", "orientation")
_BRIGHT = ("intensity_mean", "intensity_min", "intensity_max")


@node(version="1.0.0", kind="measure")
def regionprops(
    labels: Annotated[Array, Dims("[z] y x"), DType("whole")],
    image: Annotated[Array, Dims("[z] y x"), DType("number")] | None = None,
) -> Table:
    """Measure each label: size, place, shape, and brightness where there is an image.

    Sizes and places are pixels (`area`, `centroid`), and mm, mm2 or mm3 where the scale
    is known.

    Parameters
    ----------
    image
        Of the same size, whose brightness is told.
    """
    from skimage.measure import regionprops_table

    numbers = labels.values.astype(np.int32)
    if image is not None and image.shape != labels.shape:
        raise BadInputs(f"The image is {image.shape}, the labels are {labels.shape}.")
    wanted = [*_ALWAYS, *(_IN_PLANE if numbers.ndim == 2 else ())]
    wanted += _BRIGHT if image is not None else ()
    if numbers.ndim == 3:
        wanted.remove("solidity")  # a hull of flat things in space does not exist
    found: Mapping[str, Values] = regionprops_table(
        numbers, None if image is None else image.values, properties=wanted
    )
    columns = {name: values.tolist() for name, values in found.items()}
    units = {}
    names = "".join(str(name) for name in labels.dims)
    steps = known_spacing(labels, names)
    if steps is not None:
        size = "mm2" if numbers.ndim == 2 else "mm3"
        columns[size] = (found["area"] * np.prod(list(steps.values()))).tolist()
        units[size] = size
        for at, name in enumerate(names):
            columns[f"{name}_mm"] = (found[f"centroid-{at}"] * steps[name]).tolist()
            units[f"{name}_mm"] = "mm"
    return Table(columns, units)


Tool = Literal["morphology", "mri_synthstrip", "bet", "hd-bet"]


@node(version="1.0.0", kind="filter")
def brain_mask(
    image: Annotated[Array, Dims("z y x"), DType("number")],
    *,
    tool: Tool = "morphology",
    opening_mm: Annotated[float, Field(gt=0, le=20)] = 4.0,
    context: Context | None = None,
) -> Whole:
    """Find the brain of a head scan: 1 inside, 0 outside.

    Parameters
    ----------
    tool
        "morphology" is built in: Otsu's threshold, an opening that cuts brain from
        skull, the largest piece, its holes filled. It is a first guess, good on scans
        without neck. The others are programs of their own, asked where they are
        installed; their results are their makers'.
    opening_mm
        What is thinner is cut, of the built-in way.
    """
    context = context or Context()
    if tool != "morphology":
        return _asked(image, tool, context)
    from scipy import ndimage
    from skimage.filters import threshold_otsu

    values = image.values
    if values.min() == values.max():
        raise BadValue("This image is constant: there is no brain in it.")
    steps = known_spacing(image, "zyx") or dict.fromkeys("zyx", 1.0)
    spacing = [steps[name] for name in "zyx"]
    inside = values > threshold_otsu(values)
    context.progress(0.2, "cutting thin bridges")
    # By distances rather than a ball: voxels need not be cubes.
    core = ndimage.distance_transform_edt(inside, sampling=spacing) > opening_mm
    pieces, count = ndimage.label(core)
    if count == 0:
        raise BadValue("Nothing in this image is as thick as a brain.")
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    largest = pieces == sizes.argmax()
    context.progress(0.7, "filling holes")
    grown = (
        ndimage.distance_transform_edt(~largest, sampling=spacing) <= opening_mm
    ) & inside
    filled = ndimage.binary_fill_holes(grown | largest)
    out = made(image, filled.astype(np.uint8), ("z", "y", "x"))
    return out.assign_attrs(is_label=True, brain_tool=tool)


_COMMANDS: Mapping[str, tuple[str, ...]] = {
    "mri_synthstrip": ("-i", "{image}", "-m", "{mask}"),
    "bet": ("{image}", "{stem}", "-m", "-n"),
    "hd-bet": ("-i", "{image}", "-o", "{stem}", "--save_bet_mask", "--no_bet_image"),
}


def _asked(image: xr.DataArray, tool: str, context: Context) -> xr.DataArray:
    import nibabel

    from theatrum.nodes.catalog.nifti import nifti_image

    program = shutil.which(tool)
    if program is None:
        raise BadInputs(f"{tool} is not installed here: take tool='morphology'.")
    before, stem = context.path("head.nii.gz"), context.path("brain")
    after = context.path("brain_mask.nii.gz")
    nibabel.save(nifti_image(image.astype(np.float32)), before)
    names = {"image": str(before), "stem": str(stem), "mask": str(after)}
    command = [program, *(word.format(**names) for word in _COMMANDS[tool])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [one for one in (after, stem.with_name("brain_bet.nii.gz")) if one.exists()]
    if done.returncode or not found:
        raise BadValue(f"{tool} failed: {done.stderr.strip()[-300:]}")
    mask = (
        np.asanyarray(nibabel.Nifti1Image.from_filename(found[0]).dataobj).transpose(
            2, 1, 0
        )
        != 0
    )
    out = made(image, mask.astype(np.uint8), ("z", "y", "x"))
    return out.assign_attrs(is_label=True, brain_tool=tool)
