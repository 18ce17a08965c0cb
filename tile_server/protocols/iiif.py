"""The IIIF Image API, versions 3.0 and 2.1, level 2: routes and the description.

The identifier is the token of the service's own addresses. Here a wrong one is an image
that does not exist (404), as the API wants it. The right to an image is in its address
and never in a cookie, so pages of any origin may read the answers, as the API wants
too; an identifier that can be guessed is another matter (`folder`).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from tornado import web
from tornado.routing import URLSpec

from tile_server import cross_origin
from tile_server.address import normal_base
from tile_server.derived import VARIANT
from tile_server.errors import BadRequest, BadToken, OutsideTheGrid
from tile_server.handlers import ShowingHandler
from tile_server.ladder import Ladder
from tile_server.protocols import iiif_picture
from tile_server.protocols.iiif_picture import FORMATS, draw
from tile_server.protocols.iiif_request import QUALITIES, Picture, parse
from tile_server.pyramid import JPEG
from tile_server.regions import MOST_PIXELS
from tile_server.slides import OpenedSlide
from tile_server.tokens import Capability

_PROTOCOL = "http://iiif.io/api/image"
_FEATURES_3 = (
    "canonicalLinkHeader",
    "mirroring",
    "profileLinkHeader",
    "rotationArbitrary",
    "sizeUpscaling",
)
_FEATURES_2 = (
    "canonicalLinkHeader",
    "mirroring",
    "profileLinkHeader",
    "regionSquare",
    "rotationArbitrary",
    "sizeAboveFull",
)


# From a plain name, and the host that the visitor calls this service: what that allows,
# or None where there is no such image.
Identify = Callable[[str, str], Awaitable[Capability | None]]


async def _no_names(identifier: str, host: str) -> None:
    """An `Identify` for services whose only identifiers are tokens."""


def iiif_routes(base: str, identify: Identify = _no_names) -> list[URLSpec]:
    """The routes under `base`, which starts and ends with a slash.

    `identify` is asked for identifiers that are no token.
    """
    shared = {"identify": identify}
    identifier = f"{re.escape(base)}iiif/([23])/([^/]+)"
    return [
        web.url(rf"{identifier}/?", BaseHandler, shared),
        web.url(rf"{identifier}/info\.json", InformationHandler, shared),
        web.url(
            rf"{identifier}/([^/]+)/([^/]+)/([^/]+)/([^/]+)\.([^/.]+)",
            PictureHandler,
            shared,
        ),
    ]


class IiifHandler(ShowingHandler):
    """What the answers share: whose image it is, who may read, and addresses."""

    # True once the image was found by a name, which a page elsewhere could guess.
    _named = False

    def initialize(self, identify: Identify) -> None:
        self._identify = identify

    def set_default_headers(self) -> None:
        super().set_default_headers()
        if self._named:
            return
        self.clear_header("Vary")
        for name, text in cross_origin.headers([cross_origin.ANY], None):
            self.set_header(name, text)
        self.set_header("Cross-Origin-Resource-Policy", "cross-origin")

    async def allowed(self, identifier: str) -> Capability:
        """What an identifier allows; raises OutsideTheGrid for an unknown one."""
        try:
            return self.service.capability(identifier)
        except BadToken:
            found = await self._identify(identifier, self.request.host)
        if found is None:
            raise OutsideTheGrid("There is no image of this identifier.")
        self._named = True
        for name, _ in cross_origin.headers([cross_origin.ANY], None):
            self.clear_header(name)
        self.clear_header("Vary")
        self.set_default_headers()
        return found

    def address(self, version: str, identifier: str) -> str:
        """The image's own address as the visitor sees it; no slash at its end."""
        forwarded = self.request.headers.get("X-Forwarded-Proto", "")
        scheme = forwarded.split(",")[0].strip().lower()
        if scheme not in ("http", "https"):
            scheme = self.request.protocol
        base = normal_base(self.service.settings.base)
        path = f"{base}iiif/{version}/{quote(identifier, '')}"
        return f"{scheme}://{self.request.host}{path}"


