"""Downloads over HTTP: whole, in parts, as jobs, and never of another's project."""

from __future__ import annotations

import io
import json
import re
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import nibabel
import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest
from theatrum.catalog import arrays
from theatrum.catalog.connection import connect
from theatrum.catalog.facts import facts_of_array
from theatrum.catalog.query.spec import Q
from theatrum.catalog.record import recording
from theatrum.catalog.tables import Batch, ProjectGroup

from services.catalog import export_jobs
from services.catalog.api import exports
from tests.services.catalog.running import Site, catalogue


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A catalogue with real files: three scans for `ann`, one of somebody else's."""
    folder = tmp_path_factory.mktemp("stock")
    people = {"ann": ["readers"], "eve": [], "other": ["rivals"]}
    with catalogue(folder, people) as running:
        _fill(running, folder)
        yield running


def _fill(site: Site, folder: Path) -> None:
    with recording(site.app.state.service.database, "ann") as book:
        for name, group in {"mri": "readers", "secret": "rivals"}.items():
            project = book.project(name, licence="CC0-1.0")
            project.groups.append(ProjectGroup(group=group, role="viewer"))
            book.session.flush()
            for number in range(3 if name == "mri" else 1):
                path = folder / f"{name}-{number}.nii"
                voxels = np.full((5, 4, 9), number, np.int16)
                voxels[2] = 9
                nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
                subject = book.subject(
                    project, f"{name}-{number}", diagnosis="glioma" if number else None
                )
                facts = facts_of_array(arrays.open_array(path))
                book.image(
                    project,
                    path=str(path),
                    name=f"{name}-{number}",
                    subject_id=subject.id,
                    format="nifti",
                    size_bytes=path.stat().st_size,
                    **facts | {"modality": "MR"},
                )
    mine = connect(site.home.root, user="ann")
    tumour = mine.images.filter(subject__diagnosis="glioma")
    export = {"what": {"default": "slices"}, "central": {"default": "3"}}
    for project in ("mri", "secret"):
        mine.keep_query(tumour, "tumour", project=project, title=f"Tumour {project}")
    mine.keep_query(
        tumour, "tumour-slices", project="mri", title="Slices", parameters=export
    )
    mine.close()


@pytest.fixture
def ann(stock: Site) -> Iterator[httpx.Client]:
    """Who may export `mri`."""
    stock.app.state.service.limiter._left.clear()
    with stock.client("ann") as client:
        yield client


def names(content: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(content)) as read:
        assert read.testzip() is None
        return read.namelist()


def test_a_zip_holds_the_originals_and_says_how_long_it_is(
    stock: Site, ann: httpx.Client
) -> None:
    answer = ann.get("images/export.zip")
    assert answer.status_code == 200
    assert int(answer.headers["content-length"]) == len(answer.content)
    found = names(answer.content)
    assert "mri/mri-0/mri-0.nii" in found
    assert "LICENCE.txt" in found
    with zipfile.ZipFile(io.BytesIO(answer.content)) as read:
        original = (stock.home.root / "mri-1.nii").read_bytes()
        assert read.read("mri/mri-1/mri-1.nii") == original
        assert b"CC0-1.0" in read.read("LICENCE.txt")


def test_the_words_of_listings_choose_what_is_exported(ann: httpx.Client) -> None:
    answer = ann.get("images/export.zip?name=mri-2")
    assert [one for one in names(answer.content) if one.endswith(".nii")] == [
        "mri/mri-2/mri-2.nii"
    ]
    assert ann.get("images/export.zip?nonsense=1").status_code == 422


def test_a_download_that_broke_off_goes_on(ann: httpx.Client) -> None:
    whole = ann.get("images/export.zip")
    half = len(whole.content) // 2
    headers = {"Range": f"bytes={half}-", "If-Range": whole.headers["etag"]}
    rest = ann.get("images/export.zip", headers=headers)
    assert rest.status_code == 206
    assert rest.headers["content-range"] == (
        f"bytes {half}-{len(whole.content) - 1}/{len(whole.content)}"
    )
    assert rest.content == whole.content[half:]


def test_a_part_of_what_changed_meanwhile_is_not_sent(ann: httpx.Client) -> None:
    headers = {"Range": "bytes=10-20", "If-Range": '"something else"'}
    assert ann.get("images/export.zip", headers=headers).status_code == 200


def test_a_part_beyond_the_end_is_refused(ann: httpx.Client) -> None:
    headers = {"Range": "bytes=999999999-"}
    assert ann.get("images/export.zip", headers=headers).status_code == 416


def test_what_one_has_is_not_sent_again(ann: httpx.Client) -> None:
    tag = ann.get("images/export.zip").headers["etag"]
    again = ann.get("images/export.zip", headers={"If-None-Match": tag})
    assert again.status_code == 304


