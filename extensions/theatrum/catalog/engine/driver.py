"""The driver: feeds a pool, takes what comes back, writes it down, until all is done.

It keeps a few runs waiting for each worker and reads further items only when others
ended, so that a hundred thousand of them take no more memory than a hundred, and the
scheduler never sees more than the window. A few more have their rows already, since
rows are cheap only when many are written together. It runs in one thread, which alone
writes; while it does, results that arrive send the next of those on, so that no worker
waits for a transaction.
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import itertools
import logging
import queue
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from theatrum.catalog.engine.errors import BadBatch
from theatrum.catalog.engine.isolation import perform_apart
from theatrum.catalog.engine.ledger import ASKED_AT_ONCE, FINAL, GOOD, Ledger, Runs
from theatrum.catalog.engine.plans import Item, Planner, Rules, items_of
from theatrum.catalog.engine.pools import Pool
from theatrum.catalog.engine.wanted import Begun, Wanted
from theatrum.catalog.engine.work import Done, Task, perform
from theatrum.catalog.tables import now

logger = logging.getLogger("theatrum.catalog")
TOGETHER = 32
"""Runs that are begun, and results that are written, in one transaction at most."""
_GATHER_S = 0.05
"""So long a result waits for others, to be written with them."""
CANCEL_GRACE_S = 1.6
"""How long runs have to stop after a cancel, before they count as cancelled anyway."""
_TURN_S = 0.1
_TURNS = 8
_LEAST_FOR_SHARE = 20


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a batch by its folder: two drivers would do everything twice.

    The system lets it go when the process dies. Raises BadBatch where it is held.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "driver.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BadBatch("Another process works on this batch already.") from error
        yield


class Driver:
    """One batch being worked on."""

    def __init__(
        self,
        ledger: Ledger,
        planner: Planner,
        rules: Rules,
        pool: Pool,
        on_progress: Callable[[str, float, str], None] | None = None,
    ) -> None:
        self.ledger, self.planner, self.rules, self.pool = ledger, planner, rules, pool
        self._on_progress = on_progress or (lambda _run, _share, _text: None)
        self._ended: queue.Queue[Done] = queue.Queue()
        self._out: dict[str, Begun] = {}
        self._waiting: list[Wanted] = []
        self._ready: deque[Begun] = deque()
        self._at_pool: set[str] = set()
        self._sending = threading.Lock()
        self._window = 1
        self._later: list[tuple[float, int, Wanted]] = []
        self._tries: dict[str, int] = {}
        self._suspects: set[str] = set()
        self._number = itertools.count()
        self._counts = {"ended": 0, "failed": 0}
        self._stopped = ""
        self._cancelled_at: float | None = None
        self._reason = ""

    def run(self) -> str:
        """Work until the end; returns the batch's state. Hold the batch: `alone`."""
        self.ledger.batch(state="running", reason="", started_at=now(), ended_at=None)
        try:
            state = self._run()
        except BaseException as error:
            why = str(error)[:2000] or type(error).__name__
            self.ledger.batch(state="failed", reason=why, ended_at=now())
            raise
        if state == "cancelled":
            self.ledger.unwanted()
        counts = self.ledger.counts()
        why = f"It was stopped: {self._stopped}." if self._stopped else ""
        self.ledger.batch(state=state, reason=why, counts=counts, ended_at=now())
        shutil.rmtree(self.ledger.folder / "staging", ignore_errors=True)
        if state == "succeeded":
            self.planner.close(self.ledger)
        return state

    def _run(self) -> str:
        feed = self._feed()
        more = True
        closing = False
        while True:
            if more and not self._over():
                more = self._fill(feed)
            self._send()
            if not (self._out or self._waiting or self._ready or self._later):
                if more and not self._over():
                    continue
                if not closing and not self._over():
                    closing = True
                    if self.ledger.counts().get("waiting"):
                        break  # what is over all items has to wait for all of them
                    self._waiting += self.planner.at_end(self.ledger)
                    if self._waiting:
                        continue
                break
            self._take()
            self._look()
        return self._state()

    # Feeding

    def _feed(self) -> Iterator[tuple[list[Item], Runs]]:
        """Yield the items that are not at their end yet, a few at a time, with the
        runs that they have."""
        items = items_of(self.ledger.folder)
        fresh = not self.ledger.counts()
        while group := list(itertools.islice(items, ASKED_AT_ONCE)):
            known = {} if fresh else self.ledger.runs_of([one.key for one in group])
            left = (one for one in group if not self._finished(one, known))
            while some := list(itertools.islice(left, TOGETHER)):
                yield some, known

    def _finished(self, item: Item, known: Runs) -> bool:
        if hasattr(self.planner, "finished"):
            return bool(self.planner.finished(item, known))
        found = known.get((item.key, ""))
        return found is not None and found[1] in FINAL

    def _fill(self, feed: Iterator[tuple[list[Item], Runs]]) -> bool:
        while len(self._waiting) + len(self._ready) < TOGETHER:
            group, known = next(feed, (None, None))
            if group is None or known is None:
                return False
            self._waiting += self.planner.begin(self.ledger, group, known)
        return True

    def _send(self) -> None:
        moment = time.monotonic()
        while self._later and self._later[0][0] <= moment:
            self._waiting.insert(0, heapq.heappop(self._later)[2])
        if self._over():
            return
        self._window = self.rules.window * self.pool.workers
        self._submit()
        # A whole batch may be found done: between two looks, so much and no more.
        for _ in range(_TURNS):
            if len(self._ready) >= TOGETHER // 2 or not self._waiting:
                return
            group, self._waiting = self._waiting[:TOGETHER], self._waiting[TOGETHER:]
            self._begin(group)
            self._submit()

    def _begin(self, group: list[Wanted]) -> None:
        """Write runs down; what was done before is ended, the rest can be sent."""
        limits = Task(
            "",
            group[0].node,
            {},
            {},
            self.ledger.folder,
            self.ledger.cancel_file,
            self.rules.timeout_s,
            self.pool.memory_bytes,
        )
        begun = self.ledger.begin(group, refresh=self.rules.refresh, limits=limits)
        for one in begun:
            if one.waiting:
                continue
            if one.lacking:
                self._waiting += self.planner.restore(self.ledger, one.wanted)
            elif one.cached:
                self._counts["ended"] += 1
                self._waiting += self.planner.then(self.ledger, one.wanted, "cached")
            else:
                self._ready.append(one)

    def _submit(self) -> None:
        """Send what is written down, as far as the window lets; from any thread."""
        if not self._sending.acquire(blocking=False):
            return  # somebody does, and the driver looks again soon
        try:
            # Where a failure may stop the rest, none is ahead of what was looked at.
            ahead = self.rules.on_error == "continue"
            busy = len(self._at_pool) if ahead else len(self._out)
            for _ in range(self._window - busy):
                if not self._ready or self._over():
                    break
                self._send_on(self._ready.popleft())
        finally:
            self._sending.release()

    def _send_on(self, one: Begun) -> None:
        run_id = one.task.run_id
        self._out[run_id] = one
        self._at_pool.add(run_id)
        apart = self.rules.isolate or run_id in self._suspects
        work = perform_apart if apart else perform
        try:
            self.pool.submit(work, one.task, self._arrived, self._on_progress)
        except BaseException:
            self._out.pop(run_id, None)
            self._at_pool.discard(run_id)
            self._ready.appendleft(one)
            raise

    def _arrived(self, done: Done) -> None:
        """Take a result, in a thread of the pool's, and send the next run."""
        self._at_pool.discard(done.run_id)
        self._ended.put(done)
        if self.rules.on_error != "continue":
            return  # whether there is a next one is for the driver to say
        try:
            self._submit()
        except Exception as error:  # the boundary: the driver sends, and tells, it anew
            logger.debug("a run is not sent yet", exc_info=error)

    # Taking

    def _take(self) -> None:
        ended: list[tuple[Wanted, Done]] = []
        with contextlib.suppress(queue.Empty):
            wait = _TURN_S if self._out or self._later else 0.0
            ended += self._one(self._ended.get(timeout=wait))
            until = time.monotonic() + _GATHER_S
            while len(ended) < TOGETHER:
                if self._may_stop(ended):
                    break
                self._submit()  # so that nobody waits for this to be written
                left = max(0.0, until - time.monotonic())
                ended += self._one(self._ended.get(timeout=left))
        if not ended:
            return
        self.ledger.finish(ended)
        runs = self.ledger.states([wanted.run_id for wanted, _ in ended])
        for wanted, done in ended:
            state = runs.get(wanted.run_id, done.state)
            self._counts["ended"] += 1
            self._counts["failed"] += state == "failed"
            if state in GOOD:
                self._waiting += self.planner.then(self.ledger, wanted, state)
            else:
                skipped = self.planner.missing(wanted)
                if skipped:
                    why = f"{wanted.node_key or wanted.node.name} gave nothing"
                    self.ledger.skip(skipped, why)

    def _may_stop(self, ended: list[tuple[Wanted, Done]]) -> bool:
        """Whether what ended may be a reason to begin no more."""
        if self.rules.on_error == "continue":
            return False
        return any(done.state == "failed" for _, done in ended)

    def _one(self, done: Done) -> list[tuple[Wanted, Done]]:
        begun = self._out.pop(done.run_id, None)
        if begun is None:
            return []  # given up before
        wanted, failure = begun.wanted, done.failure
        tries = self._tries.pop(done.run_id, 0)
        again = (
            failure is not None
            and failure.passing
            and tries < self.rules.retries
            and done.run_id not in self._suspects
            and not self._over()
        )
        if (
            failure is not None
            and failure.died
            and not self.rules.isolate
            and done.run_id not in self._suspects
            and not self._over()
        ):
            # Dask blames all that a worker had when it died. Each suspect is tried in
            # a process of its own: only who did it dies there.
            self._suspects.add(done.run_id)
            again = True
        if again:
            self._tries[done.run_id] = tries + 1
            due = time.monotonic() + min(30.0, 0.2 * 2**tries)
            once_more = replace(wanted, attempt=wanted.attempt + 1)
            heapq.heappush(self._later, (due, next(self._number), once_more))
            return []
        return [(wanted, done)]

    # Ending early

    def _over(self) -> bool:
        return bool(self._stopped) or self._cancelled_at is not None

    def _look(self) -> None:
        """See whether the batch was cancelled, too much failed, or nobody works."""
        self._tell_trouble()
        if self._cancelled_at is None and self.ledger.cancel_file.exists():
            self._cancelled_at = time.monotonic()
            self._drop("the batch was cancelled")
        if not self._stopped and self._too_bad():
            failed, ended = self._counts["failed"], self._counts["ended"]
            self._stopped = f"{failed} of {ended} failed"
            self._drop(f"the batch was stopped: {self._stopped}")
        if (
            self._cancelled_at is not None
            and self._out
            and time.monotonic() - self._cancelled_at > CANCEL_GRACE_S
        ):
            # They are stuck in code that does not look: their results are not wanted.
            stuck, self._out = list(self._out.values()), {}
            self.pool.forget([one.task.run_id for one in stuck])
            self.ledger.finish(
                [
                    (one.wanted, Done(one.task.run_id, "cancelled", ended=time.time()))
                    for one in stuck
                ]
            )

    def _tell_trouble(self) -> None:
        """Say in the batch's row that nothing goes on, and take it back."""
        trouble = self.pool.trouble if self._out else ""
        if trouble != self._reason:
            self._reason = trouble
            self.ledger.batch(reason=trouble)

    def _too_bad(self) -> bool:
        failed, ended = self._counts["failed"], self._counts["ended"]
        if self.rules.on_error == "stop":
            return failed > 0
        if self.rules.on_error == "threshold":
            return ended >= _LEAST_FOR_SHARE and failed > self.rules.threshold * ended
        return False

    def _drop(self, why: str) -> None:
        """Leave what waits undone; what has a row says why."""
        left = [*self._waiting, *(one[2] for one in self._later)]
        self._waiting, self._later = [], []
        # What was never tried loses its row: it gets one when it is.
        with self._sending:
            ready, self._ready = list(self._ready), deque()
        self.ledger.take_back(one for one in ready if one.wanted.attempt == 1)
        left += [one.wanted for one in ready if one.wanted.attempt > 1]
        have_rows = [one for one in left if one.run_id]
        if have_rows:
            self.ledger.skip(have_rows, why)

    def _state(self) -> str:
        if self._cancelled_at is not None or self.ledger.cancel_file.exists():
            return "cancelled"
        if self._stopped:
            return "failed"
        return "waiting" if self.ledger.counts().get("waiting") else "succeeded"
