"""Images by C-STORE (PS3.4 annex B): what one association sends is taken in together.

A data set is written as it comes, in its own transfer syntax, into a folder of its
association; when that ends, however it ends, the folder is handed on. The sender is
answered `success` only once the file is on the disk.
"""

from __future__ import annotations

import fcntl
import logging
import os
import queue
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt

log = logging.getLogger(__name__)

_VERIFICATION: Final = "1.2.840.10008.1.1"
_SUCCESS: Final = 0x0000
_NO_ROOM: Final = 0xA700
_CANNOT: Final = 0xC000
MOST_FILES: Final = 100_000
"""Of one association."""
LEFT_BEHIND: Final = "an earlier receiver"
"""Stands for the sender of what was found at the start."""


@dataclass
class Receiver:
    """A listening node; `port` is the one it got.

    `arrived` holds the folder and the sender's title of each association that ended.
    """

    port: int
    arrived: queue.Queue[tuple[Path, str]] = field(default_factory=queue.Queue)


@dataclass
class _Association:
    folder: Path
    sender: str
    count: int = 0


@contextmanager
def receiving(
    staging: Path,
    *,
    port: int = 0,
    host: str = "127.0.0.1",
    title: str = "THEATRUM",
    senders: tuple[str, ...] = (),
) -> Iterator[Receiver]:
    """Listen for the length of a `with`.

    Parameters
    ----------
    staging
        Where folders of associations are made, and found if they were left. Whoever
        takes a folder in removes it.
    host
        The address to listen at; by default only this machine can send.
    senders
        Titles that may send; () for all who reach the port.
    """
    staging.mkdir(mode=0o700, parents=True, exist_ok=True)
    entity: Any = AE(ae_title=title)
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(context.abstract_syntax, ALL_TRANSFER_SYNTAXES)
    entity.add_supported_context(_VERIFICATION)
    entity.require_called_aet = False
    if senders:
        entity.require_calling_aet = list(senders)
    receiver = Receiver(port)
    in_use = (staging / ".in-use").open("w")
    _hand_on_what_was_left(staging, in_use, receiver)
    open_ones: dict[int, _Association] = {}
    guard = threading.Lock()

    def accepted(event: Any) -> None:
        folder = staging / f"association-{secrets.token_hex(8)}"
        folder.mkdir(mode=0o700)
        sender = str(event.assoc.requestor.ae_title).strip()[:16]
        with guard:
            open_ones[id(event.assoc)] = _Association(folder, sender)

    def store(event: Any) -> int:
        with guard:
            one = open_ones[id(event.assoc)]
            one.count += 1
            number = one.count
        if number > MOST_FILES:
            return _NO_ROOM
        try:
            # Not decoded: the bytes are the sender's, with a preamble and meta group.
            content = event.encoded_dataset()
        except Exception:
            # The boundary to the network: what cannot be framed is no image.
            log.warning("a data set cannot be received")
            return _CANNOT
        return _written(one.folder / f"{number:06d}.dcm", content)

    def ended(event: Any) -> None:
        with guard:
            one = open_ones.pop(id(event.assoc), None)
        if one is not None and one.count:
            receiver.arrived.put((one.folder, one.sender))

    handlers: list[tuple[Any, Callable[[Any], Any]]] = [
        (evt.EVT_ACCEPTED, accepted),
        (evt.EVT_C_STORE, store),
        (evt.EVT_RELEASED, ended),
        (evt.EVT_ABORTED, ended),
        (evt.EVT_CONN_CLOSE, ended),
    ]
    server = entity.start_server((host, port), block=False, evt_handlers=handlers)
    receiver.port = int(server.server_address[1])
    try:
        yield receiver
    finally:
        server.shutdown()
        in_use.close()


def _hand_on_what_was_left(staging: Path, in_use: IO[str], receiver: Receiver) -> None:
    """Queue the folders of receivers that are no more, unless another is at work."""
    try:
        fcntl.flock(in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        fcntl.flock(in_use, fcntl.LOCK_SH)
        return
    for folder in sorted(staging.glob("association-*")):
        for part in folder.glob("*.part"):
            part.unlink()  # never answered with success
        receiver.arrived.put((folder, LEFT_BEHIND))
    fcntl.flock(in_use, fcntl.LOCK_SH)


def _written(path: Path, content: bytes) -> int:
    part = path.with_suffix(".part")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        log.error("what is received cannot be kept: %s", type(error).__name__)
        part.unlink(missing_ok=True)
        return _NO_ROOM
    return _SUCCESS
