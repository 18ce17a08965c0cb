"""Addresses, and the clusters that cannot run here, held to their contracts.

Dask Gateway: the real client against a server that answers as its API does. Slurm: the
script that dask-jobqueue would hand in. Kubernetes: a stand-in for the operator's class
that starts a local cluster.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from theatrum.catalog.engine import Engine
from theatrum.catalog.engine.addresses import Options, parse
from theatrum.catalog.engine.clusters import slurm_cluster
from theatrum.catalog.engine.errors import BadAddress, NoCluster

from tests.extensions.catalog.engine.peers import Cluster, certificate


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("local", "local", ""),
        ("threads", "threads", ""),
        ("sync", "sync", ""),
        ("tcp://10.0.0.5:8786", "tcp", "10.0.0.5:8786"),
        ("tls://dask.example.org:8786/", "tls", "dask.example.org:8786"),
        ("tcp://[::1]:8786", "tcp", "[::1]:8786"),
        ("gateway:mine", "gateway", "mine"),
        ("gateway:", "gateway", ""),
        ("kube:imaging", "kube", "imaging"),
        ("slurm:gpu", "slurm", "gpu"),
    ],
)
def test_an_address_says_which_cluster(text: str, kind: str, name: str) -> None:
    found = parse(text)
    assert (found.kind, found.name) == (kind, name)


@pytest.mark.parametrize(
    "text", ["", "cloud", "tcp://host", "http://host:1", "kube:", "slurm", "local:4"]
)
def test_what_is_no_address_is_told_with_those_that_are(text: str) -> None:
    with pytest.raises(BadAddress):
        Engine(text)


def test_the_script_for_slurm_names_queue_memory_time_and_account() -> None:
    options = Options(
        memory="6GB", walltime="01:30:00", more={"account": "imaging", "cores": 2}
    )
    cluster = slurm_cluster(parse("slurm:long"), options)
    try:
        script = cluster.job_script()
    finally:
        cluster.close()
    assert "#SBATCH -p long" in script
    assert "#SBATCH -t 01:30:00" in script
    assert "#SBATCH -A imaging" in script
    assert "#SBATCH --cpus-per-task=2" in script
    assert "#SBATCH --mem=6G" in script
    assert "distributed.cli.dask_worker" in script
    assert "tcp://" in script


def test_kubernetes_asks_for_its_package_where_it_is_missing() -> None:
    with pytest.raises(NoCluster, match="dask-kubernetes"):
        Engine("kube:imaging").pool  # noqa: B018  (opening it is what is tested)


def test_kubernetes_gets_namespace_workers_and_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from distributed import LocalCluster

    told: dict[str, Any] = {}

    def kube_cluster(**words: Any) -> LocalCluster:
        told.update(words)
        return LocalCluster(n_workers=1, processes=False, dashboard_address=None)

    operator = types.ModuleType("dask_kubernetes.operator")
    operator.KubeCluster = kube_cluster  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dask_kubernetes", types.ModuleType("k"))
    monkeypatch.setitem(sys.modules, "dask_kubernetes.operator", operator)
    more = {"image": "registry/theatrum:1"}
    with Engine("kube:imaging", workers=3, memory="4GB", more=more) as engine:
        assert engine.client.submit(sum, (1, 2)).result() == 3
    assert told == {
        "namespace": "imaging",
        "n_workers": 3,
        "resources": {"limits": {"memory": "4GB"}},
        "image": "registry/theatrum:1",
    }


class GatewayServer:
    """What Dask Gateway's client asks of its server, answered for one cluster."""

    def __init__(self, scheduler: str, cert: str, key: str) -> None:
        self.scheduler, self.cert, self.key = scheduler, cert, key
        self.asked: list[tuple[str, str]] = []
        self.loop = asyncio.new_event_loop()
        self.address = ""
        ready = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self.thread.start()
        assert ready.wait(20)

    def _run(self, ready: threading.Event) -> None:
        from aiohttp import web

        async def answer(request: web.Request) -> web.Response:
            self.asked.append((request.method, request.path))
            name = request.path.rpartition("/")[2]
            if request.path.startswith("/api/v1/clusters/") and name == "mine":
                if request.method == "DELETE":
                    return web.Response(status=204)
                return web.json_response(self.report())
            return web.json_response({"error": "no such cluster"}, status=404)

        async def begin() -> None:
            app = web.Application()
            app.router.add_route("*", "/{path:.*}", answer)
            runner = web.AppRunner(app)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            assert site._server is not None
            port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
            self.address = f"http://127.0.0.1:{port}"
            ready.set()

        self.loop.run_until_complete(begin())
        self.loop.run_forever()

    def report(self) -> dict[str, Any]:
        """What the server says of the one cluster that runs."""
        return {
            "name": "mine",
            "dashboard_route": None,
            "options": {},
            "status": "RUNNING",
            "start_time": 1_700_000_000_000,
            "stop_time": None,
            "tls_cert": self.cert,
            "tls_key": self.key,
        }

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayServer]:
    """A server that knows one cluster, whose scheduler asks for its certificate."""
    pytest.importorskip("aiohttp")
    cert, key = certificate(tmp_path)
    tls = ["--tls-ca-file", cert, "--tls-cert", cert, "--tls-key", key]
    cluster = Cluster(tmp_path / "cluster", *tls, "--protocol", "tls")
    cluster.add()
    server = GatewayServer(
        cluster.address, Path(cert).read_text(), Path(key).read_text()
    )
    yield server
    server.close()
    cluster.close()


def test_a_gateway_is_asked_for_a_cluster_and_its_certificate_is_used(
    gateway: GatewayServer,
) -> None:
    import dask

    # Gateway's proxy parts clusters by the name in the TLS greeting; there is one here.
    proxy = gateway.scheduler.replace("tls://", "gateway://")
    with dask.config.set({"gateway.proxy-address": proxy}):
        place = {"gateway": gateway.address, "gateway_auth": "basic"}
        with Engine("gateway:mine", **place) as engine:
            assert engine.client.submit(sum, (1, 2)).result(timeout=60) == 3
        asked = [one for one in gateway.asked if one[0] == "DELETE"]
        assert not asked  # a cluster that ran already goes on
        assert ("GET", "/api/v1/clusters/mine") in gateway.asked
        with pytest.raises(NoCluster, match="gives no cluster other"):
            Engine("gateway:other", **place).pool  # noqa: B018  (opening is tested)
        assert ("GET", "/api/v1/clusters/other") in gateway.asked
