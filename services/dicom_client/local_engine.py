"""Segmentation on this machine: any node that gives label masks of a scan.

The template names the node by its address (`theatrum.nodes:ct_body_lungs_bone`, or
`folder/file.py:name`) and gives its parameters. What comes out is a structure set on
the very images that it was given, as the server would have made it, so that all that
follows is the same. The node runs in a process of its own (`engine_process`), with a
limit of time and of memory; one that crashes, hangs or is cancelled leaves no result.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal

import psutil
from theatrum.node import BadInputs, Node, NoSuchNode, find

from services.dicom_client.errors import LocalEngineFailed
from services.dicom_client.templates import SHIPPED_ENGINES, BadTemplate, Template

RESULT = "result.dcm"
OUTPUT = "output"
"""The one parameter of a template that the node does not get: what is delivered."""
Output = Literal["rtstruct", "seg", "both"]
_OUTPUTS: tuple[Output, ...] = ("rtstruct", "seg", "both")

POLL_S = 0.2
PATIENCE_S = 5.0
"""How long an engine may take to stop by itself."""
_MEMORY_BESIDES = 1 << 30
"""What Python and its libraries take besides the node, of resident memory."""


@dataclass(frozen=True)
class Limits:
    """What an engine may take."""

    seconds: float = 3600.0
    memory_bytes: int = 16 << 30


def is_local(template: Template) -> bool:
    """Whether a template is for an engine on this machine."""
    return template.engine != "draw"


def output_of(template: Template) -> Output:
    """What is delivered: contours (RT Structure Set), DICOM Segmentation, or both."""
    said = template.parameters.get(OUTPUT, "rtstruct")
    for known in _OUTPUTS:
        if said == known:
            return known
    raise BadTemplate(f"{OUTPUT}: {said!r} is none of {', '.join(_OUTPUTS)}")


def check_engine(
    template: Template, allowed: Sequence[str] = SHIPPED_ENGINES
) -> Node[..., Any]:
    """The node of a template; BadTemplate where it is none, or takes no such value.

    `allowed` are the addresses of the settings: loading a node runs its code, so it is
    the administrator who chooses, not who writes a template.
    """
    output_of(template)
    if template.engine not in allowed:
        raise BadTemplate(
            f"engine: {template.engine!r} is none of {', '.join(allowed)}; an "
            "administrator adds others to `engines` in theatrum.toml"
        )
    try:
        node = find(template.engine)
    except NoSuchNode as err:
        raise BadTemplate(f"engine: {err}") from err
    takes = [name for name, port in node.inputs.items() if port.kind == "volume"]
    gives = [name for name, port in node.outputs.items() if port.kind == "labels"]
    if len(takes) != 1 or not gives:
        raise BadTemplate(
            f"engine: {node.name} is no engine: that is a node which takes one Volume "
            "and gives Labels"
        )
    try:
        node.checked_parameters(_parameters(template.parameters))
    except BadInputs as err:
        raise BadTemplate(f"parameters: {err}") from err
    return node


def run(
    images: Sequence[Path],
    template: Template,
    *,
    folder: Path,
    job: str,
    made_at: datetime,
    limits: Limits | None = None,
    progress: Callable[[float], None] = lambda _share: None,
    check: Callable[[], None] = lambda: None,
) -> Path:
    """Segment a series; returns the structure set, `result.dcm` in `folder`.

    Parameters
    ----------
    images
        All images of one series, in any order.
    job, made_at
        The structure set's UIDs come from the job's name, the images, the engine and
        its parameters, its date from `made_at`: a step that is done again makes the
        same file.
    check
        Called several times a second; what it raises stops the engine.

    Raises
    ------
    LocalEngineFailed
        With its code: geometry, input, node, engine, crash, memory, time-limit.
    """
    limits = limits or Limits()
    result = folder / RESULT
    task = {
        "engine": template.engine,
        "images": [str(path.absolute()) for path in images],
        "parameters": _parameters(template.parameters),
        "wanted": template.wanted,
        "job": job,
        "made_at": made_at.isoformat(),
        "memory_bytes": limits.memory_bytes,
        "result": str(result.absolute()),
    }
    with _Engine(task) as engine:
        engine.follow(limits, progress, check)
    return result


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name != OUTPUT}


class _Engine:
    """A running engine; none is left when the block ends."""

    def __init__(self, task: Mapping[str, Any]) -> None:
        self._task = task

    def __enter__(self) -> _Engine:
        self._process = subprocess.Popen(
            # -P: a json.py in the folder of the process must not be run.
            [sys.executable, "-P", "-m", "services.dicom_client.engine_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Its own group: whatever it starts ends with it.
            start_new_session=True,
        )
        self._send(json.dumps(self._task))
        self._unread = b""
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def follow(
        self,
        limits: Limits,
        progress: Callable[[float], None],
        check: Callable[[], None],
    ) -> None:
        """Watch it to its end."""
        end = time.monotonic() + limits.seconds
        try:
            while True:
                for said in self._said():
                    if said["kind"] == "done":
                        return
                    if said["kind"] == "failed":
                        raise _failure(said["code"], said["detail"])
                    progress(said["share"])
                check()
                if time.monotonic() > end:
                    raise _failure("time-limit")
                if self._memory() > limits.memory_bytes + _MEMORY_BESIDES:
                    raise _failure("memory")
        except BaseException:
            self._stop()
            raise

    def _said(self) -> list[dict[str, Any]]:
        """What it told since the last look; waits a little."""
        pipe = _pipe(self._process.stdout)
        if not select.select([pipe], [], [], POLL_S)[0]:
            return []
        part = os.read(pipe.fileno(), 1 << 16)
        if not part:
            raise _failure("crash")
        *lines, self._unread = (self._unread + part).split(b"\n")
        try:
            return [json.loads(line) for line in lines]
        except ValueError as err:
            raise _failure("crash") from err

    def _send(self, line: str) -> None:
        pipe = _pipe(self._process.stdin)
        with suppress(BrokenPipeError):
            pipe.write(line.encode() + b"\n")
            pipe.flush()

    def _stop(self) -> None:
        """Let it end by itself for a moment: nodes look at the context."""
        self._send("stop")
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE_S)

    def _memory(self) -> int:
        """Resident bytes of it and of what it started."""
        total = 0
        with suppress(psutil.NoSuchProcess):
            own = psutil.Process(self._process.pid)
            for one in [own, *own.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    total += int(one.memory_info().rss)
        return total


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # noqa: S101  (both are pipes: for the type checker)
    return pipe


_TOLD = {
    "crash": "the engine's process died",
    "memory": "the engine takes more memory than it may",
    "time-limit": "the engine takes more time than it may",
    "cancelled": "the engine was stopped",
    "engine": "the engine gave an error",
}


def _failure(code: str, detail: str = "") -> LocalEngineFailed:
    told = ": ".join(part for part in (_TOLD.get(code, ""), detail) if part)
    return LocalEngineFailed(code, told)
