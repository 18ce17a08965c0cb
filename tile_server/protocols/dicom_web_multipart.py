"""Answers of several parts (multipart/related, RFC 2387), as DICOMweb sends them."""

from __future__ import annotations

import hashlib

from tile_server.protocols.dicom_web_accept import Offer


def boundary(etag: str) -> str:
    """What lies between the parts: the same for the same answer, so its ETag holds.

    It has 128 bits of a hash, so no part contains it by chance.
    """
    return hashlib.blake2b(etag.encode(), digest_size=16).hexdigest()


def content_type(offer: Offer, between: str) -> str:
    """The header of the whole answer."""
    return f'multipart/related; type="{offer.media}"; boundary={between}'


def opening(offer: Offer, between: str, location: str = "", *, first: bool) -> bytes:
    """What stands before a part."""
    lines = [
        *([] if first else [""]),
        f"--{between}",
        f"Content-Type: {offer.content_type}",
        *([f"Content-Location: {location}"] if location else []),
        "",
        "",
    ]
    return "\r\n".join(lines).encode("latin-1", "replace")


def ending(between: str) -> bytes:
    """What stands after the last part."""
    return f"\r\n--{between}--\r\n".encode("ascii")


def body(parts: list[bytes], offer: Offer, between: str, locations: list[str]) -> bytes:
    """A whole answer of at least one part."""
    pieces = []
    for number, (part, location) in enumerate(zip(parts, locations, strict=True)):
        pieces += [opening(offer, between, location, first=number == 0), part]
    return b"".join([*pieces, ending(between)])
