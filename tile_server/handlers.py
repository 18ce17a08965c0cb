"""The HTTP routes: they parse, call and answer, and hold no state.

Everything of one slide lies under `s/<token>/`; the token is the right to see it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from prometheus_client import CONTENT_TYPE_LATEST
from tornado import web
from tornado.routing import URLSpec

from tile_server import formats, metrics, negotiation
from tile_server.answers import FOR_EVER, Handler, named
from tile_server.derived import VARIANT
from tile_server.errors import BadRequest, Busy, OutsideTheGrid
from tile_server.formats import Form
from tile_server.icc import embedded
from tile_server.ladder import Rung
from tile_server.numbers import (
    depth_of,
    numbers_of,
    planes_asked_for,
    raw_numbers,
    raw_planes,
)
from tile_server.readers.style import PLAIN, Style, parse
from tile_server.regions import (
    Box,
    box_of_um,
    downsample_of,
    read_region,
    small_picture,
    whole_of,
)
from tile_server.slides import OpenedSlide
from tile_server.tokens import Capability
from tile_server.view import associated_names, describe

__all__ = ["FOR_EVER", "GridHandler", "Handler", "ShowingHandler", "routes"]

_THUMBNAIL_PX = range(1, 2049)
_PICTURES = ("jpg", "jpeg", "png", "webp")
# Our order of preference, which is that of those who accept anything (`*/*`).
_PREFERRED = {
    "picture": (formats.JPG, formats.WEBP, formats.PNG),
    # Where the pixels are to stay the file's own.
    "whole": (formats.WEBP, formats.PNG, formats.JPG),
    "region": (formats.NPY, formats.PNG, formats.WEBP, formats.JPG),
}


def routes(base: str) -> list[URLSpec]:
    """The routes under `base`, which starts and ends with a slash."""
    base = re.escape(base)
    token = f"{base}s/([A-Za-z0-9_-]+)"
    number = r"(\d{1,9})"
    picture = rf"(?:\.({'|'.join(_PICTURES)}))?"
    table: list[tuple[str, type[web.RequestHandler]]] = [
        (f"{token}/{number}/{number}/{number}{picture}", TileHandler),
        (rf"{token}/view\.json", ViewHandler),
        (rf"{token}/region(?:\.({'|'.join(formats.ENDINGS)}))?", RegionHandler),
        (f"{token}/thumbnail{picture}", ThumbnailHandler),
        (f"{token}/icc", ProfileHandler),
        (f"{token}/associated/([^/]+?){picture}", AssociatedHandler),
        (f"{base}health", HealthHandler),
        (f"{base}ready", ReadyHandler),
    ]
    return [web.url(pattern, handler) for pattern, handler in table]


class ShowingHandler(Handler):
    """What answers with pictures share: style, colours, and the form they leave in."""

    def style(self) -> Style | None:
        """The style of the query; None where that asks for nothing special."""
        text = self.get_query_argument("style", None)
        if text is None:
            return None
        style = parse(text)
        return None if style == PLAIN else style

    @property
    def icc(self) -> str:
        """What to do about the slide's colour profile: "0", "1" or "srgb"."""
        return self.choice("icc", ("0", "1", "srgb"), "0")

    def profile(self, slide: OpenedSlide) -> bytes | None:
        """The profile to put into the picture."""
        return slide.pyramid.reader.facts.profile if self.icc == "1" else None

    @asynccontextmanager
    async def styled(self, capability: Capability) -> AsyncIterator[OpenedSlide]:
        """The slide in the query's style and colours, open as long as this lasts."""
        style, icc = self.style(), self.icc
        async with self.service.slides.hold(capability) as slide:
            shown = slide
            if style is not None:
                work = self.service.styled(shown, style)
                shown = await self.while_wanted(work)
            if icc == "srgb":
                shown = await self.while_wanted(self.service.in_srgb(shown))
            yield shown

    def wished(self, kind: str) -> str:
        """The form that `Accept` names, of those of a kind of `_PREFERRED`."""
        self.vary("Accept")
        offers = [formats.MEDIA_TYPES[name] for name in _PREFERRED[kind]]
        chosen = negotiation.choose(self.request.headers.get("Accept"), offers)
        return formats.BY_MEDIA_TYPE[chosen]

    async def picture(
        self, slide: OpenedSlide, what: str, form: Form, make: Callable[[], bytes]
    ) -> None:
        """Answer with what `make` makes; `what` is the same for the same answer."""
        etag = f"{slide.version}-{what}-{form.key}-{VARIANT}"
        if self.unchanged(etag, changed_s=slide.changed_s):
            return
        work = self.service.made_body(slide, f"{what}/{form.key}", make)
        body = await self.while_wanted(work)
        self.kind = "made"
        self.give(body, form.media_type)


