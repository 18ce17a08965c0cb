"""A task in a process of its own, which can be killed whatever it is stuck in.

The worker starts `python -m theatrum.catalog.engine.isolation TASK ANSWER`, forwards
what it says of its progress, and kills it once the run is cancelled and it does not
stop by itself, or once its time is up. A process that ends without an answer (a crash
of a library, no memory) is told as a failure that died.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

from theatrum.catalog.engine.work import Done, Failure, Report, Task, perform

GRACE_S = 1.0
"""How long a cancelled process has to stop by itself."""
_LOOK_S = 0.05


def perform_apart(
    task: Task, report: Report | None = None, grace_s: float = GRACE_S
) -> Done:
    """Do a task in a process of its own."""
    import cloudpickle

    began = time.time()
    with tempfile.TemporaryDirectory(prefix="theatrum-task-") as folder:
        asked, answered = Path(folder) / "task", Path(folder) / "answer"
        # Its time is kept here: a stuck process does not look at the clock.
        asked.write_bytes(cloudpickle.dumps(replace(task, timeout_s=0.0)))
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(asked), str(answered)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # so that what it starts dies with it
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        said: list[str] = []
        listeners = [
            threading.Thread(target=_forward, args=(process, report), daemon=True),
            threading.Thread(target=_collect, args=(process, said), daemon=True),
        ]
        for one in listeners:
            one.start()
        try:
            why = _watched(process, task, grace_s)
        finally:
            _kill(process)
        for one in listeners:
            one.join(timeout=5)
        if why == "cancelled" and not answered.exists():
            return Done(task.run_id, "cancelled", began=began, ended=time.time())
        if why is not None and not answered.exists():
            failure = Failure("TimeoutError", why)
        elif answered.exists():
            # Written by our own process, under a name that nobody else could know.
            done: Done = pickle.loads(answered.read_bytes())  # noqa: S301
            return done
        else:
            failure = Failure(
                "WorkerDied",
                _obituary(process.returncode),
                "".join(said)[-4000:],
                passing=True,
                died=True,
            )
    return Done(
        task.run_id,
        "failed",
        failure=failure,
        began=began,
        ended=time.time(),
        host=socket.gethostname(),
    )


def _watched(process: subprocess.Popen[str], task: Task, grace_s: float) -> str | None:
    """Wait until the process ends or has to; returns why it had to."""
    deadline = time.monotonic() + task.timeout_s if task.timeout_s else None
    cancelled: float | None = None
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_LOOK_S)
            return "cancelled" if cancelled is not None else None
        now = time.monotonic()
        if cancelled is None and task.is_unwanted:
            cancelled = now
        if cancelled is not None and now - cancelled > grace_s:
            return "cancelled"
        if deadline is not None and now > deadline:
            return f"it took longer than {task.timeout_s:g} s, and was stopped"


def _kill(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _forward(process: subprocess.Popen[str], report: Report | None) -> None:
    assert process.stdout is not None  # noqa: S101  (asked for above; for mypy)
    for line in process.stdout:
        if report is None or not line.startswith("\x1eprogress "):
            continue
        with contextlib.suppress(ValueError):
            share, text = json.loads(line.partition(" ")[2])
            report(share, text)


def _collect(process: subprocess.Popen[str], said: list[str]) -> None:
    assert process.stderr is not None  # noqa: S101  (asked for above; for mypy)
    for line in process.stderr:
        said.append(line)
        del said[:-200]


def _obituary(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        more = " (often: no memory left)" if name == "SIGKILL" else ""
        return f"its process was ended by {name}{more}"
    return f"its process ended with code {code} and no answer"


def main(asked: str, answered: str) -> None:
    """Do the task in a file; the answer is there whole or not at all."""
    import cloudpickle

    def report(share: float, text: str) -> None:
        sys.stdout.write(f"\x1eprogress {json.dumps([share, text])}\n")
        sys.stdout.flush()

    task = cloudpickle.loads(Path(asked).read_bytes())
    done = perform(task, report)
    part = Path(f"{answered}.part")
    part.write_bytes(cloudpickle.dumps(done))
    part.rename(answered)


if __name__ == "__main__":
    main(*sys.argv[1:3])
