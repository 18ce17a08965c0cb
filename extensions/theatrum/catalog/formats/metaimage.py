"""MetaImage (.mha, .mhd): `Key = Value` lines, then the numbers.

The world is LPS, as ITK has it: `TransformMatrix` holds one row of three direction
cosines for each axis, fastest first, and `Offset` the first voxel's place.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from theatrum.catalog.formats.beside import file_beside
from theatrum.catalog.formats.errors import Damaged
from theatrum.catalog.formats.geometry import (
    SHEAR_DEG,
    is_usable,
    orientation,
    tilt_deg,
)
from theatrum.catalog.formats.lazy import File, Stored, labelled
from theatrum.catalog.formats.raw import RawVolume, unpacked
from theatrum.catalog.formats.scene import Affine, Channel, Convention, Modality, Scene

_MOST_HEADER: Final = 64 * 1024
_TYPES: Final = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_MODALITIES: Final[dict[str, Modality]] = {
    "MET_MOD_CT": "CT",
    "MET_MOD_MR": "MR",
    "MET_MOD_US": "US",
}
_KEYS: Final = (b"ObjectType", b"NDims", b"Comment", b"ObjectSubType", b"BinaryData")


def is_metaimage(start: bytes) -> bool:
    """Whether a file begins as a MetaImage header."""
    key, equals, _ = start[:128].lstrip().partition(b"=")
    return bool(equals) and key.strip() in _KEYS and b"NDims" in start


def open_metaimage(path: Path) -> Scene:
    """The volume of a .mha or .mhd; raises FormatError."""
    fields, at = _fields(path)
    try:
        return _scene(path, fields, at)
    except (KeyError, ValueError, IndexError) as error:
        raise Damaged(f"{path.name} has a damaged MetaImage header.") from error


def _scene(path: Path, fields: dict[str, str], at: int) -> Scene:
    count = int(fields["NDims"])
    if not 2 <= count <= 4:
        raise Damaged(f"{path.name} has {count} dimensions: 2 to 4 are taken in.")
    sizes = [int(one) for one in fields["DimSize"].split()[:count]]
    channels = int(fields.get("ElementNumberOfChannels", "1"))
    swapped = _true(
        fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False"))
    )
    code = _TYPES.get(fields["ElementType"].removesuffix("_ARRAY"))
    if code is None or not _true(fields.get("BinaryData", "True")):
        raise Damaged(
            f"{path.name} holds {fields['ElementType'][:24]}, or text, which is not "
            "taken in."
        )
    dtype = np.dtype((">" if swapped else "<") + code)
    numbers, start = path, at
    named = fields["ElementDataFile"]
    if named != "LOCAL":
        if named.startswith("LIST") or "%" in named:
            raise Damaged(f"{path.name} has its numbers in many files: join them.")
        numbers, start = file_beside(path, named), 0
    packed = _true(fields.get("CompressedData", "False"))
    shape = tuple(reversed(sizes)) + ((channels,) if channels > 1 else ())
    dims = tuple("xyzt"[:count][::-1]) + (("c",) if channels > 1 else ())
    volume = RawVolume(
        File.of(numbers),
        0 if packed else start,
        shape,
        dtype.str,
        packing="zlib" if packed else "",
        packed_from=start,
    )
    if packed:
        unpacked(numbers, "zlib", start, volume.end)
    else:
        if int(fields.get("HeaderSize", "0")) == -1:
            start = volume.file.bytes - (volume.end - volume.offset)
            volume = RawVolume(volume.file, start, shape, dtype.str)
        if volume.offset < 0 or volume.file.bytes < volume.end:
            raise Damaged(f"{numbers.name} is cut off. Copy it again.")
    spacing = _spacing(fields, count)
    affine = _affine(fields, spacing) if count >= 3 else None
    convention: Convention = "" if affine is None else "LPS"
    warnings = []
    if affine is None and count >= 3:
        warnings.append("The file does not say how the volume lies in a body.")
    if affine is not None and tilt_deg(affine) > SHEAR_DEG:
        warnings.append(f"The slices are sheared by {tilt_deg(affine):.1f} degrees.")
    names = (
        ("red", "green", "blue", "alpha")[:channels]
        if channels in (3, 4) and dtype == np.uint8
        else tuple(f"channel {one}" for one in range(channels) if channels > 1)
    )
    array = labelled(Stored(volume, shape, volume.dtype), dims, spacing, channels=names)
    scene = Scene(
        format="MetaImage",
        files=tuple(dict.fromkeys((path, numbers))),
        levels=(array,),
        spacing=spacing,
        affine=affine,
        convention=convention,
        orientation=orientation(affine, convention),
        channels=tuple(Channel(name) for name in names),
        warnings=tuple(warnings),
    )
    return _of_modality(scene, fields.get("Modality", ""))


def _of_modality(scene: Scene, told: str) -> Scene:
    modality = _MODALITIES.get(told)
    if modality is None:
        return scene
    acquired = replace(scene.acquisition, modality=modality)
    return replace(scene, acquisition=acquired)


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """The header's fields, and where it ends."""
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while file.tell() < _MOST_HEADER:
            line = file.readline(8192)
            key, equals, value = line.decode("latin-1").partition("=")
            if not equals:
                break
            fields[key.strip()] = value.strip()
            if key.strip() == "ElementDataFile":
                return fields, file.tell()
    raise Damaged(f"{path.name} has a MetaImage header without its last line.")


def _true(text: str) -> bool:
    return text.strip().lower() in ("true", "1")


def _spacing(fields: dict[str, str], count: int) -> dict[str, float]:
    told = fields.get("ElementSpacing", fields.get("ElementSize", ""))
    steps = [abs(float(one)) for one in told.split()[:count]]
    return {
        dim: step
        for dim, step in zip("xyzt", steps, strict=False)
        if 0 < step < float("inf")
    }


def _affine(fields: dict[str, str], spacing: dict[str, float]) -> Affine | None:
    count = int(fields["NDims"])
    told = fields.get("TransformMatrix", fields.get("Rotation", ""))
    if not told:
        return None
    matrix = np.array([float(one) for one in told.split()]).reshape(count, count)
    offset = fields.get("Offset", fields.get("Position", fields.get("Origin", "")))
    place = [float(one) for one in offset.split()[:3]] or [0.0] * 3
    affine = np.eye(4)
    for axis, dim in enumerate("xyz"):
        affine[:3, axis] = matrix[axis, :3] * spacing.get(dim, 1.0)
    affine[:3, 3] = place
    return affine if is_usable(affine) else None