class GridHandler(ShowingHandler):
    """Tiles of the slide's grid, whatever the protocol calls them."""

    async def answer(
        self, slide: OpenedSlide, z: int, t_x: int, t_y: int, ending: str | None = None
    ) -> None:
        """Answer with a tile; `slide` is open until the next `await`, or longer."""
        rung = slide.pyramid.ladder.tile_rung(z, t_x, t_y)
        profile = self.profile(slide)
        form = self._form(slide, rung, (t_x, t_y), ending)
        variant = f"{VARIANT}-icc" if profile else VARIANT
        if form is not None:
            variant = f"{form.key}-{VARIANT}"
        if self.unchanged(f"{slide.version}-{rung.k}-{t_x}-{t_y}-{variant}"):
            return
        kind = "stored"
        # Held from here, since the work begins a turn of the loop later.
        with slide.held():
            tile = None
            if form is not None:
                profile = None  # it is in the form
                asked = self.service.tile_in_form(slide, (rung, t_x, t_y), form)
                tile = await self.while_wanted(asked)
                kind = "cached" if tile.kept else "made"
            if tile is None:
                tile = self.service.tile_in_memory(slide, rung, t_x, t_y)
            if tile is None:
                reading = self.service.stored_tile(slide, rung, t_x, t_y)
                tile = await self.while_wanted(reading)
            if tile is None:
                work = self.service.made_tile(slide, rung, t_x, t_y)
                tile = await self.while_wanted(work)
                kind = "cached" if tile.kept else "made"
        self.set_header("Content-Type", tile.media_type)
        self.kind = kind
        self.add_header("Server-Timing", kind)
        self.finish(embedded(tile.body, profile))

    def _form(
        self, slide: OpenedSlide, rung: Rung, place: tuple[int, int], ending: str | None
    ) -> Form | None:
        """The form to make a tile in; None for the one that it has anyway.

        A stored tile is a JPEG for whoever does not ask for another by the address.
        """
        stored = slide.pyramid.passes(rung, *place)
        whole = slide.pyramid.keeps_pixels(rung, *place)
        own = formats.PNG if whole else formats.JPG
        if ending is None:
            if stored:
                return None
            name = self.wished("whole" if whole else "picture")
            if name == own:
                return None
        else:
            name = formats.ENDINGS[ending]
            if name == own == formats.JPG:
                return None
        return Form(
            name,
            # Asked for by name, it may lie above other pictures.
            is_transparent=ending is not None and name in formats.TRANSPARENT,
            lossless=name == formats.WEBP and (stored or whole),
            profile=self.profile(slide),
        )


class TileHandler(GridHandler):
    async def get(
        self, token: str, z: str, x: str, y: str, ending: str | None = None
    ) -> None:
        capability = self.service.capability(token)
        place = int(z), int(x), int(y)
        if depth_of(self) > 8:
            async with self.service.slides.hold(capability) as slide:
                await self._numbers(slide, place, ending)
            return
        if self.style() is None and self.icc != "srgb":
            ready = self.service.slides.ready(capability)
            if ready is not None:
                await self.answer(ready, *place, ending)
                return
        async with self.styled(capability) as slide:
            await self.answer(slide, *place, ending)

    async def _numbers(
        self, slide: OpenedSlide, place: tuple[int, int, int], ending: str | None
    ) -> None:
        z, t_x, t_y = place
        pyramid = slide.pyramid
        rung = pyramid.ladder.tile_rung(z, t_x, t_y)
        if ending not in (None, formats.PNG):
            raise BadRequest("Only a png has 16 bits.")
        planes = planes_asked_for(self, pyramid.reader)
        step = pyramid.ladder.tile * rung.downsample
        box, scale = Box(t_x * step, t_y * step, step, step), (rung.downsample,) * 2
        form = Form(formats.PNG)
        await self.picture(
            slide,
            named("numbers", rung.k, t_x, t_y, planes),
            form,
            lambda: formats.encode(numbers_of(pyramid, box, scale, planes), form),
        )


class ViewHandler(Handler):
    async def get(self, token: str) -> None:
        capability = self.service.capability(token)
        async with self.service.slides.hold(capability) as slide:
            view = describe(slide.pyramid.reader, label=capability.label)
        ends = datetime.fromtimestamp(capability.expires, UTC)
        self.give_json(view | {"version": slide.version, "expires": ends.isoformat()})


