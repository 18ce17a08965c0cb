"""The nginx example, as it is shipped: TLS and HTTP/2, tiles straight to the lane."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.tile_server.conftest import Server, serve
from tile_server import running, tokens
from tile_server.service import TileSettings

ROOT = Path(__file__).resolve().parents[2]
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
CURL = shutil.which("curl")

pytestmark = [
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
    pytest.mark.skipif(CURL is None, reason="curl is not installed"),
]


@dataclass(frozen=True)
class Front:
    """nginx before one service: tiles go to its lane, the rest to `hub_port`."""

    server: Server
    address: str
    folder: Path

    def get(self, path: str, *options: str) -> tuple[str, bytes]:
        """The protocol and status, and the body."""
        assert CURL is not None
        body = self.folder / "body"
        ran = subprocess.run(
            [
                *(CURL, "-sk", "--noproxy", "*", "-o", str(body)),
                *("-w", "%{http_version} %{http_code}", *options, self.address + path),
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
        return ran.stdout, body.read_bytes()


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("front")
    certificate(folder)
    lane = running.listen(0)
    settings = TileSettings(tokens.new_key(), "/services/tiles/")
    for server in serve(settings, besides=running.Besides(lane=lane)):
        hub_port = server.client.base_url.port
        port = free_port()
        text = (ROOT / "deploy" / "nginx.conf").read_text()
        changes = {
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "/etc/ssl/theatrum": str(folder),
            "/var/log/nginx": str(folder),
            "127.0.0.1:8000": f"127.0.0.1:{hub_port}",
            "127.0.0.1:8091": f"127.0.0.1:{lane[0].getsockname()[1]}",
        }
        for before, after in changes.items():
            assert before in text
            text = text.replace(before, after)
        process = start(folder, text)
        try:
            wait_for(port, process)
            yield Front(server, f"https://127.0.0.1:{port}", folder)
        finally:
            process.terminate()
            process.wait(10)


def start(folder: Path, text: str) -> subprocess.Popen[bytes]:
    account = "user root;" if os.geteuid() == 0 else ""
    temporary = " ".join(
        f"{name}_temp_path {folder}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # The log of all that is logged: nothing of a tile may be in it.
    around = (
        f"{account} daemon off; pid {folder}/pid; events {{}} "
        f"http {{ access_log {folder}/access.log; {temporary}\n{text}\n}}"
    )
    (folder / "nginx.conf").write_text(around)
    assert NGINX is not None
    error_log = str(folder / "error.log")
    command = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    return subprocess.Popen([*command, "-e", error_log], stderr=subprocess.PIPE)


def certificate(folder: Path) -> None:
    """A certificate of our own for the address under test."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "theatrum.example")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "fullchain.pem").write_bytes(made.public_bytes(pem))
    (folder / "privkey.pem").write_bytes(
        key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(process.communicate()[1]) from None


def test_tiles_come_over_http_2_from_the_lane(
    front: Front, made_slides: dict[str, Path]
) -> None:
    token = front.server.seal(made_slides["ycbcr"])
    for rest in ("4/1/1", "2/0/0", "4/15/10"):
        protocol, body = front.get(f"/services/tiles/s/{token}/{rest}")
        assert protocol == "2 200"
        assert body == front.server.get(token, rest).content


def test_the_rest_of_the_service_comes_through_the_hub(
    front: Front, made_slides: dict[str, Path]
) -> None:
    token = front.server.seal(made_slides["ycbcr"])
    for rest in ("view.json", "thumbnail?size=64"):
        protocol, body = front.get(f"/services/tiles/s/{token}/{rest}")
        assert protocol == "2 200"
        assert body == front.server.get(token, rest).content
    assert front.get("/services/tiles/health")[0] == "2 200"
    assert front.get("/nothing")[0] == "2 404"


def test_http_1_1_is_still_spoken(front: Front, made_slides: dict[str, Path]) -> None:
    token = front.server.seal(made_slides["ycbcr"])
    path = f"/services/tiles/s/{token}/4/1/1"
    assert front.get(path, "--http1.1")[0] == "1.1 200"


def test_no_right_to_a_slide_gets_into_the_log(
    front: Front, made_slides: dict[str, Path]
) -> None:
    token = front.server.seal(made_slides["ycbcr"])
    for rest in ("4/1/1", "view.json", "9/9/9"):
        front.get(f"/services/tiles/s/{token}/{rest}")
    front.get("/a-line-of-the-log")
    log = front.folder / "access.log"
    deadline = time.monotonic() + 10
    while "/a-line-of-the-log" not in log.read_text():
        assert time.monotonic() < deadline
    assert token not in log.read_text()
