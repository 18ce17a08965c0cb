"""Reaching an engine: asked again while nobody answers, and told in the batch's row.

A scheduler may start a minute after the batch that it shall do, or never. Who ordered
the batch is often somebody else than who looks after the scheduler, and not at this
process: so the row says from the first moment for what the batch waits, since when and
until when, and at the end that it was given up.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from theatrum.catalog.engine.errors import NoCluster
from theatrum.catalog.tables import Batch, now

if TYPE_CHECKING:
    from theatrum.catalog.engine.addresses import Engine
    from theatrum.catalog.engine.ledger import Ledger
    from theatrum.catalog.engine.pools import Pool

logger = logging.getLogger("theatrum.catalog")
LONGEST_PAUSE_S = 30.0
"""Between two tries at most; the first ones follow sooner on each other."""
_LOOK_S = 0.1


def reached(engine: Engine, ledger: Ledger) -> Pool | None:
    """Return the engine's pool once it answers; None where the batch was cancelled.

    Raises NoCluster when `engine.options.patience_s` are over; the batch has failed
    then, and says why. `resume` and `retry` try again.
    """
    _begin(engine, ledger)
    began = time.monotonic()
    gives_up = now() + timedelta(seconds=engine.options.patience_s)
    tries = 0
    while True:
        try:
            pool = engine.pool
        except NoCluster as error:
            tries += 1
            if ledger.cancel_file.exists():
                return None
            left = engine.options.patience_s - (time.monotonic() - began)
            if left <= 0 or not error.passing:
                why = f"{_told(error, tries)}; given up. Retry it when the engine runs."
                ledger.batch(state="failed", reason=why, ended_at=now())
                raise
            pause = min(LONGEST_PAUSE_S, 2.0 ** min(tries, 6), left)
            again = _clock(now() + timedelta(seconds=pause))
            ledger.batch(
                reason=f"{_told(error, tries)}; tried again at {again}, and given up "
                f"at {_clock(gives_up)} UTC."
            )
            if not _paused(pause, ledger):
                return None
        else:
            ledger.batch(reason="")
            return pool


def _begin(engine: Engine, ledger: Ledger) -> None:
    """Write down where the batch is done, and that this place is looked for."""
    far = not engine.is_open and engine.address.kind not in ("sync", "threads")
    with ledger.recording() as book:
        row = book.get(Batch, ledger.batch_id)
        book.change(
            row,
            state="queued",
            reason=f"Waiting for the engine {engine.address}." if far else "",
            engine={**row.engine, "address": str(engine.address)},
            ended_at=None,
        )


def _told(error: NoCluster, tries: int) -> str:
    text = str(error).rstrip(".")
    return f"{text[:1].upper()}{text[1:]}; tried {tries} time{'s' * (tries > 1)}"


def _clock(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%H:%M:%S}"


def _paused(seconds: float, ledger: Ledger) -> bool:
    """Wait; returns False at once when the batch is cancelled meanwhile."""
    ends, never = time.monotonic() + seconds, threading.Event()
    while (left := ends - time.monotonic()) > 0:
        if ledger.cancel_file.exists():
            return False
        never.wait(min(_LOOK_S, left))
    return True
