"""The files of one series, opened: each volume that they form is a scene."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from theatrum.catalog.formats.dicom.frames import Stack, number_type
from theatrum.catalog.formats.dicom.grouping import (
    Volume,
    stacks,
    volume_of,
    without_doubles,
)
from theatrum.catalog.formats.dicom.headers import (
    DAMAGED,
    Header,
    acquisition,
    facts,
    functional_groups,
    read_header,
)
from theatrum.catalog.formats.dicom.scaling import told
from theatrum.catalog.formats.dicom.slices import Slice, slices_of
from theatrum.catalog.formats.errors import Damaged, FormatError, NoVolume
from theatrum.catalog.formats.geometry import orientation
from theatrum.catalog.formats.lazy import GROUP_BYTES, File, Stored, labelled
from theatrum.catalog.formats.scene import Channel, Scene

MOST_FILES = 65_536
LEFT_OUT = "left_out"
"""The fact of a scene under which the files that cannot be read are told, with why."""
_PLANES = {"ax": 2, "cor": 1, "sag": 0}


def open_series(paths: Sequence[Path], *, key: bytes = b"") -> list[Scene]:
    """The scenes of the files of one series, the one with the most slices first.

    `key` makes pseudonyms of patients. Raises FormatError: Damaged where a
    file cannot be read, NoVolume where the slices of all stacks form none.
    """
    if len(paths) > MOST_FILES:
        raise Damaged(f"A series of {len(paths)} files is more than is taken in.")
    with warnings.catch_warnings():
        # pydicom's warnings quote values, which can be a patient's.
        warnings.simplefilter("ignore")
        with _damage_told(paths[0]):
            return _scenes(paths, key)


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Say that a header is damaged where pydicom cannot make sense of a value.

    pydicom reads values when they are asked for, so that any question can find one that
    is cut off, of no kind that there is, or no number. Its words quote the value.
    """
    try:
        yield
    except DAMAGED as error:
        raise Damaged(
            f"{path.name} has a header that cannot be read ({type(error).__name__}): "
            "export it anew."
        ) from error


def _scenes(paths: Sequence[Path], key: bytes) -> list[Scene]:
    found: list[Slice] = []
    left_out: list[tuple[str, str]] = []
    for number, path in enumerate(sorted(paths)):
        try:
            with _damage_told(path):
                found += slices_of(read_header(path), number)
        except FormatError as error:
            if len(paths) == 1:
                raise
            # One bad file must not keep the others of its series out.
            left_out.append((str(path), str(error)))
    if not found:
        raise Damaged(left_out[0][1])
    found, doubles = without_doubles(found)
    groups = stacks(found)
    scenes: list[Scene] = []
    refused: list[str] = []
    for group in groups:
        try:
            volume = volume_of(group)
        except NoVolume as error:
            refused.append(str(error))
            continue
        scenes.append(_scene(volume, len(scenes), key))
    if not scenes:
        raise NoVolume(" ".join(dict.fromkeys(refused)))
    said: tuple[str, ...] = doubles
    if left_out:
        said += (f"{len(left_out)} of its files cannot be read and are left out.",)
    if len(groups) > 1:
        said += (f"The series holds {_mixture(groups)}; each is an image.",)
    if refused:
        said += (f"{len(refused)} of its stacks form no volume: {refused[0]}",)
    return [
        replace(
            scene,
            warnings=(*said, *scene.warnings),
            facts={**scene.facts, LEFT_OUT: left_out} if left_out else scene.facts,
        )
        for scene in scenes
    ]


def _mixture(groups: Sequence[Sequence[Slice]]) -> str:
    kinds = {group[0].kind for group in groups}
    directions = {
        None
        if (across := group[0].across) is None or (down := group[0].down) is None
        else tuple(np.round([*across, *down], 2))
        for group in groups
    }
    what = []
    if len(directions) > 1:
        what.append(f"{len(directions)} orientations")
    if len(kinds) > 1:
        what.append(f"{len(kinds)} kinds (echoes, magnitude and phase)")
    sizes = {(group[0].rows, group[0].columns) for group in groups}
    if len(sizes) > 1:
        what.append(f"{len(sizes)} sizes")
    return " and ".join(what) or f"{len(groups)} stacks"


def _scene(volume: Volume, index: int, key: bytes) -> Scene:
    first = volume.first
    slices = [one for row in volume.slices for one in row if one is not None]
    files: dict[Path, int] = {}
    for one in slices:
        files.setdefault(one.header.path, len(files))
    scales = {(one.source.slope, one.source.intercept) for one in slices}
    dtype = number_type(first.coding, scales)
    stack = Stack(
        files=tuple(File.of(path) for path in files),
        coding=first.coding,
        slices=tuple(
            tuple(
                None if one is None else _in(one, files[one.header.path]) for one in row
            )
            for row in volume.slices
        ),
        rows=first.rows,
        columns=first.columns,
        dtype=dtype.name,
        fill=_fill(first.padding, dtype),
    )
    spacing = _spacing(volume)
    colour = first.coding.samples == 3
    names = ("red", "green", "blue") if colour else ()
    dims = ("t", "z", "y", "x", "c") if colour else ("t", "z", "y", "x")
    array = labelled(
        Stored(stack, stack.shape, dtype),
        dims,
        spacing,
        chunks=_chunks(stack, dtype),
        channels=names,
    )
    for dim in "tz":
        if array.sizes[dim] == 1:
            array = array.isel({dim: 0}, drop=True)
    header = first.header
    convention: Any = "" if volume.affine is None else "LPS"
    window = _window(header)
    return Scene(
        format="DICOM",
        files=tuple(files),
        levels=(array,),
        index=index,
        name=_name(first, volume),
        spacing={
            dim: spacing[dim]
            for dim in array.sizes
            if dim in spacing and isinstance(dim, str)
        },
        affine=volume.affine,
        convention=convention,
        orientation=orientation(volume.affine, convention),
        channels=tuple(Channel(name) for name in names)
        or (Channel(header.text("Modality")[:16] or "intensity", window=window),),
        planes=_planes(volume),
        acquisition=acquisition(header, key=key),
        value_unit="" if colour or first.scaling.floating_point else _unit(header),
        warnings=volume.warnings,
        facts={
            **facts(header),
            "missing_slices": list(volume.missing),
            "instances": len(slices),
            "series_number": header.whole("SeriesNumber"),
            **told(one.scaling for one in slices),
        },
    )


