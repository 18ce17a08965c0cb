"""Which other origins' pages may read the answers (CORS), as the settings say.

The right to a slide is in its address and never in a cookie, so no answer allows
credentials, and a star is safe.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

ANY = "*"
METHODS = "GET, HEAD, OPTIONS"
# What a page's program may read besides the few headers that it always may.
_EXPOSED = (
    "Access-Control-Expose-Headers",
    "Accept-Ranges, Content-Range, ETag, Link, Server-Timing",
)
# What it may send besides those. A star would not hold Authorization.
_SENT = (
    "Accept, Authorization, Cache-Control, Content-Type, If-Modified-Since, "
    "If-None-Match, If-Range, Pragma, Range, X-Requested-With"
)
# Browsers ask again after two hours at the latest.
_KNOWN_FOR_S = 7200


def headers(origins: Sequence[str], origin: str | None) -> list[tuple[str, str]]:
    """The headers for a page of `origin`, where pages of `origins` may read."""
    if ANY in origins:
        return [("Access-Control-Allow-Origin", ANY), _EXPOSED]
    if not origins:
        return []
    # Caches between here and the browser must not give one page's answer to another.
    vary = ("Vary", "Origin")
    if origin in origins:
        return [("Access-Control-Allow-Origin", str(origin)), _EXPOSED, vary]
    return [vary]


def permissions() -> list[tuple[str, str]]:
    """The headers of the answer to a preflight of a page that may read."""
    return [
        ("Access-Control-Allow-Methods", METHODS),
        ("Access-Control-Allow-Headers", _SENT),
        ("Access-Control-Max-Age", str(_KNOWN_FOR_S)),
    ]


def parse_origins(text: str) -> tuple[str, ...]:
    """Origins as browsers name them, from a list with spaces between them.

    Raises ValueError, with the reason, for what no browser would send.
    """
    found = []
    for one in text.split():
        parts = urlsplit(one)
        plain = f"{parts.scheme}://{parts.netloc}"
        sound = parts.scheme in ("http", "https") and parts.hostname and plain == one
        if one != ANY and not sound:
            raise ValueError(
                f"{one} is no origin: write https://host or https://host:port, or *"
            )
        found.append(one)
    return tuple(found)
