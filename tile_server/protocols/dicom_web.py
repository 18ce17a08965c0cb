"""DICOMweb (PS3.18): search and retrieve, for every slide.

A slide is one study of one series under `dicomweb/<token>/`. DICOM slides are answered
from their files, without the patient; all others are presented as VL Whole Slide
Microscopy Images, so that a DICOMweb viewer opens them too. Frames leave undecoded
wherever the file has them.

This module has the routes, and the answers that are headers.
"""

from __future__ import annotations

import hashlib
import re

from tornado.routing import URLSpec
from tornado.web import url

from tile_server.derived import VARIANT
from tile_server.protocols import dicom_web_query as query
from tile_server.protocols.dicom_web_accept import Offer
from tile_server.protocols.dicom_web_handler import DicomHandler, Studies
from tile_server.protocols.dicom_web_json import (
    MEDIA_TYPE,
    bulk_data,
    document,
    model,
)
from tile_server.protocols.dicom_web_multipart import body, boundary, content_type
from tile_server.protocols.dicom_web_naming import OCTETS
from tile_server.protocols.dicom_web_pictures import (
    FramesHandler,
    InstancesHandler,
    RenderedFrameHandler,
    RenderedHandler,
)
from tile_server.protocols.iiif import Identify
from tile_server.tokens import Capability

_UID = r"([0-9.]{1,64})"


async def _no_names(identifier: str, host: str) -> Capability | None:  # noqa: ARG001
    """An `Identify` for services whose only identifiers are tokens."""
    return None


def dicom_web_routes(base: str, identify: Identify = _no_names) -> list[URLSpec]:
    """The routes under `base`, which starts and ends with a slash.

    `identify` is asked for identifiers that are no token.
    """
    shared = {"identify": identify, "studies": Studies()}
    below = f"{re.escape(base)}dicomweb/([^/]+)"
    study = f"/studies/{_UID}"
    resource = f"{below}{study}(?:/series/{_UID}(?:/instances/{_UID})?)?"
    instance = f"{below}{study}/series/{_UID}/instances/{_UID}"
    # A list of every frame of a large region has some ten thousand characters.
    frames = rf"{instance}/frames/([0-9,%C]{{1,32768}})"
    table = [
        (f"{below}/(studies|series|instances)/?", SearchAllHandler),
        (f"{below}{study}/(series|instances)/?", SearchStudyHandler),
        (f"{below}{study}/series/{_UID}/(instances)/?", SearchSeriesHandler),
        (f"{resource}/metadata", MetadataHandler),
        (f"{resource}/(rendered|thumbnail)", RenderedHandler),
        (f"{instance}/bulkdata/([0-9A-F/]{{8,80}})", BulkDataHandler),
        (frames, FramesHandler),
        (f"{frames}/(rendered|thumbnail)", RenderedFrameHandler),
        (f"{resource}/?", InstancesHandler),
    ]
    return [url(pattern, handler, shared) for pattern, handler in table]


class _SearchHandler(DicomHandler):
    async def answer(
        self, token: str, level: str, study: str | None, series: str | None
    ) -> None:
        """Answer a search at a level, within a study and series where they are named.

        Nothing found is 204 (PS3.18 Table 10.6.3-1).
        """
        self.chosen([Offer(MEDIA_TYPE)])
        names = self.request.query_arguments
        asked = query.parse(
            [(name, text) for name in names for text in self.get_query_arguments(name)]
        )
        async with self.opened(token) as (_, slide_study):
            place = study, series, self.home(token)
            found, count = query.search(slide_study, asked, level, place)
        if asked.fuzzy:
            self._warn("The fuzzymatching parameter is not supported. "
                       "Only literal matching has been performed.")  # fmt: skip
        if count > asked.offset + len(found) and asked.limit == query.MOST_RESULTS:
            more = count - asked.offset - len(found)
            self._warn(f"There are {more} additional results that can be requested")
        if not found:
            self.set_status(204)
            self.finish()
            return
        self.give_json([model(one, address) for one, address in found], MEDIA_TYPE)

    def _warn(self, text: str) -> None:
        self.add_header("Warning", f'299 {self.request.host}: "{text}"')


class SearchAllHandler(_SearchHandler):
    async def get(self, token: str, level: str) -> None:
        await self.answer(token, level, None, None)


class SearchStudyHandler(_SearchHandler):
    async def get(self, token: str, study: str, level: str) -> None:
        await self.answer(token, level, study, None)


class SearchSeriesHandler(_SearchHandler):
    async def get(self, token: str, study: str, series: str, level: str) -> None:
        await self.answer(token, level, study, series)


class MetadataHandler(DicomHandler):
    """The headers of a study, a series or an instance."""

    async def get(
        self,
        token: str,
        study: str,
        series: str | None = None,
        instance: str | None = None,
    ) -> None:
        self.chosen([Offer(MEDIA_TYPE)])
        async with self.opened(token) as (slide, slide_study):
            found = slide_study.find(study, series, instance)
            home = f"{self.home(token)}/{slide_study.uid}/series/{slide_study.series}"
            told = f"{home} {' '.join(one.uid for one in found)}"
            digest = hashlib.blake2b(told.encode(), digest_size=8).hexdigest()
            what = f"dicom-metadata-{digest}"
            if self.unchanged(f"{slide.version}-{what}-{VARIANT}"):
                return
            pyramid = slide.pyramid

            def write() -> bytes:
                return document(
                    [
                        model(one.whole_header(pyramid), f"{home}/instances/{one.uid}")
                        for one in found
                    ]
                )

            key = f"{slide.version} {told}"
            text = await self.while_wanted(
                self.service.made_body(
                    slide, what, lambda: self._studies.text(key, write)
                )
            )
        self.set_header("Content-Type", MEDIA_TYPE)
        self.finish(text)


class BulkDataHandler(DicomHandler):
    """A long value of a header, such as the ICC profile."""

    async def get(
        self, token: str, study: str, series: str, instance: str, way: str
    ) -> None:
        offer = Offer(OCTETS)
        choice = self.chosen([offer], several=True)
        async with self.opened(token) as (slide, slide_study):
            (found,) = slide_study.find(study, series, instance)
            value = bulk_data(found.header, way)
            parts = "parts" if choice.multipart else "bare"
            tag = f"{slide.version}-dicom-{found.uid}-{way.replace('/', '.')}-{parts}"
            if self.unchanged(tag):
                return
        if choice.multipart:
            between = boundary(tag)
            self.set_header("Content-Type", content_type(offer, between))
            address = f"{self.home(token)}/{study}/series/{series}/instances/{instance}"
            place = [f"{address}/bulkdata/{way}"]
            self.finish(body([value], offer, between, place))
            return
        self.set_header("Content-Type", OCTETS)
        self.finish(value)
