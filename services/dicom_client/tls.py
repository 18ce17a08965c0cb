"""TLS for associations, 1.2 and up, as BCP 195 asks (PS3.15 section B.9)."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ServerTls:
    """What our storage service shows to those who send."""

    certificate: Path
    """PEM: our certificate and those that lead to its root."""
    key: Path
    """PEM, without a passphrase, readable by this account only."""
    senders_ca: Path | None = None
    """PEM: only senders with a certificate of these authorities may connect."""


@dataclass(frozen=True)
class ClientTls:
    """What we ask of, and show to, a node that we send to."""

    ca: Path | None = None
    """PEM: whose certificates to trust; None takes the system's."""
    certificate: Path | None = None
    """PEM: ours, where the node asks for one."""
    key: Path | None = None
    hostname: bool = True
    """Check the name in the node's certificate; many devices carry none that fits,
    and are then known by an authority of their own (`ca`)."""


def server_context(settings: ServerTls) -> ssl.SSLContext:
    """For accepting; raises OSError (`ssl.SSLError` too) for unusable files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.certificate, settings.key)
    if settings.senders_ca is not None:
        context.load_verify_locations(settings.senders_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(settings: ClientTls) -> ssl.SSLContext:
    """For connecting; raises OSError for unusable files."""
    context = ssl.create_default_context(cafile=settings.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = settings.hostname
    if settings.certificate is not None:
        context.load_cert_chain(settings.certificate, settings.key)
    return context
