"""The DICOMweb answers that are pixels: frames, whole instances, rendered pictures.

Several frames leave in one body, which is held in memory and so bounded. Instances are
as long as slides are, and leave frame by frame as fast as the visitor reads.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from tile_server import codecs
from tile_server.derived import VARIANT
from tile_server.errors import (
    BadRequest,
    DamagedTile,
    OutsideTheGrid,
    RegionTooLarge,
    TileServerError,
)
from tile_server.protocols import dicom_web_file
from tile_server.protocols.dicom_web_accept import (
    DICOM,
    Choice,
    Offer,
    frame_offers,
)
from tile_server.protocols.dicom_web_handler import DicomHandler
from tile_server.protocols.dicom_web_made import encoded
from tile_server.protocols.dicom_web_multipart import (
    body,
    boundary,
    content_type,
    ending,
    opening,
)
from tile_server.protocols.dicom_web_naming import JPEG_BASELINE, PLAIN, media_type
from tile_server.protocols.dicom_web_study import Frame, Instance
from tile_server.pyramid import DAMAGED, JPEG, PNG, Pyramid
from tile_server.regions import thumbnail
from tile_server.slides import OpenedSlide

log = logging.getLogger(__name__)

MOST_FRAMES = 4096
MOST_BYTES = 64 * 2**20
_MOST_THUMBNAIL_PX = 2048
_THUMBNAIL_PX = 256
_VIEWPORT = re.compile(r"([1-9]\d{0,4}),([1-9]\d{0,4})")
# Frames of a file that are read in one go, on the way out.
_BATCH = 32


class FramesHandler(DicomHandler):
    """Frames by their numbers, which start from 1."""

    async def get(
        self, token: str, study: str, series: str, instance: str, listed: str
    ) -> None:
        async with self.opened(token) as (slide, slide_study):
            (found,) = slide_study.find(study, series, instance)
            numbers = numbers_of(listed, found.frames)
            choice = self.chosen(
                frame_offers(found.syntax, media_type(found.syntax)),
                single=len(numbers) == 1,
                several=True,
            )
            tag = _tag(slide, found, listed, choice)
            if self.unchanged(tag):
                return
            frames = await self.while_wanted(
                self._frames(slide, found, numbers, choice.offer)
            )
        self.add_header("Server-Timing", self.kind)
        if not choice.multipart:
            self.set_header("Content-Type", choice.offer.content_type)
            self.finish(frames[0])
            return
        between = boundary(tag)
        home = f"{self.home(token)}/{study}/series/{series}/instances/{instance}"
        places = [f"{home}/frames/{number + 1}" for number in numbers]
        self.set_header("Content-Type", content_type(choice.offer, between))
        self.finish(body(frames, choice.offer, between, places))

    async def _frames(
        self,
        slide: OpenedSlide,
        instance: Instance,
        numbers: Sequence[int],
        offer: Offer,
    ) -> list[bytes]:
        """The frames in the chosen form; raises RegionTooLarge."""
        decode = offer.syntax == PLAIN and instance.syntax != PLAIN
        if decode:
            self.kind = "made"
            return await self._made(slide, instance, numbers, "plain")
        pyramid = slide.pyramid
        stored = await self.service.from_disk(
            slide, lambda: stored_frames(pyramid, instance, numbers)
        )
        missing = [
            number
            for number, frame in zip(numbers, stored, strict=True)
            if frame is None
        ]
        self.kind = "made" if missing else "stored"
        room = MOST_BYTES - sum(len(frame) for frame in stored if frame is not None)
        made = iter(await self._made(slide, instance, missing, "jpeg", room))
        return [next(made) if frame is None else frame for frame in stored]

    async def _made(
        self,
        slide: OpenedSlide,
        instance: Instance,
        numbers: Sequence[int],
        form: str,
        room: int = MOST_BYTES,
    ) -> list[bytes]:
        made: list[bytes] = []
        for number in numbers:
            frame = await made_frame(self, slide, instance, number, form)
            room -= len(frame)
            _refuse_too_much(room)
            made.append(frame)
        return made


class InstancesHandler(DicomHandler):
    """Whole instances as DICOM files, in the transfer syntax of their frames."""

    async def get(
        self,
        token: str,
        study: str,
        series: str | None = None,
        instance: str | None = None,
    ) -> None:
        async with self.opened(token) as (slide, slide_study):
            found = slide_study.find(study, series, instance)
            syntaxes = list(dict.fromkeys(one.syntax for one in found))
            choice = self.chosen(
                [Offer(DICOM, syntax) for syntax in syntaxes],
                single=len(found) == 1,
                several=True,
            )
            what = " ".join(one.uid for one in found)
            tag = _tag(slide, found[0], what, choice)
            if self.unchanged(tag):
                return
            between = boundary(tag)
            media = Offer(DICOM)
            kind = content_type(media, between) if choice.multipart else DICOM
            self.set_header("Content-Type", kind)
            if self.request.method == "HEAD":
                self.finish()
                return
            self.kind = "stored"
            home = f"{self.home(token)}/{slide_study.uid}/series/{slide_study.series}"
            try:
                for number, one in enumerate(found):
                    if choice.multipart:
                        place = f"{home}/instances/{one.uid}"
                        offer = Offer(DICOM, one.syntax)
                        self.write(opening(offer, between, place, first=number == 0))
                    await self.while_wanted(self._send(slide, one))
            except TileServerError as error:
                if not self._headers_written:
                    raise
                log.info("an instance is cut off: %s", type(error).__name__)
                self._finished = True
                self.request.connection.close()  # type: ignore[union-attr]
                return
        self.finish(ending(between) if choice.multipart else None)

    async def _send(self, slide: OpenedSlide, instance: Instance) -> None:
        """Write one file, as fast as the visitor reads it."""
        pyramid, syntax = slide.pyramid, instance.syntax
        header = await self.service.from_disk(
            slide, lambda: instance.whole_header(pyramid)
        )
        total = 0
        if syntax == PLAIN:
            total = _plain_bytes(header)
        start = await self.service.from_disk(
            slide, lambda: dicom_web_file.head(header, syntax, total)
        )
        self.write(start)
        for first in range(0, instance.frames, _BATCH):
            numbers = range(first, min(first + _BATCH, instance.frames))
            read = partial(whole_or_none, pyramid, instance, numbers)
            frames = await self.service.from_disk(slide, read)
            for number, frame in zip(numbers, frames, strict=True):
                if frame is None:
                    frame = await self._substitute(slide, instance, number)
                self.write(dicom_web_file.frame(frame, syntax))
            await self.flush()
        self.write(dicom_web_file.tail(syntax, total))
        await self.flush()

    async def _substitute(
        self, slide: OpenedSlide, instance: Instance, number: int
    ) -> bytes:
        """A frame that the file lacks; a damaged one is a grey frame of its size."""
        try:
            return await made_frame(self, slide, instance, number, "jpeg")
        except DamagedTile as error:
            log.warning("an instance has a hole: %s", error)
            header = instance.header
            if instance.syntax != JPEG_BASELINE:
                return b""
            shape = int(header.Rows), int(header.Columns), 3
            grey = np.full(shape, DAMAGED, np.uint8)
            return encoded(grey, str(header.PhotometricInterpretation))


class RenderedHandler(DicomHandler):
    """A picture of a whole instance, or of the first of a series or study."""

    async def get(self, token: str, study: str, *rest: str | None) -> None:
        *within, kind = rest
        offers = [Offer(JPEG), Offer(PNG)] if kind == "rendered" else [Offer(JPEG)]
        choice = self.chosen(offers)
        async with self.opened(token) as (slide, slide_study):
            found = slide_study.find(study, *within)[0]
            header = found.header
            wide = int(header.TotalPixelMatrixColumns), int(header.TotalPixelMatrixRows)
            most = max(wide) if kind == "rendered" else _THUMBNAIL_PX
            longest = self._longest(wide, min(most, _MOST_THUMBNAIL_PX))
            what = f"dicom-{found.associated or 'slide'}-{longest}"
            form = choice.offer.media
            if self.unchanged(f"{slide.version}-{what}-{form[6:]}-{VARIANT}"):
                return
            pyramid = slide.pyramid
            picture = await self.while_wanted(
                self.service.made_body(
                    slide,
                    f"{what}/{form}",
                    lambda: whole_picture(pyramid, found.associated, longest, form),
                )
            )
        self.kind = "made"
        self.set_header("Content-Type", form)
        self.finish(picture)

    def _longest(self, size: tuple[int, int], most: int) -> int:
        """The longer side of the picture that fits the query's viewport."""
        asked = viewport(self.get_query_argument("viewport", None))
        if asked is None:
            return most
        scale = min(asked[0] / size[0], asked[1] / size[1], 1.0)
        return max(1, min(int(max(size) * scale), _MOST_THUMBNAIL_PX))


