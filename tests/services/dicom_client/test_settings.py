"""Every setting does what it says, and the documentation names it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from services.dicom_client.app import make_app
from services.dicom_client.delivery import WebTarget
from services.dicom_client.folder_delivery import FolderTarget
from services.dicom_client.opening import Service, open_service
from services.dicom_client.reception import scp_settings
from services.dicom_client.settings import (
    CHANGEABLE,
    SECRETS,
    BadSettings,
    ServiceSettings,
    read,
)
from services.dicom_client.targets import targets_of
from services.dicom_client.web_servers import pulled_from, stored_at

from .client_site import routes_of

DOCS = Path(__file__).resolve().parents[3] / "docs" / "dicom_client.md"


def rows(table: type[BaseModel] = ServiceSettings, before: str = "") -> Iterator[str]:
    """The table of the documentation as it has to be: settings, then inner tables."""
    inner = []
    for name, field in table.model_fields.items():
        default: Any = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            inner.append((type(default), f"{before}{name}."))
            continue
        plain = json.loads(json.dumps(default, default=str))
        shown = "none" if default is None else json.dumps(plain).replace("|", "\\|")
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        yield f"| `{before}{name}` | `{shown}` | {meaning} |"
    for kind, prefix in inner:
        yield from rows(kind, prefix)


def test_the_documentation_tells_each_setting_its_default_and_meaning() -> None:
    text = DOCS.read_text()
    missing = [row for row in rows() if row not in text]
    assert not missing, "\n".join(missing)
    assert not [row for row in rows() if row.endswith("|  |")]
    for name in SECRETS:
        assert f"`{name}`" in text


def test_the_documentation_names_every_route_of_the_api(service: Service) -> None:
    text = DOCS.read_text()
    for method, path in routes_of(make_app(service, "/")):
        if path.startswith("/api/") and method != "HEAD":
            assert f"| `{method} {path[1:]}` |" in text, (method, path)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = open_service(tmp_path, read({}))
    yield made
    made.close()


def test_the_receiver_takes_what_the_settings_say() -> None:
    table = {"storage": ["ct"], "largest_bytes": 5 << 20, "idle_s": 7}
    chosen = scp_settings(read({"scp": table}).scp)
    assert chosen.storage == ("ct",)
    assert (chosen.largest_bytes, chosen.idle_s) == (5 << 20, 7)


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ({"scp": {"storage": ["ultrasound"]}}, "scp.storage"),
        ({"scp": {"storage": []}}, "scp.storage"),
        ({"scp": {"tls_key": "/k.pem"}}, "belong together"),
        ({"scp": {"tls_ca": "/ca.pem"}}, "tls_certificate"),
        ({"dicomweb": {"url": "http://pacs.example.org/"}}, "https://"),
        ({"stow": {"url": "https://me:secret@pacs.example.org/"}}, "password"),
        ({"file_mode": "999"}, "file_mode"),
        ({"deliver_stow": "https://pacs.example.org"}, "is not a setting"),
    ],
)
def test_a_setting_that_cannot_work_stops_the_start(
    table: dict[str, Any], word: str
) -> None:
    with pytest.raises(BadSettings, match=word):
        read(table)


def test_a_dicomweb_server_is_reached_as_the_settings_say(service: Service) -> None:
    chosen = read(
        {
            "dicomweb": {
                "url": "https://pacs.example.org/dicom-web",
                "user": "reader",
                "ca_bundle": "/ca.pem",
                "timeout_s": 5,
                "largest_bytes": 9 << 20,
            },
            "stow": {"url": "https://tps.example.org/dicom-web"},
        }
    )
    for name in SECRETS:
        service.keeper.put_secret(name, f"the {name}", "admin")
    pull = pulled_from(chosen.dicomweb, service.keeper)
    assert pull is not None
    assert (pull.user, pull.password, pull.token) == (
        "reader",
        "the dicomweb-password",
        "",
    )
    assert (pull.ca_bundle, pull.timeout_s) == (Path("/ca.pem"), 5)
    assert pull.largest_bytes == 9 << 20
    store = stored_at(chosen.stow, service.keeper)
    assert store is not None
    assert (store.token, store.user) == ("the stow-token", "")
    assert "secret" not in repr(store)
    assert "the stow" not in repr(store)
    service.keeper.drop_secret("stow-token", "admin")
    assert stored_at(chosen.stow, service.keeper).token == ""  # type: ignore[union-attr]
    assert pulled_from(read({}).dicomweb, service.keeper) is None


def test_files_in_folders_are_named_and_permitted_as_the_settings_say(
    service: Service, tmp_path: Path
) -> None:
    chosen = read(
        {
            "deliver_folder": str(tmp_path),
            "file_prefix": "AI_RS",
            "file_mode": "660",
            "stow": {"url": "https://tps.example.org/dicom-web"},
        }
    )
    folder, web = targets_of(
        chosen, [], [], stow=stored_at(chosen.stow, service.keeper)
    )
    assert isinstance(folder, FolderTarget)
    assert (folder.prefix, folder.mode) == ("AI_RS", 0o660)
    assert isinstance(web, WebTarget)


def test_what_is_changed_on_the_pages_counts_for_dicomweb_too(service: Service) -> None:
    assert {"dicomweb", "stow", "retention_days", "min_free_bytes"} <= CHANGEABLE
    values = {"dicomweb": {"url": "https://pacs.example.org/web"}}
    service.keeper.change_settings(service.base, values, "admin")
    assert service.keeper.settings(service.base).dicomweb.url.endswith("/web")


if __name__ == "__main__":
    print("\n".join(rows()))
