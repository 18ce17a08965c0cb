"""Whose callback addresses are called, and who may call: exact lists, not patterns.

An invocation names the address to call back, and the webhook has no credential: without
a list, whoever reaches it could make the service send requests to any host.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

import httpx

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Origin:
    """Scheme, host and port of an address."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def origin_of(url: str) -> Origin | None:
    """The origin of an address as the HTTP client reads it; None if it has none.

    An address with a user in it has none: `https://good@bad/` is made to be misread.
    """
    if any(character <= " " or character in '\\"<>' for character in url):
        return None
    try:
        parsed = httpx.URL(url)
        port = parsed.port
    except (httpx.InvalidURL, ValueError, TypeError):
        return None
    if parsed.scheme not in _DEFAULT_PORTS or not parsed.host or parsed.userinfo:
        return None
    return Origin(parsed.scheme, parsed.host, port or _DEFAULT_PORTS[parsed.scheme])


def is_listed(url: str, allowed: Iterable[str]) -> bool:
    """Whether the address' origin is one of `allowed`; nothing follows its path."""
    origin = origin_of(url)
    if origin is None or "?" in url or "#" in url:
        return False
    return origin in {origin_of(one) for one in allowed}


def is_in(address: str, networks: Iterable[str]) -> bool:
    """Whether an IP address lies in one of the networks."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return any(found in ipaddress.ip_network(one) for one in networks)


def caller(peer: str, forwarded: str | None, proxies: Iterable[str]) -> str:
    """The caller's address: the last of X-Forwarded-For that no proxy of ours is.

    The header is believed only where it comes from a proxy that is listed.
    """
    trusted = tuple(proxies)
    address = peer
    chain = [one.strip() for one in (forwarded or "").split(",") if one.strip()]
    while chain and is_in(address, trusted):
        address = chain.pop()
    return address
