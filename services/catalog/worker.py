"""The catalogue's worker: does the batches that were ordered over HTTP, and takes in
what was sent (`intake.py`).

Each batch is written down whole before it is queued (`engine/plans.py`), and each of
its runs when it ends: a worker that is killed loses nothing, and the next one goes on.
A batch has one driver at a time, whoever else tries (a file lock that dies with it).
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress

import psutil
from sqlalchemy import or_, select
from theatrum.catalog.database import open_database
from theatrum.catalog.engine.errors import BadBatch
from theatrum.catalog.local import LocalBackend
from theatrum.catalog.record import recording
from theatrum.catalog.tables import Batch as BatchRow

from hub.durable.database import Database
from hub.home import Home
from hub.settings import Settings
from services.catalog import engine_state, going_on, intake
from services.catalog.going_on import BY_SERVICE

log = logging.getLogger("services.catalog.worker")
LOOK_S = 1.0
"""Between looks for a batch, while there is none."""
PATIENCE_S = 300.0
"""So long an engine that does not answer is asked again; the batch's row says so. More
lets a scheduler restart meanwhile, and lets the next batch wait as long."""


def work(settings: Settings, stop: threading.Event) -> None:
    """Do what is queued, one batch after the other, until told to stop."""
    home = Home(settings.home)
    database = open_database(home, url=settings.database_url)
    try:
        while not stop.is_set():
            if not _one(database, home, settings):
                stop.wait(LOOK_S)
    finally:
        database.close()


def _one(database: Database, home: Home, settings: Settings) -> bool:
    """Do the oldest batch that nobody does; False where there is none."""
    for batch_id, user in _waiting(database):
        backend = LocalBackend(
            database=database, files=home.root, user=user, on_behalf_of="catalog"
        )
        mark = going_on.mark_of(database, batch_id)
        try:
            _drive(backend, batch_id, settings)
            going_on.settle(database, user, batch_id, mark)
        except BadBatch as err:
            # Another worker has it, or its plan is not there any more.
            log.info("batch %s is left alone: %s", batch_id, type(err).__name__)
            _end_if_lost(backend, batch_id)
            continue
        except Exception:
            # One batch must never keep the others from being done.
            log.exception("batch %s ended early", batch_id)
            with recording(database, user, on_behalf_of="catalog") as book:
                row = book.get(BatchRow, batch_id)
                why = row.reason or "It ended early: the worker's log says why."
                book.change(row, state="failed", reason=why)
        return True
    return False


def _waiting(database: Database) -> Iterator[tuple[str, str]]:
    """The batches of the service that are queued, or that a dead worker left."""
    query = (
        select(BatchRow.id, BatchRow.requested_by, BatchRow.engine)
        .where(or_(BatchRow.state == "queued", BatchRow.state == "running"))
        .order_by(BatchRow.created_at)
    )
    with database.reading() as session:
        rows = session.execute(query).all()
    for key, user, engine in rows:
        if engine.get("by") == BY_SERVICE:
            yield key, user


def _drive(backend: LocalBackend, batch_id: str, settings: Settings) -> None:
    from theatrum.catalog.engine import Engine, open_batch

    home = Home(settings.home)
    workers = engine_state.wished(home) or settings.catalog_engine_workers
    with (
        Engine(
            settings.catalog_engine, workers=workers, patience_s=PATIENCE_S
        ) as engine,
        engine_state.told(home, engine, batch_id),
    ):
        open_batch(backend, batch_id).start(engine).wait()


def _end_if_lost(backend: LocalBackend, batch_id: str) -> None:
    """A batch without its plan can never be done: say so, once."""
    if (backend.files / "batches" / batch_id / "plan.pkl").is_file():
        return
    with recording(backend.database, backend.user, on_behalf_of="catalog") as book:
        why = "Its plan is gone: order it anew; what was done is cached."
        book.change(book.get(BatchRow, batch_id), state="failed", reason=why)


def main(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT, which end at once: all that ended is written."""

    def leave(*_: object) -> None:
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                child.kill()
        os._exit(0)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    # What comes in does not wait for an analysis of hours.
    stop = threading.Event()
    threading.Thread(
        target=intake.take_in_orders, args=(settings, stop), daemon=True
    ).start()
    work(settings, stop)
