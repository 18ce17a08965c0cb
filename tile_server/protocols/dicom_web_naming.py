"""Names of DICOMweb: unique identifiers, transfer syntaxes, and their media types.

A slide that is no DICOM file gets identifiers made of its version, so that they are the
same at every opening and on every machine that holds the same file. They are UUIDs as
integers (PS3.5 B.2), which need no registered root.
"""

from __future__ import annotations

import hashlib
import re
import uuid

WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
PLAIN = "1.2.840.10008.1.2.1"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
IMPLICIT = "1.2.840.10008.1.2"
OCTETS = "application/octet-stream"

# PS3.18 Table 8.7.3-5: what frames of a transfer syntax are as bytes of their own.
_MEDIA_TYPES = {
    "1.2.840.10008.1.2.5": "image/dicom-rle",
    JPEG_BASELINE: "image/jpeg",
    "1.2.840.10008.1.2.4.80": "image/jls",
    "1.2.840.10008.1.2.4.81": "image/jls",
    "1.2.840.10008.1.2.4.90": "image/jp2",
    "1.2.840.10008.1.2.4.91": "image/jp2",
    "1.2.840.10008.1.2.4.201": "image/jphc",
    "1.2.840.10008.1.2.4.202": "image/jphc",
    "1.2.840.10008.1.2.4.203": "image/jphc",
}
# PS3.5 9.1; a first digit of 0 in a longer part is wrong and does happen.
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_LONGEST_UID = 64


def media_type(syntax: str) -> str:
    """The media type of single frames in a transfer syntax."""
    return _MEDIA_TYPES.get(syntax, OCTETS)


def uid(*parts: str) -> str:
    """The identifier that these parts, and no others, always have."""
    text = "\0".join(("theatrum slide", *parts)).encode("utf-8", "surrogateescape")
    digest = hashlib.blake2b(text, digest_size=16).digest()
    return f"2.25.{uuid.UUID(bytes=digest, version=5).int}"


def sound_uid(text: str, *parts: str) -> str:
    """`text` where it can be an identifier, else one that is made of `parts`."""
    if len(text) <= _LONGEST_UID and _UID.fullmatch(text):
        return text
    return uid(*parts, text)


def pseudonym(series: str) -> str:
    """What stands for the container and the specimen of a slide."""
    digest = hashlib.blake2b(series.encode(), digest_size=6).hexdigest()
    return f"SLIDE-{digest.upper()}"
