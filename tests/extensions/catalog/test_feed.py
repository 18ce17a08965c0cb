"""What the feed tells, whoever commits when."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select
from theatrum.catalog.database import open_database
from theatrum.catalog.errors import BadRecord
from theatrum.catalog.record import recording
from theatrum.catalog.tables import Event

from hub.durable.database import Database
from tests import postgres


def _after(database: Database, seq: int) -> list[tuple[int, str]]:
    """What a reader sees who saw everything up to a number."""
    query = select(Event.seq, Event.actor).where(Event.seq > seq).order_by(Event.seq)
    with database.reading() as session:
        return [(number, actor) for number, actor in session.execute(query)]


def test_what_is_committed_late_is_told_late(
    postgres_cluster: postgres.Cluster,
) -> None:
    database = open_database(postgres_cluster.new_database())
    with recording(database, "slow") as slow:
        slow.project("slow")
        with recording(database, "quick") as quick:
            quick.project("quick")
        ((seen, actor),) = _after(database, 0)
        assert actor == "quick"
    ((later, actor),) = _after(database, seen)
    assert (actor, later > seen) == ("slow", True)
    database.close()


def test_who_follows_misses_nothing_of_many_writers(
    postgres_cluster: postgres.Cluster,
) -> None:
    database = open_database(postgres_cluster.new_database())
    ended = threading.Event()
    seen: list[tuple[int, str]] = []

    def follow() -> None:
        while True:
            last = ended.is_set()
            seen.extend(_after(database, seen[-1][0] if seen else 0))
            if last:
                return

    def write(writer: int) -> None:
        for number in range(15):
            with recording(database, f"w{writer}") as book:
                book.project(f"w{writer}-{number}")
                book.project(f"w{writer}-{number}-b")

    reader = threading.Thread(target=follow)
    reader.start()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    ended.set()
    reader.join()
    assert sorted(actor for _, actor in seen) == [
        f"w{writer}" for writer in range(4) for _ in range(30)
    ]
    database.close()


def test_what_is_not_written_is_not_told(database: Database) -> None:
    with recording(database, "erika") as book, pytest.raises(BadRecord):
        book.project("No Name")

    def fail() -> None:
        with recording(database, "erika") as book:
            book.project("gone")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert _after(database, 0) == []
