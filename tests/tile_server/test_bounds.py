"""What keeps the service upright: a bounded queue, time limits, several processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests import slides
from tests.tile_server.conftest import Server, serve
from tests.tile_server.lane_client import ask, request
from tests.tile_server.test_commands import command, ends_quietly, get
from tile_server import running, tokens
from tile_server.address import tiles_url
from tile_server.metrics import Tally, page
from tile_server.service import TileSettings
from tile_server.tokens import Capability
from tile_server.versions import file_version


def composed(server: Server, path: Path, count: int) -> list[str]:
    """Addresses of `count` different tiles that have to be made."""
    token = server.seal(path)
    return [f"{server.settings.base}s/{token}/3/{n}/0" for n in range(count)]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = slides.SlideSpec(width=4000, height=300, downsamples=(1,))
    return slides.write_slide(tmp_path_factory.mktemp("wide") / "wide.svs", spec)


def test_more_work_than_can_wait_is_refused_and_stored_tiles_still_come(
    wide: Path,
) -> None:
    settings = TileSettings(tokens.new_key(), most_waiting=1)
    for server in serve(settings):
        stored = f"/s/{server.seal(wide)}/6/1/1"
        assert server.client.get(stored).status_code == 200
        addresses = composed(server, wide, 8) * 8
        refused = []
        with ThreadPoolExecutor(8) as threads:
            for answer in threads.map(server.client.get, addresses):
                if answer.status_code != 200:
                    refused.append(answer)
        assert refused
        for answer in refused:
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["type"].endswith(":busy")
        # What was refused comes when there is room, and all is as before.
        for address in addresses[:8]:
            assert server.client.get(address).status_code == 200
        assert server.client.get(stored).status_code == 200
        assert server.client.get("/ready").json() == {"status": "ready"}


def test_nobody_waits_longer_than_the_limit(wide: Path) -> None:
    settings = TileSettings(tokens.new_key(), answer_s=0.0)
    for server in serve(settings):
        (address,) = composed(server, wide, 1)
        answer = server.client.get(address)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["type"].endswith(":took-too-long")
        assert server.client.get("/ready").json() == {"status": "ready"}
        # What needs no work comes all the same.
        stored = f"/s/{server.seal(wide)}/6/1/1"
        assert server.client.get(stored).status_code == 200


def counted(text: str, name: str, kind: str) -> float:
    found = re.search(rf'^{name}{{kind="{kind}"}} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_what_is_served_is_counted_by_kind(wide: Path) -> None:
    lane, watched = running.listen(0), running.listen(0)
    lane_port, watched_port = (one[0].getsockname()[1] for one in (lane, watched))
    besides = running.Besides(lane=lane, metrics=watched)
    base = f"http://127.0.0.1:{watched_port}"
    for server in serve(TileSettings(tokens.new_key()), besides=besides):
        stored = f"/s/{server.seal(wide)}/6/1/1"
        (made,) = composed(server, wide, 1)
        first = server.client.get(stored)
        for _ in range(3):
            assert ask(lane_port, request(stored)).status == 200
        etag = f"If-None-Match: {first.headers['etag']}"
        assert ask(lane_port, request(stored, etag)).status == 304
        for _ in range(3):  # made once, and kept
            assert ask(lane_port, request(made)).status == 200
        assert server.client.get(f"{made}.webp").status_code == 200
        assert server.client.get(f"{made}.webp").status_code == 200
        assert server.client.get("/s/nonsense/0/0/0").status_code == 403
        text = get(base + "/metrics").text
        count = "theatrum_tiles_seconds_count"
        assert counted(text, count, "stored") == 4
        assert counted(text, count, "unchanged") == 1
        assert counted(text, count, "made") == 2
        assert counted(text, count, "cached") == 3
        # Every answer is in one bucket at least, and its time in the sum.
        for kind, number in (("stored", 4), ("made", 2), ("cached", 3)):
            assert counted(text, "theatrum_tiles_requests_total", kind) == number
            last = f'theatrum_tiles_seconds_bucket{{kind="{kind}",le="+Inf"}} {number}'
            assert last in text
            assert counted(text, "theatrum_tiles_seconds_sum", kind) > 0
        assert counted(text, "theatrum_tiles_requests_total", "problem") == 1
        levels = dict(re.findall(r"^theatrum_tiles_(\w+) (\S+)$", text, re.MULTILINE))
        assert float(levels["kept_in_memory_bytes"]) > 0
        assert float(levels["kept_on_disk_bytes"]) > 0
        sent = counted(text, "theatrum_tiles_sent_bytes_total", "stored")
        assert sent == 4 * len(first.content)
        assert 'theatrum_tiles_problems_total{status="403"} 1.0' in text
        assert "theatrum_tiles_open_slides 1.0" in text
        assert "theatrum_tiles_ready 1.0" in text
        assert get(base + "/live").json() == {"status": "ok"}
        assert get(base + "/ready").json() == {"status": "ready"}
        assert get(base + stored).status_code == 404


def test_the_metrics_never_show_a_token(wide: Path) -> None:
    watched = running.listen(0)
    base = f"http://127.0.0.1:{watched[0].getsockname()[1]}"
    besides = running.Besides(metrics=watched)
    for server in serve(TileSettings(tokens.new_key()), besides=besides):
        token = server.seal(wide)
        server.client.get(f"/s/{token}/6/1/1")
        text = get(base + "/metrics").text
        assert token not in text
        assert wide.name not in text


def test_times_fall_into_the_buckets_that_hold_them() -> None:
    tally = Tally()
    for spent_s in (0.00005, 0.0001, 0.003, 99.0):
        tally.count("stored", spent_s, 10)
    text = page(tally, dict).decode()
    for bound, count in (("0.0001", 2), ("0.001", 2), ("0.005", 3), ("+Inf", 4)):
        line = f'theatrum_tiles_seconds_bucket{{kind="stored",le="{bound}"}} {count}.0'
        assert line in text


def children(process: subprocess.Popen[str]) -> list[int]:
    """The workers of a service, which start processes of their own."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(one) for one in path.read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="asks Linux")
