"""Images come in over HTTP, whatever stops them on the way."""

from __future__ import annotations

import hashlib
import io
import json
import os
import socket
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import nibabel
import numpy as np
import pytest
from theatrum.catalog import connect
from theatrum.catalog.errors import BadRecord, NotAllowed, NotFound
from theatrum.catalog.record import recording
from theatrum.catalog.tables import ProjectGroup

from services.catalog import intake
from services.catalog.api.uploads import refuse_source
from services.catalog.errors import SourceRefusedError
from tests.services.catalog.running import Site


@pytest.fixture(scope="module", autouse=True)
def project(site: Site) -> None:
    """`sent`: the lab's to edit, for readers to read."""
    with recording(site.app.state.service.database, "ann") as book:
        made = book.project("sent")
        roles = {"@ann": "maintainer", "lab": "editor", "readers": "viewer"}
        for group, role in roles.items():
            made.groups.append(ProjectGroup(group=group, role=role))


def _scan(seed: int) -> bytes:
    values = np.random.default_rng(seed).integers(0, 900, (12, 14, 16)).astype(np.int16)
    image = nibabel.Nifti1Image(values, np.diag([1, 1, 2, 1]))
    return bytes(image.to_bytes())


def _zip(files: dict[str, bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return held.getvalue()


def _said(content: bytes, name: str = "scan.nii", **more: object) -> dict[str, object]:
    return {
        "project": "sent",
        "name": name,
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    } | more


def _begin(client: httpx.Client, content: bytes, **more: object) -> str:
    answer = client.post("uploads", json=_said(content, **more))
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"].endswith(answer.json()["id"])
    return f"uploads/{answer.json()['id']}"


def _part(client: httpx.Client, address: str, at: int, part: bytes) -> httpx.Response:
    headers = {"Upload-Offset": str(at)}
    return client.patch(address, content=part, headers=headers)


def _sent(client: httpx.Client, content: bytes, **more: object) -> str:
    address = _begin(client, content, **more)
    assert _part(client, address, 0, content).status_code == 200
    answer = client.post(f"{address}/complete")
    assert answer.status_code == 202, answer.text
    assert answer.json()["state"] == "queued"
    return address


def _set(monkeypatch: pytest.MonkeyPatch, site: Site, **settings: object) -> None:
    service = site.app.state.service
    changed = service.settings.model_copy(update=settings)
    held = site.app.state._state
    monkeypatch.setitem(held, "service", replace(service, settings=changed))


def _take_in(site: Site) -> int:
    return intake.do_all(site.app.state.service.database, site.home)


def test_a_file_sent_in_parts_becomes_an_image(site: Site, bob: httpx.Client) -> None:
    content = _scan(1)
    address = _begin(bob, content, name="sub-07_T1w.nii")
    first = _part(bob, address, 0, content[:1000])
    assert first.headers["upload-offset"] == "1000"
    # From another place than where it is, nothing is added, and that is told.
    wrong = _part(bob, address, 500, content[500:])
    assert wrong.status_code == 409
    assert wrong.headers["upload-offset"] == "1000"
    early = bob.post(f"{address}/complete")
    assert early.status_code == 422
    assert "1000" in early.json()["detail"]
    assert bob.get(address).json()["offset"] == 1000
    assert _part(bob, address, 1000, content[1000:]).json()["offset"] == len(content)
    assert bob.post(f"{address}/complete").status_code == 202
    assert bob.post(f"{address}/complete").status_code == 202  # said twice, done once
    assert _take_in(site) == 1
    told = bob.get(address).json()
    assert told["state"] == "done", told
    assert told["report"]["counts"]["taken"] == 1
    (name,) = told["report"]["taken"][0]["images"]
    image = connect(site.url, token="bob").images.get(
        project__name="sent", name=name.partition("/")[2]
    )
    values = nibabel.Nifti1Image.from_bytes(content).get_fdata()
    assert float(image.array.max()) == values.max()
    # What was sent lies nowhere any more but in the catalogue.
    key = address.rpartition("/")[2]
    assert not (site.home.images / ".uploads" / key).exists()


def test_a_line_that_is_cut_loses_nothing_that_came(
    site: Site, bob: httpx.Client
) -> None:
    content = os.urandom(200_000)
    address = _begin(bob, content)
    url = urlsplit(f"{site.url}/api/v1/{address}")
    with socket.create_connection((url.hostname, url.port)) as line:
        head = (
            f"PATCH {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\n"
            "Authorization: token bob\r\nUpload-Offset: 0\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        line.sendall(head.encode() + content[:150_000])
        # The sender is gone in the middle of the part.
    for _ in range(600):
        told = bob.get(address)
        if told.json()["offset"]:
            break
    at = told.json()["offset"]
    assert 0 < at <= 150_000
    assert _part(bob, address, at, content[at:]).json()["offset"] == len(content)
    assert bob.post(f"{address}/complete").status_code == 202
    bob.delete(address)


def test_an_upload_goes_on_after_the_service_was_killed(
    site: Site, bob: httpx.Client
) -> None:
    content = _scan(2)
    address = _begin(bob, content)
    _part(bob, address, 0, content[:3000])
    key = address.rpartition("/")[2]
    # All that it knows lies in files: what another process reads is what was answered.
    again = intake.uploads_of(site.home).status(key)
    assert again.missing == ((3000, len(content)),)
    assert _part(bob, address, 3000, content[3000:]).status_code == 200
    assert bob.post(f"{address}/complete").status_code == 202
    # The worker dies while it takes it in: the next one does it, once.
    orders = intake.Orders(site.home)
    order = orders.get(key)
    assert order is not None
    orders.put(replace(order, state="working", tries=1))
    _take_in(site)
    assert bob.get(address).json()["report"]["counts"]["taken"] == 1
    orders.put(replace(order, state="working", tries=1))
    assert not (site.home.images / ".uploads" / key).exists()
    _take_in(site)  # killed after the file went, before it was told: told as failed
    assert bob.get(address).json()["state"] == "failed"
    found = bob.get("images", params={"project__name": "sent"}).json()["items"]
    assert len([one for one in found if one["name"].startswith("scan")]) == 1


def test_what_kills_the_worker_each_time_is_given_up(
    site: Site, bob: httpx.Client
) -> None:
    address = _sent(bob, _scan(3))
    orders = intake.Orders(site.home)
    order = orders.get(address.rpartition("/")[2])
    assert order is not None
    orders.put(replace(order, state="working", tries=intake.MOST_TRIES))
    _take_in(site)
    told = bob.get(address).json()
    assert told["state"] == "failed"
    assert "several times" in told["reason"]


def test_another_checksum_is_refused_and_the_file_can_be_sent_again(
    site: Site, bob: httpx.Client
) -> None:
    content = _scan(4)
    address = _begin(bob, content)
    _part(bob, address, 0, b"\0" * len(content))
    answer = bob.post(f"{address}/complete")
    assert answer.status_code == 422
    assert "checksum" in answer.json()["detail"]
    assert bob.get(address).json()["offset"] == 0
    _part(bob, address, 0, content)
    assert bob.post(f"{address}/complete").status_code == 202
    bob.delete(address)


def test_more_than_was_announced_is_refused(bob: httpx.Client) -> None:
    address = _begin(bob, b"x" * 100)
    assert _part(bob, address, 0, b"x" * 101).status_code == 413
    assert bob.get(address).json()["offset"] == 0
    bob.delete(address)


def test_nobody_may_fill_the_disk(
    site: Site, bob: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    _set(monkeypatch, site, catalog_upload_bytes=1000)
    assert bob.post("uploads", json=_said(b"x" * 1001)).status_code == 413
    address = _begin(bob, b"x" * 600)
    assert bob.post("uploads", json=_said(b"x" * 600)).status_code == 413
    assert bob.delete(address).status_code == 204
    address = _begin(bob, b"x" * 600)
    bob.delete(address)


def test_only_the_uploader_sees_an_upload(
    site: Site, ann: httpx.Client, bob: httpx.Client
) -> None:
    address = _begin(bob, b"x" * 10)
    absent = ann.get(f"uploads/{'0' * 32}")
    assert absent.status_code == 404
    for answer in (
        ann.get(address),
        _part(ann, address, 0, b"x"),
        ann.post(f"{address}/complete"),
        ann.delete(address),
    ):
        assert answer.status_code == 404
        assert answer.json() == absent.json()
    listed = [one["id"] for one in bob.get("uploads").json()["items"]]
    assert address.rpartition("/")[2] in listed
    assert ann.get("uploads").json()["items"] == []
    bob.delete(address)
    assert bob.get(address).status_code == 404


def test_who_reads_a_project_sends_nothing_into_it(
    dan: httpx.Client, bob: httpx.Client
) -> None:
    assert dan.post("uploads", json=_said(b"x")).status_code == 403
    assert bob.post("uploads", json=_said(b"x", project="secret")).status_code == 404
    assert bob.post("uploads", json=_said(b"x", project="none")).status_code == 404
    order = {"project": "secret", "source": "https://data.example/a.nii"}
    assert bob.post("ingest", json=order).status_code == 404


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/x",
        "..\\..\\boot.ini",
        ".bashrc",
        "a\0b",
        "…",
        "x" * 255,
    ],
)
def test_a_hostile_name_leads_nowhere(site: Site, bob: httpx.Client, name: str) -> None:
    address = _begin(bob, b"x", name=name)
    _part(bob, address, 0, b"x")
    assert bob.post(f"{address}/complete").status_code == 202
    key = address.rpartition("/")[2]
    folder = site.home.images / ".uploads" / key
    files = [one for one in folder.rglob("*") if one.is_file()]
    assert [one for one in files if one.parent.name == "whole"]
    assert all(folder in one.resolve().parents for one in files)
    bob.delete(address)


@pytest.mark.parametrize("name", ["set.tcia", "set.S5CMD", " set.s5cmd "])
def test_a_list_of_addresses_is_no_image(bob: httpx.Client, name: str) -> None:
    assert bob.post("uploads", json=_said(b"x", name=name)).status_code == 422


def _tar_with_link() -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        link = tarfile.TarInfo("a.nii")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return held.getvalue()


def test_hostile_archives_are_refused_and_a_good_one_is_not(
    site: Site, bob: httpx.Client
) -> None:
    bad = [
        _sent(bob, _zip({"../../../out.nii": _scan(5)}), name="out.zip"),
        _sent(bob, _tar_with_link(), name="link.tar"),
        _sent(bob, _zip({"zeros.nii": b"\0" * 40_000_000})[:5000], name="cut.zip"),
    ]
    good = _sent(bob, _zip({"a/good.nii": _scan(6), "a/bad.nii": b"no"}), name="g.zip")
    assert _take_in(site) == 4
    for address in bad:
        told = bob.get(address).json()
        assert told["report"]["counts"]["taken"] == 0, told
        assert told["report"]["refused"][0]["reason"]
    counts = bob.get(good).json()["report"]["counts"]
    assert (counts["taken"], counts["refused"]) == (1, 1)
    assert not list(site.home.root.parent.glob("out.nii"))
    # Neither a place on this machine nor another's name is in what is told.
    assert str(site.home.root) not in bob.get("uploads").text


def test_what_is_sent_to_the_inbox_waits_there(site: Site, bob: httpx.Client) -> None:
    address = _sent(bob, _scan(7), name="waits.nii", inbox=True)
    _take_in(site)
    assert bob.get(address).json()["report"]["counts"]["waiting"] == 1
    found = bob.get("images", params={"name__startswith": "waits"}).json()["items"]
    assert found == []


ALLOWED = [
    "https://data.example/open/",
    "s3://study/a",
    "dicomweb+https://pacs.example/",
]


@pytest.mark.parametrize(
    "source",
    [
        "https://data.example/open/x.nii",
        "https://data.example/open/",
        "s3://study/a",
        "s3://study/a/b/*.nii",
        "dicomweb+https://pacs.example/dicom-web/studies/1.2",
    ],
)
def test_an_address_below_an_allowed_one_is_taken(source: str) -> None:
    refuse_source(source, ALLOWED)


@pytest.mark.parametrize(
    "source",
    [
        "/etc/passwd",
        "file:///etc/passwd",
        "memory://x",
        "http://data.example/open/x.nii",
        "https://data.example/opened/x.nii",
        "https://data.example/open/../x.nii",
        "https://data.example/open/%2e%2e/x.nii",
        "https://data.example/open/%252e%252e/x.nii",
        "https://data.example@evil.example/open/x",
        "https://me:word@data.example/open/x",
        "https://data.example/open/a.zip::file:///etc/passwd",
        "zip://x::https://data.example/open/a.zip",
        "s3://study/ab",
        "s3://other/a",
        "https://169.254.169.254/latest/",
        "https://data.example\\@evil.example/open/",
        "",
    ],
)
def test_no_other_address_is_taken(source: str) -> None:
    with pytest.raises(SourceRefusedError):
        refuse_source(source, ALLOWED)


def test_without_a_setting_no_address_is_taken(bob: httpx.Client) -> None:
    for source in ("https://data.example/a.nii", "/etc/passwd"):
        order = {"project": "sent", "source": source}
        answer = bob.post("ingest", json=order)
        assert answer.status_code == 422
        assert "catalog_sources" in answer.json()["detail"]


def test_an_allowed_address_is_taken_in(
    site: Site, bob: httpx.Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import functools
    import threading
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    (tmp_path / "far.nii").write_bytes(_scan(8))
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    origin = f"http://127.0.0.1:{server.server_port}/"
    _set(monkeypatch, site, catalog_sources=origin)
    try:
        order = {"project": "sent", "source": f"{origin}far.nii"}
        answer = bob.post("ingest", json=order)
        assert answer.status_code == 202, answer.text
        address = f"ingest/{answer.json()['id']}"
        _take_in(site)
    finally:
        server.shutdown()
    told = bob.get(address).json()
    assert told["report"]["counts"]["taken"] == 1, told
    with site.client("ann") as other:
        assert other.get(address).status_code == 404


def test_an_array_of_a_notebook_is_kept_over_http(
    site: Site, bob: httpx.Client
) -> None:
    address = _sent(bob, _scan(9), name="source.nii")
    _take_in(site)
    (name,) = bob.get(address).json()["report"]["taken"][0]["images"]
    images = connect(site.url, token="bob").images
    image = images.get(project__name="sent", name=name.partition("/")[2])
    half = image.array / 2
    kept = image.save(half, "halved", node="halve", params={"by": 2})
    assert kept.name == "halved"
    again = images.get(id=kept.id)
    np.testing.assert_allclose(again.array.values, half.values)
    (run,) = [one for one in again.lineage.to_json()["runs"] if one["node"] == "halve"]
    assert run["requested_by"] == "bob"
    assert bob.get(f"images/{kept.id}").json()["kind"] == "derived"
    # Who only looks at the project keeps nothing in it; who does not see it, nothing.
    reader = connect(site.url, token="dan").images.get(id=image.id)
    with pytest.raises(NotAllowed):
        reader.save(half, "spied")
    with pytest.raises((NotFound, BadRecord)):
        image.save(half, "spied", project="secret")


@pytest.mark.parametrize(
    ("kept", "array"),
    [
        (None, b""),
        ("no json", b""),
        ("[]", b""),
        ('{"project": "sent"}', b"no zip"),
        ('{"project": "sent", "sql": 1}', b""),
        (json.dumps({"project": "sent"}), _zip({"../zarr.json": b"{}"})),
        (json.dumps({"project": "sent"}), _zip({"zarr.json": b"{}"})),
    ],
)
def test_what_is_no_array_is_refused(
    bob: httpx.Client, kept: str | None, array: bytes
) -> None:
    before = bob.get("images", params={"project__name": "sent"}).json()["items"]
    said = {"kept": kept} if kept is not None else {}
    answer = bob.post("images", data=said, files={"array": ("a.zip", array)})
    assert answer.status_code == 422, answer.text
    assert bob.post("images", content=b"x").status_code == 422
    after = bob.get("images", params={"project__name": "sent"}).json()["items"]
    assert len(after) == len(before)


def test_uploads_that_nobody_ends_are_forgotten(site: Site, bob: httpx.Client) -> None:
    address = _begin(bob, b"x" * 10)
    key = address.rpartition("/")[2]
    intake.Orders(site.home).expire(older_s=-1)
    assert bob.get(address).status_code == 404
    assert intake.uploads_of(site.home).expire(older_s=-1) >= 1
    assert not (site.home.images / ".uploads" / key).exists()


def _answer_before_the_end(site: Site, person: str, begun: bytes, length: int) -> int:
    """The status that is answered to a form of which only the beginning was sent."""
    address = urlsplit(f"{site.url}/api/v1/images")
    head = (
        f"POST {address.path} HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"Authorization: token {person}\r\n"
        "Content-Type: multipart/form-data; boundary=part\r\n"
        f"Content-Length: {length}\r\n\r\n"
    )
    where = (str(address.hostname), address.port or 80)
    with socket.create_connection(where, timeout=60) as line:
        line.sendall(head.encode() + begun)
        return int(line.recv(4096).split()[1])


def test_an_array_is_read_no_further_than_its_sender_may(site: Site) -> None:
    # A reader of projects is refused at once, with nothing sent.
    assert _answer_before_the_end(site, "dan", b"", 3 << 30) == 403
    assert _answer_before_the_end(site, "bob", b"", 5 << 30) == 413
    # Who may write elsewhere is refused after the text, before the array.
    begun = (
        b'--part\r\nContent-Disposition: form-data; name="kept"\r\n\r\n'
        b'{"project": "secret"}\r\n'
        b'--part\r\nContent-Disposition: form-data; name="array"\r\n\r\n'
    )
    assert _answer_before_the_end(site, "bob", begun + bytes(2 << 20), 3 << 30) == 404


def test_an_array_that_comes_before_its_text_is_refused(bob: httpx.Client) -> None:
    parts = {"array": ("a.zip", b"x"), "kept": (None, '{"project": "sent"}')}
    answer = bob.post("images", files=parts)
    assert answer.status_code == 422
    assert "kept and then one array" in answer.json()["detail"]
