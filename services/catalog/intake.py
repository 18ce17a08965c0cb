"""What people send or name comes into the catalogue: orders, and who does them.

The service writes an order down and answers; the catalogue's worker, another process,
does it through the ingest library, whose limited processes open the files. An order is
a JSON file that is replaced whole. Whatever is killed, the order stays, and is done
again from its beginning: what was taken in before is known by its checksums.
"""

from __future__ import annotations

import fcntl
import json
import logging
import re
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal

from sqlalchemy import select
from theatrum.catalog.database import open_database
from theatrum.catalog.errors import CatalogError
from theatrum.catalog.exchange.importing import import_bundle
from theatrum.catalog.ingest import Report, Wishes, Workers, ingest
from theatrum.catalog.ingest import inbox as waiting_room
from theatrum.catalog.ingest.uploads import LIFE_S, Uploads
from theatrum.catalog.local import LocalBackend
from theatrum.catalog.tables import Project

from hub.durable.database import Database
from hub.home import Home, write_private
from hub.settings import Settings

log = logging.getLogger(__name__)

State = Literal["receiving", "queued", "working", "done", "failed"]
Kind = Literal["upload", "bundle", "source", "item"]
LOOK_S: Final = 1.0
"""Between looks for an order, while there is none."""
MOST_TRIES: Final = 3
"""An order during which the worker died so often is given up."""
UNDO: Final = timedelta(days=7)
"""That the files of a rejected item are kept."""
_KEY: Final = re.compile(r"[0-9a-f]{32}")
_TOLD: Final = 1000
"""Items of a report that an order keeps; the counts are of all."""


@dataclass(frozen=True)
class Order:
    """Something that is to come in.

    Attributes
    ----------
    source
        Of an upload or a bundle the file's name, of an item of the inbox its id, else
        an address.
    inbox
        Whether it is to wait for a review.
    profile, fields
        Of de-identification, and what holds for all of it; see `Wishes`.
    report
        What became of it, as `Report.to_json` says it; of a bundle how many rows of
        each table are new, and how many were known.
    """

    key: str
    kind: Kind
    owner: str
    project: str
    source: str
    inbox: bool = False
    sha256: str = ""
    state: State = "queued"
    reason: str = ""
    tries: int = 0
    at: float = field(default_factory=time.time)
    profile: str = ""
    # Any here and below: JSON
    fields: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)


class Orders:
    """The orders of a home; may be used from several threads and processes."""

    def __init__(self, home: Home) -> None:
        self.folder = home.catalog / "orders"

    def put(self, order: Order) -> Order:
        """Write an order down, synced to the disk."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self._place(order.key), json.dumps(asdict(order)).encode())
        return order

    def get(self, key: str) -> Order | None:
        """The order of that key; None where there is none."""
        if not _KEY.fullmatch(key):
            return None
        try:
            return Order(**json.loads(self._place(key).read_bytes()))
        except FileNotFoundError:
            return None

    def remove(self, key: str) -> None:
        """Forget an order."""
        self._place(key).unlink(missing_ok=True)

    def all(self) -> list[Order]:
        """Every order, the oldest first."""
        found = [self.get(path.stem) for path in self.folder.glob("[0-9a-f]*.json")]
        return sorted((one for one in found if one), key=lambda one: (one.at, one.key))

    def of(self, owner: str) -> list[Order]:
        """Somebody's orders, the oldest first."""
        return [one for one in self.all() if one.owner == owner]

    def waiting(self) -> list[Order]:
        """What is to be done, the oldest first."""
        return [one for one in self.all() if one.state in ("queued", "working")]

    def expire(self, older_s: float = LIFE_S) -> None:
        """Forget what ended long ago, and uploads that nobody finished."""
        for order in self.all():
            ended = order.state not in ("queued", "working")
            if ended and time.time() - order.at > older_s:
                self.remove(order.key)

    def _place(self, key: str) -> Path:
        return self.folder / f"{key}.json"


def new_key() -> str:
    """A key for an order that is no upload."""
    return secrets.token_hex(16)


def uploads_of(home: Home) -> Uploads:
    """Where uploads lie until they are taken in."""
    return Uploads(home.images / ".uploads")


