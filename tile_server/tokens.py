"""Capabilities: sealed, expiring tokens that stand for one slide.

A token is the capability itself, encrypted and authenticated with AES-SIV, so that the
service needs no database and a reader of the address learns neither path nor rights.
AES-SIV needs no random nonce: the same capability gives the same token, so the address,
and with it the browser's cache, stays the same for the whole life of the token.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from tile_server.errors import BadToken, ExpiredToken

# Bound into every token: a token of another purpose or format never opens here.
_PURPOSE = [b"theatrum tile capability 1"]
_KEY_BITS = 512


@dataclass(frozen=True)
class Capability:
    """The right to read one version of one slide until a time.

    Attributes
    ----------
    path
        The slide's file, as the issuer sees it.
    version
        `versions.file_version` of the file when the capability was made.
    label
        True where the label and macro images may be seen; they can carry a name.
    expires
        Seconds since 1970 (UTC); from then on the capability is worth nothing.
    """

    path: str
    version: str
    label: bool
    expires: int


def new_key() -> bytes:
    """Make a random key of 64 bytes."""
    return AESSIV.generate_key(_KEY_BITS)


def encode_key(key: bytes) -> str:
    """Write a key as text (base64url) for an environment variable or a pipe."""
    return base64.urlsafe_b64encode(key).decode("ascii")


def decode_key(text: str) -> bytes:
    """Read a key that `encode_key` wrote; raises ValueError that does not show it."""
    try:
        key = base64.b64decode(text.strip(), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("the tile key is not base64url text") from None
    if len(key) * 8 != _KEY_BITS:
        raise ValueError(f"the tile key has {len(key)} bytes, not {_KEY_BITS // 8}")
    return key


def expiry(now: float, life_s: int) -> int:
    """The time a capability that is issued at `now` ends, in seconds since 1970.

    It is the same for everything issued within one whole `life_s`, so that addresses
    stay the same, and always at least `life_s` away.
    """
    return (int(now // life_s) + 2) * life_s


def seal(key: bytes, capability: Capability) -> str:
    """Turn a capability into a token for an address (base64url, no padding)."""
    fields = [
        capability.path,
        capability.version,
        capability.label,
        capability.expires,
    ]
    plain = json.dumps(fields, separators=(",", ":")).encode("ascii")
    sealed = AESSIV(key).encrypt(plain, _PURPOSE)
    return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode("ascii")


def unseal(key: bytes, token: str, now: float) -> Capability:
    """Open a token; raises BadToken, or ExpiredToken when its time is over."""
    padded = token + "=" * (-len(token) % 4)
    try:
        sealed = base64.b64decode(padded, altchars=b"-_", validate=True)
        plain = AESSIV(key).decrypt(sealed, _PURPOSE)
    except (binascii.Error, ValueError, InvalidTag):
        raise BadToken("The address was not issued by this service.") from None
    path, version, label, expires = json.loads(plain)
    capability = Capability(path, version, label, expires)
    check_expiry(capability, now)
    return capability


def check_expiry(capability: Capability, now: float) -> None:
    """Raise ExpiredToken when the capability's time is over at `now`."""
    if now >= capability.expires:
        raise ExpiredToken("The address has expired.")
