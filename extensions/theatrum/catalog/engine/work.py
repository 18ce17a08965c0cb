"""One run on a worker: open what goes in, call the node, write what comes out.

A `Task` and its `Done` are plain values that travel between processes. A worker sees
files only: it opens the images by their paths, writes into a staging folder that the
driver gave it, and never touches the catalogue. Whatever the node raises comes back as
`Failure`, never as an exception, so that any error of any library travels.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import platform
import resource
import shutil
import socket
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from theatrum.catalog.engine.harvest import Kept, harvest
from theatrum.node import Cancelled, Context, Node, NodeError, Port, Volume
from theatrum.node.arrays import Array, File, affine_of

Report = Callable[[float, str], None]
_PASSING = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.ECONNRESET,
        errno.EHOSTUNREACH,
        errno.EIO,
        errno.ENETUNREACH,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)
"""Errors of the system that pass by themselves: a store or a network that is away."""


@dataclass(frozen=True)
class Ref:
    """A row of the catalogue that goes into a run, as a worker needs it.

    Attributes
    ----------
    kind
        The row's table.
    path, scene
        Where its file is; the same on every machine of the cluster.
    checksum
        Of its contents.
    name
        For people, and for what is made of it.
    """

    kind: str
    id: str
    path: str
    scene: int = 0
    checksum: str = ""
    name: str = ""
    media_type: str = ""
    attrs: Mapping[str, Any] = field(default_factory=dict)
    """What earlier nodes said of the array, which its file has no place for."""
    gone: bool = False
    """Its file was not kept; by its checksum, what was made of it is still found."""


@dataclass(frozen=True)
class Given:
    """A value that goes into a run as it is: a line, a polygon, a table.

    Attributes
    ----------
    kind, id
        Of the row whose value it is, for the lineage; "" where it is of none.
    """

    # Any: whatever a port takes
    value: Any
    checksum: str = ""
    kind: str = ""
    id: str = ""


Source = Ref | Given


@dataclass(frozen=True)
class Task:
    """What one run does.

    Attributes
    ----------
    inputs
        Of each port one source or several.
    staging
        A folder of its own, to write into; it need not be there yet.
    cancel_file
        Once this file is there, the run is not wanted any more.
    timeout_s
        After so many seconds it counts as stuck; 0 never.
    """

    run_id: str
    node: Node[..., Any]
    params: Mapping[str, Any]
    inputs: Mapping[str, Source | tuple[Source, ...]]
    staging: Path
    cancel_file: Path
    timeout_s: float = 0.0
    memory_bytes: int = 0

    @property
    def is_unwanted(self) -> bool:
        """Whether the batch, or this run alone, was cancelled; a look at the disk."""
        return (
            self.cancel_file.exists()
            or stop_file(self.cancel_file, self.run_id).exists()
        )


def stop_file(cancel_file: Path, run_id: str) -> Path:
    """Return the file that, once it is there, says that one run is not wanted."""
    return cancel_file.with_name(f"{cancel_file.name}-{run_id}")


@dataclass(frozen=True)
class Failure:
    """Why a run gave nothing.

    Attributes
    ----------
    passing
        Trying once more may help.
    died
        The process ended without an answer.
    """

    kind: str
    message: str
    trace: str = ""
    passing: bool = False
    died: bool = False


@dataclass(frozen=True)
class Done:
    """What came of a task."""

    run_id: str
    state: Literal["succeeded", "failed", "cancelled"]
    outputs: tuple[Kept, ...] = ()
    failure: Failure | None = None
    began: float = 0.0
    ended: float = 0.0
    host: str = ""
    env_hash: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)


@functools.cache
def environment_hash() -> str:
    """SHA-256 of the Python and the packages of this process, with their versions."""
    from importlib.metadata import distributions

    found = sorted(
        {f"{one.metadata['Name']}=={one.version}".lower() for one in distributions()}
    )
    text = "\n".join([platform.python_version(), platform.machine(), *found])
    return hashlib.sha256(text.encode()).hexdigest()


def perform(
    task: Task, report: Report | None = None, scheduler: Any = "threads"
) -> Done:
    """Do a task in this process; its dask arrays by `scheduler`, Dask's own word."""
    import dask

    began = time.time()
    cpu = time.process_time()
    deadline = time.monotonic() + task.timeout_s if task.timeout_s else None
    looked = [0.0, False]

    def unwanted() -> bool:
        # A look at a file that may lie on a network: not at every tile.
        now = time.monotonic()
        if not looked[1] and now - looked[0] > 0.05:
            looked[0], looked[1] = now, task.is_unwanted
        if deadline is not None and now > deadline:
            raise TimeoutError(f"it took longer than {task.timeout_s:g} s")
        return bool(looked[1])

    context = Context(report or (lambda _share, _text: None), unwanted, task.staging)
    failure: Failure | None = None
    kept: tuple[Kept, ...] = ()
    state: Literal["succeeded", "failed", "cancelled"] = "failed"
    try:
        shutil.rmtree(task.staging, ignore_errors=True)
        context.check()
        # Within a task of a cluster dask would send its work back to the scheduler and
        # wait for it in a thread that the scheduler counts on.
        processors = task.node.resources.processors
        # A pool of one thread does the same as none, and is made anew each time.
        alone = scheduler == "threads" and processors == 1
        with dask.config.set(
            scheduler="sync" if alone else scheduler, num_workers=processors
        ):
            inputs = _opened(task)
            outputs = task.node.run(inputs, task.params, context)
            kept = harvest(outputs, task.staging, _storing(scheduler))
        state = "succeeded"
    except Cancelled:
        state = "cancelled"
    except Exception as error:  # the boundary: whatever a node or a reader raises
        failure = failure_of(error, task.node.retries)
    return Done(
        task.run_id,
        state,
        kept,
        failure,
        began,
        time.time(),
        socket.gethostname(),
        environment_hash(),
        {
            "cpu_s": round(time.process_time() - cpu, 4),
            "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        },
    )


def _storing(scheduler: Any) -> Callable[[Any], None] | None:
    """Return what stores blocks by a cluster's client; None where threads do."""
    if isinstance(scheduler, str):
        return None

    def store(blocks: Any) -> None:
        scheduler.compute(blocks, sync=True)

    return store


def failure_of(
    error: BaseException, retries: Sequence[type[BaseException]] = ()
) -> Failure:
    """Return an exception as a value; paths of the installation stay in the trace."""
    passing = isinstance(error, (ConnectionError, TimeoutError, *retries)) or (
        isinstance(error, OSError) and error.errno in _PASSING
    )
    if isinstance(error, TimeoutError) and "took longer" in str(error):
        passing = False  # it would take as long again
    trace = (
        ""
        if isinstance(error, NodeError)
        else "".join(traceback.format_exception(error))
    )
    return Failure(type(error).__name__, str(error)[:2000], trace[-8000:], passing)


def _opened(task: Task) -> dict[str, Any]:
    inputs: dict[str, Any] = {}
    for name, source in task.inputs.items():
        port = task.node.inputs[name]
        if isinstance(source, tuple):
            inputs[name] = [opened(port, one) for one in source]
        else:
            inputs[name] = opened(port, source)
    _check_memory(task, inputs)
    return inputs


def opened(port: Port, source: Source) -> Any:
    """Return the value that a port takes, from where its source says."""
    if isinstance(source, Given):
        return source.value
    if port.kind == "file":
        return File(Path(source.path), source.media_type or "application/octet-stream")
    if port.kind == "table":
        return _table(Path(source.path))
    if port.kind == "image":
        from theatrum.image import open_image

        return open_image(source.path)
    from theatrum.catalog.arrays import open_array

    array = open_array(source.path, source.scene).rename(source.name or None)
    if source.id:
        array = array.assign_attrs(id=source.id)
    array = array.assign_attrs({**source.attrs, **array.attrs})
    return _volume(array) if port.kind == "volume" else array


def _volume(array: Array) -> Volume:
    import numpy as np

    affine = affine_of(array)
    flat = array.squeeze(drop=True).transpose("z", "y", "x")
    if affine is None:
        raise ValueError("this image does not say where it lies in the patient")
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    return Volume(flat.values, lps, str(array.attrs.get("modality", "")))


def _table(path: Path) -> Any:
    import pyarrow.parquet

    from theatrum.node import Table

    table = pyarrow.parquet.read_table(path)
    units = {
        one.name: one.metadata[b"unit"].decode()
        for one in table.schema
        if one.metadata and b"unit" in one.metadata
    }
    return Table(table.to_pydict(), units)


_FACTOR = 4
"""Bytes that a node takes for each byte of its inputs, where nobody measured it."""


def _check_memory(task: Task, inputs: Mapping[str, Any]) -> None:
    """Refuse what cannot fit, before it takes the worker down with it."""
    if not task.memory_bytes:
        return
    size = sum(
        int(getattr(one, "nbytes", 0))
        for value in inputs.values()
        for one in (value if isinstance(value, list) else [value])
    )
    needs = size * _FACTOR
    if needs > task.memory_bytes:
        raise MemoryError(
            f"this image needs about {needs / 1e9:.1f} GB, and a worker has "
            f"{task.memory_bytes / 1e9:.1f} GB: give workers more memory, or work on "
            'it with mode="deep", which spreads one image over all workers'
        )
