"""Images read by other processes of limited means, for a service that must not fall.

    with Apart() as apart:
        scene = apart.scene("/srv/images/brain.nii.gz")   # as of `arrays.open_scene`
        scene.levels[0].isel(z=3).to_numpy()              # read over there

What a scene says comes over as JSON, coordinates and pixels as plain bytes; nothing is
executed. A block that crashes its reader, or takes too much of memory or time, is an
error of that image alone: the process is replaced.
"""

from __future__ import annotations

import io
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from theatrum.catalog.arrays import GONE
from theatrum.catalog.errors import CatalogError, Gone, NotOpened
from theatrum.catalog.formats.lazy import Numbers, Ranges, Stored
from theatrum.catalog.formats.scene import Acquisition, Channel, Scene
from tile_server.limited import Answer, Fell, LimitedProcess

if TYPE_CHECKING:
    import xarray as xr

_MODULE: Final = "theatrum.catalog.apart_worker"
_ASKED: Final = 32 * 2**20
"""Bytes that one question is for at most, where the file's own blocks are smaller."""
_CACHED: Final = 17 * 2**30
"""The largest file that a process writes: what a packed volume unpacks to."""
_KINDS: Final[Mapping[str, type[CatalogError]]] = {"Gone": Gone, "NotOpened": NotOpened}
_WORDS: Final = (
    "format", "index", "name", "spacing", "convention", "orientation", "value_unit",
    "warnings",
)  # fmt: skip
"""What of a scene is JSON as it is."""


@dataclass(frozen=True)
class Means:
    """Limits of the processes.

    Attributes
    ----------
    seconds
        How long a block may take. Longer lets slow storage through, and lets a hostile
        file hold a process up longer.
    memory_bytes
        Address space of a process, where the system can limit it.
    processes
        How many there are at most; each takes about 150 MB, and starts when needed.
    kept
        Images whose headers are kept.
    """

    seconds: float = 60.0
    memory_bytes: int = 4 * 2**30
    processes: int = 2
    kept: int = 32


@dataclass
class Apart:
    """The processes; a context manager, for any number of threads."""

    means: Means = field(default_factory=Means)

    def __post_init__(self) -> None:
        self._places = threading.BoundedSemaphore(self.means.processes)
        self._guard = threading.Lock()
        self._idle: list[LimitedProcess] = []
        self._all: set[LimitedProcess] = set()
        self._closed = False
        self._scenes: OrderedDict[tuple[str, int, int, int], Scene] = OrderedDict()

    def scene(self, path: str | os.PathLike[str], scene: int = 0) -> Scene:
        """The image in a file or folder, its levels read over there.

        Raises Gone and NotOpened, as `arrays.open_scene` does.
        """
        place = Path(path).absolute()
        try:
            status = place.stat()
        except OSError as error:
            raise Gone(GONE.format(place.name)) from error
        key = (os.fspath(place), scene, status.st_mtime_ns, status.st_size)
        with self._guard:
            known = self._scenes.get(key)
        if known is not None:
            return known
        found = self._described(os.fspath(place), scene)
        with self._guard:
            self._scenes[key] = found
            while len(self._scenes) > self.means.kept:
                self._scenes.popitem(last=False)
        return found

    def read(self, path: str, scene: int, level: int, ranges: Ranges) -> Answer:
        """The numbers of a block, in C order; raises Gone and NotOpened."""
        return self._ask(
            {
                "do": "read",
                "path": path,
                "scene": scene,
                "level": level,
                "ranges": [[one.start, one.stop] for one in ranges],
            }
        )

    def close(self) -> None:
        """End all processes; what is being read fails."""
        with self._guard:
            self._closed = True
            running = list(self._all)
        for one in running:
            one.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _described(self, place: str, scene: int) -> Scene:
        said, body = self._ask({"do": "describe", "path": place, "scene": scene})
        with np.load(io.BytesIO(body), allow_pickle=False) as along:
            levels = tuple(
                _level(self, (place, scene, number), one, along)
                for number, one in enumerate(said["levels"])
            )
        affine = said["affine"]
        channels = [
            Channel(**(one | {"window": one["window"] and tuple(one["window"])}))
            for one in said["channels"]
        ]
        return Scene(
            files=(Path(place),),
            levels=levels,
            affine=None if affine is None else np.asarray(affine, float),
            channels=tuple(channels),
            acquisition=Acquisition(**said["acquisition"]),
            **said["words"],
        )

    # Any: JSON
    def _ask(self, question: Mapping[str, Any]) -> Answer:
        name = Path(question["path"]).name
        with self._places:
            process = self._taken()
            try:
                answer = process.ask(question, self.means.seconds, file_bytes=_CACHED)
            except Fell as fall:
                self._dropped(process)
                raise NotOpened(f"{name} cannot be read safely: {fall}.") from fall
            except BaseException:
                self._dropped(process)
                raise
            with self._guard:
                self._idle.append(process)
        if "refusal" in answer.said:
            kind = _KINDS.get(str(answer.said.get("kind")), NotOpened)
            raise kind(str(answer.said["refusal"]))
        return answer

    def _taken(self) -> LimitedProcess:
        with self._guard:
            if self._closed:
                raise NotOpened("The service is stopping.")
            while self._idle:
                process = self._idle.pop()
                if process.alive:
                    return process
                self._all.discard(process)
            process = LimitedProcess(_MODULE, self.means.memory_bytes)
            self._all.add(process)
            return process

    def _dropped(self, process: LimitedProcess) -> None:
        process.end()
        with self._guard:
            self._all.discard(process)


