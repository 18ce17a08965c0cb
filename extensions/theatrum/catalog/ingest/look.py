"""Looking at files in another process, so that a hostile one ends that process only.

What comes in was made by others, and is read by libraries in C. So nothing of it is
opened here: a worker process does, with a limit on memory and on time, and says what it
saw. One that crashes or does not answer is replaced, and the file is refused with the
reason. The worker writes OME-Zarr copies as well, since that decodes every pixel.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from theatrum.catalog.formats.errors import Damaged, FormatError, NotAnImage, NoVolume
from theatrum.catalog.ingest.headers import Identified

log = logging.getLogger(__name__)

_STARTING_S: Final = 120.0
_LONGEST_ANSWER: Final = 64 * 2**20
_AT_ONCE: Final = 256
_KINDS: Final[Mapping[str, type[FormatError]]] = {
    one.__name__: one for one in (Damaged, NotAnImage, NoVolume)
}


@dataclass(frozen=True)
class Limits:
    """Of the process that opens files.

    Attributes
    ----------
    seconds
        How long a file may take to be described. Longer lets huge and remote files
        through, and lets a hostile one hold the rest up longer.
    copying_s
        Likewise for each GiB that is copied, and at least once.
    memory_bytes
        Its address space, where the system can limit it. Less refuses large compressed
        planes; the machine must be able to spare it.
    """

    seconds: float = 120.0
    copying_s: float = 600.0
    memory_bytes: int = 6 * 2**30


class Looker:
    """The worker process; a context manager, for one thread."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._worker: _Worker | None = None

    def warm_up(self) -> None:
        """Start the process now, so that the first file does not wait for it."""
        if self._worker is None:
            self._worker = _Worker(self._limits.memory_bytes)

    def identify(self, paths: Sequence[Path]) -> list[Identified]:
        """Of each DICOM file its series; a file that harms the reader is refused."""
        found: list[Identified] = []
        for at in range(0, len(paths), _AT_ONCE):
            part = paths[at : at + _AT_ONCE]
            try:
                found += self._identified(part)
            except FormatError as error:
                if len(part) == 1:
                    found.append(Identified(refusal=str(error)))
                    continue
                # One of them did it: the others are found one by one.
                for one in part:
                    found += self.identify([one])
        return found

    def describe(
        self, paths: Sequence[Path], format_name: str, *, planes: Path, key: bytes = b""
    ) -> list[dict[str, Any]]:
        """What the scenes of an item are, as JSON, see `describing`.

        Tables of planes are written into the folder `planes`. Raises FormatError.
        """
        answer = self._ask(
            {
                "do": "describe",
                "paths": [os.fspath(one) for one in paths],
                "format": format_name,
                "planes": os.fspath(planes),
                "key": key.hex(),
            },
            self._limits.seconds,
            paths[0].name,
        )
        scenes: list[dict[str, Any]] = answer["scenes"]
        return scenes

    def copy(
        self, paths: Sequence[Path], format_name: str, scene: int, to: Path, size: int
    ) -> dict[str, Any]:
        """Write a scene as OME-Zarr; what `zarr_store.Written` says, as JSON.

        `size` is that of its numbers in bytes. Raises FormatError.
        """
        seconds = self._limits.copying_s * max(size / 2**30, 1.0)
        return self._ask(
            {
                "do": "copy",
                "paths": [os.fspath(one) for one in paths],
                "format": format_name,
                "scene": scene,
                "to": os.fspath(to),
            },
            seconds,
            paths[0].name,
        )

    def draw(
        self, paths: Sequence[Path], format_name: str, to: Path, *, key: bytes = b""
    ) -> None:
        """Write a small JPEG of an item's first scene; raises FormatError."""
        self._ask(
            {
                "do": "draw",
                "paths": [os.fspath(one) for one in paths],
                "format": format_name,
                "to": os.fspath(to),
                "key": key.hex(),
            },
            self._limits.seconds,
            paths[0].name,
        )

    def close(self) -> None:
        """End the process; what it is doing is lost."""
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _identified(self, paths: Sequence[Path]) -> list[Identified]:
        answer = self._ask(
            {"do": "identify", "paths": [os.fspath(one) for one in paths]},
            self._limits.seconds,
            paths[0].name,
        )
        return [Identified(**one) for one in answer["found"]]

    def _ask(
        self, question: Mapping[str, Any], seconds: float, name: str
    ) -> dict[str, Any]:
        if self._worker is None or not self._worker.alive:
            self._worker = _Worker(self._limits.memory_bytes)
        try:
            answer = self._worker.ask(question, seconds)
        except _Fell as fall:
            self.close()
            log.warning("a file made the reading process fall: %s", fall)
            raise Damaged(f"{name} cannot be opened safely: {fall}.") from fall
        except BaseException:
            # Interrupted: what the process would answer later belongs to nothing.
            self.close()
            raise
        if "refusal" in answer:
            raise _KINDS.get(str(answer.get("kind")), Damaged)(str(answer["refusal"]))
        return answer


class _Fell(Exception):
    """The worker ended, or did not answer in time; the message says which."""


class _Worker:
    def __init__(self, memory_bytes: int) -> None:
        # Each thread costs address space, and dask has its own.
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "theatrum.catalog.ingest.look_worker"),
                str(memory_bytes),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            # Ctrl+C in a terminal is for the command, which ends its worker.
            start_new_session=True,
        )
        self._ready = False

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, question: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """The worker's answer; raises _Fell."""
        line = json.dumps(question) + "\n"
        try:
            if not self._ready:
                self._answer(_STARTING_S)
                self._ready = True
            assert self._process.stdin is not None  # noqa: S101 - it is a pipe; for mypy
            self._process.stdin.write(line.encode("utf-8", "surrogateescape"))
            self._process.stdin.flush()
        except OSError as error:
            raise _Fell("the process that looks at it ended") from error
        return self._answer(seconds)

    def end(self) -> None:
        """End the process at once; it has nothing to lose."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    log.debug("the worker left part of a question unread")

    def _answer(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe; for mypy
        descriptor = self._process.stdout.fileno()
        until = time.monotonic() + seconds
        pieces: list[bytes] = []
        length = 0
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)
            while not (pieces and pieces[-1].endswith(b"\n")):
                left = until - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise _Fell(f"it was not read after {seconds:g} seconds")
                piece = os.read(descriptor, 1 << 20)
                if not piece:
                    raise _Fell(self._how_it_ended())
                pieces.append(piece)
                length += len(piece)
                if length > _LONGEST_ANSWER:
                    raise _Fell("its description is absurdly long")
        answer: dict[str, Any] = json.loads(b"".join(pieces))
        return answer

    def _how_it_ended(self) -> str:
        status = self._process.wait()
        if status < 0:
            return f"the library that reads it crashed (signal {-status})"
        return f"the process that looks at it ended (status {status})"
