"""Body, lungs and bone on a CT scan, by thresholds and shape.

CT numbers are densities: air is -1000 HU, water 0. So the body is what is denser than
-300 HU, without the table; lungs are the large airy pieces within it, without the
windpipe; bone is what is denser than 200 HU. The steps are those of Hu, Hoffman and
Reinhardt ("Automatic lung segmentation for accurate quantitation of volumetric X-ray CT
images", IEEE Trans Med Imaging 20 (2001) 490-498), with fixed thresholds: windpipe and
bronchi taken out, lungs that touch parted, vessels closed.

Bounds: chest CT without large consolidations or effusions, which are not airy and so
are lost. Bronchi beyond the root of a lung count as lung.
Bone takes in contrast medium and metal. Not a medical device; for plans a person
checks every contour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from theatrum.node import (
    Context,
    Labels,
    Measure,
    Modality,
    Resources,
    Volume,
    node,
)
from theatrum.nodes.pieces import smaller_pieces
from theatrum.nodes.raster import Mask

LEFT, RIGHT = 1, 2

_BODY_HU = -300

_AIR_HU = -150
"""Below is air, in part at least. Fat has -120 to -80 HU; dependent and badly
reconstructed parts of lungs come near to it."""

_PURE_AIR_HU = -930
_SMOOTHING_MM = 1.0
_WALL_MM = 3.0
"""Of an airway: taken out with it, or a rim of it would stay."""

_LEAST_RATIO = 0.2
"""Of two lungs, the smaller to the larger; a smaller piece is none."""

_CLOSING_MM = 5.0
_SPECK_MM2, _AIRWAY_MM2 = 30.0, 900.0
"""Of a piece of air in one slice; the windpipe of an adult has 150 to 400 mm2."""


@dataclass(frozen=True)
class CtStructures:
    """What was found. Each has labels of its own, because lungs lie in the body."""

    body: Labels
    lungs: Labels
    """1 the patient's left, 2 the right."""
    bone: Labels
    body_ml: Annotated[float, Measure(unit="ml", title="Body", digits=0)]
    left_lung_ml: Annotated[float, Measure(unit="ml", title="Left lung", digits=0)]
    right_lung_ml: Annotated[float, Measure(unit="ml", title="Right lung", digits=0)]
    bone_ml: Annotated[float, Measure(unit="ml", title="Bone", digits=0)]


@node(
    name="ct-body-lungs-bone",
    version="1.0.0",
    title="Body, lungs and bone on CT",
    resources=Resources(memory_bytes=3_000_000_000, seconds=180),
)
def ct_body_lungs_bone(
    volume: Annotated[Volume, Modality("CT")],
    *,
    bone_from_hu: Annotated[float, Field(ge=100, le=1000)] = 200.0,
    context: Context | None = None,
) -> CtStructures:
    """Find body, lungs and bone on a chest CT.

    Parameters
    ----------
    volume
        A CT scan in Hounsfield units, in axial slices.
    bone_from_hu
        What is at least as dense is bone.
    """
    context = context or Context()
    context.progress(0.0, "looking for the body")
    body = _body(volume, context.part(0.0, 0.4))
    context.progress(0.4, "looking for the lungs")
    lungs = _lungs(volume, body, context.part(0.4, 0.9))
    context.progress(0.9, "looking for bone")
    bone = (volume.array >= bone_from_hu) & body
    bone &= ~smaller_pieces(bone, 0.1 / volume.voxel_ml, touching_edge=True)
    context.progress(1.0, "done")
    left, right = (int((lungs == side).sum()) for side in (LEFT, RIGHT))

    def labels(array: npt.NDArray[np.uint8], names: dict[int, str]) -> Labels:
        return Labels(array, names, affine_lps=volume.affine_lps)

    return CtStructures(
        body=labels(body.astype(np.uint8), {1: "Body"}),
        lungs=labels(lungs, {LEFT: "Left lung", RIGHT: "Right lung"}),
        bone=labels(bone.astype(np.uint8), {1: "Bone"}),
        body_ml=int(body.sum()) * volume.voxel_ml,
        left_lung_ml=left * volume.voxel_ml,
        right_lung_ml=right * volume.voxel_ml,
        bone_ml=int(bone.sum()) * volume.voxel_ml,
    )


def _body(volume: Volume, context: Context) -> Mask:
    """Return the body: the largest dense piece of each slice and what it surrounds."""
    from scipy import ndimage

    opening = _disk(volume, 4.0)
    body = np.zeros(volume.array.shape, bool)
    for z, section in enumerate(volume.array):
        context.progress(z / len(body), "looking for the body")
        # Opening parts the skin from clothes and from the thin table.
        dense = ndimage.binary_opening(section > _BODY_HU, opening)
        pieces, count = ndimage.label(dense)
        if count:
            sizes = np.bincount(pieces.ravel())
            sizes[0] = 0
            filled = ndimage.binary_fill_holes(pieces == sizes.argmax())
            body[z] = filled
    if not body.any():
        return body
    # The table is flat in every slice; the body goes on through them.
    pieces, _ = ndimage.label(body)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    found: Mask = pieces == sizes.argmax()
    return found