class RenderedFrameHandler(DicomHandler):
    """One frame as a picture that every browser shows."""

    async def get(
        self, token: str, study: str, series: str, instance: str, *rest: str
    ) -> None:
        listed, kind = rest
        choice = self.chosen([Offer(JPEG), Offer(PNG)])
        async with self.opened(token) as (slide, slide_study):
            (found,) = slide_study.find(study, series, instance)
            numbers = numbers_of(listed, found.frames)
            if len(numbers) != 1:
                raise BadRequest("One frame at a time is rendered.")
            asked = viewport(self.get_query_argument("viewport", None))
            if asked is None and kind == "thumbnail":
                asked = (_THUMBNAIL_PX, _THUMBNAIL_PX)
            form = f"{choice.offer.media[6:]}-{asked}"
            if self.unchanged(_tag(slide, found, f"{listed} {form}", choice)):
                return
            picture = await self.while_wanted(
                made_frame(self, slide, found, numbers[0], form, asked)
            )
        self.kind = "made"
        self.set_header("Content-Type", choice.offer.media)
        self.finish(picture)


async def made_frame(
    handler: DicomHandler,
    slide: OpenedSlide,
    instance: Instance,
    number: int,
    form: str,
    most: tuple[int, int] | None = None,
) -> bytes:
    """A frame that costs work.

    `form` is "jpeg" for the instance's own coding, "plain" for pixels, or starts with
    the kind of a picture that fits `most`.
    """
    pyramid = slide.pyramid

    def make() -> bytes:
        pyramid.check_stopping()
        if form == "jpeg":
            return instance.made(pyramid, number)
        pixels = instance.decoded(pyramid, number)
        if form == "plain":
            return pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
        bits = int(instance.header.get("BitsStored") or 8)
        media = PNG if form.startswith("png") else JPEG
        return _picture(_fitted(shown(pixels, bits), most), media)

    what = f"dicom-{instance.uid}-{number}-{form}"
    return await handler.service.made_body(slide, what, make)


