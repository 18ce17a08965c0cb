"""A run is only called lost where the worker that took it is really gone."""

from types import SimpleNamespace
from typing import Any

import pytest
from dbos import error

from services.ia_api import dispatch, workflow
from services.ia_api.dispatch import Dispatcher


class Queue:
    """DBOS as far as lost runs are looked for."""

    def __init__(self, *taken_by: str) -> None:
        self.taken = [
            SimpleNamespace(workflow_id=f"job{number}-1", executor_id=one)
            for number, one in enumerate(taken_by)
        ]
        self.cancelled: list[str] = []

    def list_workflows(self, **_named: Any) -> list[SimpleNamespace]:
        return self.taken

    def cancel_workflows(self, ids: list[str]) -> None:
        self.cancelled += ids


class Rows:
    """The leases as far as lost runs are given back."""

    def __init__(self) -> None:
        self.lost: list[tuple[str, int]] = []

    def lost_runs(self, runs: Any) -> int:
        self.lost += runs
        return len(self.lost)


def test_the_runs_of_a_worker_that_is_only_just_there_are_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue, rows, living = Queue("new", "gone"), Rows(), {"old"}

    def alive() -> set[str]:
        return living

    lists = queue.list_workflows

    def list_workflows(**named: Any) -> list[SimpleNamespace]:
        living.add("new")  # it begins while the queue is looked at
        return lists(**named)

    monkeypatch.setattr(queue, "list_workflows", list_workflows)
    monkeypatch.setattr(dispatch, "DBOS", queue)
    found: Any = Dispatcher(rows)  # type: ignore[arg-type]
    assert found.find_lost(alive) == 1
    assert rows.lost == [("job1", 1)]
    assert queue.cancelled == ["job1-1"]


def test_a_run_that_others_called_off_leaves_its_job_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    released: list[str] = []
    leases = SimpleNamespace(
        claim=lambda job_id, _run, _worker: SimpleNamespace(
            job_id=job_id, app="tissue"
        ),
        release=lambda job_id, _worker: released.append(job_id),
    )
    bench: Any = SimpleNamespace(leases=leases, worker="w", stopping=bool)

    def called_off(*_given: Any) -> str:
        raise error.DBOSWorkflowCancelledError("by another worker")

    monkeypatch.setattr(workflow, "_steps", called_off)
    monkeypatch.setattr(workflow, "Run", lambda *_given: None)
    with pytest.raises(error.DBOSWorkflowCancelledError):
        workflow._work(bench, "job", 1)
    assert released == ["job"]
