"""One giant image spread over all workers, in place of many images side by side.

The node is called in the driver's process; its dask arrays are computed on the cluster,
block by block, and what it gives is stored from there.
"""

from __future__ import annotations

from typing import Any

from theatrum.catalog.engine.addresses import Engine
from theatrum.catalog.engine.pools import Inline, Pool, TellDone, TellProgress, Work
from theatrum.catalog.engine.work import Report, Task


class _DeepPool(Inline):
    """Tasks in the driver's thread, whose arrays are the cluster's."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def submit(
        self, work: Work, task: Task, done: TellDone, progress: TellProgress
    ) -> None:
        """See `Pool`; a process of its own would know no client."""
        del work

        def report(share: float, text: str) -> None:
            progress(task.run_id, share, text)

        done(_perform_on(self._client, task, report))


def _perform_on(client: Any, task: Task, report: Report) -> Any:
    from theatrum.catalog.engine.work import perform

    return perform(task, report, scheduler=client)


class Deep(Engine):
    """An engine whose pool works on one image at a time, with all workers."""

    def __init__(self, engine: Engine, close: bool) -> None:
        self.address, self.options = engine.address, engine.options
        self._engine, self._close = engine, close
        self._pool: Pool | None = None

    @property
    def pool(self) -> Pool:
        """See `Engine`."""
        if self._pool is None:
            self._pool = _DeepPool(self._engine.client or "threads")
        return self._pool

    def close(self) -> None:
        """See `Engine`."""
        if self._close:
            self._engine.close()
