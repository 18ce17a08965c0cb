"""One service in several processes, one for each core that it may use.

Each worker has listening sockets of its own on the same ports (SO_REUSEPORT), and the
system spreads the clients among them. They are made before the processes part, so that
a port that is taken is said at once, and they outlive a worker that has died, so that
its clients wait for the next one instead of being refused. Workers share nothing but
the tile cache on disk.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import NoReturn

log = logging.getLogger(__name__)

# A worker that dies now and then is replaced; one that cannot live is not.
_MOST_DEATHS = 5
_DEATHS_WITHIN_S = 60.0
CANNOT_START = 2


@dataclass(frozen=True)
class Worker:
    """One process's part.

    Attributes
    ----------
    number
        From 0.
    plain, lane, metrics
        Its listening sockets.
    parent
        A pipe that ends with the process that started it; None where there is none.
    """

    number: int
    plain: Sequence[socket.socket]
    lane: Sequence[socket.socket] = ()
    metrics: Sequence[socket.socket] = ()
    parent: int | None = None

    def close_sockets(self) -> None:
        for one in (*self.plain, *self.lane, *self.metrics):
            one.close()


Work = Callable[[Worker], None]


def run(workers: Sequence[Worker], work: Work) -> int:
    """Let all workers work until a signal ends them; gives the exit status.

    A single worker works in this very process.
    """
    if len(workers) == 1:
        work(workers[0])
        return 0
    return _Parent(list(workers), work).run()


@dataclass
class _Parent:
    """The process that starts the others, and waits."""

    workers: list[Worker]
    work: Work
    running: dict[int, Worker] = field(default_factory=dict)
    deaths: list[float] = field(default_factory=list)
    stopping: bool = False
    status: int = 0

    def run(self) -> int:
        reader, writer = os.pipe()
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, self._on_signal)
        for worker in self.workers:
            self._start(worker, reader, writer)
        while self.running:
            pid, ended = os.wait()
            died = self.running.pop(pid, None)
            if died is None or self.stopping:
                continue
            if self._may_start_again(os.waitstatus_to_exitcode(ended)):
                self._start(died, reader, writer)
        os.close(reader)
        os.close(writer)
        return self.status

    def _may_start_again(self, code: int) -> bool:
        now = time.monotonic()
        self.deaths = [one for one in self.deaths if now - one < _DEATHS_WITHIN_S]
        self.deaths.append(now)
        if code != CANNOT_START and len(self.deaths) <= _MOST_DEATHS:
            log.error("a worker has ended (%d) and is started again", code)
            return True
        log.error("workers end as soon as they are started: giving up")
        self.status = code if code == CANNOT_START else 1
        self._stop()
        return False

    def _start(self, worker: Worker, reader: int, writer: int) -> None:
        pid = os.fork()
        if pid:
            self.running[pid] = worker
            if self.stopping:  # a signal came while it was being started
                self._stop()
            return
        os.close(writer)
        for other in self.workers:
            if other is not worker:
                other.close_sockets()
        own = Worker(worker.number, worker.plain, worker.lane, worker.metrics, reader)
        _work_and_exit(self.work, own)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._stop()

    def _stop(self) -> None:
        self.stopping = True
        for pid in list(self.running):
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                continue  # it has ended, and is about to be waited for


def _work_and_exit(work: Work, worker: Worker) -> NoReturn:
    """Work in a process of its own, and end it without what the parent began."""
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, signal.SIG_DFL)
    status = 1
    try:
        work(worker)
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except Exception:
        log.exception("a worker fails")
    finally:
        os._exit(status)
