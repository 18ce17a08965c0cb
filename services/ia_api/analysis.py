"""The analysis itself, in a process of its own: a node that crashes harms nobody else.

The process is forked from a server that has the nodes loaded already, gets its task
through memory (a token is never written down), tells its progress through a pipe, and
leaves the answer in the job's folder. It ends at once when the worker is gone, with
whatever processes the node began: all are one process group.

What a node prints or logs may name a patient, so it is heard by nobody.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from theatrum.node import BadInputs, Cancelled, Context, Node, NodeError, find

from services.ia_api import outcome
from services.ia_api.apps import App
from services.ia_api.download import manifest
from services.ia_api.errors import CallbackError, DiskFull, Transient, is_disk_full
from services.ia_api.folders import JobFolder
from services.ia_api.outcome import Work
from services.ia_api.pathology_server import (
    Callback,
    PathologyServer,
    Transport,
    TransportSettings,
)
from services.ia_api.regions import inputs_of, regions_of
from services.ia_api.slide_image import FileSlide, OtherSize, TileSlide, opened
from services.ia_api.slide_info import SlideInfo
from services.ia_api.versions import Version

LOST_WORKER = 3
"""The exit code of an analysis whose worker is gone."""


@dataclass(frozen=True)
class Task:
    """All that an analysis needs to know."""

    app: App
    folder: Path
    slide: SlideInfo
    given: dict[str, Any]
    """The `input` of the invocation."""
    source: Literal["files", "tiles"]
    callback: Callback
    api_version: Version
    transport: TransportSettings


@dataclass(frozen=True)
class Said:
    """One message of the analysis to its worker."""

    kind: Literal["progress", "done", "failed"]
    fraction: float = 0.0
    code: str = ""
    error: str = ""
    """Of a callback error its class; a message could hold anything."""
    retry_after_s: float | None = None
    detail: str = field(default="", repr=False)


def main(task: Task, pipe: Connection) -> None:
    """Run the node of a task; what goes wrong is told as a short code."""
    os.umask(0o077)
    os.setpgid(0, 0)
    _silence()
    # A core dump would hold the slide.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    stopped = threading.Event()
    threading.Thread(target=_listen, args=(pipe, stopped), daemon=True).start()
    try:
        _run(task, pipe, stopped)
    except Cancelled:
        pipe.send(Said("failed", code="cancelled"))
    except CallbackError as err:
        wait_s = err.retry_after_s if isinstance(err, Transient) else None
        name = _class_of(err)
        pipe.send(Said("failed", code=err.code, error=name, retry_after_s=wait_s))
    except MemoryError:
        pipe.send(Said("failed", code="memory"))
    except BadInputs:
        pipe.send(Said("failed", code="input"))
    except OSError as err:
        full = is_disk_full(err)
        code, name = (DiskFull.code, "Transient") if full else ("analysis", "")
        pipe.send(Said("failed", code=code, error=name, detail=type(err).__name__))
    except NodeError as err:
        pipe.send(Said("failed", code="node", detail=type(err).__name__))
    except Exception as err:
        # The boundary of a process that runs somebody's code: only the class is told.
        pipe.send(Said("failed", code="analysis", detail=type(err).__name__))


def _silence() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.close(nothing)
    logging.disable()


def _class_of(err: CallbackError) -> str:
    """The class of the four that decide what becomes of the job."""
    for kind in ("Transient", "Unauthorized", "Gone", "Conflict"):
        if any(base.__name__ == kind for base in type(err).__mro__):
            return kind
    return "Permanent"


def _listen(pipe: Connection, stopped: threading.Event) -> None:
    """Any word means stop; the end of the pipe means that the worker is gone."""
    try:
        pipe.recv()
        stopped.set()
        pipe.recv()
    except (EOFError, OSError):
        with suppress(ProcessLookupError):
            os.killpg(0, signal.SIGKILL)
        os._exit(LOST_WORKER)


def _run(task: Task, pipe: Connection, stopped: threading.Event) -> None:
    folder = JobFolder(task.folder)
    folder.temporary.mkdir(mode=0o700, exist_ok=True)
    tempfile.tempdir = str(folder.temporary)
    node: Node[..., Any] = find(task.app.address)

    def progress(fraction: float, _text: str) -> None:
        pipe.send(Said("progress", fraction))

    context = Context(progress, stopped.is_set)
    regions = regions_of(task.given, task.slide)
    with _image(task) as image:
        inputs = inputs_of(task.app, image, regions, task.slide)
        outputs = node.run(inputs, task.app.settings.parameters, context)
    context.check()
    folder.keep_answer(outcome.answer_of(node, outputs, Work(task.slide, regions)))
    pipe.send(Said("done"))


@contextmanager
def _image(task: Task) -> Iterator[FileSlide | TileSlide]:
    if task.source == "tiles":
        with _tiles(task) as tiles:
            yield tiles
        return
    folder = JobFolder(task.folder)
    files = manifest(folder.slide) or ()
    with opened(
        folder.slide,
        [one.name for one in files],
        folder.temporary,
        task.slide.um_per_pixel,
    ) as image:
        if (image.width, image.height) == task.slide.size:
            yield image
            return
        # Marks are fractions of the width that the server tells: with another origin
        # or size they would lie elsewhere.
        if not task.slide.streamable:
            raise OtherSize("the files show another picture than the server's tiles")
        with _tiles(task) as tiles:
            yield tiles


@contextmanager
def _tiles(task: Task) -> Iterator[TileSlide]:
    transport = Transport(task.transport)
    try:
        server = PathologyServer(transport, task.callback, task.api_version)
        slide = TileSlide(server, task.slide)
        yield slide
        slide.check()
    finally:
        transport.close()
