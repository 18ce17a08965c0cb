"""Opening slides in another process first, so that a hostile file ends that one.

Every file is opened by a worker process of limited means first (`limited.py` says why);
only what came through is opened in the service. A worker that falls is replaced, and
the file is refused with the reason.

What was found is remembered by path and version: a file is probed once. A refusal is
forgotten after a minute, since its cause may have been the moment. A service that only
lists slides has their thumbnails drawn by a worker too, and so never opens one itself.
"""

from __future__ import annotations

import base64
import logging
import os
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NotRequired, Self, TypedDict

from tile_server.errors import Stopped, UnreadableSlide
from tile_server.limited import Fell, LimitedProcess

log = logging.getLogger(__name__)

_REMEMBERED = 4096
_REFUSED_FOR_S = 60.0


@dataclass(frozen=True)
class ProbeSettings:
    """Limits of the worker processes.

    Attributes
    ----------
    seconds
        How long a file may take to open. Longer lets huge or remote files through and
        lets a hostile one hold a worker up longer.
    drawing_s
        Likewise how long its thumbnail may take, with the opening.
    memory_bytes
        Address space of a worker (where the system can limit it). More lets files with
        huge headers through; the machine must be able to spare it.
    workers
        Processes, and so files probed at once. Each takes about 100 MB.
    imports
        The folder of copies of images that cannot be served as they lie; the workers
        make them there, within their limits. None: each file is imported in passing.
    """

    seconds: float = 20.0
    drawing_s: float = 60.0
    memory_bytes: int = 4 * 2**30
    workers: int = 2
    imports: Path | None = None


@dataclass(frozen=True)
class Finding:
    """What a worker saw of a slide that it could open.

    Attributes
    ----------
    view
        As `view.describe` gives it, without the images that can show the label.
    series
        As in `SlideFacts`.
    associated
        The names of all associated images, the label's included.
    """

    view: dict[str, Any]
    series: str
    associated: tuple[str, ...]


@dataclass(frozen=True)
class _Refusal:
    message: str
    until: float


class _Question(TypedDict):
    """What a worker is asked: to describe a file or, with a size, to draw it too."""

    path: Path
    thumbnail: NotRequired[int]


class Prober:
    """A pool of worker processes; may be used from several threads.

    A worker starts when it is first needed, or at `warm_up`.
    """

    def __init__(self, settings: ProbeSettings | None = None) -> None:
        self._settings = settings or ProbeSettings()
        self._known: OrderedDict[tuple[str, str], Finding | _Refusal] = OrderedDict()
        self._lock = threading.Lock()
        self._idle: list[LimitedProcess] = []
        self._all: set[LimitedProcess] = set()
        self._places = threading.BoundedSemaphore(self._settings.workers)
        self._closed = False

    def warm_up(self) -> None:
        """Start a worker now, so that the first file does not wait for it."""
        with self._lock:
            if not self._closed and not self._all:
                self._idle.append(self._start())

    def probe(self, path: Path, version: str) -> Finding:
        """What a worker found in a file; blocks while it looks.

        Raises UnreadableSlide with the worker's reason, or the reason of its fall.
        """
        key = str(path), version
        with self._lock:
            known = self._known.get(key)
        if known is None or (
            isinstance(known, _Refusal) and time.monotonic() > known.until
        ):
            known = self._look(path)
            with self._lock:
                self._known[key] = known
                self._known.move_to_end(key)
                while len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
        if isinstance(known, _Refusal):
            raise UnreadableSlide(known.message)
        return known

    def thumbnail(self, path: Path, version: str, longest: int) -> bytes:
        """A JPEG of the whole slide, `longest` pixels at its longer side or less.

        Drawn anew every time; blocks while a worker draws. Raises UnreadableSlide.
        """
        self.probe(path, version)
        answer = self._ask(
            {"path": path, "thumbnail": longest}, self._settings.drawing_s
        )
        if isinstance(answer, _Refusal):
            raise UnreadableSlide(answer.message)
        return base64.b64decode(answer["thumbnail"])

    def close(self) -> None:
        """End all workers; what is being probed is refused."""
        with self._lock:
            self._closed = True
            workers = list(self._all)
        for worker in workers:
            worker.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _look(self, path: Path) -> Finding | _Refusal:
        answer = self._ask({"path": path}, self._settings.seconds)
        if isinstance(answer, _Refusal):
            return answer
        return Finding(answer["view"], answer["series"], tuple(answer["associated"]))

    def _ask(self, question: _Question, seconds: float) -> dict[str, Any] | _Refusal:
        path = question["path"]
        with self._places:
            worker = self._take()
            try:
                absolute = os.fspath(path.absolute())
                answer = worker.ask({**question, "path": absolute}, seconds).said
            except Fell as fall:
                self._drop(worker)
                if self._closed:
                    raise Stopped("The tile service is stopping.") from fall
                log.warning("a file made a worker fall: %s", fall)
                return _refusal(f"{path.name} cannot be opened safely: {fall}.")
            except BaseException:
                self._drop(worker)
                raise
            with self._lock:
                self._idle.append(worker)
        return _refusal(str(answer["refusal"])) if "refusal" in answer else answer

    def _take(self) -> LimitedProcess:
        with self._lock:
            if self._closed:
                raise Stopped("The tile service is stopping.")
            while self._idle:
                worker = self._idle.pop()
                if worker.alive:
                    return worker
                self._all.discard(worker)
            return self._start()

    def _start(self) -> LimitedProcess:
        imports = self._settings.imports
        worker = LimitedProcess(
            "tile_server.probe_worker",
            self._settings.memory_bytes,
            [] if imports is None else [os.fspath(imports.absolute())],
        )
        self._all.add(worker)
        return worker

    def _drop(self, worker: LimitedProcess) -> None:
        worker.end()
        with self._lock:
            self._all.discard(worker)


def _refusal(message: str) -> _Refusal:
    return _Refusal(message, time.monotonic() + _REFUSED_FOR_S)