def test_slices_are_the_pixels_and_nothing_else(ann: httpx.Client) -> None:
    answer = ann.get("images/export.zip?what=slices&planes=ax&central=3&name=mri-0")
    found = [one for one in names(answer.content) if one.endswith(".jpg")]
    assert found == [f"mri/mri-0/ax_000{number}.jpg" for number in (3, 4, 5)]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as read:
        picture = PIL.Image.open(io.BytesIO(read.read(found[0])))
    assert picture.size == (5, 4)


def test_a_bundle_comes_back_as_it_was(ann: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "mri.zip").write_bytes(ann.get("images/export.zip?what=bundle").content)
    there = connect(tmp_path / "there", user="karl")
    there.import_bundle(tmp_path / "mri.zip", project="mri")
    assert there.images.count() == 3
    assert there.images.get(name="mri-2").array.sizes["z"] == 9
    there.close()


def test_a_bids_data_set_has_its_description(ann: httpx.Client) -> None:
    answer = ann.get("images/export.zip?what=bids")
    assert "dataset_description.json" in names(answer.content)
    assert "participants.tsv" in names(answer.content)


def test_rows_come_as_json_and_as_parquet(ann: httpx.Client) -> None:
    items = ann.get("images/export.json?sort=name").json()["items"]
    assert [one["name"] for one in items] == ["mri-0", "mri-1", "mri-2"]
    content = ann.get("images/export.parquet?sort=name").content
    table = pq.read_table(io.BytesIO(content))
    assert table.column("name").to_pylist() == ["mri-0", "mri-1", "mri-2"]
    assert "path" not in table.column_names


def test_how_much_it_would_be_is_told_before(ann: httpx.Client) -> None:
    told = ann.get("images/export").json()
    assert told["count"] == 3
    assert set(told["kinds"]) == {"originals", "bundle", "bids", "slices"}
    assert told["kinds"]["originals"]["bytes"] > 1000
    assert told["kinds"]["originals"]["seconds"] > 0


def wait(client: httpx.Client, address: str, *states: str) -> dict[str, object]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        told: dict[str, object] = client.get(address).json()
        if told["state"] in states:
            return told
        threading.Event().wait(0.05)
    raise AssertionError(told)


def test_an_export_as_a_job_is_the_same_file(stock: Site, ann: httpx.Client) -> None:
    at_once = ann.get("images/export.zip?what=bundle&name=mri-1")
    answer = ann.get(
        "images/export.zip?what=bundle&name=mri-1", headers={"Prefer": "respond-async"}
    )
    assert answer.status_code == 202
    address = f"exports/{answer.json()['id']}"
    assert answer.headers["location"].endswith(address)
    wait(ann, address, "succeeded")
    fetched = ann.get(f"{address}/download")
    assert fetched.content == at_once.content
    part = ann.get(f"{address}/download", headers={"Range": "bytes=5-9"})
    assert part.status_code == 206
    assert part.content == fetched.content[5:10]
    with stock.client("eve") as eve:
        assert eve.get(address).status_code == 404
        assert eve.get(f"{address}/download").status_code == 404
        assert eve.delete(address).status_code == 404


def test_what_is_too_large_is_made_by_a_job(
    ann: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "STREAMED_BYTES", 100)
    answer = ann.get("images/export.zip?name=mri-2")
    assert answer.status_code == 202
    wait(ann, f"exports/{answer.json()['id']}", "succeeded")
    again = ann.get("images/export.zip?name=mri-2")
    assert again.status_code == 200  # what is made is sent at once


def test_a_job_that_was_killed_goes_on_where_it_stopped(
    stock: Site, ann: httpx.Client
) -> None:
    whole = ann.get("images/export.zip?what=originals&name=mri-1")
    tag = whole.headers["etag"].strip('"')
    jobs = stock.app.state.exports
    # What a service leaves that was killed in the middle.
    order = export_jobs.Order(
        connect(stock.home.root).images.filter(Q(name="mri-1")).spec,
        "originals", {}, [1], "ann",
    )  # fmt: skip
    key = "k1lled000000"
    jobs._partial(key).write_bytes(whole.content[:300])
    with recording(jobs.database, "ann") as book:
        book.add(
            Batch(
                id=key, project_id=1, name="export", state="running",
                query=order.spec.to_json(), requested_by="ann",
                params={"what": "originals", "options": {}, "projects": [1]},
                engine={"kind": export_jobs.ENGINE, "tag": tag},
                counts={"bytes": 300, "of": len(whole.content)},
            )
        )  # fmt: skip
    jobs._wake.set()
    wait(ann, f"exports/{key}", "succeeded")
    assert ann.get(f"exports/{key}/download").content == whole.content


