"""The pages beside a real hub: sign-in, four roles by groups, a node that answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hub import wiring
from hub.home import Home
from hub.settings import Settings
from tests.dcmtk import storescp
from tests.hub_process import RunningHub, running_hub

HERE = "services/dicom-client/"
PEOPLE = {
    "viewers": ["student1"],
    "planners": ["student2"],
    "template_editors": ["researcher"],
    "administrators": ["teacher"],
}
SETTINGS: dict[str, Any] = {"enabled": True, "workers": 1, "min_free_bytes": 0}
PAGES = {
    "": {"student1", "student2", "teacher"},
    "upload": {"student2", "teacher"},
    "templates": {"student1", "student2", "researcher", "teacher"},
    "rules": {"student2", "researcher", "teacher"},
    "nodes": {"student2", "researcher", "teacher"},
    "statistics": {"student1", "student2", "teacher"},
    "settings": {"teacher"},
    "audit": {"teacher"},
}
"""Who may open which page."""
EVERYBODY = ("student1", "student2", "researcher", "teacher")


def _installation(tmp_path: Path, **dicom: Any) -> wiring.Installation:
    ports = {name: 20_000 + number for number, name in enumerate(wiring.port_names([]))}
    return wiring.Installation(
        settings=Settings(home=tmp_path, dicom_client=dicom),
        home=Home(tmp_path),
        courses=[],
        ports=ports,
        tile_key=b"k" * 32,
    )


def test_people_that_the_settings_name_are_in_the_groups_of_their_roles(
    tmp_path: Path,
) -> None:
    groups = wiring.groups(_installation(tmp_path, enabled=True, **PEOPLE))
    assert groups["dicom-viewers"]["users"] == ["student1"]
    assert groups["dicom-template-editors"]["users"] == ["researcher"]
    assert groups["dicom-administrators"]["users"] == ["teacher"]
    assert "dicom-viewers" not in wiring.groups(_installation(tmp_path))


def test_only_the_groups_of_the_client_may_enter_its_pages(tmp_path: Path) -> None:
    here = _installation(tmp_path, enabled=True)
    scope = "access:services!service=dicom-client"
    allowed = [role["groups"] for role in wiring.roles(here) if scope in role["scopes"]]
    assert allowed == [list(wiring.DICOM_GROUPS)]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    home = tmp_path_factory.mktemp("hub") / "home"
    home.mkdir()
    table = json.dumps({**SETTINGS, **PEOPLE})
    with running_hub(home, THEATRUM_DICOM_CLIENT=table) as running:
        yield running


def xsrf(page: str) -> str:
    found = re.search(r'X-XSRF-Token": "([0-9a-f]{64})"', page)
    assert found is not None
    return found[1]


@pytest.mark.hub
@pytest.mark.long
def test_each_role_opens_its_pages_after_the_hubs_sign_in(hub: RunningHub) -> None:
    with httpx.Client(
        base_url=hub.url, follow_redirects=True, trust_env=False, timeout=60
    ) as nobody:
        for page in PAGES:
            assert nobody.get(f"{HERE}{page}").url.path == "/hub/login", page
        assert nobody.get(f"{HERE}api/series").status_code == 401
        assert nobody.get(f"{HERE}health").json() == {"status": "healthy"}
    for name in EVERYBODY:
        with hub.sign_in(name) as person:
            for page, may in PAGES.items():
                answer = person.get(f"{HERE}{page}")
                # Who may see no patient is led from the list to the templates.
                led = (name, page) == ("researcher", "")
                assert (answer.status_code == 200) is (name in may or led), (name, page)
                assert (not led) or answer.url.path.endswith("/templates")


@pytest.mark.hub
@pytest.mark.long
def test_a_token_of_the_hub_has_the_rights_of_its_persons_groups(
    hub: RunningHub,
) -> None:
    rule = {"rules": []}
    with hub.api("student1") as viewer:
        assert viewer.get(f"{HERE}api/series").status_code == 200
        assert viewer.put(f"{HERE}api/rules", json=rule).status_code == 403
        assert viewer.post(f"{HERE}api/uploads", content=b"PK").status_code == 403
    with hub.api("researcher") as editor:
        assert editor.put(f"{HERE}api/rules", json=rule).status_code == 200
        assert editor.get(f"{HERE}api/series").status_code == 403
        assert editor.get(f"{HERE}api/feed").status_code == 403
    with hub.api("teacher") as administrator:
        told = administrator.get(f"{HERE}api/audit").json()
        assert ("researcher", "rules") in [(one["who"], one["action"]) for one in told]


@pytest.mark.hub
@pytest.mark.long
def test_a_node_is_kept_and_answers_to_an_echo_on_the_page(hub: RunningHub) -> None:
    with storescp(title="TPS") as peer, hub.sign_in("teacher") as administrator:
        page = administrator.get(f"{HERE}nodes").text
        node = {
            "_xsrf": xsrf(page),
            "name": "tps",
            "host": "127.0.0.1",
            "port": str(peer.port),
            "ae_title": "TPS",
            "target": "planning",
        }
        kept = administrator.post(f"{HERE}nodes", data=node)
        assert "tps" in kept.text
        token = {"_xsrf": xsrf(kept.text)}
        answer = administrator.post(f"{HERE}nodes/0/echo", data=token)
        assert (answer.status_code, "answered" in answer.text) == (200, True)
        with hub.sign_in("student2") as planner:
            there = planner.get(f"{HERE}nodes").text
            assert "tps" in there
            refused = planner.post(f"{HERE}nodes/0/echo", data={"_xsrf": xsrf(there)})
            assert refused.status_code == 403
            stolen = planner.post(f"{HERE}nodes/0/echo", data=token)
            assert stolen.status_code == 403
    with hub.sign_in("teacher") as administrator:
        token = {"_xsrf": xsrf(administrator.get(f"{HERE}nodes").text)}
        gone = administrator.post(f"{HERE}nodes/0/echo", data=token)
        assert "cannot be reached" in gone.text
