"""NRRD: a text header, then the numbers, in one file or in another beside it.

pynrrd reads the header; the numbers are read by `raw`. The world's convention is that
of the header's `space`; others than RAS and LPS are turned into LPS.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import nrrd
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
from theatrum.catalog.formats.scene import Affine, Channel, Convention, Scene

NRRD_START: Final = b"NRRD000"
# To LPS (or RAS, as it is): the signs of the three axes.
_SPACES: Final[Mapping[str, tuple[Convention, tuple[float, float, float]]]] = {
    "right-anterior-superior": ("RAS", (1, 1, 1)),
    "ras": ("RAS", (1, 1, 1)),
    "left-anterior-superior": ("LPS", (1, -1, 1)),
    "las": ("LPS", (1, -1, 1)),
    "left-posterior-superior": ("LPS", (1, 1, 1)),
    "lps": ("LPS", (1, 1, 1)),
}
_PACKINGS: Final = {
    "raw": "",
    "gzip": "gzip",
    "gz": "gzip",
    "bzip2": "bzip2",
    "bz2": "bzip2",
}
_TYPES: Final = {
    name: code
    for code, names in {
        "i1": ("signed char", "int8", "int8_t"),
        "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
        "i2": ("short", "short int", "signed short", "int16", "int16_t"),
        "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
        "i4": ("int", "signed int", "int32", "int32_t"),
        "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
        "i8": ("longlong", "long long", "long long int", "int64", "int64_t"),
        "u8": ("ulonglong", "unsigned long long", "uint64", "uint64_t"),
        "f4": ("float",),
        "f8": ("double",),
    }.items()
    for name in names
}
_HEADER_BYTES: Final = 2**20
_COLOURS: Final = ("rgb-color", "rgba-color", "3-color", "4-color", "vector", "list")
_MM: Final = {"mm": 1.0, "um": 1e-3, "micron": 1e-3, "µm": 1e-3, "cm": 10.0, "m": 1e3}


def open_nrrd(path: Path) -> Scene:
    """The volume of a .nrrd or .nhdr; raises FormatError."""
    try:
        with path.open("rb") as file:
            # Its lines have any length: no more is looked at than a header takes.
            start = io.BytesIO(file.read(_HEADER_BYTES))
        header = dict(nrrd.read_header(start))
        at = start.tell()
        if at == _HEADER_BYTES:
            raise Damaged(f"{path.name} has an NRRD header without end.")
        return _scene(path, header, at)
    except (nrrd.NRRDError, ValueError, KeyError, TypeError, IndexError) as error:
        raise Damaged(f"{path.name} has a damaged NRRD header.") from error


def _scene(path: Path, header: dict[str, Any], at: int) -> Scene:
    sizes = [int(one) for one in header["sizes"]]
    encoding = str(header["encoding"]).lower()
    if encoding not in _PACKINGS:
        raise Damaged(
            f"{path.name} is NRRD in the encoding {encoding[:20]}: write it as raw or "
            "gzip."
        )
    dtype = _dtype(path, header)
    dims = _dims(header, len(sizes))
    numbers, start = _numbers(path, header, at)
    packing = _PACKINGS[encoding]
    volume = RawVolume(
        File.of(numbers),
        int(header.get("byte skip", header.get("byteskip", 0)) or 0) if packing else 0,
        tuple(reversed(sizes)),
        dtype.str,
        packing=packing,
        packed_from=start if packing else 0,
    )
    if not packing:
        skip = int(header.get("byte skip", header.get("byteskip", 0)) or 0)
        if skip == -1:
            start = volume.file.bytes - volume.end
        elif skip >= 0:
            start += skip
        volume = RawVolume(volume.file, start, volume.shape, volume.stored)
        if start < 0 or volume.file.bytes < volume.end:
            raise Damaged(f"{numbers.name} is cut off. Copy it again.")
    else:
        unpacked(volume.file.path, packing, volume.packed_from, volume.end)
    affine, convention = _affine(header, dims)
    spacing = _spacing(header, dims, affine)
    warnings = []
    if affine is None:
        warnings.append("The file does not say how the volume lies in a body.")
    elif tilt_deg(affine) > SHEAR_DEG:
        warnings.append(f"The slices are sheared by {tilt_deg(affine):.1f} degrees.")
    count = sizes[dims.index("c")] if "c" in dims else 0
    names = (
        ("red", "green", "blue", "alpha")[:count]
        if count in (3, 4) and volume.dtype == np.uint8
        else tuple(f"channel {number}" for number in range(count))
    )
    array = labelled(
        Stored(volume, volume.shape, volume.dtype),
        tuple(reversed(dims)),
        spacing,
        channels=names,
    )
    return Scene(
        format="NRRD",
        files=tuple(dict.fromkeys((path, numbers))),
        levels=(array,),
        spacing={dim: spacing[dim] for dim in dims if dim in spacing},
        affine=affine,
        convention=convention,
        orientation=orientation(affine, convention),
        channels=tuple(Channel(name) for name in names),
        warnings=tuple(warnings),
    )


def _dtype(path: Path, header: dict[str, Any]) -> np.dtype[Any]:
    code = _TYPES.get(" ".join(str(header["type"]).lower().split()))
    if code is None:
        raise Damaged(f"{path.name} holds {header['type']}, which is not taken in.")
    swapped = str(header.get("endian", "little")).lower() == "big"
    return np.dtype((">" if swapped else "<") + code)


def _dims(header: dict[str, Any], count: int) -> tuple[str, ...]:
    """Names of the axes, fastest first."""
    kinds = [str(one).lower() for one in header.get("kinds") or []]
    directions = header.get("space directions")
    spatial = [True] * count
    if directions is not None:
        spatial = [
            one is not None and bool(np.isfinite(np.asarray(one, float)).all())
            for one in directions
        ]
    elif kinds:
        spatial = [kind in ("domain", "space", "???", "none") for kind in kinds]
    found: list[str] = []
    space = iter("xyz")
    for axis in range(count):
        name = next(space, None) if spatial[axis] else None
        if name is None:
            kind = kinds[axis] if axis < len(kinds) else ""
            name = "c" if kind in _COLOURS else "t"
        if name in found:
            name = "c" if "c" not in found else "t"
        if name in found:
            raise Damaged(f"It has {count} axes, more than are taken in.")
        found.append(name)
    if "y" not in found:
        raise Damaged("It has fewer than two axes of space.")
    return tuple(found)


def _numbers(path: Path, header: dict[str, Any], at: int) -> tuple[Path, int]:
    """The file of the numbers, and where they begin in it."""
    named = header.get("data file", header.get("datafile"))
    if named is None:
        return path, at
    if str(named).startswith("LIST") or "%" in str(named):
        raise Damaged(
            f"{path.name} has its numbers in many files: convert it into one .nrrd."
        )
    if int(header.get("line skip", header.get("lineskip", 0)) or 0):
        raise Damaged(f"{path.name} skips lines of text: convert it into one .nrrd.")
    return file_beside(path, str(named)), 0


def _affine(
    header: dict[str, Any], dims: tuple[str, ...]
) -> tuple[Affine | None, Convention]:
    told = _SPACES.get(str(header.get("space", "")).lower())
    directions = header.get("space directions")
    if told is None or directions is None or "z" not in dims:
        return None, ""
    convention, signs = told
    columns = {
        dim: np.asarray(one, float)
        for dim, one in zip(dims, directions, strict=True)
        if dim in "xyz"
    }
    if any(one.shape != (3,) for one in columns.values()):
        return None, ""
    affine = np.eye(4)
    for axis, dim in enumerate("xyz"):
        affine[:3, axis] = columns[dim]
    origin = header.get("space origin")
    if origin is not None:
        affine[:3, 3] = np.asarray(origin, float)
    affine = np.diag([*signs, 1.0]) @ affine
    return (affine, convention) if is_usable(affine) else (None, "")


def _spacing(
    header: dict[str, Any], dims: tuple[str, ...], affine: Affine | None
) -> dict[str, float]:
    spacing: dict[str, float] = {}
    steps = header.get("spacings")
    directions = header.get("space directions")
    units = [str(one) for one in header.get("units") or header.get("space units") or ()]
    for axis, dim in enumerate(dims):
        length = float("nan")
        if steps is not None:
            length = float(steps[axis])
        elif directions is not None and dim in "xyz":
            length = float(np.linalg.norm(np.asarray(directions[axis], float)))
        unit = units[axis].strip('"') if axis < len(units) else "mm"
        if dim in "xyz":
            length *= _MM.get(unit, 1.0)
        if np.isfinite(length) and length > 0 and dim != "c":
            spacing[dim] = length
    if affine is not None:
        for axis, dim in enumerate("xyz"):
            spacing[dim] = float(np.linalg.norm(affine[:3, axis]))
    return spacing