class RegionHandler(ShowingHandler):
    async def get(self, token: str, ending: str | None = None) -> None:
        capability = self.service.capability(token)
        box = Box(
            self.number("x"),
            self.number("y"),
            self.number("width"),
            self.number("height"),
        )
        if box.width <= 0 or box.height <= 0:
            raise BadRequest("width and height must be more than 0.")
        deep = depth_of(self) > 8
        raw = self.whole_number("numbers", range(2), 0) == 1
        name = formats.NPY if raw else self._name(ending, deep=deep)
        if raw and {ending, self.get_query_argument("format", None)} - {None, "npy"}:
            raise BadRequest("The file's own numbers come as npy only.")
        unit = self.choice("unit", ("px", "um"), "px")
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
            if raw:
                wanted, form = raw_planes(self, pyramid.reader), Form(name)
                await self.picture(
                    slide,
                    named("raw numbers", box, scale, wanted),
                    form,
                    lambda: formats.encode(
                        raw_numbers(pyramid, box, scale, wanted), form
                    ),
                )
                return
            if deep:
                planes = planes_asked_for(self, pyramid.reader)
                form = Form(name)
                await self.picture(
                    slide,
                    named("numbers", box, scale, planes),
                    form,
                    lambda: formats.encode(
                        numbers_of(pyramid, box, scale, planes), form
                    ),
                )
                return
            embeds = name != formats.NPY
            form = Form(name, profile=self.profile(slide) if embeds else None)
            await self.picture(
                slide,
                named("region", box, scale),
                form,
                lambda: formats.encode(read_region(pyramid, box, scale), form),
            )

    def _name(self, ending: str | None, *, deep: bool) -> str:
        """The form's name: by the address, by the query, else by `Accept`."""
        asked = ending or self.get_query_argument("format", None)
        if asked is not None and asked not in formats.ENDINGS:
            raise BadRequest(f"format must be one of {', '.join(formats.ENDINGS)}.")
        if deep:
            name = formats.PNG if asked is None else formats.ENDINGS[asked]
            if name not in (formats.PNG, formats.NPY):
                raise BadRequest("Only a png or npy has 16 bits.")
            return name
        return self.wished("region") if asked is None else formats.ENDINGS[asked]


class ThumbnailHandler(ShowingHandler):
    async def get(self, token: str, ending: str | None = None) -> None:
        capability = self.service.capability(token)
        longest = self.whole_number("size", _THUMBNAIL_PX, 256)
        deep = depth_of(self) > 8
        if deep and ending not in (None, formats.PNG):
            raise BadRequest("Only a png has 16 bits.")
        if deep:
            name = formats.PNG
        else:
            name = formats.ENDINGS[ending] if ending else self.wished("picture")
        async with self.styled(capability) as slide:
            pyramid = slide.pyramid
            if deep:
                planes = planes_asked_for(self, pyramid.reader)
                form = Form(name)
                await self.picture(
                    slide,
                    named("small numbers", longest, planes),
                    form,
                    lambda: formats.encode(
                        numbers_of(pyramid, *whole_of(pyramid, longest), planes), form
                    ),
                )
                return
            form = Form(name, profile=self.profile(slide))
            await self.picture(
                slide,
                f"thumbnail-{longest}",
                form,
                lambda: formats.encode(small_picture(pyramid, longest), form),
            )


class AssociatedHandler(ShowingHandler):
    async def get(self, token: str, name: str, ending: str | None = None) -> None:
        capability = self.service.capability(token)
        async with self.service.slides.hold(capability) as slide:
            reader = slide.pyramid.reader
            if name not in associated_names(reader, label=capability.label):
                raise OutsideTheGrid("This slide has no such image.")
            form = Form(formats.ENDINGS[ending] if ending else self.wished("picture"))
            await self.picture(
                slide,
                named("associated", name),
                form,
                lambda: formats.encode(reader.associated_image(name), form),
            )


class ProfileHandler(Handler):
    """The slide's ICC profile, for whoever converts colours."""

    async def get(self, token: str) -> None:
        capability = self.service.capability(token)
        async with self.service.slides.hold(capability) as slide:
            profile = slide.pyramid.reader.facts.profile
            if profile is None:
                raise OutsideTheGrid("This slide has no ICC profile.")
            if self.unchanged(f"{slide.version}-icc", changed_s=slide.changed_s):
                return
        self.give(profile, "application/vnd.iccprofile")


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
