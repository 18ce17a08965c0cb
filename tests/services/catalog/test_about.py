"""What the service says of itself and of its engine, and to whom."""

from __future__ import annotations

import threading
from typing import Any

import httpx
import pytest
from sqlalchemy.exc import OperationalError
from theatrum.catalog.engine import Engine

from services.catalog import engine_state
from services.catalog.api.about import plain
from tests.services.catalog.running import Site


def test_whether_it_is_well_is_told_to_everybody_and_nothing_else(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with site.client(None) as monitor:
        assert monitor.get("healthz").json() == {"status": "ok"}

        def away() -> None:
            raise OperationalError("SELECT 1", {}, OSError("/where/it/lies is away"))

        monkeypatch.setattr(
            type(site.app.state.service.database), "reading", lambda _self: away()
        )
        answer = monitor.get("healthz")
        assert answer.status_code == 503
        assert "lies" not in answer.text


def test_administrators_see_what_it_is_set_to_and_no_secret(
    site: Site, ann: httpx.Client
) -> None:
    with site.client("root") as root, site.client("root/admin") as narrowed:
        said = root.get("config").json()
        assert narrowed.get("config").status_code == 403
    assert ann.get("config").status_code == 403
    assert said["settings"]["catalog_engine"] == "local"
    assert said["roles"]["viewer"] == ["catalog:read", "export", "pixels:read"]
    assert said["limits"]["requests"]["read"]["per_s"] == 100
    assert said["packages"]["fastapi"]
    assert "tile_key" not in str(said)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql+psycopg://me:se@cr/et@db/x", "postgresql+psycopg://me:***@db/x"),
        ("postgresql+psycopg://me@db/x", "postgresql+psycopg://me@db/x"),
        ("s3://study/ https://u:p@x/ gs://a/", "s3://study/ https://u:***@x/ gs://a/"),
        ("tcp://scheduler:8786", "tcp://scheduler:8786"),
    ],
)
def test_a_password_within_an_address_is_not_shown(address: str, shown: str) -> None:
    assert plain(address) == shown


def test_the_engine_is_shown_to_maintainers_and_scaled_by_administrators(
    site: Site, ann: httpx.Client, bob: httpx.Client
) -> None:
    assert bob.get("engine").status_code == 403  # an editor
    said = ann.get("engine").json()
    assert (said["address"], said["state"], said["scalable"]) == ("local", "idle", True)
    assert ann.post("engine/scale", json={"workers": 3}).status_code == 403
    with site.client("root") as root:
        assert root.get("engine").status_code == 200
        assert root.post("engine/scale", json={"workers": 0}).status_code == 422
        scaled = root.post("engine/scale", json={"workers": 3})
    assert scaled.status_code == 202
    assert scaled.json()["workers_wanted"] == 3
    assert engine_state.wished(site.home) == 3


def test_what_a_worker_tells_of_its_engine_is_shown_while_it_works(
    site: Site, ann: httpx.Client
) -> None:
    with Engine("threads", workers=5) as engine:
        assert engine.pool.workers == 5
        with engine_state.told(site.home, engine, "b1"):
            for _ in range(600):
                said = ann.get("engine").json()
                if said["threads"]:
                    break
                threading.Event().wait(0.1)
            assert (said["state"], said["threads"]) == ("working", 5)
    assert ann.get("engine").json()["state"] == "idle"


@pytest.mark.long
def test_a_cluster_that_is_at_work_takes_the_size_that_is_wished(
    site: Site, ann: httpx.Client
) -> None:
    engine_state.wish(site.home, 1, "root")
    with Engine("local", workers=1) as engine:
        assert engine.pool.workers == 1
        with engine_state.told(site.home, engine, "b2"), site.client("root") as root:
            assert _workers(ann, 1)["memory_limit_bytes"] > 0
            assert root.post("engine/scale", json={"workers": 2}).status_code == 202
            assert len(_workers(ann, 2)["clusters"][0]["workers"]) == 2


def _workers(client: httpx.Client, count: int) -> dict[str, Any]:
    """What is told of the engine once it has so many workers."""
    for _ in range(600):
        said: dict[str, Any] = client.get("engine").json()
        if said["workers"] == count:
            break
        threading.Event().wait(0.1)
    assert said["workers"] == count
    return said


def test_a_cluster_is_told_as_its_scheduler_knows_it() -> None:
    info = {
        "address": "tcp://10.0.0.5:8786",
        "workers": {
            "tcp://10.0.0.6:1": {
                "name": 0, "status": "running", "nthreads": 2, "memory_limit": 8 << 30,
                "metrics": {"memory": 1 << 30, "cpu": 150.04,
                            "task_counts": {"executing": 2, "ready": 3, "memory": 0}},
            },
            "tcp://10.0.0.7:1": {"name": 1, "status": "init", "nthreads": 4,
                                 "memory_limit": 8 << 30, "metrics": {}},
        },
    }  # fmt: skip
    told = engine_state.of_scheduler(info)
    assert (told["threads"], told["memory_bytes"]) == (6, 1 << 30)
    assert told["memory_limit_bytes"] == 16 << 30
    assert told["tasks"] == {"executing": 2, "ready": 3}
    assert told["workers"][0]["cpu_percent"] == 150.0
