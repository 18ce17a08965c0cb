"""The connection test, against a real pathology server with and without TLS."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.ia_api.pages.connection import Trial, trial
from services.ia_api.servers import Patience, Servers
from services.ia_api.settings import read
from tests.pathology_server import PathologyServer, Status

from .running_site import free_port


@pytest.fixture(scope="module")
def server() -> Iterator[PathologyServer]:
    with PathologyServer() as running:
        running.add_application("probe", {"displayName": "Probe"})
        yield running


def _tried(server: PathologyServer, url: str, token: str, **other: Any) -> Trial:
    settings = read({"allow_callback": [server.origin], **other})
    servers = Servers(settings, Patience(2.0, 2.0))
    try:
        return trial(servers, url, token)
    finally:
        servers.close()


def _token(server: PathologyServer) -> str:
    return str(server.callback_info("probe")["token"])


def test_a_connection_tells_version_and_time(server: PathologyServer) -> None:
    found = _tried(server, server.url, _token(server))
    assert found.problem == ""
    assert found.server_version == "1.10"
    assert str(found.agreed) == "1.10"
    assert found.first_ms is not None
    assert found.again_ms is not None
    assert found.tls is None


def test_a_server_that_is_not_on_the_list_is_never_called(
    server: PathologyServer,
) -> None:
    mark = server.record.mark()
    settings = read({"allow_callback": ["https://sps.example.org"]})
    servers = Servers(settings, Patience(2.0, 2.0))
    found = trial(servers, server.url, _token(server))
    servers.close()
    assert "allow_callback" in found.problem
    server.record.assert_silent(since=mark)


def test_a_refused_token_is_told_apart_from_a_missing_server(
    server: PathologyServer,
) -> None:
    refused = _tried(server, server.url, "no-token-of-this-server")
    assert refused.status == 401
    assert "token" in refused.problem
    nobody = f"http://127.0.0.1:{free_port()}"
    settings = read({"allow_callback": [nobody]})
    servers = Servers(settings, Patience(2.0, 2.0))
    missing = trial(servers, f"{nobody}/v1", "token")
    servers.close()
    assert missing.status is None
    assert "cannot be reached" in missing.problem


@pytest.mark.parametrize(
    "fault",
    [Status(500), Status(302, location="https://elsewhere.example.org/"), Status(404)],
)
def test_every_other_answer_is_a_problem_with_advice(
    server: PathologyServer, fault: Status
) -> None:
    server.faults.plan("info", fault)
    found = _tried(server, server.url, _token(server))
    assert found.problem
    assert found.advice


def test_a_token_with_strange_letters_is_refused_before_it_is_sent(
    server: PathologyServer,
) -> None:
    found = _tried(server, server.url, "tökén→")
    assert "characters" in found.problem


def test_the_token_is_in_nothing_that_comes_back(server: PathologyServer) -> None:
    token = _token(server)
    assert token not in repr(_tried(server, server.url, token))


def test_a_trusted_certificate_is_told_with_its_end(tmp_path: Path) -> None:
    context, authority = _certificate(tmp_path)
    with PathologyServer(tls=context) as server:
        server.add_application("probe", {"displayName": "Probe"})
        found = _tried(server, server.url, _token(server), ca_bundle=authority)
    assert found.problem == ""
    assert found.tls is not None
    assert found.tls.trusted
    assert found.tls.protocol.startswith("TLSv1.")
    assert found.tls.certificate is not None
    assert found.tls.certificate.subject == "sps.test"
    assert "127.0.0.1" in found.tls.certificate.names
    assert 25 <= found.tls.certificate.days_left <= 30


def test_an_untrusted_certificate_is_told_and_gets_no_token(tmp_path: Path) -> None:
    context, _ = _certificate(tmp_path)
    with PathologyServer(tls=context) as server:
        server.add_application("probe", {"displayName": "Probe"})
        mark = server.record.mark()
        found = _tried(server, server.url, _token(server))
        server.record.assert_silent(since=mark)
    assert "not trusted" in found.problem
    assert "ca_bundle" in found.advice
    assert found.tls is not None
    assert not found.tls.trusted
    assert found.tls.certificate is not None
    assert found.tls.certificate.issuer == "sps.test"


def _certificate(folder: Path) -> tuple[ssl.SSLContext, str]:
    """A certificate of a server that signed it itself, and the file to trust it by."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sps.test")])
    now = datetime.now(UTC)
    places = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(places, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "cert.pem", folder / "key.pem"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return context, str(public)
