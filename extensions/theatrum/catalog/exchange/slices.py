"""Slices of images as JPEG files by plane: the pixels and nothing else.

    PROJECT/IMAGE/ax_0087.jpg     the plane's number along the array's axis
    slices.csv                    of which image, which plane, where in millimetres

A plane is chosen by one of `central=50` (so many around the middle, all where there are
fewer), `all`, `every=4` or `mm=-20,35` (along the array's own coordinates). One window
goes for all slices of an image, so that their brightness can be compared.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from theatrum.catalog import picture
from theatrum.catalog.backend import RowData
from theatrum.catalog.errors import BadQuery, BadRecord, CatalogError
from theatrum.catalog.exchange.zips import Member, of_bytes
from theatrum.catalog.local import LocalBackend
from theatrum.catalog.query.spec import Q, Spec

if TYPE_CHECKING:
    import xarray

PLANES: Final = ("ax", "cor", "sag")
_HELD: Final = 96 * 2**20
"""Bytes of a volume that is held while its slices are drawn; of larger ones each slice
is read by itself."""
_SAMPLED: Final = 4_000_000
"""Values that a window is found from."""


@dataclass(frozen=True)
class Chosen:
    """Which slices, and how they are drawn.

    Attributes
    ----------
    planes
        Among ax, cor, sag; of an image without depth only its own plane is there.
    central, every, mm
        At most one of them; none: all.
    window
        `auto` (1st to 99th percentile of the image), `full`, or black and white.
    """

    planes: tuple[str, ...] = ("ax",)
    central: int | None = None
    every: int | None = None
    mm: tuple[float, float] | None = None
    window: str | tuple[float, float] = "auto"
    quality: int = 90


# Any: words of an address, or values of a notebook
def chosen(options: Mapping[str, Any]) -> Chosen:
    """Read the words of an export; raises BadQuery where one does not fit."""
    said = dict(options)
    planes = said.pop("planes", "ax")
    if isinstance(planes, str):
        planes = planes.split(",")
    names = list(planes) if isinstance(planes, list | tuple) else [planes]
    wrong = [str(one) for one in names if str(one) not in PLANES]
    if wrong or not names:
        raise BadQuery(f"planes are {', '.join(PLANES)}, not {', '.join(wrong)!r}")
    if sum(said.get(one) is not None for one in ("central", "every", "mm")) > 1:
        raise BadQuery("choose slices by one of central, every and mm")
    return Chosen(
        planes=tuple(dict.fromkeys(names)),
        central=_count(said.get("central"), "central"),
        every=_count(said.get("every"), "every"),
        mm=_pair(said.get("mm"), "mm"),
        window=_window(said.get("window", "auto")),
        quality=min(_count(said.get("quality", 90), "quality") or 90, 100),
    )


def members(backend: LocalBackend, spec: Spec, how: Chosen) -> list[Member]:
    """The slices of all images that a question finds, each drawn when it is sent.

    Images that have no such plane, or cannot be opened, stand in `missing.txt`.
    """
    if spec.of != "images":
        raise BadRecord(f"what is exported are images, not {spec.of}")
    rows = LocalBackend.rows(
        backend, Spec(spec.of, spec.where, spec.order, spec.offset, spec.limit)
    )
    projects = _projects(backend, rows)
    listed: list[Member] = []
    table: list[tuple[object, ...]] = []
    missing: list[str] = []
    for row in rows:
        folder = f"{projects[row['project_id']]}/{row['name']}"
        try:
            array = LocalBackend.array(backend, row, 0)
            cuts = [cut for plane in how.planes for cut in _cuts(array, plane, how)]
        except CatalogError as error:
            missing.append(f"{folder}: {error}")
            continue
        if not cuts:
            missing.append(f"{folder}: it has no such plane")
        volume = _Volume(backend, row, how)
        for plane, index, mm in cuts:
            name = f"{folder}/{plane}_{index:04d}.jpg"
            listed.append(Member(name, None, volume.drawing(plane, index)))
            table.append((folder, name, plane, index, "" if mm is None else f"{mm:g}"))
    about = [of_bytes("slices.csv", _csv(table))]
    if missing:
        about.append(of_bytes("missing.txt", "\n".join(missing).encode()))
    return [*about, *listed]


def estimated_bytes(row: RowData, how: Chosen) -> int:
    """About how many bytes the slices of an image are, from its row alone."""
    sides = [max(row[f"n_{dim}"] or 1, 1) for dim in "xyz"]
    total = 0.0
    for plane in how.planes:
        across = {"ax": 2, "cor": 1, "sag": 0}[plane]
        count = sides[across]
        if how.central is not None:
            count = min(count, how.central)
        if how.every is not None:
            count = -(-count // how.every)
        # A quarter of a byte for each pixel (a scan's JPEG at quality 90), and what
        # every JPEG and every file of a zip begins with.
        pixels = np.prod(sides) / sides[across] * min(row["n_c"] or 1, 3)
        total += count * (0.25 * pixels + 800)
    return int(total)


class _Volume:
    """An image whose slices are drawn one after the other.

    It is read when the first is drawn, and forgotten when another image is.
    """

    def __init__(self, backend: LocalBackend, row: RowData, how: Chosen) -> None:
        self._backend = backend
        self._row = row
        self._how = how
        self._read: tuple[Any, Any] | None = None
        self._left = 0

    # What is said of a Member's blocks
    def drawing(self, plane: str, index: int) -> Any:
        """What draws a slice."""
        self._left += 1

        def blocks(begin: int) -> Iterator[bytes]:
            array, window = self._ready()
            drawn = picture.draw(array, plane=plane, at=index, window=window)
            out = io.BytesIO()
            mode = drawn if drawn.mode in ("L", "RGB") else drawn.convert("RGB")
            mode.save(out, "JPEG", quality=self._how.quality)
            self._left -= 1
            if not self._left:
                self._read = None
            yield out.getvalue()[begin:]

        return blocks

    def _ready(self) -> tuple[Any, Any]:
        if self._read is None:
            array = LocalBackend.array(self._backend, self._row, 0)
            if array.nbytes <= _HELD:
                array = array.load()
            self._read = array, _window_of(array, self._how)
        return self._read


def _cuts(
    array: xarray.DataArray, plane: str, how: Chosen
) -> Iterator[tuple[str, int, float | None]]:
    """(plane, index, millimetres) of each slice that is wanted."""
    across = across_of(array, plane)
    if across not in array.dims:
        if plane == "ax":  # a picture has one plane, whatever it is called
            yield plane, 0, None
        return
    size = array.sizes[across]
    along = array.coords.get(across)
    places = [None if along is None else float(along[at]) for at in range(size)]
    wanted: Sequence[int] = range(size)
    if how.central is not None:
        count = min(how.central, size)
        begin = (size - count) // 2
        wanted = range(begin, begin + count)
    elif how.every is not None:
        wanted = range(0, size, how.every)
    elif how.mm is not None:
        low, high = how.mm
        wanted = [
            at
            for at, place in enumerate(places)
            if place is not None and low <= place <= high
        ]
    for at in wanted:
        yield plane, at, places[at]


def across_of(array: xarray.DataArray, plane: str) -> str:
    """The dimension that a plane is cut along; see `theatrum.catalog.picture`."""
    affine = array.attrs.get("affine")
    if affine is None or "z" not in array.dims:
        return {"ax": "z", "cor": "y", "sag": "x"}[plane] if "z" in array.dims else "z"
    dims, _ = picture.closest_axes(np.asarray(affine, float))
    return dims[picture.PLANES[plane]]


def _window_of(array: xarray.DataArray, how: Chosen) -> Any:
    """Black and white for all slices; of colours they are as they are."""
    if isinstance(how.window, tuple):
        return how.window
    if array.dtype == np.uint8 and array.sizes.get("c", 1) == 3:
        return how.window
    step = max(1, int(np.ceil((array.size / _SAMPLED) ** (1 / 3))))
    sampled = array.isel(
        {dim: slice(None, None, step) for dim in ("z", "y", "x") if dim in array.dims}
    )
    values = sampled.to_numpy().astype(float)
    finite = values[np.isfinite(values)]
    if not finite.size:
        return (0.0, 1.0)
    if how.window == "full":
        return float(finite.min()), float(finite.max())
    low, high = np.percentile(finite, (1, 99))
    if low == high:
        low, high = finite.min(), finite.max()
    return float(low), float(high)


def _projects(backend: LocalBackend, rows: list[RowData]) -> dict[int, str]:
    keys = tuple({row["project_id"] for row in rows})
    found = LocalBackend.rows(backend, Spec("projects", (Q(id__in=keys),)))
    return {row["id"]: row["name"] for row in found}


def _csv(table: list[tuple[object, ...]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["image", "file", "plane", "index", "mm"])
    writer.writerows(table)
    return out.getvalue().encode()


def _count(said: Any, name: str) -> int | None:
    if said is None:
        return None
    try:
        number = int(said)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadQuery(f"{name} is a number, not {said!r}") from error
    if not 1 <= number <= 100_000:
        raise BadQuery(f"{name} is a number from 1 on")
    return number


def _pair(said: Any, name: str) -> tuple[float, float] | None:
    if said is None:
        return None
    try:
        low, high = said.split(",") if isinstance(said, str) else said
        pair = float(low), float(high)
    except (TypeError, ValueError) as error:
        raise BadQuery(f"{name} is two numbers: {name}=-20,35") from error
    if not np.isfinite(pair).all() or pair[0] > pair[1]:
        raise BadQuery(f"{name} is two numbers, the smaller first")
    return pair


def _window(said: Any) -> str | tuple[float, float]:
    if said in ("auto", "full"):
        return str(said)
    pair = _pair(said, "window")
    if pair is None:
        raise BadQuery("a window is auto, full, or two numbers: 0,500")
    return pair
