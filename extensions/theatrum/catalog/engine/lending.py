"""This notebook's engine at work for a service: what only the notebook can do.

A service runs no code that somebody brings. So a function of a notebook, or a node on a
cluster of one's own, is a step of the service's batch that a program outside does
(`flows/external.py`): this process takes such steps by leases, has its engine do them
on arrays that are read over HTTP, and the workers hand the results in. The service
writes every run down. A lease that nobody renews runs out; `batch.resume()` goes on.
"""

from __future__ import annotations

import contextlib
import queue
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from theatrum.catalog.engine.errors import NoCluster
from theatrum.catalog.engine.work import Done, Report, Task, failure_of, stop_file
from theatrum.catalog.errors import CatalogError, NotConnected
from theatrum.catalog.query.spec import Q, Spec
from theatrum.node import Cancelled, Context, Node

if TYPE_CHECKING:
    from theatrum.catalog.engine.addresses import Engine
    from theatrum.catalog.engine.far import RemoteBatch
    from theatrum.catalog.flows.graph import Flow
    from theatrum.catalog.remote import RemoteBackend
    from theatrum.catalog.remote_work import RemoteLease

LEASE_S: Final = 60.0
BEAT_S: Final = 15.0
LOOK_S: Final = 0.5
"""Between two questions for work, while none waits."""
PATIENCE_S: Final = 300.0
"""So long a service may be away, as while it is begun anew."""
_GRACE_S: Final = 2.0
"""So long what runs is waited for when it was told to stop."""
_ASKED_S: Final = 5.0
"""Between two questions whether a run is still wanted: its worker may be anywhere."""
GIVES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("array", "labels", "image"), "array"),
    **dict.fromkeys(("text", "flag", "quality"), "text"),
    **{kind: kind for kind in ("number", "line", "polygon", "table")},
}
"""Kinds of outputs that a step hands in over HTTP, and as what."""
TAKES: Final = frozenset({"array", "volume", "labels"})


@dataclass(frozen=True)
class Lent:
    """A node that this notebook does for a step.

    Attributes
    ----------
    served
        The name under which the step waits; nobody else knows it.
    fixed
        Values of inputs that stay the same and are no images.
    """

    served: str
    node: Node[..., Any]
    params: Mapping[str, Any]
    fixed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AtLease:
    """Does one step where it is called: reads over HTTP, runs the node, hands in."""

    lease: RemoteLease
    lent: Lent

    def __call__(self, task: Task, report: Report | None = None) -> Done:
        """Do it; whatever is raised comes back as a value."""
        import dask

        began = time.time()
        node = self.lent.node

        asked = time.monotonic()

        def unwanted() -> bool:
            nonlocal asked
            if task.is_unwanted:
                return True
            if time.monotonic() - asked < _ASKED_S:
                return False
            asked = time.monotonic()
            return not self._is_wanted()

        try:
            with (
                tempfile.TemporaryDirectory(prefix="theatrum-step-") as folder,
                dask.config.set(
                    scheduler="sync" if node.resources.processors == 1 else "threads",
                    num_workers=node.resources.processors,
                ),
            ):
                told = report or (lambda _share, _text: None)
                context = Context(told, unwanted, Path(folder))
                context.check()
                inputs = {
                    name: _taken(node.inputs[name].kind, array)
                    for name, array in self.lease.inputs.items()
                }
                made = node.run(
                    {**self.lent.fixed, **inputs}, self.lent.params, context
                )
                context.check()
                self.lease.finish(**{name: _handed(one) for name, one in made.items()})
        except Cancelled:
            return Done(task.run_id, "cancelled", began=began, ended=time.time())
        except Exception as error:  # the boundary: whatever a node or a reader raises
            failure = failure_of(error, (*node.retries, NotConnected))
            return Done(task.run_id, "failed", (), failure, began, time.time())
        return Done(task.run_id, "succeeded", (), None, began, time.time())

    def _is_wanted(self) -> bool:
        """Whether the service waits for it still, as far as that can be known now."""
        spec = Spec("runs", (Q(id=self.lease.run_id),), values=("state",))
        try:
            rows = self.lease.backend.rows(spec)
        except NotConnected:
            return True
        return [one["state"] for one in rows] == ["waiting"]