def _in(one: Slice, file: int) -> Any:
    return replace(one.source, file=file)


def _fill(padding: float, dtype: np.dtype[Any]) -> float:
    if dtype.kind == "f":
        return padding
    bounds = np.iinfo(dtype)
    return float(min(max(padding, bounds.min), bounds.max))


def _chunks(stack: Stack, dtype: np.dtype[Any]) -> tuple[int, ...]:
    """One slice a chunk where it is large, else so many that a chunk is worth it."""
    _, depths, *rest = stack.shape
    plane = int(np.prod(rest)) * dtype.itemsize
    together = max(min(GROUP_BYTES // max(plane, 1), depths), 1)
    return (1, together, *rest)


def _spacing(volume: Volume) -> dict[str, float]:
    spacing: dict[str, float] = {}
    first = volume.first
    if first.step_mm is not None:
        spacing["y"], spacing["x"] = first.step_mm
    if volume.step_z_mm:
        spacing["z"] = volume.step_z_mm
    times = len(volume.slices)
    if times > 1:
        step = _time_step(volume)
        if step:
            spacing["t"] = step
    return spacing


def _time_step(volume: Volume) -> float | None:
    """Seconds from a volume to the next."""
    header = volume.first.header
    film = header.number("FrameTime")
    if film:
        return film / 1000
    starts = [
        min((one.seconds for one in row if one and one.seconds), default=None)
        for row in volume.slices
    ]
    known = [one for one in starts if one is not None]
    if len(known) == len(starts) and len(known) > 1:
        steps = np.diff(known)
        usual = float(np.median(steps))
        if usual > 0 and np.abs(steps - usual).max() <= max(0.05 * usual, 0.01):
            return usual
    repetition = header.number("RepetitionTime")
    if not repetition:
        for group in functional_groups(header.dataset):
            for item in group.get("MRTimingAndRelatedParametersSequence") or ():
                repetition = float(item.get("RepetitionTime") or 0) or repetition
    return repetition / 1000 if repetition else None


def _planes(volume: Volume) -> dict[str, list[Any]]:
    """A row for each slice: where it lies and when it was taken."""
    columns: dict[str, list[Any]] = {"t": [], "z": [], "c": []}
    facts_of: dict[str, list[Any]] = {
        "position_x_mm": [],
        "position_y_mm": [],
        "position_z_mm": [],
        "delta_t_s": [],
        "instance_uid": [],
    }
    begin = min(
        (one.seconds for row in volume.slices for one in row if one and one.seconds),
        default=None,
    )
    for t, row in enumerate(volume.slices):
        for z, one in enumerate(row):
            if one is None:
                continue
            columns["t"].append(t)
            columns["z"].append(z)
            columns["c"].append(0)
            x, y, height = one.place or (None, None, None)
            facts_of["position_x_mm"].append(x)
            facts_of["position_y_mm"].append(y)
            facts_of["position_z_mm"].append(height)
            later = None
            if begin is not None and one.seconds is not None:
                later = one.seconds - begin
            facts_of["delta_t_s"].append(later)
            facts_of["instance_uid"].append(one.header.instance)
    known = {
        name: column
        for name, column in facts_of.items()
        if any(one not in (None, "") for one in column)
    }
    return columns | known


def _name(first: Slice, volume: Volume) -> str:
    """The plane and the kind, where a series has several: "ax", "cor, echo 4.9"."""
    parts = []
    if volume.affine is not None:
        code = orientation(volume.affine, "LPS")
        plane = {"S": "ax", "I": "ax", "A": "cor", "P": "cor", "L": "sag", "R": "sag"}
        if len(code) == 3:
            parts.append(plane[code[2]])
    parts += [
        one
        for one in first.kind
        if one and not one.endswith(" 0") and one.strip() != "stack"
    ]
    return ", ".join(parts)


def _unit(header: Header) -> str:
    unit = header.text("RescaleType")[:16]
    if header.text("Modality") == "CT" and unit in ("", "US"):
        return "HU"
    if header.text("Modality") == "PT":
        return {"BQML": "Bq/ml", "GML": "g/ml"}.get(header.text("Units"), unit)
    return "" if unit == "US" else unit


def _window(header: Header) -> tuple[float, float] | None:
    """The file's first window (PS3.3, clause C.11.2.1.2.1)."""
    centre, width = header.number("WindowCenter"), header.number("WindowWidth")
    if centre is None or width is None or width <= 1:
        return None
    return centre - width / 2, centre + (width - 2) / 2
