"""Requests as the lane's parser finds them; what must be refused says so itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from tile_server import problems
from tile_server.lane.limits import Limits

Header = tuple[bytes, bytes]

BAD, TOO_LATE, BODY, TOO_LARGE, TOO_MANY = 400, 408, 413, 431, 503
_DETAILS = {
    BAD: "This is not a request that HTTP/1.1 allows.",
    TOO_LATE: "The request did not arrive in time.",
    BODY: "Requests to this service have no body.",
    TOO_LARGE: "The request's address and headers are too long.",
    TOO_MANY: "There are too many connections.",
}


@dataclass(slots=True)
class Request:
    """One request, while and after it is parsed.

    Attributes
    ----------
    began
        `time.perf_counter()` at its first byte.
    target
        The address as it stands in the request line.
    headers
        In the order of the request, names as the client wrote them.
    refusal
        The status to refuse it with, or 0; a refused request is a connection's last.
    close
        True where the connection ends after the answer.
    """

    began: float
    method: bytes = b""
    target: bytes = b""
    version: str = "1.1"
    headers: list[Header] = field(default_factory=list)
    refusal: int = 0
    close: bool = False
    size: int = 0

    def add_target(self, part: bytes, limits: Limits) -> None:
        self._grow(len(part), limits)
        if not self.refusal:
            self.target += part

    def add_header(self, name: bytes, text: bytes, limits: Limits) -> None:
        self._grow(len(name) + len(text) + 4, limits)
        if not self.refusal:
            self.headers.append((name, text))
        if len(self.headers) > limits.headers:
            self.refusal = TOO_LARGE

    def check(self) -> None:
        """Refuse what the parser allows and this service does not want."""
        hosts = 0
        for name, text in self.headers:
            lower = name.lower()
            if lower == b"host":
                hosts += 1
            elif lower == b"transfer-encoding" or (
                lower == b"content-length" and text.strip(b"0")
            ):
                self.refusal = self.refusal or BODY
        if hosts > 1 or (not hosts and self.version != "1.0"):
            self.refusal = self.refusal or BAD
        if self.version not in ("1.0", "1.1"):
            self.refusal = self.refusal or BAD

    def _grow(self, count: int, limits: Limits) -> None:
        self.size += count
        if self.size > limits.head_bytes:
            self.refusal = TOO_LARGE


def refusal(status: int) -> bytes:
    """The whole answer to a refused request."""
    kind = problems.plain_kind(status)
    body = problems.document(kind, _DETAILS[status])
    again = "Retry-After: 1\r\n" if status == TOO_MANY else ""
    head = (
        f"HTTP/1.1 {status} {problems.reason(status)}\r\n"
        f"Content-Type: {problems.MEDIA_TYPE}\r\n"
        f"Cache-Control: no-store\r\n"
        f"{again}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
