"""Versions of data sets, frozen over HTTP."""

from __future__ import annotations

import httpx
import pytest
from theatrum.catalog import connect, freezing
from theatrum.catalog.record import recording
from theatrum.catalog.rows import Row
from theatrum.catalog.tables import Image

from tests.services.catalog.running import Site

QUERY = {"of": "images", "where": [{"field": "modality", "value": "MR"}]}
NEW = {"project": "mri", "name": "scans", "version": "1", "query": QUERY}


def test_what_a_question_finds_is_frozen_once(site: Site, bob: httpx.Client) -> None:
    answer = bob.post("versions", json=NEW)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert (made["row_count"], made["frozen_by"]) == (3, "bob")
    assert answer.headers["location"].endswith(f"/versions/{made['id']}")
    assert bob.get(f"versions/{made['id']}").headers["etag"] == answer.headers["etag"]
    assert bob.post("versions", json=NEW).status_code == 409
    address = f"versions/{made['id']}/manifest"
    first = bob.get(address, params={"limit": 2})
    assert len(first.json()["items"]) == 2
    assert "path" not in first.json()["items"][0]
    again = bob.get(
        address, params={"limit": 2}, headers={"If-None-Match": first.headers["etag"]}
    )
    assert again.status_code == 304
    rest = bob.get(address, params={"cursor": first.json()["next"]}).json()
    assert rest["next"] is None
    names = [one["name"] for one in (*first.json()["items"], *rest["items"])]
    assert sorted(names) == ["mri-1", "mri-3", "mri-5"]
    table = bob.get(address, headers={"Accept": "text/csv"}).text
    assert table.splitlines()[0] == "id,name,scene,checksum,version"
    assert len(table.splitlines()) == 4
    # What changes later changes no version.
    database = site.app.state.service.database
    with recording(database, "bob") as book:
        gone = book.get(Image, rest["items"][0]["id"])
        book.delete(gone)
    assert len(bob.get(address).json()["items"]) == 3
    with recording(database, "bob") as book:
        book.change(book.session.get_one(Image, gone.id), deleted_at=None)


def test_a_notebook_freezes_far_away(site: Site) -> None:
    far = connect(site.url, token="ann")
    made = far.freeze(far.images.filter(modality="CT"), "scans", "far", project="mri")
    assert isinstance(made, Row)
    assert (made.row_count, made.frozen_by) == (4, "ann")
    assert freezing.manifest(made).num_rows == 4


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"query": {"of": "subjects"}}, 422),
        ({"query": {"of": "images", "limit": 2}}, 422),
        ({"query": {"of": "images", "where": [{"field": "name", "value": "?"}]}}, 422),
        ({"query": {"of": "images", "where": [
            {"field": "path__startswith", "value": "/"}]}}, 422),
        ({"project": "secret"}, 404),
        ({"name": ""}, 422),
    ],
)  # fmt: skip
def test_what_cannot_be_frozen_is_refused(
    bob: httpx.Client, said: dict, status: int
) -> None:
    answer = bob.post("versions", json=NEW | {"version": "x"} | said)
    assert answer.status_code == status, answer.text


def test_a_manifest_tells_only_of_what_one_sees(
    site: Site, dan: httpx.Client, ann: httpx.Client
) -> None:
    assert dan.post("versions", json=NEW | {"version": "d"}).status_code == 403
    # Who sees both projects freezes images of both into the one that all may see.
    here = connect(site.home.root, user="stranger")
    made = here.freeze(here.images.all(), "both", "1", project="mri")
    seen = ann.get(f"versions/{made.id}/manifest", params={"limit": 1000})
    assert {one["name"][:4] for one in seen.json()["items"]} == {"mri-"}
    files = ann.get(f"versions/{made.id}/manifest", params={"format": "csv"})
    assert "secret" not in files.text