def test_workers_share_the_ports_and_a_dead_one_is_replaced(
    made_slides: dict[str, Path], tmp_path: Path
) -> None:
    slides.write_slide(tmp_path / "a.svs", slides.YCBCR)
    options = ["--port", "0", "--lane-port", "0", "--workers", "2"]
    with command("serve", str(tmp_path), *options) as process:
        assert process.stdout is not None
        ports = {}
        for line in process.stdout:
            name, _, address = line.partition(" ")
            ports[name] = address.strip()
            if name == "ready":
                break
        (image,) = get(ports["ready"] + "images.json").json()["images"]
        tile = image["tiles"].format(z=4, x=1, y=1).lstrip("/")
        etags = set()
        for _ in range(20):
            for base in (ports["ready"], ports["lane"]):
                answer = get(base + tile)
                assert answer.status_code == 200
                etags.add(answer.headers["etag"])
        assert len(etags) == 1

        first, second = children(process)
        os.kill(first, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while len(children(process)) != 2 or first in children(process):
            assert time.monotonic() < deadline
        assert second in children(process)
        # Clients of the dead worker's sockets wait for the new one.
        for _ in range(20):
            assert get(ports["lane"] + tile).status_code == 200
        process.send_signal(signal.SIGTERM)
        ends_quietly(process)


def test_workers_that_cannot_live_are_given_up(tmp_path: Path) -> None:
    # The cache's folder cannot be made, so no worker can start.
    (tmp_path / "file").write_text("in the way")
    environment = {"THEATRUM_TILE_CACHE": str(tmp_path / "file" / "cache")}
    options = ["--port", "0", "--workers", "2"]
    with command("serve", str(tmp_path), *options, environment=environment) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "giving up" in said


@pytest.mark.parametrize("workers", ["1", "2"])
def test_in_a_hub_the_lane_can_have_the_services_own_port(
    made_slides: dict[str, Path], tmp_path: Path, workers: str
) -> None:
    with running.listen(0)[0] as free:
        port = free.getsockname()[1]
    key, path = tokens.new_key(), made_slides["ycbcr"]
    base = "/hub-prefix/services/tiles/"
    environment = {
        "JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}",
        "JUPYTERHUB_SERVICE_PREFIX": base,
        "THEATRUM_TILE_KEY": tokens.encode_key(key),
        "THEATRUM_TILE_CACHE": str(tmp_path / "cache"),
        "THEATRUM_TILE_LANE_PORT": str(port),
        "THEATRUM_TILE_WORKERS": workers,
        "THEATRUM_TILE_CORS": "https://a.example https://b.example",
    }
    capability = Capability(str(path), file_version(path), False, 2**33)
    template = tiles_url(base, tokens.seal(key, capability))
    with command("hub", environment=environment) as process:
        deadline = time.monotonic() + 20
        while True:
            try:
                health = get(f"http://127.0.0.1:{port}{base}health")
                break
            except httpx.ConnectError:
                assert time.monotonic() < deadline
        assert health.json() == {"status": "ok"}
        address = f"http://127.0.0.1:{port}{template.format(z=4, x=1, y=1)}"
        for _ in range(3):
            tile = get(address, Origin="https://b.example")
            assert tile.status_code == 200
            allowed = tile.headers["access-control-allow-origin"]
            assert allowed == "https://b.example"
            assert tile.headers["cross-origin-resource-policy"] == "cross-origin"
        view = template.replace("{z}/{x}/{y}", "view.json")
        assert json.loads(get(f"http://127.0.0.1:{port}{view}").text)["width"] == 1000
        process.send_signal(signal.SIGTERM)
        ends_quietly(process)