class Lending:
    """The thread that takes steps of a batch and has an engine do them."""

    def __init__(
        self,
        backend: RemoteBackend,
        lent: Mapping[str, Lent],
        engine: Engine,
        *,
        close: bool,
        retries: int = 2,
        window: int = 2,
        flow: Flow | None = None,
        nodes: Mapping[str, Node[..., Any]] | None = None,
    ) -> None:
        self.engine = engine
        self.flow = flow
        self.nodes = dict(nodes or {})
        self.error: BaseException | None = None
        self._backend, self._lent, self._close = backend, dict(lent), close
        self._retries, self._window = retries, window
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._again = False
        self._ended: queue.Queue[Done] = queue.Queue()
        self._live: dict[str, tuple[float, str]] = {}

    @property
    def is_alive(self) -> bool:
        """Whether it works."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    @property
    def live(self) -> dict[str, tuple[float, str]]:
        """Of the runs that tell it: how far each is, and what it does."""
        return dict(self._live)

    def start(self, batch: RemoteBatch) -> None:
        """Begin, or go on, in a thread of this process; one that works goes on."""
        with self._lock:
            self.error = None
            self._stopping.clear()
            if self.is_alive:
                self._again = True  # it may have seen the end already
                return
            self._thread = threading.Thread(
                target=self._work,
                args=(batch,),
                name=f"theatrum-{batch.id}",
                daemon=True,
            )
            self._thread.start()

    def stop(self) -> None:
        """Tell what runs to stop, and take nothing more."""
        self._again = False
        self._stopping.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(10)

    def _work(self, batch: RemoteBatch) -> None:
        while True:
            failed = False
            try:
                with tempfile.TemporaryDirectory(prefix="theatrum-lent-") as folder:
                    _Loop(self, batch, Path(folder)).run()
            except BaseException as error:  # told by wait(); a thread has nobody else
                self.error, failed = error, True
                if isinstance(error, NoCluster):
                    with contextlib.suppress(CatalogError):
                        batch.cancel()
            with self._lock:
                again, self._again = self._again and not failed, False
                if again:
                    continue
                try:
                    self._live.clear()
                    if self._close:
                        self.engine.close()
                finally:
                    self._thread = None
                return


@dataclass
class _Held:
    lease: RemoteLease
    lent: Lent
    task: Task
    tries: int = 0
    due: float = field(default_factory=lambda: time.monotonic() + BEAT_S)
    """When it is to be renewed."""


class _Loop:
    """One thread's turns: take, send to the engine, renew, tell what failed."""

    def __init__(self, lending: Lending, batch: RemoteBatch, folder: Path) -> None:
        self._lending, self._batch, self._folder = lending, batch, folder
        self._held: dict[str, _Held] = {}
        self._pool = lending.engine.pool
        self._worker = uuid.uuid4().hex
        self._asked = 0.0

    def run(self) -> None:
        heard = time.monotonic()
        while not self._lending._stopping.is_set():
            try:
                took = self._take()
                self._collect()
                self._beat()
                if not (took or self._held) and self._is_over():
                    return
                heard = time.monotonic()
            except NotConnected:
                if time.monotonic() - heard > PATIENCE_S:
                    raise
                self._lending._stopping.wait(LOOK_S)
        self._let_go()

    def _is_over(self) -> bool:
        state = self._batch.state
        if state in ("succeeded", "failed", "cancelled"):
            return True
        # Only people can go on: what they let pass, `resume()` does.
        return state == "waiting" and bool(self._batch.reviews)

    def _take(self) -> bool:
        from theatrum.catalog import remote_work

        room = self._lending._window * self._pool.workers - len(self._held)
        if room <= 0 or time.monotonic() - self._asked < LOOK_S:
            return False
        took = False
        for lent in self._lending._lent.values():
            while room > 0:
                lease = remote_work.lease(
                    self._lending._backend, lent.served, self._worker, LEASE_S
                )
                if lease is None:
                    break
                took, room = True, room - 1
                task = Task(
                    lease.run_id,
                    lent.node,
                    lent.params,
                    {},
                    self._folder / uuid.uuid4().hex,
                    self._folder / "cancel",
                )
                self._held[lease.run_id] = _Held(lease, lent, task)
                self._submit(self._held[lease.run_id])
        if room > 0:
            self._asked = time.monotonic()
        return took

    def _submit(self, held: _Held) -> None:
        work = AtLease(held.lease, held.lent)
        self._pool.submit(work, held.task, self._lending._ended.put, self._heard)

    def _heard(self, run_id: str, share: float, text: str) -> None:
        self._lending._live[run_id] = (share, text)

    def _collect(self) -> None:
        with contextlib.suppress(queue.Empty):
            done = self._lending._ended.get(timeout=0.1)
            self._lending._live.pop(done.run_id, None)
            held = self._held.pop(done.run_id, None)
            if held is None or done.failure is None:
                return
            if done.failure.kind == "LeaseLost":
                return
            if done.failure.passing and held.tries < self._lending._retries:
                held.tries += 1
                self._held[done.run_id] = held
                self._submit(held)
                return
            reason = f"{done.failure.kind}: {done.failure.message}"[:2000]
            said = {"worker": held.lease.worker, "reason": reason}
            with contextlib.suppress(CatalogError):  # it is another one's by now
                route = f"leases/{quote(done.run_id)}/fail"
                self._lending._backend.json("POST", route, json=said)

    def _beat(self) -> None:
        for run_id, held in tuple(self._held.items()):
            if time.monotonic() < held.due:
                continue
            held.due = time.monotonic() + BEAT_S
            try:
                held.lease.renew(LEASE_S)
            except NotConnected:
                held.due = time.monotonic() + LOOK_S
            except CatalogError:
                # It was cancelled, or is another one's: its result is not wanted.
                stop_file(held.task.cancel_file, run_id).touch()
                self._pool.forget([run_id])
                self._held.pop(run_id, None)

    def _let_go(self) -> None:
        (self._folder / "cancel").touch()
        self._pool.forget(list(self._held))
        # The mark goes with its folder: let those see it that look.
        end = time.monotonic() + _GRACE_S
        while self._held and (left := end - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                done = self._lending._ended.get(timeout=left)
                self._held.pop(done.run_id, None)


# Any here and below: values of ports
def _taken(kind: str, array: Any) -> Any:
    from theatrum.catalog.engine.work import _volume

    return _volume(array) if kind == "volume" else array


def _handed(value: Any) -> Any:
    """An output as it travels: labels and pictures as arrays, verdicts as words."""
    from theatrum.catalog.engine.harvest import _of_labels, _of_picture
    from theatrum.node import ArrayImage, Labels, Quality

    if isinstance(value, bool):
        return str(value)
    if isinstance(value, Quality):
        return f"{value.verdict}: {value.reason}"
    if isinstance(value, Labels):
        return _of_labels(value)
    return _of_picture(value) if isinstance(value, ArrayImage) else value
