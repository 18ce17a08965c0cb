"""Nikon's ND2: one scene for each position of the stage, planes read one by one."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import nd2
import numpy as np

from theatrum.catalog.formats.errors import Damaged
from theatrum.catalog.formats.lazy import File, Numbers, Ranges, Stored, labelled
from theatrum.catalog.formats.scene import Acquisition, Channel, Scene

ND2_STARTS: Final = (b"\xda\xce\xbe\x0a", b"\0\0\0\x0cjP  ")
_MOST_POSITIONS: Final = 16_384
_ND2_ERRORS: Final = (
    ValueError, KeyError, IndexError, TypeError, OSError, AttributeError,
    ArithmeticError, MemoryError, RuntimeError, struct.error, NotImplementedError,
)  # fmt: skip


@dataclass(frozen=True)
class Nd2Frames:
    """An opener of one position, (t, z, c, y, x), or c last for colour pictures.

    Attributes
    ----------
    frames
        The number of the frame of each time and depth.
    """

    file: File
    frames: tuple[tuple[int, ...], ...]
    channels: int
    colour: bool

    def open(self) -> _OpenNd2:
        return _OpenNd2(self)


class _OpenNd2:
    serial = True

    def __init__(self, opener: Nd2Frames) -> None:
        self._opener = opener
        self._nd2 = nd2.ND2File(opener.file.checked())

    def read(self, ranges: Ranges) -> Numbers:
        times, depths, *inner = ranges
        shape = [one.stop - one.start for one in ranges]
        room = np.empty(shape, self._nd2.dtype)
        try:
            for t in range(shape[0]):
                for z in range(shape[1]):
                    number = self._opener.frames[times.start + t][depths.start + z]
                    frame = np.asarray(self._nd2.read_frame(number))
                    if self._opener.channels == 1 and not self._opener.colour:
                        frame = frame.reshape(1, *frame.shape[-2:])
                    room[t, z] = frame[tuple(inner)]
        except _ND2_ERRORS as error:
            name = self._opener.file.path.name
            raise Damaged(f"{name} has a frame that cannot be read.") from error
        return room

    def close(self) -> None:
        self._nd2.close()


def open_nd2(path: Path) -> list[Scene]:
    """The positions of an ND2 file; raises FormatError."""
    file = File.of(path)
    try:
        with nd2.ND2File(path) as opened:
            sizes = dict(opened.sizes)
            order = [dict(one) for one in opened.loop_indices]
            odd = set(sizes) - set("TZCYXSP")
            if odd:
                raise Damaged(f"{path.name} has the axes {sorted(odd)}: not taken in.")
            positions = sizes.get("P", 1)
            if not 0 < positions <= _MOST_POSITIONS:
                raise Damaged(f"{path.name} says that it has {positions} positions.")
            return [
                _scene(file, opened, position, sizes, order)
                for position in range(positions)
            ]
    except _ND2_ERRORS as error:
        raise Damaged(f"{path.name} is a damaged ND2 file.") from error


def _scene(
    file: File,
    opened: Any,
    position: int,
    sizes: dict[str, int],
    order: list[dict[str, int]],
) -> Scene:
    times, depths = sizes.get("T", 1), sizes.get("Z", 1)
    frames = [[0] * depths for _ in range(times)]
    for number, place in enumerate(order):
        if place.get("P", 0) == position:
            frames[place.get("T", 0)][place.get("Z", 0)] = number
    colour = "S" in sizes
    count = sizes.get("C", 1)
    channels = _channels(opened, 3 if colour else count, colour=colour)
    dims = ("t", "z", "y", "x", "c") if colour else ("t", "z", "c", "y", "x")
    plane = sizes["Y"], sizes["X"]
    shape = (times, depths, *plane, 3) if colour else (times, depths, count, *plane)
    voxel = opened.voxel_size()
    spacing = {
        dim: float(step) / 1000
        for dim, step in zip("xyz", voxel, strict=True)
        if step and step > 0
    }
    step_s = _time_step(opened)
    if step_s:
        spacing["t"] = step_s
    opener = Nd2Frames(file, tuple(tuple(row) for row in frames), count, colour)
    array = labelled(
        Stored(opener, shape, opened.dtype),
        dims,
        spacing,
        chunks=(1, 1, *shape[2:]),
        channels=[one.name for one in channels],
    )
    for dim in "tcz":
        if array.sizes[dim] == 1:
            array = array.isel({dim: 0}, drop=True)
    return Scene(
        format="ND2",
        files=(file.path,),
        levels=(array,),
        index=position,
        name=f"position {position + 1}" if "P" in sizes else "",
        spacing={dim: step for dim, step in spacing.items() if dim in array.sizes},
        channels=channels,
        acquisition=Acquisition(
            modality="FM", device={"maker": "Nikon"}, protocol=_protocol(opened)
        ),
    )


def _channels(opened: Any, count: int, *, colour: bool) -> tuple[Channel, ...]:
    if colour:
        return tuple(Channel(name) for name in ("red", "green", "blue"))
    told = list(getattr(opened.metadata, "channels", None) or ())
    found = []
    for number in range(count):
        about = getattr(told[number], "channel", None) if number < len(told) else None
        colours = getattr(about, "color", None)
        found.append(
            Channel(
                str(getattr(about, "name", "") or f"channel {number}")[:128],
                color=""
                if colours is None
                else "#{:02x}{:02x}{:02x}".format(*(int(one) for one in colours[:3])),
                excitation_nm=_wavelength(about, "excitationLambdaNm"),
                emission_nm=_wavelength(about, "emissionLambdaNm"),
            )
        )
    return tuple(found)


def _wavelength(about: Any, name: str) -> float | None:
    value = getattr(about, name, None)
    return float(value) if value else None


def _time_step(opened: Any) -> float | None:
    for loop in opened.experiment or ():
        period = getattr(getattr(loop, "parameters", None), "periodMs", None)
        if getattr(loop, "type", "") == "TimeLoop" and period:
            return float(period) / 1000
    return None


def _protocol(opened: Any) -> dict[str, Any]:
    told = list(getattr(opened.metadata, "channels", None) or ())
    microscope = getattr(told[0], "microscope", None) if told else None
    found = {
        "objective": getattr(microscope, "objectiveMagnification", None),
        "numerical_aperture": getattr(microscope, "objectiveNumericalAperture", None),
        "refractive_index": getattr(microscope, "immersionRefractiveIndex", None),
        "objective_name": getattr(microscope, "objectiveName", None),
    }
    return {name: value for name, value in found.items() if value}
