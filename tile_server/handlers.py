"""The HTTP routes: they parse, call and answer, and hold no state.

Everything of one slide lies under `s/<token>/`; the token is the right to see it.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import math
import re
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

import numpy as np
from prometheus_client import CONTENT_TYPE_LATEST
from tornado import web
from tornado.routing import URLSpec

from tile_server import codecs, cross_origin, metrics, problems
from tile_server.derived import VARIANT
from tile_server.errors import (
    Abandoned,
    BadRequest,
    Busy,
    OutsideTheGrid,
    TileServerError,
)
from tile_server.icc import embedded
from tile_server.pixels import Pixels
from tile_server.readers.style import PLAIN, Style, parse
from tile_server.regions import Box, box_of_um, downsample_of, read_region, thumbnail
from tile_server.service import TileService
from tile_server.slides import OpenedSlide
from tile_server.tokens import Capability
from tile_server.view import associated_names, describe

log = logging.getLogger(__name__)

# The address holds the version, so what it gives never changes; it also holds the right
# to see it, so only the visitor's own browser may keep it.
FOR_EVER = "private, max-age=31536000, immutable"
Answer = TypeVar("Answer")
_THUMBNAIL_PX = range(1, 2049)


def routes(base: str) -> list[URLSpec]:
    """The routes under `base`, which starts and ends with a slash."""
    base = re.escape(base)
    token = f"{base}s/([A-Za-z0-9_-]+)"
    number = r"(\d{1,9})"
    table: list[tuple[str, type[web.RequestHandler]]] = [
        (f"{token}/{number}/{number}/{number}", TileHandler),
        (rf"{token}/view\.json", ViewHandler),
        (f"{token}/region", RegionHandler),
        (f"{token}/thumbnail", ThumbnailHandler),
        (f"{token}/icc", ProfileHandler),
        (f"{token}/associated/([^/]+)", AssociatedHandler),
        (f"{base}health", HealthHandler),
        (f"{base}ready", ReadyHandler),
    ]
    return [web.url(pattern, handler) for pattern, handler in table]


class Handler(web.RequestHandler):
    """What all answers share: their headers, and errors as problem documents."""

    SUPPORTED_METHODS = ("GET", "HEAD")
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

    def unchanged(self, etag: str) -> bool:
        """Give the answer its ETag; True where the browser has it, which ends it."""
        self.set_header("ETag", f'"{etag}"')
        self.set_header("Cache-Control", FOR_EVER)
        if self.check_etag_header():
            self.set_status(304)
            self.kind = "unchanged"
            self.finish()
            return True
        return False

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

    def style(self) -> Style | None:
        """The style of the query; None where that asks for nothing special."""
        text = self.get_query_argument("style", None)
        if text is None:
            return None
        style = parse(text)
        return None if style == PLAIN else style

    @asynccontextmanager
    async def styled(self, capability: Capability) -> AsyncIterator[OpenedSlide]:
        """The slide in the query's style, kept open as long as this lasts."""
        style = self.style()
        async with self.service.slides.hold(capability) as slide:
            if style is None:
                yield slide
            else:
                yield await self.service.styled(slide, style)


class TileHandler(Handler):
    async def get(self, token: str, z: str, x: str, y: str) -> None:
        capability = self.service.capability(token)
        if self.style() is None:
            slide = self.service.slides.ready(capability)
            if slide is not None:
                await self.answer(slide, int(z), int(x), int(y))
                return
        async with self.styled(capability) as slide:
            await self.answer(slide, int(z), int(x), int(y))

    async def answer(self, slide: OpenedSlide, z: int, t_x: int, t_y: int) -> None:
        rung = slide.pyramid.ladder.tile_rung(z, t_x, t_y)
        wanted = self.whole_number("icc", range(2), 0)
        profile = slide.pyramid.reader.facts.profile if wanted else None
        variant = f"{VARIANT}-icc" if profile else VARIANT
        if self.unchanged(f"{slide.version}-{rung.k}-{t_x}-{t_y}-{variant}"):
            return
        kind = "stored"
        tile = self.service.tile_in_memory(slide, rung, t_x, t_y)
        if tile is None:
            # Held from here, since the work begins a turn of the loop later.
            with slide.held():
                reading = self.service.stored_tile(slide, rung, t_x, t_y)
                tile = await self.while_wanted(reading)
        if tile is None:
            kind = "made"
            with slide.held():
                work = self.service.made_tile(slide, rung, t_x, t_y)
                tile = await self.while_wanted(work)
        self.set_header("Content-Type", tile.media_type)
        self.kind = kind
        self.add_header("Server-Timing", kind)
        self.finish(embedded(tile.body, profile))