def numbers_of(listed: str, frames: int) -> list[int]:
    """Frame numbers from 0, of a list of numbers from 1.

    Raises BadRequest for no such list, RegionTooLarge and OutsideTheGrid.
    """
    parts = listed.replace("%2C", ",").split(",")
    if not all(part.isdecimal() and len(part) <= 9 for part in parts):
        raise BadRequest("Frames are listed by their numbers: 1,2,3.")
    if len(parts) > MOST_FRAMES:
        raise RegionTooLarge(f"Ask for at most {MOST_FRAMES} frames at once.")
    numbers = [int(part) - 1 for part in parts]
    if not all(0 <= number < frames for number in numbers):
        raise OutsideTheGrid(f"This instance has the frames 1 to {frames}.")
    return numbers


def stored_frames(
    pyramid: Pyramid, instance: Instance, numbers: Sequence[int]
) -> list[bytes | None]:
    """The file's own frames, None for those that it lacks.

    Raises RegionTooLarge and DamagedTile.
    """
    found, room = [], MOST_BYTES
    for number in numbers:
        frame = instance.stored(pyramid, number)
        room -= 0 if frame is None else len(frame)
        _refuse_too_much(room)
        found.append(frame)
    return found


def whole_or_none(
    pyramid: Pyramid, instance: Instance, numbers: Sequence[int]
) -> list[bytes | None]:
    """Like `stored_frames`, with None for damaged ones too."""
    found: list[bytes | None] = []
    for number in numbers:
        try:
            found.append(instance.stored(pyramid, number))
        except DamagedTile:
            found.append(None)
    return found


def viewport(text: str | None) -> tuple[int, int] | None:
    """Width and height of PS3.18 8.3.5.1.3; raises BadRequest."""
    if text is None:
        return None
    found = _VIEWPORT.fullmatch(text)
    if found is None:
        raise BadRequest("viewport must be width,height in pixels.")
    return int(found[1]), int(found[2])


def whole_picture(pyramid: Pyramid, associated: str, longest: int, media: str) -> bytes:
    """A picture of the slide, or of an associated image; raises DamagedTile."""
    if not associated:
        picture = thumbnail(pyramid, longest)
        if media == JPEG:
            return picture
        return codecs.encode_png(codecs.decode_jpeg(picture))
    pixels = pyramid.reader.associated_image(associated)
    return _picture(_fitted(pixels, (longest, longest)), media)


def shown(pixels: Frame, bits: int) -> npt.NDArray[np.uint8]:
    """8 bits of red, green and blue, of colour or of grey with `bits`."""
    if pixels.dtype != np.uint8:
        pixels = np.minimum(pixels >> max(bits - 8, 0), 255).astype(np.uint8)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    return pixels


def _fitted(
    pixels: npt.NDArray[np.uint8], most: tuple[int, int] | None
) -> npt.NDArray[np.uint8]:
    """The picture, made smaller where it does not fit."""
    height, width = pixels.shape[:2]
    if most is None or (width <= most[0] and height <= most[1]):
        return pixels
    image = Image.fromarray(pixels)
    image.thumbnail(most, Image.Resampling.BOX)
    return np.asarray(image)


def _picture(pixels: npt.NDArray[np.uint8], media: str) -> bytes:
    png = media == PNG
    return codecs.encode_png(pixels) if png else codecs.encode_jpeg(pixels)


def _plain_bytes(header: Any) -> int:  # a Dataset, whose values are of any type
    """How long all frames are together, not compressed."""
    pixels = int(header.Rows) * int(header.Columns) * int(header.NumberOfFrames)
    return pixels * int(header.SamplesPerPixel) * int(header.BitsAllocated) // 8


def _refuse_too_much(room: int) -> None:
    if room < 0:
        raise RegionTooLarge(
            f"These frames have more than {MOST_BYTES} bytes: ask for fewer at once."
        )


def _tag(slide: OpenedSlide, instance: Instance, what: str, choice: Choice) -> str:
    """The ETag of an answer in a form."""
    told = f"{instance.uid} {what} {choice}"
    digest = hashlib.blake2b(told.encode(), digest_size=10).hexdigest()
    return f"{slide.version}-dicom-{digest}-{VARIANT}"
