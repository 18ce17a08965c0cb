"""The two threads of an association wait for each other instead of asking all the time.

pynetdicom has one thread that reads and writes the connection and one that serves what
came. Each asks a thousand times a second whether there is something to do, which costs
some milliseconds an instance, and load while nothing is sent. Here the first sleeps in
`select` until bytes come or the second has an answer for it, and the second until a
message or the end of the association is there.
"""

from __future__ import annotations

import queue
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_LOOK_S = 0.05
"""Timers, and being told to end, are looked at so often."""
_ENDING_S = 0.001
"""The same where there is no connection to wait for any more."""


class _Telling(queue.Queue[Any]):
    """A queue that says so when something is put in."""

    def __init__(self, tell: Callable[[], object]) -> None:
        super().__init__()
        self._tell = tell

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._tell()


class _Bell:
    """Ends a `select` of another thread."""

    def __init__(self) -> None:
        self._heard, self._rung = socket.socketpair()
        self._heard.setblocking(False)
        self._rung.setblocking(False)

    def ring(self) -> None:
        # Full: it rings already. Closed: nobody listens any more.
        with suppress(OSError):
            self._rung.send(b"\0")

    def wait(self, connection: socket.socket, longest_s: float) -> bool:
        """Until the connection has bytes, or somebody rings; whether it has bytes."""
        try:
            ready, _, _ = select.select([connection, self._heard], [], [], longest_s)
            if self._heard in ready:
                self._heard.recv(4096)
        except (OSError, ValueError):
            # Closed by the other thread meanwhile: who reads it hears of that.
            return True
        return connection in ready

    def close(self) -> None:
        self._heard.close()
        self._rung.close()


# Any below: pynetdicom ships no types.


def wait_instead_of_asking(association: Any) -> None:
    """Let the threads of a new association, not yet started, wait."""
    bell = _Bell()
    service = association.dul
    service._run_loop_delay = 0.0
    service.to_provider_queue = _moved(service.to_provider_queue, bell.ring)
    asks = service._is_transport_event

    def is_transport_event() -> bool:
        connection = service.socket.socket
        if connection is None:
            time.sleep(_ENDING_S)
            return bool(asks())
        if (
            service.state_machine.current_state == "Sta13"
            or not service.event_queue.empty()
            or (isinstance(connection, ssl.SSLSocket) and connection.pending())
        ):
            return bool(asks())
        return bell.wait(connection, _LOOK_S) and bool(asks())

    runs = service.run

    def run() -> None:
        try:
            runs()
        finally:
            bell.close()

    service._is_transport_event = is_transport_event
    service.run = run

    news = threading.Event()
    messages = association.dimse
    messages.msg_queue = _moved(messages.msg_queue, news.set)
    service.to_user_queue = _moved(service.to_user_queue, news.set)
    takes = messages.get_msg

    def get_msg(block: bool = False) -> Any:
        if block:
            return takes(block)
        # Served here, one after the other: whoever asks pauses before each question.
        while not association._kill:
            if messages.msg_queue.empty() and service.to_user_queue.empty():
                news.wait(_LOOK_S)
                news.clear()
            context, message = takes(block=False)
            if message is None:
                break
            association._serve_request(message, context)
        return None, None

    messages.get_msg = get_msg


def _moved(old: queue.Queue[Any], tell: Callable[[], object]) -> queue.Queue[Any]:
    """A queue in an old one's place, with what is in it."""
    new = _Telling(tell)
    while True:
        try:
            new.put(old.get_nowait())
        except queue.Empty:
            return new