class BaseHandler(IiifHandler):
    """The bare identifier leads to the description."""

    async def get(self, version: str, identifier: str) -> None:
        await self.allowed(identifier)
        self.redirect(self.address(version, identifier) + "/info.json", status=303)


class InformationHandler(IiifHandler):
    async def get(self, version: str, identifier: str) -> None:
        capability = await self.allowed(identifier)
        async with self.service.slides.hold(capability) as slide:
            ladder = slide.pyramid.ladder
        told = information(int(version), ladder, self.address(version, identifier))
        linked = "application/ld+json" in self.request.headers.get("Accept", "")
        media_type = "application/json"
        if linked or version == "3":
            media_type = f'application/ld+json;profile="{told["@context"]}"'
        self.vary("Accept")
        self.give_json(told, media_type)


class PictureHandler(IiifHandler):
    async def get(self, version: str, identifier: str, *parts: str) -> None:
        capability = await self.allowed(identifier)
        region, size, rotation, quality, form = parts
        if form not in FORMATS:
            raise BadRequest(f"The format must be one of {', '.join(FORMATS)}.")
        async with self.styled(capability) as slide:
            full = slide.pyramid.ladder.rungs[0]
            picture = parse(
                int(version),
                (full.width, full.height),
                (region, size, rotation, quality),
            )
            canonical = picture.canonical(int(version), form)
            home = self.address(version, identifier)
            self.set_header(
                "Link",
                f'<{home}/{canonical}>;rel="canonical",'
                f'<{_PROTOCOL}/{version}/level2.json>;rel="profile"',
            )
            etag = f"{slide.version}-iiif-{canonical}-{VARIANT}"
            if self.unchanged(etag, changed_s=slide.changed_s):
                return
            body = await self._body(slide, picture, form)
        self.give(body, FORMATS[form][0])

    async def _body(self, slide: OpenedSlide, picture: Picture, form: str) -> bytes:
        pyramid, service = slide.pyramid, self.service
        place = iiif_picture.tile_of(pyramid.ladder, picture, form)
        if place is not None and picture.size == (pyramid.ladder.tile,) * 2:
            reading = service.stored_tile(slide, *place)
            tile = await self.while_wanted(reading)
            if tile is None:
                self.kind = "made"
                work = service.made_tile(slide, *place)
                tile = await self.while_wanted(work)
            else:
                self.kind = "stored"
            if tile.media_type == JPEG:
                return tile.body
        self.kind = "made"
        what = f"iiif/{picture.canonical(3, form)}"
        return await self.while_wanted(
            service.made_body(slide, what, lambda: draw(pyramid, picture, form))
        )


def information(version: int, ladder: Ladder, address: str) -> dict[str, Any]:
    """The description (info.json) of an image at `address`."""
    full = ladder.rungs[0]
    told: dict[str, Any] = {
        "@context": f"{_PROTOCOL}/{version}/context.json",
        "protocol": _PROTOCOL,
        "width": full.width,
        "height": full.height,
        "sizes": [
            {"width": rung.width, "height": rung.height}
            for rung in reversed(ladder.rungs)
            if rung.width * rung.height <= MOST_PIXELS
        ],
        "tiles": [
            {
                "width": ladder.tile,
                "height": ladder.tile,
                "scaleFactors": [rung.downsample for rung in ladder.rungs],
            }
        ],
    }
    formats = list(FORMATS)
    if version == 2:
        more = {
            "formats": formats,
            "qualities": list(QUALITIES),
            "supports": list(_FEATURES_2),
            "maxArea": MOST_PIXELS,
        }
        return told | {
            "@id": address,
            "profile": [f"{_PROTOCOL}/2/level2.json", more],
        }
    return told | {
        "id": address,
        "type": "ImageService3",
        "profile": "level2",
        "maxArea": MOST_PIXELS,
        "preferredFormats": ["jpg"],
        "extraFormats": [one for one in formats if one not in ("jpg", "png")],
        "extraQualities": [one for one in QUALITIES if one != "default"],
        "extraFeatures": list(_FEATURES_3),
    }