def described(scene: Scene) -> Answer:
    """A scene as it is told to who asks from another process."""
    coordinates = {
        f"{number} {name}": np.asarray(one.values)
        for number, level in enumerate(scene.levels)
        for name, one in level.coords.items()
        if one.ndim == 1
    }
    body = io.BytesIO()
    np.savez(body, **coordinates)  # type: ignore[arg-type]  # names are any text
    return Answer(
        {
            "words": {name: getattr(scene, name) for name in _WORDS},
            "affine": None if scene.affine is None else scene.affine.tolist(),
            "channels": [asdict(one) for one in scene.channels],
            "acquisition": asdict(scene.acquisition),
            "levels": [_told(one) for one in scene.levels],
        },
        body.getvalue(),
    )


# Any: JSON
def _told(array: xr.DataArray) -> dict[str, Any]:
    return {
        "dims": [str(one) for one in array.dims],
        "shape": [int(one) for one in array.shape],
        "dtype": array.dtype.str,
        "chunks": [list(one) for one in array.chunks or [[n] for n in array.shape]],
        "units": {
            str(name): str(one.attrs["units"])
            for name, one in array.coords.items()
            if one.ndim == 1 and "units" in one.attrs
        },
    }


def _level(
    apart: Apart,
    of: tuple[str, int, int],
    told: Mapping[str, Any],
    along: Mapping[str, Any],
) -> xr.DataArray:
    import dask.array as da
    import xarray as xr

    dtype = np.dtype(told["dtype"])
    shape, blocks = told["shape"], [max(one) for one in told["chunks"]]
    stored = Stored(_Elsewhere(apart, *of), shape, dtype)
    from_array: Any = da.from_array
    array = from_array(
        stored,
        chunks=_at_once(shape, blocks, dtype.itemsize),
        asarray=True,
        fancy=True,
        inline_array=True,
        meta=np.empty((0,) * stored.ndim, dtype),
    )
    begin = f"{of[2]} "
    coordinates = {}
    for key in along:
        name = key.removeprefix(begin)
        if key.startswith(begin):
            units = told["units"].get(name)
            attrs = {"units": units} if units else {}
            coordinates[name] = (name, along[key], attrs)
    found = xr.DataArray(array, coordinates, dims=told["dims"])
    found.encoding["preferred_chunks"] = dict(zip(told["dims"], blocks, strict=True))
    return found


def _at_once(
    shape: Sequence[int], blocks: Sequence[int], itemsize: int
) -> tuple[int, ...]:
    """Blocks of the file put together, up to what one question is worth.

    A question costs more than a block, and asks for no more than what is wanted of it.
    """
    sides = [max(one, 1) for one in blocks]
    for axis in (*range(len(shape) - 3, -1, -1), len(shape) - 2, len(shape) - 1):
        while sides[axis] < shape[axis] and 2 * math.prod(sides) * itemsize <= _ASKED:
            sides[axis] = min(2 * sides[axis], shape[axis])
    return tuple(sides)


@dataclass(frozen=True, eq=False)
class _Elsewhere:
    """Opens one level of an image over there."""

    apart: Apart
    path: str
    scene: int
    level: int

    serial = False

    def open(self) -> _Elsewhere:
        return self

    def close(self) -> None:
        """Nothing is open here."""

    def read(self, ranges: Ranges) -> Numbers:
        said, body = self.apart.read(self.path, self.scene, self.level, ranges)
        flat = np.frombuffer(body, np.dtype(said["dtype"]))
        return flat.reshape(said["shape"])

    def __repr__(self) -> str:
        return f"_Elsewhere({self.path!r}, {self.scene}, {self.level})"


def block(levels: Sequence[xr.DataArray], level: int, ranges: Any) -> Answer:
    """A block as it is told to who asks from another process."""
    array = levels[level]
    wanted = {
        dim: slice(int(begin), int(end))
        for dim, (begin, end) in zip(array.dims, ranges, strict=True)
    }
    numbers = np.ascontiguousarray(array.isel(wanted).to_numpy())
    said = {"dtype": numbers.dtype.str, "shape": list(numbers.shape)}
    return Answer(said, numbers.tobytes())
