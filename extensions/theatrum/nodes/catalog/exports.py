"""Files that other programs read: NIfTI, BIDS, OME-Zarr, OME-TIFF."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from theatrum.node import Array, Axes, BadValue, Context, DType, File, node
from theatrum.node.ports import modality_of
from theatrum.nodes.catalog.channels import names_of
from theatrum.nodes.catalog.grid import known_spacing
from theatrum.nodes.catalog.nifti import nifti_image

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Entity = Annotated[str, Field(pattern=r"^[A-Za-z0-9]*$")]


@node(version="1.0.0", kind="export")
def to_nifti(
    image: Annotated[Array, Axes("y", "x")],
    *,
    name: Name = "image",
    context: Context | None = None,
) -> File:
    """Write NIfTI-1, compressed: same voxels, same place, the numbers' own kind."""
    import nibabel

    path = (context or Context()).path(f"{name}.nii.gz")
    nibabel.save(nifti_image(image), path)
    return File(path, "application/gzip", "export", name)


Suffix = Literal["T1w", "T2w", "FLAIR", "PDw", "bold", "dwi", "ct", "pet"]
_FOLDER = {"bold": "func", "dwi": "dwi", "pet": "pet", "ct": "ct"}
_SIDECAR = {
    # BIDS 1.10, "Magnetic Resonance Imaging": names and units (seconds).
    "repetition_time_ms": ("RepetitionTime", 1e-3),
    "echo_time_ms": ("EchoTime", 1e-3),
    "inversion_time_ms": ("InversionTime", 1e-3),
    "flip_angle_deg": ("FlipAngle", 1.0),
    "field_strength_t": ("MagneticFieldStrength", 1.0),
}


@node(version="1.0.0", kind="export")
def to_bids(
    image: Annotated[Array, Axes("z", "y", "x")],
    *,
    subject: Annotated[str, Field(pattern=r"^[A-Za-z0-9]+$")],
    session: Entity = "",
    suffix: Suffix = "T1w",
    task: Entity = "",
    run: Annotated[int, Field(ge=0)] = 0,
    dataset: str = "Exported images",
    context: Context | None = None,
) -> File:
    """Write one image as a BIDS data set of its own, which merges with others.

    Parameters
    ----------
    subject, session, task, run
        Entities of the file's name; letters and digits. Never a patient's name.
    suffix
        What the image is; says its folder.
    dataset
        Name within dataset_description.json.
    """
    import nibabel

    if suffix == "bold" and not task:
        raise BadValue("BIDS asks for the task of a bold series: give task.")
    context = context or Context()
    root = context.path("bids")
    entities = [f"sub-{subject}"]
    place = root / f"sub-{subject}"
    if session:
        entities.append(f"ses-{session}")
        place = place / f"ses-{session}"
    place = place / _FOLDER.get(suffix, "anat")
    place.mkdir(parents=True, exist_ok=True)
    entities += [f"task-{task}"] if task else []
    entities += [f"run-{run:02d}"] if run else []
    stem = "_".join([*entities, suffix])
    nibabel.save(nifti_image(image), place / f"{stem}.nii.gz")
    protocol = image.attrs.get("protocol", {})
    sidecar: dict[str, Any] = {  # JSON
        known: round(float(protocol[name]) * scale, 9)
        for name, (known, scale) in _SIDECAR.items()
        if isinstance(protocol.get(name), int | float)
    }
    if modality_of(image):
        sidecar["Modality"] = modality_of(image)
    if task:
        sidecar["TaskName"] = task
    _write_json(place / f"{stem}.json", sidecar)
    described = {
        "Name": dataset,
        "BIDSVersion": "1.10.0",
        "DatasetType": "raw",
        "GeneratedBy": [{"Name": "theatrum"}],
    }
    _write_json(root / "dataset_description.json", described)
    (root / "participants.tsv").write_text(f"participant_id\nsub-{subject}\n")
    (root / "README").write_text(f"{dataset}\n")
    return File(root, "application/x-bids", "export", stem)


def _write_json(path: Any, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


@node(version="1.0.0", kind="export")
def to_ome_tiff(
    image: Annotated[Array, Axes("y", "x"), DType("number")],
    *,
    name: Name = "image",
    tile_px: Annotated[int, Field(ge=64, le=4096, multiple_of=16)] = 256,
    context: Context | None = None,
) -> File:
    """Write a tiled OME-TIFF with the scale and the channels' names; lossless."""
    import tifffile

    order = [axis for axis in ("t", "z", "c", "y", "x") if axis in image.dims]
    metadata: dict[str, Any] = {"axes": "".join(order).upper()}
    for axis, step in (known_spacing(image, "xy") or {}).items():
        metadata[f"PhysicalSize{axis.upper()}"] = step * 1000
        metadata[f"PhysicalSize{axis.upper()}Unit"] = "µm"
    deep = known_spacing(image, "z") if "z" in image.dims else None
    if deep:
        metadata |= {"PhysicalSizeZ": deep["z"] * 1000, "PhysicalSizeZUnit": "µm"}
    if "c" in image.dims:
        metadata["Channel"] = {"Name": names_of(image)}
    path = (context or Context()).path(f"{name}.ome.tiff")
    values = image.transpose(*order)
    # TIFF knows no numbers of half a byte's kind: 64-bit ones have no OME type.
    narrow = {np.dtype(np.int64): np.int32, np.dtype(np.uint64): np.uint32}
    pixels = values.values.astype(narrow.get(values.dtype, values.dtype))
    tifffile.imwrite(
        path,
        pixels,
        ome=True,
        metadata=metadata,
        tile=(tile_px, tile_px),
        compression="zlib",
        predictor=pixels.dtype.kind in "ui",
        photometric="minisblack",
        bigtiff=pixels.nbytes > 2**31,
    )
    return File(path, "image/tiff", "export", name)


@node(version="1.0.0", kind="export")
def to_ome_zarr(
    image: Annotated[Array, Axes("y", "x"), DType("number")],
    *,
    name: Name = "image",
    context: Context | None = None,
) -> File:
    """Write an OME-Zarr 0.5 pyramid with the scale and the channels' names.

    What the format has no place for, the affine above all, stands in the attribute
    `theatrum` of its group.
    """
    from theatrum.catalog.zarr_store import write_image

    path = (context or Context()).path(f"{name}.ome.zarr")
    write_image(path, image)
    return File(path, "application/vnd+zarr", "export", name)
