"""The IA-API service runs beside the hub only where it is enabled, for its admins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hub import wiring
from hub.home import Home
from hub.settings import Settings


def _installation(tmp_path: Path, **ia_api: Any) -> wiring.Installation:
    ports = {name: 20_000 + number for number, name in enumerate(wiring.port_names([]))}
    return wiring.Installation(
        settings=Settings(home=tmp_path, ia_api=ia_api),
        home=Home(tmp_path),
        courses=[],
        ports=ports,
        tile_key=b"k" * 32,
    )


def _names(here: wiring.Installation) -> list[str]:
    return [record["name"] for record in wiring.services(here)]


def test_nothing_of_it_runs_by_default(tmp_path: Path) -> None:
    here = _installation(tmp_path)
    assert not [name for name in _names(here) if name.startswith("ia-api")]
    assert "ia-api-admins" not in wiring.groups(here)


def test_the_web_server_and_as_many_workers_as_wished_run(tmp_path: Path) -> None:
    here = _installation(tmp_path, enabled=True, workers=2)
    names = [name for name in _names(here) if name.startswith("ia-api")]
    assert names == ["ia-api", "ia-api-worker-1", "ia-api-worker-2"]
    workers = [one for one in wiring.services(here) if "worker" in one["name"]]
    assert all("url" not in one for one in workers)


def test_only_its_administrators_and_viewers_may_enter_its_pages(
    tmp_path: Path,
) -> None:
    here = _installation(tmp_path, enabled=True)
    scope = "access:services!service=ia-api"
    allowed = [role for role in wiring.roles(here) if scope in role["scopes"]]
    groups = [["ia-api-admins", "ia-api-viewers"]]
    assert [role["groups"] for role in allowed] == groups
