"""Which other origins' pages may read the answers (CORS), as the settings say.

The right to a slide is in its address and never in a cookie, so no answer allows
credentials, and a star is safe.
"""

from __future__ import annotations

from collections.abc import Sequence

ANY = "*"


def headers(origins: Sequence[str], origin: str | None) -> list[tuple[str, str]]:
    """The headers for a page of `origin`, where pages of `origins` may read."""
    if ANY in origins:
        return [("Access-Control-Allow-Origin", ANY)]
    if not origins:
        return []
    # Caches between here and the browser must not give one page's answer to another.
    vary = ("Vary", "Origin")
    if origin in origins:
        return [("Access-Control-Allow-Origin", str(origin)), vary]
    return [vary]
