"""The jobs' table: each change whole or not at all, the same on both databases."""

from __future__ import annotations

import dataclasses
import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, select, update

from hub.durable.database import Database
from hub.durable.sealing import Sealer
from services.ia_api import jobs
from services.ia_api.database import open_database
from services.ia_api.errors import BadInvocation, Busy, Unauthorized
from services.ia_api.leases import Leases
from services.ia_api.models import Job, Token
from services.ia_api.settings import ServiceSettings
from services.ia_api.states import ENDED, FOLLOWS, STATES
from services.ia_api.store import Request, Store, stamp_of
from services.ia_api.transitions import Lost
from tests import postgres

_numbers = itertools.count()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Database]:
    folder = tmp_path_factory.mktemp("store")
    if request.param == "sqlite":
        made = open_database("", folder)
        yield made
        made.close()
        return
    reason = postgres.missing()
    if reason is not None:
        pytest.skip(reason)
    with postgres.cluster() as cluster:
        made = open_database(cluster.new_database(), folder)
        yield made
        made.close()


@pytest.fixture
def store(database: Database, tmp_path: Path) -> Store:
    return _store(database, tmp_path)


@pytest.fixture
def leases(store: Store) -> Leases:
    return Leases(store.database, store.settings)


def _store(database: Database, folder: Path, **settings: object) -> Store:
    chosen = ServiceSettings.model_validate(settings)
    return Store(database, Sealer(folder / "token.key"), chosen)


def _request(**other: object) -> Request:
    number = next(_numbers)
    plain = Request(
        app="probe",
        application_id="probe",
        slide_id=f"slide-{number}",
        callback_url=f"https://sps-{number}.example.org/v1",
        token=f"token-{number}",
        action="create",
        input={"type": "wholeSlide"},
        context={},
        cancellation_token=f"cancel-{number}",
        stamp="whole",
        application_version="probe 1.0.0",
    )
    return dataclasses.replace(plain, **other)  # type: ignore[arg-type]


def _queued(store: Store, request: Request | None = None) -> Job:
    job = store.receive(request or _request()).job
    result = {"id": next(_numbers), "versionId": "1"}
    assert store.queue(
        job.job_id, result=result, slide_size=(100, 50), api_version="1.10"
    )
    return store.get(job.job_id)


def test_no_state_follows_an_ended_one_and_all_can_end() -> None:
    assert set(FOLLOWS) == set(STATES)
    assert all(not FOLLOWS[state] for state in ENDED)
    assert all("dead" in FOLLOWS[state] for state in set(STATES) - ENDED)


def test_a_request_that_is_delivered_twice_is_one_job(store: Store) -> None:
    request = _request()
    first, second = store.receive(request), store.receive(request)
    assert (first.how, second.how) == ("new", "repeated")
    assert first.job.job_id == second.job.job_id


