"""What the environment says of the kernel's surroundings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from theatrum.local import page_base
from theatrum.session import current_session

CATALOG = {"THEATRUM_CATALOG_URL": "http://127.0.0.1:8000/services/catalog/"}


def test_a_hub_user_s_server_is_told_by_its_user() -> None:
    session = current_session(
        {
            "JUPYTERHUB_USER": "ada",
            "JUPYTERHUB_SERVICE_PREFIX": "/user/ada/",
            "JUPYTERHUB_API_TOKEN": "secret",
            **CATALOG,
        }
    )
    assert (session.place, session.prefix) == ("server", "/user/ada/")
    assert session.token == "secret"
    assert session.catalog_url == "http://127.0.0.1:8000/services/catalog"
    assert session.host_url == "http://127.0.0.1:8000"


def test_a_hub_service_is_told_by_its_name() -> None:
    env = {
        "JUPYTERHUB_SERVICE_NAME": "voila",
        "JUPYTERHUB_SERVICE_PREFIX": "/services/voila/",
        **CATALOG,
    }
    assert current_session(env).place == "service"


def test_without_a_hub_there_is_no_catalogue() -> None:
    session = current_session({})
    assert (session.place, session.prefix, session.catalog_url, session.host_url) == (
        "alone",
        None,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("prefix", "base"),
    [
        ("/", "/proxy/4711/"),
        ("/user/ada/", "/user/ada/proxy/4711/"),
        ("/user/ada", "/user/ada/proxy/4711/"),
        ("/hub/x/user/ada/named/", "/hub/x/user/ada/named/proxy/4711/"),
    ],
)
def test_a_local_port_is_reached_under_the_page_s_own_origin(
    prefix: str, base: str
) -> None:
    env = {"JUPYTERHUB_USER": "ada", "JUPYTERHUB_SERVICE_PREFIX": prefix}
    assert page_base(4711, environment=env) == base


def test_without_a_hub_the_server_that_started_the_kernel_names_the_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    env = {"JPY_PARENT_PID": "77"}
    for base_url, expected in (("/", "/"), ("/lab/", "/lab/"), ("/a/b", "/a/b/")):
        (tmp_path / "jpserver-77.json").write_text(json.dumps({"base_url": base_url}))
        assert page_base(4711, environment=env) == f"{expected}proxy/4711/"


def test_a_kernel_that_no_server_started_gives_the_port_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    env = {"JPY_PARENT_PID": "77"}
    assert page_base(4711, environment=env) == "http://127.0.0.1:4711/"
    assert page_base(4711, environment={}) == "http://127.0.0.1:4711/"
