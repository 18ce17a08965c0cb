"""What was exported comes back over HTTP, whole, once, and only where one may write."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from theatrum.catalog import connect
from theatrum.catalog.record import recording
from theatrum.catalog.tables import ProjectGroup

from services.catalog import intake
from tests.services.catalog.running import Site

pytestmark = pytest.mark.usefixtures("scans")


@pytest.fixture(scope="module")
def bundle(site: Site, scans: None) -> bytes:
    """Two scans of `work` with all that belongs to them; `copy` is wes's, too."""
    with recording(site.app.state.service.database, "wes") as book:
        made = book.project("copy")
        made.groups.append(ProjectGroup(group="@wes", role="maintainer"))
        made.groups.append(ProjectGroup(group="readers", role="viewer"))
    with site.client("wes") as wes:
        words = {"what": "bundle", "project": "work", "name__lt": "scan-2"}
        answer = wes.get("images/export.zip", params=words)
        assert answer.status_code == 200, answer.text
        return answer.content


def _taken(site: Site, client: httpx.Client, address: str) -> dict[str, Any]:
    intake.do_all(site.app.state.service.database, site.home)
    said: dict[str, Any] = client.get(address).json()
    return said


def _sent(
    site: Site, client: httpx.Client, content: bytes, **words: str
) -> dict[str, Any]:
    answer = client.post("bundles", params={"project": "copy"} | words, content=content)
    assert answer.status_code == 202, answer.text
    address = answer.headers["location"].rpartition("/api/v1/")[2]
    assert answer.json()["state"] == "queued"
    return _taken(site, client, address)


def test_a_bundle_comes_back_whole_and_twice_is_once(
    site: Site, wes: httpx.Client, bundle: bytes
) -> None:
    digest = hashlib.sha256(bundle).hexdigest()
    first = _sent(site, wes, bundle, sha256=digest)
    assert (first["state"], first["bundle"]) == ("done", True), first
    assert first["report"]["new"]["image"] == 2
    assert first["report"]["missing"] == []
    far = connect(site.url, token="wes")
    for name in ("scan-0", "scan-1"):
        mine = far.images[f"copy/{name}"]
        assert np.array_equal(mine.array, far.images[f"work/{name}"].array)
    again = _sent(site, wes, bundle)
    assert again["state"] == "done"
    assert "image" not in again["report"]["new"]
    assert again["report"]["known"]["image"] == 2
    assert far.images.filter(project="copy").count() == 2


def test_a_large_bundle_goes_on_where_it_was_cut_off(
    site: Site, wes: httpx.Client, bundle: bytes
) -> None:
    said = {
        "project": "copy", "name": "b.zip", "size": len(bundle), "bundle": True,
        "sha256": hashlib.sha256(bundle).hexdigest(),
    }  # fmt: skip
    assert wes.post("uploads", json=said | {"inbox": True}).status_code == 422
    address = f"uploads/{wes.post('uploads', json=said).json()['id']}"
    for begin in (0, 1000):
        part = bundle[begin : 1000 if begin == 0 else None]
        headers = {"Upload-Offset": str(begin)}
        assert wes.patch(address, content=part, headers=headers).status_code == 200
    assert wes.post(f"{address}/complete").status_code == 202
    assert _taken(site, wes, address)["report"]["known"]["image"] == 2


def test_a_bundle_goes_nowhere_else(
    site: Site, wes: httpx.Client, dan: httpx.Client, bundle: bytes
) -> None:
    for client, project, status in (
        (wes, "secret", 404),
        (wes, "nothing", 404),
        (dan, "copy", 403),
        (dan, "secret", 404),
    ):
        answer = client.post("bundles", params={"project": project}, content=bundle)
        assert answer.status_code == status, answer.text
    # Nothing of what was refused stays.
    held = site.home.images / ".uploads"
    assert not [one for one in held.iterdir() if one.is_dir()]


@pytest.mark.parametrize("how", ["no zip", "changed", "no list"])
def test_a_bundle_that_is_none_is_refused_and_nothing_of_it_taken(
    site: Site, wes: httpx.Client, bundle: bytes, how: str
) -> None:
    content = b"no zip" if how == "no zip" else _without(bundle, how)
    before = wes.get("facets", params={"project": "copy"}).json()["count"]
    said = _sent(site, wes, content)
    assert said["state"] == "failed"
    assert said["reason"]
    assert str(site.home.root) not in said["reason"]
    assert wes.get("facets", params={"project": "copy"}).json()["count"] == before


def _without(bundle: bytes, how: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(bundle)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if how == "changed" and name == "catalog.json":
                content = json.dumps(json.loads(content) | {"more": 1}).encode()
            if how != "no list" or name != "SHA256SUMS":
                new.writestr(name, content)
    return out.getvalue()


def test_a_checksum_that_does_not_fit_is_told_at_once(
    wes: httpx.Client, bundle: bytes
) -> None:
    words = {"project": "copy", "sha256": "0" * 64}
    answer = wes.post("bundles", params=words, content=bundle)
    assert answer.status_code == 422
    assert "checksum" in answer.json()["detail"]


def test_a_bundle_without_a_length_is_refused(wes: httpx.Client) -> None:
    def parts() -> Iterator[bytes]:
        yield b"PK"

    answer = wes.post("bundles", params={"project": "copy"}, content=parts())
    assert answer.status_code == 422
