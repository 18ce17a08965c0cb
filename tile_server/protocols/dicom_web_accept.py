"""Content negotiation of DICOMweb (PS3.18 8.7.5): what is wanted, and what there is.

An Accept header lists media ranges with weights. DICOMweb adds a container,
`multipart/related; type="image/jpeg"`, and the parameter `transfer-syntax`, which can
be `*`. The query parameter `accept` says the same and goes first (PS3.18 8.3.3.1).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tile_server.errors import NotAcceptable
from tile_server.protocols.dicom_web_naming import OCTETS, PLAIN

MULTIPART = "multipart/related"
JSON = "application/dicom+json"
DICOM = "application/dicom"
ANY = "*"
# Media types that were registered or used under another name.
_ALIASES = {
    "image/x-dicom-rle": "image/dicom-rle",
    "image/x-jls": "image/jls",
    "application/json": JSON,
}
# Commas and semicolons inside quotes are part of a value (RFC 9110 5.6.4).
_ELEMENT = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
_PARAMETER = re.compile(r'(?:[^;"]|"(?:[^"\\]|\\.)*")+')
_MOST_RANGES = 64


@dataclass(frozen=True)
class Wish:
    """One media range.

    Attributes
    ----------
    media
        A media type, perhaps with stars, in small letters.
    syntax
        A transfer syntax, "*", or "" where none is named.
    multipart
        True where it is wanted inside multipart/related.
    """

    media: str
    syntax: str
    multipart: bool


@dataclass(frozen=True)
class Offer:
    """One form in which an answer exists; `syntax` is "" where it means nothing."""

    media: str
    syntax: str = ""

    @property
    def content_type(self) -> str:
        if not self.syntax:
            return self.media
        return f"{self.media}; transfer-syntax={self.syntax}"


@dataclass(frozen=True)
class Choice:
    """What is answered."""

    offer: Offer
    multipart: bool


def wishes(accept: str) -> list[Wish]:
    """The media ranges of an Accept header, most wanted first; "" accepts all."""
    weighed = []
    for element in _ELEMENT.findall(accept)[:_MOST_RANGES]:
        media, _, _ = element.partition(";")
        media, rest = media.strip(), _PARAMETER.findall(element)[1:]
        parameters = dict(_pair(part) for part in rest)
        weight = _weight(parameters.get("q", "1"))
        if not media or weight <= 0:
            continue
        multipart = media.lower() == MULTIPART
        if multipart:
            media = parameters.get("type", "*/*")
        media = media.lower()
        wish = Wish(
            _ALIASES.get(media, media), parameters.get("transfer-syntax", ""), multipart
        )
        weighed.append((weight, wish))
    if not accept.strip():
        return [Wish("*/*", "", multipart=False)]
    return [wish for _, wish in sorted(weighed, key=lambda one: -one[0])]


def choose(
    wanted: Sequence[Wish], offers: Sequence[Offer], *, single: bool, several: bool
) -> Choice:
    """The first wish that an offer meets; offers come in the order of preference.

    `single` and `several` say whether the answer can be bare, and whether it can be in
    parts; a wish for anything gets parts where there can be. Raises NotAcceptable.
    """
    for wish in wanted:
        multipart = wish.multipart or (several and wish.media == "*/*")
        if (multipart and not several) or (not multipart and not single):
            continue
        for offer in offers:
            if _media_fits(wish.media, offer.media) and _syntax_fits(wish, offer):
                return Choice(offer, multipart)
    forms = ", ".join(dict.fromkeys(offer.content_type for offer in offers))
    raise NotAcceptable(
        f"There is: {forms}"
        + (" in multipart/related." if several and not single else ".")
    )


def frame_offers(syntax: str, media: str) -> list[Offer]:
    """How frames can leave: as they are stored, and decoded.

    Whoever asks for octets of any transfer syntax gets the stored ones, undecoded.
    """
    offers = [Offer(media, syntax)]
    if syntax != PLAIN:
        offers += [Offer(OCTETS, syntax), Offer(OCTETS, PLAIN)]
    return offers


def _media_fits(wanted: str, there: str) -> bool:
    if wanted in ("*/*", there):
        return True
    kind, _, name = wanted.partition("/")
    return name in ("*", "") and there.startswith(f"{kind}/")


def _syntax_fits(wish: Wish, offer: Offer) -> bool:
    """Bytes of no media type of their own are plain pixels, unless `*` was said."""
    if not offer.syntax:
        return True
    if wish.syntax == ANY:
        return True
    if wish.syntax:
        return wish.syntax == offer.syntax
    return offer.media != OCTETS or offer.syntax == PLAIN


def _pair(parameter: str) -> tuple[str, str]:
    name, _, value = parameter.partition("=")
    return name.strip().lower(), value.strip().strip('"')


def _weight(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 1.0