def test_requests_of_the_same_moment_become_one_job(store: Store) -> None:
    request = _request()
    found: list[str] = []

    def deliver() -> None:
        found.append(store.receive(request).job.job_id)

    threads = [threading.Thread(target=deliver) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


def test_a_second_request_for_the_same_work_joins_the_first(store: Store) -> None:
    request = _request()
    first = store.receive(request)
    second = store.receive(dataclasses.replace(request, cancellation_token="other"))
    assert second.how == "attached"
    assert second.job.job_id == first.job.job_id


def test_a_job_that_two_asked_for_ends_when_the_second_cancels_as_well(
    store: Store,
) -> None:
    request = _request()
    job = store.receive(request).job
    store.receive(dataclasses.replace(request, cancellation_token="other"))
    place = (request.callback_url, request.application_id)
    assert store.cancel(*place, "other") == []
    # The same one again takes nobody else's wish away.
    assert store.cancel(*place, "other") == []
    assert store.get(job.job_id).state == "received"
    assert store.cancel(*place, str(request.cancellation_token)) == [job.job_id]
    assert store.get(job.job_id).state == "cancelled"


def test_a_request_that_cannot_be_cancelled_keeps_the_job_of_one_that_is(
    store: Store,
) -> None:
    request = _request()
    job = store.receive(request).job
    store.receive(dataclasses.replace(request, cancellation_token=None))
    place = (request.callback_url, request.application_id)
    assert store.cancel(*place, str(request.cancellation_token)) == []
    assert store.get(job.job_id).state == "received"


def test_a_notification_does_not_keep_a_job_that_its_user_cancels(
    store: Store,
) -> None:
    request = _request()
    job = store.receive(request).job
    unasked = dataclasses.replace(request, action="newImageFiles", mark="m")
    assert store.receive(unasked).how == "repeated"
    place = (request.callback_url, request.application_id)
    assert store.cancel(*place, str(request.cancellation_token)) == [job.job_id]


def test_a_request_beyond_a_job_that_is_done_has_a_job_of_its_own(
    store: Store,
) -> None:
    request = _request()
    done = _queued(store, request)
    late = dataclasses.replace(request, cancellation_token="late")
    assert store.receive(late).how == "attached"
    begun = store.receive_beyond(late, done)
    assert begun.how == "new"
    assert begun.job.job_id != done.job_id
    assert store.receive(late).job.job_id == begun.job.job_id
    assert store.get(done.job_id).state == "queued"


def test_a_second_request_supersedes_the_first_where_the_policy_says_so(
    database: Database, tmp_path: Path
) -> None:
    store = _store(database, tmp_path, on_repeat="supersede")
    request = _request()
    first = store.receive(request).job
    second = store.receive(dataclasses.replace(request, cancellation_token="other"))
    assert second.how == "new"
    assert second.instead_of is not None
    assert second.instead_of.job_id == first.job_id
    assert store.get(first.job_id).state == "superseded"


def test_other_marks_on_the_same_slide_are_other_work(store: Store) -> None:
    request = _request()
    first = store.receive(request)
    second = store.receive(
        dataclasses.replace(request, stamp="other", cancellation_token="other")
    )
    assert (first.how, second.how) == ("new", "new")


def test_a_full_queue_refuses_instead_of_growing(
    database: Database, tmp_path: Path
) -> None:
    _queued(_store(database, tmp_path))
    with pytest.raises(Busy):
        _store(database, tmp_path, queue_limit=1).receive(_request())


def test_a_failed_first_result_leaves_room_for_the_same_request(store: Store) -> None:
    request = _request()
    job = store.receive(request).job
    store.refuse(job.job_id, "unreachable")
    again = store.receive(request)
    assert again.how == "new"
    assert again.job.job_id != job.job_id


def test_of_two_workers_one_gets_a_job(store: Store, leases: Leases) -> None:
    job = _queued(store)
    leases.claim(job.job_id, 1, "one")
    with pytest.raises(Lost):
        leases.claim(job.job_id, 1, "two")
    assert leases.is_held(job.job_id, "one")
    assert not leases.is_held(job.job_id, "two")


def test_a_job_that_a_person_ended_is_changed_by_no_worker(
    store: Store, leases: Leases
) -> None:
    request = _request()
    job = _queued(store, request)
    leases.claim(job.job_id, 1, "one")
    assert request.cancellation_token is not None
    store.cancel(request.callback_url, request.application_id, "cancel-none")
    assert leases.is_held(job.job_id, "one")
    store.cancel(
        request.callback_url, request.application_id, request.cancellation_token
    )
    assert not leases.is_held(job.job_id, "one")
    for change in (
        lambda: leases.checkpoint(job.job_id, "one", "info"),
        lambda: leases.settle(job.job_id, "one", "succeeded"),
        lambda: leases.retry(job.job_id, "one", "crash"),
    ):
        with pytest.raises(Lost):
            change()
    assert store.get(job.job_id).state == "cancelled"


def test_a_job_of_a_dead_worker_goes_back_to_the_queue(
    store: Store, leases: Leases
) -> None:
    job = _queued(store)
    leases.claim(job.job_id, 1, "gone")
    leases.checkpoint(job.job_id, "gone", "info")
    assert leases.take_back({"gone"}) == [(job.job_id, 1)]
    now = store.get(job.job_id)
    assert (now.state, now.attempt, now.run, now.checkpoint) == ("queued", 2, 2, 2)
    # The dead one was only thought to be dead.
    with pytest.raises(Lost):
        leases.settle(job.job_id, "gone", "succeeded")


def test_a_lease_without_a_heartbeat_runs_out(store: Store, leases: Leases) -> None:
    job = _queued(store)
    leases.claim(job.job_id, 1, "one")
    assert leases.take_back(set()) == []
    with store.database.writing() as session:
        session.execute(
            update(Job).where(Job.job_id == job.job_id).values(lease_until=time.time())
        )
    assert leases.take_back(set()) == [(job.job_id, 1)]


def test_a_crash_loop_ends(database: Database, tmp_path: Path) -> None:
    store = _store(database, tmp_path, attempts=2)
    leases = Leases(database, store.settings)
    job = _queued(store)
    leases.claim(job.job_id, 1, "one")
    leases.take_back({"one"})
    leases.claim(job.job_id, 2, "two")
    leases.take_back({"two"})
    now = store.get(job.job_id)
    assert (now.state, now.error_code) == ("dead", "crash-loop")


def test_a_retry_waits_its_time_and_is_the_next_attempt(
    store: Store, leases: Leases
) -> None:
    job = _queued(store)
    leases.claim(job.job_id, 1, "one")
    assert leases.retry(job.job_id, "one", "unreachable", wait_s=3600) == "retry_wait"
    leases.wake()
    assert store.get(job.job_id).state == "retry_wait"
    with store.database.writing() as session:
        session.execute(
            update(Job).where(Job.job_id == job.job_id).values(not_before=0.0)
        )
    leases.wake()
    now = store.get(job.job_id)
    assert (now.state, now.attempt, now.run) == ("queued", 2, 2)


def test_the_backoff_has_full_jitter_and_a_cap(store: Store, leases: Leases) -> None:
    first = [leases.backoff_s(1) for _ in range(500)]
    late = [leases.backoff_s(60) for _ in range(500)]
    base, cap = store.settings.backoff_base_s, store.settings.backoff_cap_s
    assert 0 <= min(first) < base / 4
    assert base * 0.75 < max(first) <= base
    assert cap * 0.75 < max(late) <= cap


def test_a_job_that_waits_for_a_token_goes_on_with_the_next_request(
    store: Store, leases: Leases
) -> None:
    request = _request()
    job = _queued(store, request)
    leases.claim(job.job_id, 1, "one")
    leases.settle(job.job_id, "one", "waiting_auth", code="token")
    other = dataclasses.replace(
        request, slide_id="another", cancellation_token="x", token="newer"
    )
    store.receive(other)
    now = store.get(job.job_id)
    # Waiting was no failure.
    assert (now.state, now.attempt, now.run) == ("queued", 1, 2)
    assert store.token_of(now) == "newer"


def test_tokens_are_sealed_and_go_with_the_last_job_that_needs_them(
    store: Store, leases: Leases
) -> None:
    request = _request(token="a-very-secret-token")
    one = _queued(store, request)
    two = _queued(
        store, dataclasses.replace(request, stamp="other", cancellation_token="other")
    )

    def rows() -> list[bytes]:
        with store.database.reading() as session:
            return list(
                session.scalars(
                    select(Token.sealed).where(
                        Token.callback_url == request.callback_url
                    )
                )
            )

    assert len(rows()) == 1
    assert b"very-secret" not in rows()[0]
    for job in (one, two):
        leases.claim(job.job_id, 1, "one")
        leases.settle(job.job_id, "one", "succeeded")
        assert len(rows()) == 1
        leases.close(job.job_id, "one")
    assert rows() == []
    with pytest.raises(Unauthorized):
        store.token_of(store.get(one.job_id))


def test_a_deleted_result_ends_its_job_and_is_remembered(store: Store) -> None:
    request = _request()
    job = _queued(store, request)
    assert job.result_id is not None
    ended = store.result_deleted(
        request.callback_url, request.application_id, job.result_id
    )
    assert ended == [job.job_id]
    assert store.get(job.job_id).state == "deleted_by_user"
    assert store.is_deleted(job)


def test_a_request_whose_web_server_died_is_given_up(
    store: Store, leases: Leases
) -> None:
    job = store.receive(_request()).job
    leases.wake()
    assert store.get(job.job_id).state == "received"
    with store.database.writing() as session:
        session.execute(update(Job).where(Job.job_id == job.job_id).values(updated=0.0))
    leases.wake()
    now = store.get(job.job_id)
    assert (now.state, now.error_code) == ("dead", "abandoned")


def test_the_history_of_a_job_tells_each_step(store: Store, leases: Leases) -> None:
    job = _queued(store)
    leases.claim(job.job_id, 1, "one")
    leases.checkpoint(job.job_id, "one", "info")
    leases.settle(job.job_id, "one", "succeeded")
    leases.close(job.job_id, "one")
    kinds = [event.kind for event in jobs.events(store, job.job_id)]
    assert kinds == [
        "received",
        "queued",
        "running",
        "checkpoint",
        "succeeded",
        "closed",
    ]
    assert jobs.one(store, job.job_id).state == "succeeded"
    slices = jobs.throughput(store, slice_s=60, slices=3)
    assert sum(one.succeeded for one in slices) >= 1


def test_a_dead_job_can_be_begun_anew_while_there_is_a_token(
    store: Store, leases: Leases
) -> None:
    job = _queued(store)
    leases.claim(job.job_id, 1, "one")
    leases.settle(job.job_id, "one", "dead", code="crash")
    fresh = store.get(jobs.retry(store, job.job_id))
    assert (fresh.state, fresh.result_id) == ("queued", job.result_id)
    leases.close(job.job_id, "one")
    leases.claim(fresh.job_id, 1, "one")
    leases.settle(fresh.job_id, "one", "dead", code="crash")
    leases.close(fresh.job_id, "one")
    with pytest.raises(BadInvocation, match="no token"):
        jobs.retry(store, job.job_id)


def test_old_jobs_are_forgotten_and_active_ones_never(
    store: Store, leases: Leases
) -> None:
    old, active = _queued(store), _queued(store)
    leases.claim(old.job_id, 1, "one")
    leases.settle(old.job_id, "one", "succeeded")
    leases.close(old.job_id, "one")
    gone = [
        job_id for some in jobs.forget(store, time.time() + 1) for job_id, _ in some
    ]
    assert old.job_id in gone
    assert active.job_id not in gone
    assert jobs.count(store, jobs.Wanted(job_id=active.job_id)) == 1


def test_a_token_that_is_renewed_while_its_last_job_closes_is_never_lost(
    store: Store, leases: Leases
) -> None:
    base = _request()
    lost: list[str] = []
    done: list[str] = []

    def use(number: int) -> None:
        for turn in range(8):
            request = dataclasses.replace(
                base,
                stamp=f"{number}-{turn}",
                cancellation_token=f"{number}-{turn}",
            )
            job = _queued(store, request)
            worker = f"token-{number}"
            leases.claim(job.job_id, 1, worker)
            try:
                store.token_of(store.get(job.job_id))
            except Unauthorized:
                lost.append(job.job_id)
            leases.settle(job.job_id, worker, "succeeded")
            leases.close(job.job_id, worker)
            done.append(job.job_id)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lost == []
    assert len(done) == 32
    with store.database.reading() as session:
        left = session.scalars(
            select(Token).where(Token.callback_url == base.callback_url)
        ).all()
    assert left == []


def _whole(**other: object) -> Request:
    plain = _request(**other)
    return dataclasses.replace(plain, stamp=stamp_of(plain.input, plain.context))


def test_a_job_is_superseded_by_hand_whole_or_not_at_all(store: Store) -> None:
    job = _queued(store, _whole())
    with store.database.writing() as session:
        session.execute(delete(Token))
    with pytest.raises(BadInvocation, match="no token"):
        jobs.supersede(store, job.job_id)
    assert store.get(job.job_id).state == "queued"


def test_the_same_work_is_never_begun_twice_by_hand(
    store: Store, leases: Leases
) -> None:
    request = _whole()
    job = _queued(store, request)
    leases.claim(job.job_id, 1, "one")
    leases.settle(job.job_id, "one", "dead", code="crash")
    fresh = jobs.retry(store, job.job_id)
    with pytest.raises(BadInvocation, match="under way"):
        jobs.retry(store, job.job_id)
    again = store.receive(dataclasses.replace(request, cancellation_token="again"))
    assert (again.how, again.job.job_id) == ("attached", fresh)


def test_superseding_by_hand_leaves_one_job_for_the_work(store: Store) -> None:
    request = _whole()
    job = _queued(store, request)
    fresh = jobs.supersede(store, job.job_id)
    assert store.get(job.job_id).state == "superseded"
    again = store.receive(dataclasses.replace(request, cancellation_token="again"))
    assert again.job.job_id == fresh


def test_requests_that_never_reached_the_slide_are_forgotten_within_the_hour(
    store: Store, leases: Leases, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused, failed = store.receive(_request()).job, _queued(store)
    store.refuse(refused.job_id, "token")
    leases.claim(failed.job_id, 1, "one")
    leases.settle(failed.job_id, "one", "dead", code="crash")
    for job in (refused, failed):
        leases.close(job.job_id, "one")
    monkeypatch.setattr(jobs, "_REFUSED_S", -1.0)
    gone = [job_id for some in jobs.forget(store, 0.0) for job_id, _ in some]
    assert refused.job_id in gone
    assert failed.job_id not in gone


def test_a_server_that_asks_for_days_is_asked_again_within_the_hour(
    store: Store, leases: Leases
) -> None:
    job = _queued(store)
    leases.claim(job.job_id, 1, "one")
    assert leases.retry(job.job_id, "one", "unreachable", wait_s=1e6) == "retry_wait"
    assert store.get(job.job_id).not_before < time.time() + 3601


@pytest.mark.parametrize("policy", ["attach", "supersede"])
def test_a_job_that_ended_before_its_result_was_stored_has_a_token_for_the_last_word(
    database: Database, tmp_path: Path, policy: str
) -> None:
    store = _store(database, tmp_path, on_repeat=policy)
    leases = Leases(database, store.settings)
    request = _request()
    job = store.receive(request).job
    place = (request.callback_url, request.application_id)
    if policy == "supersede":
        store.receive(dataclasses.replace(request, cancellation_token="other"))
    else:
        store.cancel(*place, str(request.cancellation_token))
    leases.close(job.job_id, "one")
    result = {"id": next(_numbers), "versionId": "1"}
    assert not store.queue(
        job.job_id,
        result=result,
        slide_size=(1, 1),
        api_version="1.10",
        token=request.token,
    )
    now = store.get(job.job_id)
    assert now.closed is None
    assert store.token_of(now) == request.token
    assert now.error_code == ("too-late" if policy == "supersede" else None)
