"""Requests as the lane's parser finds them; what must be refused says so itself."""

from __future__ import annotations

from tile_server import problems
from tile_server.lane.limits import Limits

Header = tuple[bytes, bytes]

BAD, TOO_LATE, BODY, TOO_LARGE, TOO_MANY = 400, 408, 413, 431, 503
# How many Host headers a request may have; only in HTTP/1.0 none.
_HOSTS = {"1.0": (0, 1), "1.1": (1,)}
# The headers that the lane itself looks at.
_NAMES = frozenset(
    (b"host", b"if-none-match", b"origin", b"transfer-encoding", b"content-length")
)
_DETAILS = {
    BAD: "This is not a request that HTTP/1.1 allows.",
    TOO_LATE: "The request did not arrive in time.",
    BODY: "Requests to this service have no body.",
    TOO_LARGE: "The request's address and headers are too long.",
    TOO_MANY: "There are too many connections.",
}


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
    matches, origin
        What If-None-Match lines and the Origin line say.
    refusal
        The status to refuse it with, or 0; a refused request is a connection's last.
    close
        True where the connection ends after the answer.
    """

    # Made for every tile: a dataclass with defaults costs another microsecond.
    __slots__ = (
        "began",
        "close",
        "headers",
        "matches",
        "method",
        "origin",
        "refusal",
        "target",
        "version",
    )

    def __init__(self, began: float, refusal: int = 0) -> None:
        self.began = began
        self.refusal = refusal
        self.close = False
        self.method = self.target = b""
        self.version = "1.1"
        self.headers: list[Header] = []
        self.matches: list[bytes] = []
        self.origin: bytes | None = None

    @property
    def is_plain(self) -> bool:
        """True where only the address decides the answer, and more may follow."""
        return (
            self.method == b"GET"
            and self.version == "1.1"
            and not (self.matches or self.refusal or self.close)
        )

    def complete(self, method: bytes, version: str, limits: Limits) -> None:
        """Take the rest of the head, and refuse what this service does not want."""
        self.method, self.version = method, version
        size, hosts = len(self.target), 0
        for name, text in self.headers:
            size += len(name) + len(text) + 4
            lower = name.lower()
            if lower not in _NAMES:
                continue
            if lower == b"host":
                hosts += 1
            elif lower == b"if-none-match":
                self.matches.append(text.strip())
            elif lower == b"origin":
                self.origin = text.strip()
            elif lower == b"transfer-encoding" or text.strip(b"0"):
                self.refusal = BODY
        if size > limits.head_bytes or len(self.headers) > limits.headers:
            self.refusal = TOO_LARGE
        elif version not in _HOSTS or hosts not in _HOSTS[version]:
            self.refusal = BAD


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
