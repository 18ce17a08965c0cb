"""NIfTI, MGH and Analyze: volumes whose headers nibabel reads.

The numbers are read by `raw`, so that a plane costs its own bytes. Affines are RAS. A
NIfTI of a BIDS data set has a JSON file beside it whose fields are taken over.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, cast

import nibabel
import numpy as np

from theatrum.catalog.formats import bids
from theatrum.catalog.formats.errors import Damaged
from theatrum.catalog.formats.geometry import (
    SHEAR_DEG,
    is_usable,
    orientation,
    steps_mm,
    tilt_deg,
)
from theatrum.catalog.formats.lazy import File, Stored, labelled, refuse_absurd
from theatrum.catalog.formats.raw import RawVolume, unpacked
from theatrum.catalog.formats.scene import Acquisition, Affine, Channel, Scene

GZIP_START = b"\x1f\x8b"
_MGH_START = b"\x00\x00\x00\x01"
_MM = {"meter": 1e3, "mm": 1.0, "micron": 1e-3, "unknown": 1.0}
_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
# What nibabel raises for headers that are not as they should be.
_HEADER_ERRORS = (
    nibabel.filebasedimages.ImageFileError,
    nibabel.spatialimages.HeaderDataError,
    nibabel.wrapstruct.WrapStructError,
    ValueError,
    TypeError,
    ArithmeticError,
    KeyError,
    OSError,
    EOFError,
    zlib.error,
)


SIDECAR_BYTES = 16 * 2**20
"""The longest JSON file that is read beside an image."""


def kind_of(path: Path, start: bytes) -> str:
    """ "nifti", "mgh", "analyze" or "": what a file begins as, packed or not."""
    plain = start
    if start.startswith(GZIP_START):
        try:
            plain = zlib.decompressobj(wbits=31).decompress(start, 512)
        except zlib.error:
            return ""
    if plain[344:348] in (b"n+1\0", b"ni1\0") or plain[4:8] in (b"n+2\0", b"ni2\0"):
        return "nifti"
    if plain.startswith(_MGH_START) and path.name.lower().endswith(
        (".mgh", ".mgz", ".mgh.gz")
    ):
        return "mgh"
    sizes = plain[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c")
    return "analyze" if sizes and path.suffix.lower() == ".hdr" else ""


def open_volume(path: Path, kind: str, sidecar: Path | None = None) -> Scene:
    """The volume in a file (or in a .hdr and .img pair); raises FormatError."""
    try:
        header, numbers, packing = _parts(path, kind)
        shape = tuple(int(one) for one in header.get_data_shape())
        refuse_absurd(shape, np.uint8)
        if not 2 <= len(shape) <= 7:
            raise Damaged(f"{path.name} has the shape {shape}: no image has.")
        volume, dims, colours = _volume(path, header, numbers, packing, shape)
        spacing, warnings = _spacing(header, kind)
        affine = _affine(header, kind)
        if affine is not None:
            # What places the voxels has the word; NIfTI's pixdim may differ.
            spacing |= spacing_of(affine)
    except _HEADER_ERRORS as error:
        raise Damaged(f"{path.name} has a damaged {kind} header.") from error
    if volume.packing:
        end_check = unpacked(volume.file.path, volume.packing, 0, volume.end)
        volume_file_bytes = end_check.stat().st_size
    else:
        volume_file_bytes = volume.file.bytes
    if volume_file_bytes < volume.end:
        raise Damaged(f"{volume.file.path.name} is cut off. Copy it again.")
    if affine is None:
        warnings = (*warnings, "The file does not say how the volume lies in a body.")
    elif tilt_deg(affine) > SHEAR_DEG:
        warnings = (
            *warnings,
            f"The slices are sheared by {tilt_deg(affine):.1f} degrees (gantry tilt).",
        )
    names = ("red", "green", "blue", "alpha")[:colours]
    array = labelled(
        Stored(volume, volume.shape, volume.dtype), dims, spacing, channels=names
    )
    # Dimensions of one, at the end, are how NIfTI says that there is none.
    for dim in ("t", "c"):
        if array.sizes.get(dim) == 1:
            array = array.isel({dim: 0}, drop=True)
    scene = Scene(
        format={"nifti": "NIfTI", "mgh": "MGH"}.get(kind, "Analyze"),
        files=tuple(dict.fromkeys((path, volume.file.path))),
        levels=(array,),
        spacing={dim: spacing[dim] for dim in array.sizes if dim in spacing},
        affine=affine,
        convention="" if affine is None else "RAS",
        orientation=orientation(affine, "RAS"),
        channels=tuple(Channel(name) for name in names),
        acquisition=Acquisition(modality="OT"),
        warnings=tuple(warnings),
        facts=_facts(header, kind),
    )
    return scene if sidecar is None else with_sidecar(scene, sidecar)


def with_sidecar(scene: Scene, sidecar: Path) -> Scene:
    """The scene with what the JSON file of a BIDS data set says of it.

    Raises Damaged where it is no JSON.
    """
    if sidecar.stat().st_size > SIDECAR_BYTES:
        raise Damaged(f"{sidecar.name} is too long for a sidecar.")
    try:
        fields = json.loads(sidecar.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged(f"{sidecar.name} is no JSON that can be read.") from error
    if not isinstance(fields, Mapping):
        raise Damaged(f"{sidecar.name} is no BIDS sidecar: it holds no fields.")
    return replace(
        scene,
        acquisition=bids.acquisition(fields, scene.acquisition),
        files=(*scene.files, sidecar),
    )


def sidecar_of(path: Path) -> Path | None:
    """The JSON file that belongs to a NIfTI file, where there is one."""
    name = path.name
    for ending in (".nii.gz", ".nii"):
        if name.lower().endswith(ending):
            beside = path.with_name(name[: -len(ending)] + ".json")
            return beside if beside.is_file() else None
    return None


def pair_of(path: Path) -> Path | None:
    """The file of numbers that belongs to a .hdr, in any case and packing."""
    for ending in (".img", ".IMG", ".img.gz"):
        beside = path.with_name(path.name[: -len(path.suffix)] + ending)
        if beside.is_file():
            return beside
    return None


def _parts(path: Path, kind: str) -> tuple[Any, Path, str]:
    """The header, the file of the numbers, and how that is packed."""
    with path.open("rb") as file:
        start = file.read(512)
    packing = "gzip" if start.startswith(GZIP_START) else ""
    if kind == "mgh":
        mgh: Any = nibabel.freesurfer.mghformat.MGHHeader
        # Its footer lies behind the numbers.
        with _plain(path) as stream:
            return mgh.from_fileobj(stream), path, packing
    plain = start
    if packing:
        plain = zlib.decompressobj(wbits=31).decompress(start, 512)
    if kind == "analyze":
        header_class: Any = nibabel.Spm99AnalyzeImage.header_class
    elif plain[4:8] in (b"n+2\0", b"ni2\0"):
        header_class = nibabel.Nifti2Header
    else:
        header_class = nibabel.Nifti1Header
    with _plain(path) as stream:
        header = header_class.from_fileobj(stream, check=False)
    header.check_fix(error_level=40)
    numbers = path
    if kind == "analyze" or bytes(header["magic"].tobytes())[:2] == b"ni":
        pair = pair_of(path)
        if pair is None:
            raise Damaged(f"{path.name} is one of two files: put its .img beside it.")
        numbers = pair
        with pair.open("rb") as file:
            packing = "gzip" if file.read(2) == GZIP_START else ""
    return header, numbers, packing


@contextmanager
def _plain(path: Path) -> Iterator[IO[bytes]]:
    """The file, unpacked if it is packed, whatever its name says."""
    with path.open("rb") as file:
        packed = file.read(2) == GZIP_START
    with gzip.open(path) if packed else path.open("rb") as stream:
        # It has what headers are read by: read, seek, tell.
        yield cast(IO[bytes], stream)


def _volume(
    path: Path, header: Any, numbers: Path, packing: str, shape: tuple[int, ...]
) -> tuple[RawVolume, tuple[str, ...], int]:
    stored = header.get_data_dtype()
    names = ("x", "y", "z", "t", "c", "u", "v")[: len(shape)]
    kept = [
        (name, size)
        for at, (name, size) in enumerate(zip(names, shape, strict=True))
        if at < 3 or size > 1
    ]
    extra = [name for name, _ in kept if name in "uv"]
    if extra:
        raise Damaged(f"{path.name} has more than five dimensions: {shape}.")
    dims = tuple(name for name, _ in reversed(kept))
    sizes = tuple(size for _, size in reversed(kept))
    colours = 0
    if stored.names is not None:
        if any(stored[one] != np.uint8 for one in stored.names) or "c" in dims:
            raise Damaged(f"{path.name} holds records that are no colours.")
        colours = len(stored.names)
        dims, sizes, stored = (*dims, "c"), (*sizes, colours), np.dtype(np.uint8)
    elif stored.kind not in "uif" or stored.itemsize > 8:
        raise Damaged(
            f"{path.name} holds {stored.name} numbers, which are not taken in: "
            "store real numbers of up to 64 bits."
        )
    slope, intercept = _scale(header)
    volume = RawVolume(
        File.of(numbers),
        int(header.get_data_offset()),
        sizes,
        stored.str,
        slope,
        intercept,
        packing,
    )
    if volume.offset < 0:
        raise Damaged(f"{path.name} says that its numbers begin before the file.")
    return volume, dims, colours


def _scale(header: Any) -> tuple[float, float]:
    if not hasattr(header, "get_slope_inter"):
        return 1.0, 0.0
    slope, intercept = header.get_slope_inter()
    return (
        1.0 if slope is None else float(slope),
        0.0 if intercept is None else float(intercept),
    )


def _spacing(header: Any, kind: str) -> tuple[dict[str, float], tuple[str, ...]]:
    zooms = [abs(float(one)) for one in header.get_zooms()]
    space, time = "mm", "sec"
    warnings: tuple[str, ...] = ()
    if kind == "mgh":
        time = "msec"
    if hasattr(header, "get_xyzt_units"):
        try:
            space, time = header.get_xyzt_units()
        except KeyError:
            warnings = ("The file counts in a unit that NIfTI does not have.",)
            space, time = "unknown", "unknown"
    scales = [_MM.get(space, 1.0)] * 3 + [_SECONDS.get(time, 0.0)]
    spacing = {
        dim: zoom * scale
        for dim, zoom, scale in zip("xyzt", zooms, scales, strict=False)
        if 0 < zoom * scale < float("inf")
    }
    return spacing, warnings


def _affine(header: Any, kind: str) -> Affine | None:
    """The affine to RAS millimetres; None where the header tells none."""
    if kind == "analyze":
        return None
    if kind == "nifti" and not (int(header["sform_code"]) or int(header["qform_code"])):
        return None
    affine = np.asarray(
        header.get_affine() if kind == "mgh" else header.get_best_affine(), float
    )
    if kind == "nifti":
        try:
            affine[:3] *= _MM.get(header.get_xyzt_units()[0], 1.0)
        except KeyError:
            return None
    return affine if is_usable(affine) else None


def _facts(header: Any, kind: str) -> dict[str, Any]:
    if kind != "nifti":
        return {}
    codes = {"sform_code": int(header["sform_code"])}
    codes["qform_code"] = int(header["qform_code"])
    intent = str(header.get_intent()[0])
    return codes | ({} if intent == "none" else {"intent": intent})


def spacing_of(affine: Affine) -> dict[str, float]:
    """The steps of an affine by dimension."""
    x, y, z = steps_mm(affine)
    return {"x": x, "y": y, "z": z}