class ViewHandler(Handler):
    async def get(self, token: str) -> None:
        capability = self.service.capability(token)
        async with self.service.slides.hold(capability) as slide:
            view = describe(slide.pyramid.reader, label=capability.label)
        ends = datetime.fromtimestamp(capability.expires, UTC)
        self.set_header("Content-Type", "application/json")
        self.finish(
            json.dumps(view | {"version": slide.version, "expires": ends.isoformat()})
        )


class RegionHandler(Handler):
    async def get(self, token: str) -> None:
        capability = self.service.capability(token)
        box = Box(
            self.number("x"),
            self.number("y"),
            self.number("width"),
            self.number("height"),
        )
        if box.width <= 0 or box.height <= 0:
            raise BadRequest("width and height must be more than 0.")
        form = self.get_query_argument("format", "npy")
        if form not in _ENCODERS:
            raise BadRequest(f"format must be one of {', '.join(_ENCODERS)}.")
        media_type, encode = _ENCODERS[form]
        unit = self.get_query_argument("unit", "px")
        if unit not in ("px", "um"):
            raise BadRequest("unit must be px or um.")
        mpp = None
        if self.get_query_argument("mpp", None) is not None:
            mpp = self.number("mpp")
            if mpp <= 0:
                raise BadRequest("mpp must be more than 0.")
        async with self.styled(capability) as slide:
            pyramid = slide.pyramid
            level = None
            if self.get_query_argument("level", None) is not None:
                allowed = range(pyramid.ladder.n + 1)
                level = self.whole_number("level", allowed, 0)
            facts = pyramid.reader.facts
            scale = downsample_of(facts, level=level, mpp=mpp)
            if unit == "um":
                box = box_of_um(facts, box)
            body = await self.while_wanted(
                self.service.made_body(
                    slide,
                    f"region/{box}/{scale}/{form}",
                    lambda: encode(read_region(pyramid, box, scale)),
                )
            )
        self.set_header("Content-Type", media_type)
        self.finish(body)


class ThumbnailHandler(Handler):
    async def get(self, token: str) -> None:
        capability = self.service.capability(token)
        longest = self.whole_number("size", _THUMBNAIL_PX, 256)
        async with self.styled(capability) as slide:
            if self.unchanged(f"{slide.version}-thumbnail-{longest}-{VARIANT}"):
                return
            pyramid = slide.pyramid
            body = await self.while_wanted(
                self.service.made_body(
                    slide,
                    f"thumbnail/{longest}",
                    lambda: thumbnail(pyramid, longest),
                )
            )
        self.set_header("Content-Type", "image/jpeg")
        self.finish(body)


class AssociatedHandler(Handler):
    async def get(self, token: str, name: str) -> None:
        capability = self.service.capability(token)
        async with self.service.slides.hold(capability) as slide:
            reader = slide.pyramid.reader
            if name not in associated_names(reader, label=capability.label):
                raise OutsideTheGrid("This slide has no such image.")
            body = await self.while_wanted(
                self.service.made_body(
                    slide,
                    f"associated/{name}",
                    lambda: codecs.encode_jpeg(reader.associated_image(name)),
                )
            )
        self.set_header("Content-Type", "image/jpeg")
        self.finish(body)


class ProfileHandler(Handler):
    """The slide's ICC profile, for whoever converts colours."""

    async def get(self, token: str) -> None:
        capability = self.service.capability(token)
        async with self.service.slides.hold(capability) as slide:
            profile = slide.pyramid.reader.facts.profile
            if profile is None:
                raise OutsideTheGrid("This slide has no ICC profile.")
            if self.unchanged(f"{slide.version}-icc"):
                return
        self.set_header("Content-Type", "application/vnd.iccprofile")
        self.finish(profile)


class HealthHandler(Handler):
    """Liveness: an answer at all says that the loop turns."""

    kind = "watching"

    def get(self) -> None:
        self.finish({"status": "ok"})


class ReadyHandler(Handler):
    """Readiness: 503 while more work is waiting than is taken."""

    kind = "watching"

    def get(self) -> None:
        if not self.service.is_ready:
            raise Busy("Too much work is waiting.")
        self.finish({"status": "ready"})


class MetricsHandler(Handler):
    """What Prometheus reads."""

    kind = "watching"

    def get(self) -> None:
        self.set_header("Content-Type", CONTENT_TYPE_LATEST)
        self.finish(metrics.page(self.service.tally, self.service.levels))


class NotFound(Handler):
    def prepare(self) -> None:
        raise web.HTTPError(404)


def _npy(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, pixels, allow_pickle=False)
    return buffer.getvalue()


_ENCODERS = {
    "npy": ("application/octet-stream", _npy),
    "png": ("image/png", codecs.encode_png),
    "jpg": ("image/jpeg", codecs.encode_jpeg),
}
