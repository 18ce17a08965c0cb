"""A process of limited means that answers questions; what harms it ends it alone.

Files are opened by libraries in C. One that was made to harm them, or is damaged in an
unlucky way, can crash one, keep it busy for ever, or make it take all memory. So such
files are opened by a process of their own, with a limit on memory, on processor time
and on what it may write, which answers in time or is ended.

Questions and answers are lines of JSON over pipes; an answer may have bytes behind it.
The libraries may write to standard output too, so answers have a descriptor of their
own. The process ends when its input does, and so never outlives who asks.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple, Self

log = logging.getLogger(__name__)

try:
    resource: Any = import_module("resource")
except ImportError:  # Windows has no such limits; the limit of time remains
    resource = None

FILE_BYTES = 1 << 40
"""What a process may write to one file, where nobody says less."""
_STARTING_S = 120.0
_LONGEST_LINE = 64 * 2**20
_LONGEST_BODY = 2**30
_PIECE = 1 << 20
_THREADS = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""One thread is enough for a look, and each costs address space."""


class Fell(Exception):
    """The process ended, or did not answer in time; the message says which."""


# Any here and below: JSON
class Answer(NamedTuple):
    """What the process said, and the bytes behind it."""

    said: dict[str, Any]
    body: bytes = b""


class LimitedProcess:
    """One process of limited means; used by one thread at a time."""

    def __init__(
        self, module: str, memory_bytes: int, arguments: Sequence[str] = ()
    ) -> None:
        """Start `module`, which is to call `serve`; `memory_bytes` of address space."""
        self._process = subprocess.Popen(
            # -P: a file of our name in the folder of our start is not us.
            [sys.executable, "-P", "-m", module, str(memory_bytes), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | _THREADS,
            # Ctrl+C in a terminal is for who asks, who ends the process.
            start_new_session=True,
        )
        self._ready = False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(
        self,
        question: Mapping[str, Any],
        seconds: float,
        *,
        file_bytes: int = FILE_BYTES,
    ) -> Answer:
        """What the process answers within some seconds; raises Fell.

        Its processor time is bounded too, so that a file that spins for ever does not
        outlive who asked and was killed. `file_bytes`: of the largest file it writes.
        """
        asked = {
            "question": dict(question),
            "processor_s": int(seconds) * (os.cpu_count() or 1) + 60,
            "file_bytes": file_bytes,
        }
        line = json.dumps(asked) + "\n"
        try:
            if not self._ready:
                self._line(time.monotonic() + _STARTING_S, _STARTING_S)
                self._ready = True
            assert self._process.stdin is not None  # noqa: S101 - it is a pipe; for mypy
            self._process.stdin.write(line.encode("utf-8", "surrogateescape"))
            self._process.stdin.flush()
        except OSError as error:
            raise Fell("the process that looks at it ended") from error
        until = time.monotonic() + seconds
        head, rest = self._line(until, seconds)
        said: dict[str, Any] = json.loads(head)
        length = int(said.pop("body", 0))
        if length > _LONGEST_BODY:
            raise Fell("its answer is absurdly long")
        while len(rest) < length:
            rest += self._piece(until, seconds)
        return Answer(said, bytes(rest))

    def end(self) -> None:
        """End the process at once; it has nothing to lose."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    log.debug("a process left part of a question unread")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _line(self, until: float, seconds: float) -> tuple[bytes, bytearray]:
        """A line, and what came behind it already."""
        received = bytearray()
        looked = 0
        while (at := received.find(b"\n", looked)) < 0:
            looked = len(received)
            if looked > _LONGEST_LINE:
                raise Fell("its description is absurdly long")
            received += self._piece(until, seconds)
        return bytes(received[:at]), received[at + 1 :]

    def _piece(self, until: float, seconds: float) -> bytes:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe; for mypy
        descriptor = self._process.stdout.fileno()
        left = until - time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            if left <= 0 or not selector.select(left):
                raise Fell(f"it was not open after {seconds:g} seconds")
        piece = os.read(descriptor, _PIECE)
        if not piece:
            raise Fell(self._how_it_ended())
        return piece

    def _how_it_ended(self) -> str:
        status = self._process.wait()
        if status == -getattr(signal, "SIGXCPU", 0):
            return "it takes too much work to read"
        if status < 0:
            return f"the library that reads it crashed (signal {-status})"
        return f"the process that looks at it ended (status {status})"


def serve(memory_bytes: int, answer: Callable[[dict[str, Any]], Answer]) -> int:
    """Answer questions until the input ends; the other side of a LimitedProcess.

    `answer` tells of a file that it cannot read, and raises nothing.
    """
    _limit(memory_bytes)
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # What libraries log and warn of quotes headers, which can be a patient's.
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    _write(answers, Answer({"ready": True}))
    for line in sys.stdin.buffer:
        asked = json.loads(line.decode("utf-8", "surrogateescape"))
        _limit_work(asked["processor_s"], asked["file_bytes"])
        _write(answers, answer(asked["question"]))
    return 0


def _limit(memory_bytes: int) -> None:
    """Bound this process's memory, and keep images out of core files."""
    if resource is None:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        _lower(resource.RLIMIT_AS, memory_bytes)
    except (OSError, ValueError) as error:  # macOS refuses it
        sys.stderr.write(f"no limit of memory: {type(error).__name__}\n")


def _limit_work(processor_s: int, file_bytes: int) -> None:
    """Bound what the next question may cost, beyond what is spent already."""
    if resource is None:
        return
    spent = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource.RLIMIT_CPU, int(spent.ru_utime + spent.ru_stime) + processor_s)
    # Python ignores the signal that comes with it, and the write fails.
    _lower(resource.RLIMIT_FSIZE, file_bytes)


def _lower(kind: int, wanted: int) -> None:
    _, most = resource.getrlimit(kind)
    soft = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    resource.setrlimit(kind, (soft, most))


def _write(descriptor: int, answer: Answer) -> None:
    said = answer.said | ({"body": len(answer.body)} if answer.body else {})
    head = (json.dumps(said, default=str) + "\n").encode("utf-8", "surrogateescape")
    for part in (head, answer.body):
        left = memoryview(part)
        while left:
            left = left[os.write(descriptor, left) :]
