"""A trial call of a pathology server: version, time, and who its certificate names.

Only servers of `allow_callback` are called, as an invocation would be. The token goes
into this one request and nowhere else: not to the database, the log or the answer.
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx
from cryptography import x509
from cryptography.x509.oid import NameOID

from services.ia_api import versions
from services.ia_api.errors import IaApiError, NotAllowed
from services.ia_api.pages.wording import sentence
from services.ia_api.pathology_server import Callback, Transport
from services.ia_api.servers import Servers
from services.ia_api.versions import Version

_ANSWER_BYTES = 64 << 10
_ROUNDS = 3


@dataclass(frozen=True)
class Certificate:
    """What a server's certificate says of it."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    expires: datetime
    days_left: int


@dataclass(frozen=True)
class Tls:
    """An encrypted connection, and whether the certificate is trusted."""

    protocol: str
    cipher: str
    certificate: Certificate | None
    trusted: bool
    checked: bool
    """False where `verify_tls` is off: nobody looked."""


@dataclass(frozen=True)
class Trial:
    """What came of a trial; `problem` empty: all is well."""

    address: str
    """That was called: after the rewrites of the settings."""
    problem: str = ""
    advice: str = ""
    status: int | None = None
    server_version: str = ""
    software_version: str = ""
    agreed: Version | None = None
    first_ms: float | None = None
    """With the connection made."""
    again_ms: float | None = None
    """The fastest over the open connection."""
    tls: Tls | None = None

    @property
    def outcome(self) -> str:
        """A word for the audit log."""
        if not self.problem:
            return "connected"
        return f"failed: {self.status or 'no answer'}"


def trial(servers: Servers, url: str, token: str) -> Trial:
    """Call `GET {url}/info` as a callback would; tells what goes wrong, too."""
    try:
        servers.check(url)
    except NotAllowed:
        return Trial(
            url,
            "This address is not at one of the servers of allow_callback.",
            "Take an address that begins with one of the origins above, or add its "
            "origin to allow_callback and start the service again.",
        )
    address = servers.transport.address(Callback(url, "", ""))
    headers = {
        "Authorization": f"Bearer {token}",
        "X-Sectra-ApiVersion": str(servers.oldest),
        "X-Sectra-SoftwareVersion": servers.transport.settings.software_version,
    }
    try:
        # Connections of its own: the trial shows what a new one costs.
        with closing(Transport(servers.transport.settings)) as transport:
            return _called(servers, transport.http, address, headers)
    except httpx.HTTPError as err:
        return _failed(address, err)
    except UnicodeEncodeError:
        return Trial(
            address,
            "The token holds characters that no token has.",
            "Copy it again, whole and without anything around it.",
        )


def _called(
    servers: Servers, client: httpx.Client, address: str, headers: dict[str, str]
) -> Trial:
    spent: list[float] = []
    tls = None
    for _ in range(_ROUNDS):
        began = time.perf_counter()
        with client.stream("GET", f"{address}/info", headers=headers) as answer:
            status = answer.status_code
            stream = answer.extensions["network_stream"]
            socket_ = stream.get_extra_info("ssl_object")
            if socket_ is not None and tls is None:
                tls = _tls(
                    socket_,
                    trusted=servers.transport.settings.verify,
                    checked=servers.transport.settings.verify,
                )
            body = _body(answer)
        spent.append((time.perf_counter() - began) * 1000)
        if not 200 <= status < 300:
            break
    found = Trial(
        address,
        status=status,
        first_ms=spent[0],
        again_ms=min(spent[1:], default=None),
        tls=tls,
    )
    return _judged(servers, found, body)


def _body(answer: httpx.Response) -> bytes:
    body = bytearray()
    for chunk in answer.iter_bytes():
        body += chunk
        if len(body) > _ANSWER_BYTES:
            break
    return bytes(body)


def _judged(servers: Servers, found: Trial, body: bytes) -> Trial:
    def but(problem: str, advice: str) -> Trial:
        return replace(found, problem=problem, advice=advice)

    if found.status in {401, 403}:
        return but(
            f"The server answers, but refuses the token ({found.status}).",
            "The token may have run out, or belong to another app: take a newer one.",
        )
    if found.status == 404:
        return but(
            "The server answers, but has nothing at this address (404).",
            "The address ends in external/imageanalysis/v1 as a rule; a server older "
            "than 1.5 has no info.",
        )
    if found.status is not None and 300 <= found.status < 400:
        return but(
            f"The server sends us to another address ({found.status}).",
            "Redirects are not followed: enter the address that it leads to, or "
            "name both in rewrite_callbacks.",
        )
    if found.status is None or not 200 <= found.status < 300:
        return but(
            f"The server answers with an error ({found.status}).",
            "Look at the log of the pathology server.",
        )
    try:
        said = json.loads(body)
        version = str(said["apiVersion"])[:32]
        software = str(said.get("softwareVersion") or "")[:128]
        parsed = versions.parse(version)
    except (ValueError, KeyError, TypeError, AttributeError):
        return but(
            "Something answers, but it is no pathology server.",
            "Check the address: its path too.",
        )
    found = replace(found, server_version=version, software_version=software)
    try:
        agreed = versions.negotiate(parsed, servers.oldest, servers.newest)
    except IaApiError as err:
        return but(sentence(str(err)), "Update the pathology server.")
    return replace(found, agreed=agreed)


def _failed(address: str, err: httpx.HTTPError) -> Trial:
    refused = _certificate_fault(err)
    if refused is not None:
        return Trial(
            address,
            f"The certificate is not trusted: {refused.verify_message}.",
            "Name the certificate of its issuer in ca_bundle, and start the service "
            "again.",
            tls=_untrusted(address),
        )
    if isinstance(err, httpx.TimeoutException):
        return Trial(
            address,
            "There was no answer in time.",
            "A firewall may swallow the connection: ask for this machine to be let "
            "through.",
        )
    return Trial(
        address,
        f"The server cannot be reached ({type(err).__name__}).",
        "Check name and port, and that a firewall lets this machine through.",
    )


def _certificate_fault(err: BaseException) -> ssl.SSLCertVerificationError | None:
    cause: BaseException | None = err
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def _untrusted(address: str) -> Tls | None:
    """Who a certificate that is not trusted names; nothing is sent over this."""
    place = urlsplit(address)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection(
                (place.hostname or "", place.port or 443), timeout=3.0
            ) as plain,
            context.wrap_socket(plain, server_hostname=place.hostname) as wrapped,
        ):
            return _tls(wrapped, trusted=False, checked=True)
    except OSError:
        return None


def _tls(
    connection: ssl.SSLObject | ssl.SSLSocket, *, trusted: bool, checked: bool
) -> Tls:
    cipher = connection.cipher()
    encoded = connection.getpeercert(True)
    return Tls(
        protocol=connection.version() or "",
        cipher=cipher[0] if cipher else "",
        certificate=_certificate(encoded) if encoded else None,
        trusted=trusted,
        checked=checked,
    )


def _certificate(encoded: bytes) -> Certificate | None:
    try:
        found = x509.load_der_x509_certificate(encoded)
        expires = found.not_valid_after_utc
        return Certificate(
            subject=_common_name(found.subject),
            issuer=_common_name(found.issuer),
            names=_names(found),
            expires=expires,
            days_left=(expires - datetime.now(UTC)).days,
        )
    except ValueError:
        return None


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else name.rfc4514_string()


def _names(found: x509.Certificate) -> tuple[str, ...]:
    try:
        listed = found.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(one.value) for one in listed)[:20]