def take_in_orders(settings: Settings, stop: threading.Event) -> None:
    """Do what is ordered, one after the other, until told to stop."""
    home = Home(settings.home)
    database = open_database(home, url=settings.database_url)
    swept = 0.0
    try:
        while not stop.is_set():
            with _alone(home) as mine:
                if mine:
                    do_all(database, home, stop)
                    if time.monotonic() - swept > 3600 or not swept:
                        _sweep(database, home)
                        swept = time.monotonic()
            stop.wait(LOOK_S)
    finally:
        database.close()


def do_all(database: Database, home: Home, stop: threading.Event | None = None) -> int:
    """Do all that is ordered now; how much that was."""
    orders = Orders(home)
    waiting = orders.waiting()
    if not waiting:
        return 0
    done = 0
    with Workers(home) as workers:
        for order in waiting:
            if stop is not None and stop.is_set():
                break
            _do(database, home, orders, order, workers)
            done += 1
    return done


@contextmanager
def _alone(home: Home) -> Iterator[bool]:
    """Whether no other process takes in now; the lock dies with its holder."""
    folder = Orders(home).folder
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _do(
    database: Database, home: Home, orders: Orders, order: Order, workers: Workers
) -> None:
    if order.tries >= MOST_TRIES:
        reason = "It ended the process that takes images in, several times."
        _end(home, orders, replace(order, state="failed", reason=reason))
        return
    order = orders.put(replace(order, state="working", tries=order.tries + 1))
    try:
        report = _taken(database, home, order, workers)
    except CatalogError as error:
        _end(home, orders, replace(order, state="failed", reason=str(error)))
    except Exception as error:
        # One order must never keep the others from being done. No trace: it could
        # quote a file.
        log.warning("order %s failed: %s", order.key, type(error).__name__)
        reason = "It cannot be taken in: tell whoever runs this service."
        _end(home, orders, replace(order, state="failed", reason=reason))
    else:
        _end(home, orders, replace(order, state="done", report=report))


# Any here and below: JSON
def _taken(
    database: Database, home: Home, order: Order, workers: Workers
) -> dict[str, Any]:
    with database.reading() as session:
        query = select(Project.id).where(Project.name == order.project)
        if session.scalar(query) is None:
            raise CatalogError("The project is not there any more.")
    source = order.source
    if order.kind == "bundle":
        return _imported(database, home, order)
    if order.kind == "item":
        return _short(
            waiting_room.accept(
                database, home, source, actor=order.owner, workers=workers
            )
        )
    if order.kind == "upload":
        source = str(uploads_of(home).complete(order.key, sha256=order.sha256))
    wishes = Wishes(
        order.project,
        order.owner,
        copy=True,
        profile=order.profile,
        fields=order.fields,
        received_from=_from_where(order),
    )
    run = waiting_room.collect if order.inbox else ingest
    return _short(run(database, home, [source], wishes, workers=workers))


def _imported(database: Database, home: Home, order: Order) -> dict[str, Any]:
    """Take a bundle into its order's project, as its owner and nowhere else."""
    path = uploads_of(home).complete(order.key, sha256=order.sha256)
    only = frozenset({order.project})
    backend = LocalBackend(
        database, home.root, order.owner, only, only, on_behalf_of="catalog"
    )
    found = import_bundle(backend, path, order.project)
    moved = [
        {"table": table, "id": old, "here": here}
        for (table, old), here in found.ids.items()
    ]
    return {
        "new": dict(found.new),
        "known": dict(found.known),
        "ids": moved[:_TOLD],
        "missing": list(found.missing[:_TOLD]),
    }


def _from_where(order: Order) -> str:
    return f"upload {order.key}" if order.kind == "upload" else order.source[:255]


def _short(report: Report) -> dict[str, Any]:
    said = report.to_json()
    return {
        name: value[:_TOLD] if isinstance(value, list) else value
        for name, value in said.items()
    }


def _end(home: Home, orders: Orders, order: Order) -> None:
    """The order is told first: a file whose order has ended is only in the way."""
    orders.put(replace(order, at=time.time()))
    if order.kind in ("upload", "bundle"):
        with suppress(CatalogError):
            uploads_of(home).abandon(order.key)


def _sweep(database: Database, home: Home) -> None:
    """Remove what nobody comes back for."""
    uploads_of(home).expire()
    Orders(home).expire()
    waiting_room.forget(database, home, UNDO)
