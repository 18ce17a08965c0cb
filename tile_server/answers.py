"""What all answers share: headers, conditions, parts, and errors as documents.

An answer that has an ETag is never sent twice (304); one that is a whole of its own, a
chunk or a picture of a region, is also given in parts (`Range`). A tile has neither
date nor parts: its address is its version, and it is a few kilobytes.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
from collections.abc import Collection, Coroutine
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any, TypeVar, cast

from tornado import web

from tile_server import cross_origin, problems, ranges
from tile_server.errors import Abandoned, BadRequest, OutsideTheBody, TileServerError
from tile_server.service import TileService

log = logging.getLogger(__name__)

# The address holds the version, so what it gives never changes; it also holds the right
# to see it, so only the visitor's own browser may keep it.
FOR_EVER = "private, max-age=31536000, immutable"
# What may change while its address stays: kept, and asked for again each time.
ASK_AGAIN = "private, no-cache"
Answer = TypeVar("Answer")


class Handler(web.RequestHandler):
    """The base of all handlers of this service."""

    SUPPORTED_METHODS = ("GET", "HEAD", "OPTIONS")
    _work: asyncio.Future[Any] | None = None
    _gone = False
    # What the metrics call this answer, and how many bytes its body has.
    kind = "other"
    sent_bytes = 0

    @property
    def service(self) -> TileService:
        return cast(TileService, self.settings["service"])

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("Cache-Control", "no-store")
        policy = self.service.settings.resource_policy
        self.set_header("Cross-Origin-Resource-Policy", policy)
        origin = self.request.headers.get("Origin")
        for name, text in cross_origin.headers(
            self.service.settings.cors_origins, origin
        ):
            self.set_header(name, text)

    async def head(self, *args: str) -> None:
        answer = self.get(*args)
        if answer is not None:
            await answer

    def options(self, *_: str) -> None:
        """What may be done here; to a page elsewhere that may read, what it may send.

        A browser asks before it sends more than a simple request (CORS preflight).
        """
        self.set_status(204)
        self.set_header("Allow", cross_origin.METHODS)
        if self._headers.get("Access-Control-Allow-Origin"):
            for name, text in cross_origin.permissions():
                self.set_header(name, text)
        self.finish()

    def compute_etag(self) -> None:
        """No hash of the body: what has an ETag is named by its address."""
        return

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None, None))[1]
        if isinstance(error, TileServerError):
            kind, detail = problems.kind_of(error), str(error)
        else:
            kind, detail = problems.plain_kind(status_code), ""
            if isinstance(error, web.HTTPError) and error.log_message:
                detail = error.log_message
        self.set_status(kind.status)
        if isinstance(error, OutsideTheBody):
            self.set_header("Content-Range", f"bytes */{error.length}")
        if kind.status == 503:
            self.set_header("Retry-After", "1")
        if kind.status == 405:
            self.set_header("Allow", ", ".join(self.SUPPORTED_METHODS))
        self.set_header("Content-Type", problems.MEDIA_TYPE)
        self.finish(problems.document(kind, detail))

    def log_exception(self, kind: Any, error: Any, trace: Any) -> None:  # as Tornado's
        """Log what nobody expected; Tornado's own line would show the token."""
        if not isinstance(error, TileServerError | web.HTTPError):
            name = type(self).__name__
            log.error("%s failed", name, exc_info=(kind, error, trace))

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> Any:
        spent_ms = 1000 * self.request.request_time()
        self.add_header("Server-Timing", f"total;dur={spent_ms:.3f}")
        self.sent_bytes = len(chunk) if isinstance(chunk, bytes) else 0
        return super().finish(chunk)

    async def while_wanted(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Wait for work; give it up when the visitor goes."""
        task = asyncio.ensure_future(work)
        self._work = task
        try:
            return await task
        except asyncio.CancelledError:
            if self._gone:
                raise Abandoned("The visitor has gone.") from None
            raise

    def on_connection_close(self) -> None:
        self._gone = True
        if self._work is not None:
            self._work.cancel()

    def vary(self, name: str) -> None:
        """Say that the answer depends on a header of the request."""
        known = self._headers.get_list("Vary")
        self.set_header("Vary", ", ".join([*known, name]))

    def unchanged(
        self, etag: str, *, changed_s: float = 0.0, keep: str = FOR_EVER
    ) -> bool:
        """Give the answer its ETag; True where the browser has it, which ends it.

        `changed_s`, since 1970, is when the slide's file changed, where the answer is
        to have that date; `keep` is for how long a browser may do without asking.
        """
        self.set_header("ETag", f'"{etag}"')
        self.set_header("Cache-Control", keep)
        changed = datetime.fromtimestamp(int(changed_s), UTC) if changed_s > 0 else None
        if changed is not None:
            self.set_header("Last-Modified", format_datetime(changed, usegmt=True))
        if not self._has_it(changed):
            return False
        self.set_status(304)
        self.kind = "unchanged"
        self.finish()
        return True

    def _has_it(self, changed: datetime | None) -> bool:
        """What If-None-Match says, or If-Modified-Since where there is no such line."""
        if "If-None-Match" in self.request.headers:
            return self.check_etag_header()
        since = self.request.headers.get("If-Modified-Since")
        if since is None or changed is None:
            return False
        try:
            return changed <= parsedate_to_datetime(since).astimezone(UTC)
        except (ValueError, OverflowError):
            return False  # no date: as if it were not there

    def give(self, body: bytes, media_type: str) -> None:
        """Answer with a whole, or with the part of it that is asked for."""
        self.set_header("Content-Type", media_type)
        self.set_header("Accept-Ranges", "bytes")
        wanted = self.request.headers.get("Range")
        if wanted is not None and self.request.method == "GET":
            etag, date = self._headers.get("Etag"), self._headers.get("Last-Modified")
            condition = self.request.headers.get("If-Range")
            if ranges.still_holds(condition, etag, date):
                part = ranges.part(wanted, len(body))
                if part is not None:
                    self.set_status(206)
                    told = f"bytes {part.start}-{part.stop - 1}/{len(body)}"
                    self.set_header("Content-Range", told)
                    body = body[part.start : part.stop]
        self.finish(body)

    def give_json(self, told: Any, media_type: str = "application/json") -> None:
        """Answer with JSON that has no version; an equal one is not sent again."""
        body = json.dumps(told).encode()
        digest = hashlib.blake2b(body, digest_size=12).hexdigest()
        self.set_header("Content-Type", media_type)
        if not self.unchanged(digest, keep=ASK_AGAIN):
            self.finish(body)

    def number(self, name: str, default: float | None = None) -> float:
        """A finite number of the query."""
        text = self.get_query_argument(name, None)
        if text is None:
            if default is None:
                raise BadRequest(f"{name} is missing.")
            return default
        try:
            value = float(text)
        except ValueError:
            raise BadRequest(f"{name} must be a number.") from None
        if not math.isfinite(value) or abs(value) > 2**40:
            raise BadRequest(f"{name} is out of range.")
        return value

    def whole_number(self, name: str, allowed: range, default: int) -> int:
        value = self.number(name, default)
        if value != int(value) or int(value) not in allowed:
            raise BadRequest(
                f"{name} must be a whole number from {allowed[0]} to {allowed[-1]}."
            )
        return int(value)

    def choice(self, name: str, allowed: Collection[str], default: str) -> str:
        """A word of the query."""
        text = self.get_query_argument(name, default)
        if text not in allowed:
            raise BadRequest(f"{name} must be one of {', '.join(allowed)}.")
        return text


def named(*parts: object) -> str:
    """What stands in an ETag for parts that may be long, or hold any characters."""
    text = "\0".join(str(part) for part in parts)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