def test_a_job_is_cancelled_within_two_seconds(
    stock: Site, ann: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    real = export_jobs.Archive.stream

    def slow(self: export_jobs.Archive, first: int = 0) -> Iterator[bytes]:
        for block in real(self, first):
            begun.set()
            go_on.wait(30)
            yield block

    monkeypatch.setattr(export_jobs.Archive, "stream", slow)
    answer = ann.get(
        "images/export.zip?what=bundle", headers={"Prefer": "respond-async"}
    )
    address = f"exports/{answer.json()['id']}"
    assert begun.wait(30)
    assert ann.delete(address).status_code == 204
    go_on.set()
    assert wait(ann, address, "cancelled")["download"] is None
    jobs = stock.app.state.exports
    deadline = time.monotonic() + 2
    while jobs._partial(answer.json()["id"]).exists() and time.monotonic() < deadline:
        threading.Event().wait(0.02)
    assert not jobs._partial(answer.json()["id"]).exists()
    assert ann.get(f"{address}/download").status_code == 409


@pytest.mark.parametrize(
    "path",
    [
        *(f"images/export.zip?what={what}" for what in exports.BYTES_PER_S),
        *("images/export.json", "images/export.parquet", "images/export"),
        "images/export.zip?project__name=secret",
        "images/export.json?project__name=secret",
    ],
)
def test_no_export_holds_anything_of_another_project(
    ann: httpx.Client, path: str
) -> None:
    answer = ann.get(path)
    assert answer.status_code in (200, 202), answer.text
    assert b"secret-0" not in answer.content
    if answer.content.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(answer.content)) as read:
            for name in read.namelist():
                assert "secret" not in name
                # The question itself may say the word: its answer may not.
                if name != "catalog.json":
                    assert b"secret-0" not in read.read(name)


def test_without_any_right_an_export_is_empty(stock: Site) -> None:
    with stock.client("eve") as eve:
        assert eve.get("images/export.json").json()["items"] == []
        found = names(eve.get("images/export.zip").content)
        assert not [one for one in found if one.endswith(".nii")]


def test_who_exports_without_end_is_told_to_wait(stock: Site) -> None:
    with stock.client("other") as other:
        answers = [other.get("images/export.json").status_code for _ in range(8)]
    assert 429 in answers
    assert answers[0] == 200


# Saved queries


def test_a_saved_query_says_what_it_finds_and_how_long_it_takes(
    ann: httpx.Client,
) -> None:
    listed = ann.get("queries").json()["items"]
    assert [one["title"] for one in listed] == ["Slices", "Tumour mri"]
    told = ann.get("queries/tumour").json()
    assert told["count"] == 2
    assert told["kinds"]["originals"]["bytes"] > 0


def test_a_saved_query_is_an_address_to_download_from(ann: httpx.Client) -> None:
    content = ann.get("queries/tumour/export.zip").content
    assert [one for one in names(content) if one.endswith(".nii")] == [
        "mri/mri-1/mri-1.nii",
        "mri/mri-2/mri-2.nii",
    ]
    items = json.loads(ann.get("queries/tumour/export.json").content)["items"]
    assert len(items) == 2
    parquet = ann.get("queries/tumour/export.parquet").content
    assert pq.read_table(io.BytesIO(parquet)).num_rows == 2


def test_a_saved_query_can_say_what_is_exported(ann: httpx.Client) -> None:
    found = names(ann.get("queries/tumour-slices/export.zip").content)
    assert sum(one.endswith(".jpg") for one in found) == 6


def test_an_export_that_is_asked_in_json_is_looked_at_before_it_is_made(
    ann: httpx.Client,
) -> None:
    images = {"of": "images"}
    inside = {**images, "where": [{"field": "path__startswith", "value": "/"}]}
    for wrong in (
        {"query": inside},
        {"query": {"of": "subjects"}},
        {"query": images, "what": "slices", "options": {"planes": 5}},
        {"query": images, "what": "slices", "options": {"central": [1]}},
        {"query": images, "options": {"central": 5}},
    ):
        assert ann.post("exports", json=wrong).status_code == 422


def test_an_unknown_parameter_is_refused(ann: httpx.Client) -> None:
    assert ann.get("queries/tumour?colour=red").status_code == 422


def test_a_query_of_another_project_is_not_there(ann: httpx.Client) -> None:
    assert ann.get("queries/tumour?project=secret").status_code == 404
    assert ann.get("queries/none").status_code == 404


def test_the_front_page_says_what_downloads_take(stock: Site) -> None:
    cookie = stock.cookie("ann")
    with httpx.Client(cookies={cookie["name"]: cookie["value"]}) as browser:
        page = browser.get(f"{stock.url}/", timeout=30).text
    assert "downloads/new?what=originals" in page
    assert "downloads/new?query=tumour-slices&amp;project=mri" in page
    assert re.search(r"2 images, [\d.]+ k?B, about \d+ s", page)
    assert "secret" not in page
