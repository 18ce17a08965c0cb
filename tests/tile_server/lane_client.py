"""Raw bytes to a listener and back, for tests of the fast lane."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Answer:
    """One answer as it came over the wire."""

    head: bytes
    body: bytes

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1])

    def header(self, name: str) -> str | None:
        found = re.findall(rb"(?im)^" + name.encode() + rb": (.*)\r$", self.head)
        return found[0].decode() if found else None


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)


def request(
    target: str, *lines: str, method: str = "GET", version: str = "1.1"
) -> bytes:
    head = [f"{method} {target} HTTP/{version}", "Host: localhost", *lines]
    return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1")


class Conversation:
    """A connection whose answers are read one by one."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._rest = b""

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def send(self, raw: bytes) -> None:
        self.connection.sendall(raw)

    def answer(self, *, bare: bool = False) -> Answer:
        """The next answer; `bare` for those to HEAD."""
        while b"\r\n\r\n" not in self._rest:
            self._more()
        head, self._rest = self._rest.split(b"\r\n\r\n", 1)
        head += b"\r\n"
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        count = 0 if bare or b" 304 " in head[:16] or not length else int(length[1])
        while len(self._rest) < count:
            self._more()
        body, self._rest = self._rest[:count], self._rest[count:]
        return Answer(head, body)

    def ended(self) -> bool:
        """Wait for the end; False where more comes instead."""
        try:
            return not self._rest and not self.connection.recv(1)
        except ConnectionError:
            return True

    def _more(self) -> None:
        part = self.connection.recv(2**16)
        if not part:
            raise EOFError(self._rest)
        self._rest += part


def ask(port: int, raw: bytes, *, bare: bool = False) -> Answer:
    """One request on a connection of its own."""
    with Conversation(connect(port)) as talk:
        talk.send(raw)
        return talk.answer(bare=bare)


def without_time(answer: Answer) -> tuple[bytes, bytes]:
    """The answer without what no two answers share.

    That is the date, the time spent, and whether a tile was made or kept by then.
    """
    head = re.sub(rb"(?m)^Date: [^\r]*", b"Date: -", answer.head)
    head = re.sub(rb"Server-Timing: (?:made|cached)\r", b"Server-Timing: -\r", head)
    return re.sub(rb"dur=[\d.]+", b"dur=-", head), answer.body
