"""What the DICOMweb answers share: whose slide it is, its study, and addresses."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from urllib.parse import quote

from tile_server.address import dicom_web_url
from tile_server.errors import BadToken
from tile_server.handlers import Handler
from tile_server.protocols.dicom_web_accept import (
    Choice,
    Offer,
    Wish,
    choose,
    wishes,
)
from tile_server.protocols.dicom_web_made import made_study
from tile_server.protocols.dicom_web_stored import dicom_reader, stored_study
from tile_server.protocols.dicom_web_study import Study
from tile_server.protocols.iiif import Identify
from tile_server.pyramid import Pyramid
from tile_server.slides import OpenedSlide

_LONG_TEXT, _MOST_TEXT = 2**18, 64 * 2**20


class Studies:
    """The studies of open slides, as long as they are open, and their longest texts.

    The places of a large sparse slide's frames take half a minute to write down, and
    megabytes to keep.
    """

    def __init__(self) -> None:
        self._texts: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()
        # By the slide, and by whether the label may be seen.
        self._known: weakref.WeakKeyDictionary[Pyramid, dict[bool, Study]]
        self._known = weakref.WeakKeyDictionary()

    def known(self, pyramid: Pyramid, *, label: bool) -> Study | None:
        """The study, if somebody made it before."""
        return self._known.get(pyramid, {}).get(label)

    def keep(self, pyramid: Pyramid, study: Study, *, label: bool) -> None:
        """Know a study from now on."""
        self._known.setdefault(pyramid, {})[label] = study

    def text(self, key: str, make: Callable[[], bytes]) -> bytes:
        """The text of a key, made and kept where it is long; for threads."""
        with self._lock:
            text = self._texts.get(key)
        if text is not None:
            return text
        text = make()
        if _LONG_TEXT <= len(text) <= _MOST_TEXT:
            with self._lock:
                self._texts[key] = text
                while sum(map(len, self._texts.values())) > _MOST_TEXT:
                    self._texts.popitem(last=False)
        return text


class DicomHandler(Handler):
    """The base of the DICOMweb handlers."""

    def initialize(self, identify: Identify, studies: Studies) -> None:
        self._identify = identify
        self._studies = studies

    @asynccontextmanager
    async def opened(self, identifier: str) -> AsyncIterator[tuple[OpenedSlide, Study]]:
        """The slide of a token or a name and its study, open as long as this lasts.

        Raises BadToken and whatever opening raises.
        """
        try:
            capability = self.service.capability(identifier)
        except BadToken:
            found = await self._identify(identifier, self.request.host)
            if found is None:
                raise
            capability = found
        label = capability.label
        async with self.service.slides.hold(capability) as slide:
            pyramid, version = slide.pyramid, slide.version
            study = self._studies.known(pyramid, label=label)
            if study is None:
                study = await self.while_wanted(
                    self.service.from_disk(
                        slide, lambda: study_of(pyramid, version, label=label)
                    )
                )
                self._studies.keep(pyramid, study, label=label)
            yield slide, study

    def wanted(self) -> list[Wish]:
        """What the visitor accepts: the query's word, else the header's."""
        self.vary("Accept")
        said = self.get_query_argument("accept", None)
        if said is None:
            said = ", ".join(self.request.headers.get_list("Accept"))
        return wishes(said)

    def chosen(
        self, offers: Sequence[Offer], *, single: bool = True, several: bool = False
    ) -> Choice:
        """How to answer; raises NotAcceptable."""
        return choose(self.wanted(), offers, single=single, several=several)

    def home(self, identifier: str) -> str:
        """The address of the slide's studies as the visitor sees it."""
        forwarded = self.request.headers.get("X-Forwarded-Proto", "")
        scheme = forwarded.split(",")[0].strip().lower()
        if scheme not in ("http", "https"):
            scheme = self.request.protocol
        base = self.service.settings.base
        path = dicom_web_url(base, quote(identifier, ""))
        return f"{scheme}://{self.request.host}{path}/studies"


def study_of(pyramid: Pyramid, version: str, *, label: bool) -> Study:
    """The study of an open slide; reads. With `label` the label's picture is in it.

    Raises UnreadableSlide, SlideReplaced and DamagedTile.
    """
    dicom = dicom_reader(pyramid.reader)
    if dicom is not None:
        return stored_study(dicom, version, label=label)
    return made_study(pyramid, version, label=label)
