"""Starts the analysis of a job in a process of its own, watches and limits it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess

import psutil

from services.ia_api import errors
from services.ia_api.analysis import Said, Task, main
from services.ia_api.errors import CallbackError, IaApiError, Permanent, Transient

POLL_S = 0.2
PATIENCE_S = 5.0
"""How long an analysis may take to stop by itself."""
_MEMORY_BESIDES = 1 << 30
"""What Python, its libraries and the slide's reader take besides the node."""
_LEAST_SECONDS = 600.0


class AnalysisFailed(IaApiError):
    """The node gave an error: it would at the next try as well."""

    def __init__(self, code: str) -> None:
        super().__init__(f"the analysis failed ({code})")
        self.code = code


class AnalysisCrashed(AnalysisFailed):
    """The process died, hung, or took more memory than its node says."""


def context_for(modules: Sequence[str]) -> ForkServerContext:
    """The server that analyses are forked from, with the nodes' modules loaded."""
    context = multiprocessing.get_context("forkserver")
    # With __main__, or every analysis imports the command line anew: a second each.
    context.set_forkserver_preload(["__main__", *modules, "services.ia_api.analysis"])
    return context


def analyse(
    context: ForkServerContext,
    task: Task,
    check: Callable[[], None],
    progress: Callable[[float], None],
) -> None:
    """Run a task to its end; the answer lies in the job's folder then.

    `check` is called all the while and stops the analysis by what it raises. Raises
    AnalysisFailed, AnalysisCrashed, and the callback errors of a slide read by tiles.
    """
    ours, theirs = context.Pipe()
    process = context.Process(target=main, args=(task, theirs), daemon=True)
    process.start()
    theirs.close()
    resources = task.app.node.resources
    # The author's figure is for one free processor.
    seconds = max(_LEAST_SECONDS, 10 * resources.seconds)
    # Twice, because authors measure an average slide.
    memory = 2 * resources.memory_bytes + _MEMORY_BESIDES
    memory = memory if resources.memory_bytes else _most_memory()
    checked = 0.0
    end = time.monotonic() + seconds
    try:
        while True:
            if ours.poll(POLL_S):
                try:
                    said: Said = ours.recv()
                except (EOFError, OSError):
                    process.join(PATIENCE_S)
                    raise AnalysisCrashed("crash") from None
                if said.kind == "done":
                    return
                if said.kind == "failed":
                    raise _error_of(said)
                progress(said.fraction)
            if time.monotonic() - checked < POLL_S:
                # A node may tell its progress a thousand times a second.
                continue
            checked = time.monotonic()
            check()
            if checked > end:
                raise AnalysisCrashed("time-limit")
            if _memory_of(process) > memory:
                raise AnalysisCrashed("memory")
    except BaseException:
        try:
            ours.send("stop")
        except OSError:
            # It is gone already.
            pass
        else:
            process.join(PATIENCE_S)
        raise
    finally:
        _end(process)
        ours.close()
        process.close()


def _end(process: BaseProcess) -> None:
    """End an analysis, and whatever its node began and left behind."""
    if process.pid is not None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    # Killed before it had a group of its own.
    process.kill()
    process.join()


def _most_memory() -> int:
    """For a node that says nothing: this machine has to go on."""
    return int(psutil.virtual_memory().total) // 2


def _memory_of(process: BaseProcess) -> int:
    """What the analysis takes, with the processes that its node began."""
    try:
        first = psutil.Process(process.pid)
        taken = int(first.memory_info().rss)
        for one in first.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                taken += int(one.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
    return taken


def _error_of(said: Said) -> IaApiError:
    if not said.error:
        return AnalysisFailed(said.code)
    kind: type[CallbackError] = getattr(errors, said.error, Permanent)
    text = f"reading the slide failed ({said.code})"
    if issubclass(kind, Transient):
        found: CallbackError = kind(text, said.retry_after_s)
    else:
        found = kind(text)
    # Of the instance: the class of the error was a finer one in the other process.
    found.code = said.code
    return found
