"""What tokens may be used for in the catalogue."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub import scopes, wiring
from hub.home import Home
from hub.settings import load


@pytest.fixture
def here(tmp_path: Path) -> wiring.Installation:
    settings = load({"THEATRUM_HOME": str(tmp_path)})
    return wiring.Installation(
        settings=settings,
        home=Home(settings.home),
        courses=[],
        ports=dict.fromkeys(wiring.port_names([]), 1),
        tile_key=b"0" * 32,
    )


def test_the_hub_knows_every_scope_that_a_role_names(
    here: wiring.Installation,
) -> None:
    named = {
        scope
        for role in wiring.roles(here)
        for scope in role["scopes"]
        if scope.startswith("custom:")
    }
    assert named == set(scopes.custom_scopes())


def test_a_notebook_server_cannot_share_or_delete_projects(
    here: wiring.Installation,
) -> None:
    server = next(role for role in wiring.roles(here) if role["name"] == "server")
    assert "custom:catalog:write" in server["scopes"]
    assert "custom:admin" not in server["scopes"]


def test_a_dashboard_reads_in_its_viewers_name_and_no_more(
    here: wiring.Installation,
) -> None:
    voila = next(one for one in wiring.services(here) if one["name"] == "voila")
    assert set(voila["oauth_client_allowed_scopes"]) == {
        "access:services!service=catalog",
        "custom:catalog:read",
        "custom:pixels:read",
    }