def _lungs(volume: Volume, body: Mask, context: Context) -> npt.NDArray[np.uint8]:
    """Return the lungs: the patient's left 1, right 2."""
    from scipy import ndimage

    airy = _airy(volume, body, context.part(0.0, 0.4))
    closing = _disk(volume, _CLOSING_MM)
    whole = np.zeros(volume.array.shape, np.uint8)
    for side, one in _sides(volume, airy, body).items():
        for z, section in enumerate(one):
            context.check()
            if section.any():
                reach = closing.shape[0]
                padded = np.pad(section, reach)
                closed = ndimage.binary_closing(padded, closing)
                closed = ndimage.binary_fill_holes(closed)
                closed = closed[reach:-reach, reach:-reach] & body[z]
                whole[z][closed & (whole[z] == 0)] = side
        context.progress(0.4 + 0.3 * side, "closing vessels")
    return whole


def _airy(volume: Volume, body: Mask, context: Context) -> Mask:
    """Return what holds air within the body, without windpipe and main bronchi.

    Those hold nothing but air, lungs never do: so an airway is a piece of pure air in
    one slice that is no larger than a windpipe. Dark spots within a lung go with them
    and come back when holes are filled.
    """
    from scipy import ndimage

    across, down, _ = volume.spacing_mm
    wall = _disk(volume, _WALL_MM)
    found = np.zeros(volume.array.shape, bool)
    for z, section in enumerate(volume.array):
        context.progress(z / len(found), "looking for air")
        smooth = ndimage.gaussian_filter(
            section.astype(np.float32), (_SMOOTHING_MM / down, _SMOOTHING_MM / across)
        )
        pieces, count = ndimage.label((smooth < _PURE_AIR_HU) & body[z])
        sizes = np.bincount(pieces.ravel(), minlength=count + 1) * across * down
        airway = (sizes > _SPECK_MM2) & (sizes < _AIRWAY_MM2)
        airway[0] = False
        airways = ndimage.binary_dilation(airway[pieces], wall)
        airy = (smooth < _AIR_HU) & body[z] & ~airways
        found[z] = airy & ~smaller_pieces(
            airy, _AIRWAY_MM2 / 4 / (across * down), touching_edge=True
        )
    return found


def _sides(volume: Volume, airy: Mask, body: Mask) -> dict[int, Mask]:
    """Return the lungs by side, parted where they touch; of one lung only that one."""
    from scipy import ndimage

    pieces, count = ndimage.label(airy)
    if count == 0:
        return {}
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    first, second = np.argsort(sizes)[::-1][:2] if count > 1 else (1, 0)
    if sizes[second] >= _LEAST_RATIO * sizes[first]:
        pair = [pieces == first, pieces == second]
    else:
        pair = _parted(volume, pieces == first)
    if len(pair) == 1:
        side = LEFT if _leftness(volume, pair[0]) > _leftness(volume, body) else RIGHT
        return {side: pair[0]}
    pair.sort(key=lambda lung: _leftness(volume, lung))
    return {LEFT: pair[1], RIGHT: pair[0]}


def _parted(volume: Volume, joined: Mask) -> list[Mask]:
    """Return the two lungs of a piece, cut where it is thinnest; or the piece itself.

    It is worn down until it falls in two; from there the parts grow back.
    """
    from scipy import ndimage
    from skimage import segmentation

    watershed: Any = segmentation.watershed  # scikit-image has no types here
    across, down, along = volume.spacing_mm
    # Only where the lungs are: distances take ten times the memory of the scan.
    (box,) = ndimage.find_objects(joined.astype(np.uint8))
    inner = np.pad(joined[box], 1)
    depth = ndimage.distance_transform_edt(inner, sampling=(along, down, across))
    for worn_mm in np.arange(2.0, 25.0, 2.0):
        cores, count = ndimage.label(depth > worn_mm)
        if count < 2:
            continue
        sizes = np.bincount(cores.ravel(), minlength=count + 1)
        sizes[0] = 0
        first, second = np.argsort(sizes)[::-1][:2]
        if sizes[second] < _LEAST_RATIO * sizes[first]:
            continue
        seeds = np.where(cores == first, 1, np.where(cores == second, 2, 0))
        grown = watershed(-depth, seeds.astype(np.int32), mask=inner)
        pair = [np.zeros(joined.shape, bool) for _ in range(2)]
        for side, lung in enumerate(pair, start=1):
            lung[box] = grown[1:-1, 1:-1, 1:-1] == side
        return pair
    return [joined]


def _leftness(volume: Volume, mask: Mask) -> float:
    """Return how far to the patient's left the middle of a mask is, in mm."""
    z, y, x = (axis.mean() for axis in np.nonzero(mask))
    return float(volume.affine_lps[0] @ (x, y, z, 1))


def _disk(volume: Volume, radius_mm: float) -> Mask:
    """Return a disk within one slice."""
    across, down, _ = volume.spacing_mm
    rows, columns = max(1, round(radius_mm / down)), max(1, round(radius_mm / across))
    y, x = np.ogrid[-rows : rows + 1, -columns : columns + 1]
    disk: Mask = (x * across) ** 2 + (y * down) ** 2 <= radius_mm**2
    return disk
