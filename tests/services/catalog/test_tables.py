"""Tables over HTTP: handed in with a run behind them, and read row by row."""

from __future__ import annotations

import io

import httpx
import pyarrow.parquet as parquet
import pytest
from theatrum.catalog.record import recording

from tests.services.catalog.running import Site

AREAS = {
    "project": "mri",
    "name": "areas",
    "columns": {"cell": ["a", "b", "c"], "area": [1.5, None, 2.5]},
    "units": {"area": "mm2"},
}


def test_a_table_that_is_handed_in_has_a_run_behind_it(bob: httpx.Client) -> None:
    images = bob.get("images", params={"limit": 2, "fields": "id"}).json()["items"]
    said = AREAS | {"images": [one["id"] for one in images]}
    answer = bob.post("tables", json=said)
    assert answer.status_code == 201, answer.text
    table = answer.json()
    assert answer.headers["location"].endswith(f"/tables/{table['id']}")
    assert (table["row_count"], table["schema"]["area"]["unit"]) == (3, "mm2")
    run = bob.get(f"runs/{table['run_id']}").json()
    assert run["requested_by"] == "bob"
    inputs = bob.get("run_inputs", params={"run_id": run["id"]}).json()["items"]
    assert {one["object_id"] for one in inputs} == {one["id"] for one in images}
    (output,) = bob.get("run_outputs", params={"run_id": run["id"]}).json()["items"]
    assert output["object_id"] == table["id"]
    # It is read in pages, or as a file.
    rows = f"tables/{table['id']}/rows"
    first = bob.get(rows, params={"limit": 2}).json()
    assert first["items"] == [{"cell": "a", "area": 1.5}, {"cell": "b", "area": None}]
    rest = bob.get(rows, params={"limit": 2, "cursor": first["next"]}).json()
    assert rest == {"items": [{"cell": "c", "area": 2.5}], "next": None}
    assert bob.get(rows, params={"cursor": 9}).json()["items"] == []
    as_csv = bob.get(rows, headers={"Accept": "text/csv"}).text.splitlines()
    assert as_csv == ["cell,area", "a,1.5", "b,", "c,2.5"]
    as_parquet = bob.get(rows, params={"format": "parquet"}).content
    assert parquet.read_table(io.BytesIO(as_parquet)).num_rows == 3
    # What it is called may change, what is in it never.
    address = f"tables/{table['id']}"
    assert bob.patch(address, json={"name": "cells"}).json()["name"] == "cells"
    assert bob.patch(address, json={"row_count": 1}).status_code == 422
    assert bob.delete(address).status_code == 204
    assert bob.get(rows).status_code == 404


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"columns": {}}, 422),
        ({"columns": {"a": []}}, 422),
        ({"columns": {"a": [1], "b": [1, 2]}}, 422),
        ({"columns": {"a": [1, "x"]}}, 422),
        ({"columns": {"a": [2**70]}}, 422),
        ({"columns": {"a": [{}]}}, 422),
        ({"units": {"b": "mm"}, "columns": {"a": [1]}}, 422),
        ({"images": ["nothere"]}, 404),
        ({"project": "secret"}, 404),
    ],
)
def test_a_table_that_is_none_is_refused(
    bob: httpx.Client, said: dict, status: int
) -> None:
    answer = bob.post("tables", json=AREAS | said)
    assert answer.status_code == status, answer.text


def test_who_reads_hands_in_no_table(dan: httpx.Client) -> None:
    assert dan.post("tables", json=AREAS).status_code == 403


def test_a_project_is_deleted_once_no_image_is_in_it(
    site: Site, ann: httpx.Client, bob: httpx.Client
) -> None:
    made = ann.post("projects", json={"name": "short-lived"}).json()
    address = f"projects/{made['id']}"
    said = {"project": "short-lived", "label": "m1"}
    assert ann.post("subjects", json=said).status_code == 201
    with recording(site.app.state.service.database, "ann") as book:
        project = book.project("short-lived")
        run = book.run(project, node="by hand")
        image = book.image(project, path="/nowhere/x", name="x", run=run, kind="crop")
        book.tag(image, "gone")
        key = image.id
    with site.client("stranger") as stranger:
        assert stranger.delete(address).status_code == 404
    assert ann.delete(address).status_code == 409
    assert ann.delete(f"images/{key}").status_code == 204
    assert ann.put(f"{address}/roles/lab", json={"role": "editor"}).status_code == 204
    assert bob.delete(address).status_code == 403
    assert ann.delete(address).status_code == 204
    assert ann.get(address).status_code == 404
    assert ann.get("subjects", params={"label": "m1"}).json()["items"] == []


def test_an_acquisition_can_be_written_down_by_hand(bob: httpx.Client) -> None:
    said = {"project": "mri", "modality": "MR", "description": "planned"}
    made = bob.post("acquisitions", json=said)
    assert made.status_code == 201, made.text
    assert bob.delete(f"acquisitions/{made.json()['id']}").status_code == 204
