"""Zip files that people upload, over the API and on the page, by real sockets."""

from __future__ import annotations

import io
import os
import socket
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import Dataset

from services.dicom_client.opening import open_service
from services.dicom_client.settings import read
from services.dicom_client.uploads import Uploads

from .client_site import CANARIES, Site, patient_series, running_site, wait
from .test_pages import Visitor

LIMITS = {"upload": {"archive_bytes": 4 << 20, "files": 50, "file_bytes": 2 << 20}}
ZIP = {"Content-Type": "application/zip"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("uploads"), **LIMITS) as made:
        made.server.script(polls=1)
        yield made


def zipped(images: list[Dataset], *besides: tuple[str, bytes]) -> bytes:
    """An archive as a person packs one: folders, names of patients, a read-me."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, image in enumerate(images):
            content = io.BytesIO()
            image.save_as(content, enforce_file_format=True)
            archive.writestr(f"{CANARIES[0]}/{number}.dcm", content.getvalue())
        for name, content_ in besides:
            archive.writestr(name, content_)
    return packed.getvalue()


def uploaded(site: Site, content: bytes) -> dict[str, Any]:
    """Upload, and wait for its end."""
    made = site.ask("POST", "uploads", content=content, headers=ZIP)
    return ended(site, made["id"])


def ended(site: Site, upload_id: str) -> dict[str, Any]:
    def is_over() -> bool:
        said = site.ask("GET", f"uploads/{upload_id}")
        return said["phase"] in {"done", "failed", "cancelled"}

    wait(is_over, "the upload ends")
    found: dict[str, Any] = site.ask("GET", f"uploads/{upload_id}")
    return found


def left_over(site: Site) -> list[Path]:
    folder = site.home / "phi" / "dicom_client" / "uploads"
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name != "state.json"
    ]


def test_a_zipped_series_goes_the_way_of_all_series(site: Site) -> None:
    made = uploaded(
        site, zipped(patient_series(), ("README.txt", b"for you"), ("DICOMDIR", b""))
    )
    assert (made["phase"], made["images"], made["percent"]) == ("done", 12, 100)
    assert made["rejected"] == {"not_dicom": 2}
    (series,) = made["series"]
    wait(lambda: site.detail(series)["state"] == "done", "the series is done")
    detail = site.detail(series)
    assert (detail["source"], detail["instances"]) == ("upload", 12)
    assert left_over(site) == []
    actions = [line["action"] for line in site.ask("GET", "audit")]
    assert "upload" in actions
    told = site.call("GET", "uploads").text + site.log_text()
    assert not [canary for canary in CANARIES if canary in told]


def test_the_same_archive_again_is_nothing_new(site: Site) -> None:
    content = zipped(patient_series())
    assert uploaded(site, content)["series"]
    again = uploaded(site, content)
    assert (again["phase"], again["series"]) == ("done", [])
    assert "were here before" in again["text"]


def bomb() -> bytes:
    return zipped([], ("1.dcm", bytes(1 << 21)))


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (zipped([], ("../evil.dcm", b"1")), "outside its own folder"),
        (zipped([], ("/etc/evil.dcm", b"1")), "outside its own folder"),
        (bomb(), "unpacks to far more"),
        (
            zipped([], *((f"{one}.dcm", b"1") for one in range(60))),
            "more than 50 files",
        ),
        (b"PK\x03\x04 no archive", "no whole zip file"),
        (zipped([], ("notes.txt", b"no image")), "no CT, MR or PET image"),
    ],
    ids=["zip-slip", "absolute", "bomb", "many", "rubbish", "no-image"],
)
def test_a_hostile_or_useless_archive_is_refused_with_the_reason(
    site: Site, content: bytes, word: str
) -> None:
    before = len(site.series())
    made = uploaded(site, content)
    assert made["phase"] == "failed"
    assert word in made["text"]
    assert len(site.series()) == before
    assert left_over(site) == []
    assert not list(site.home.rglob("*evil*"))


def test_an_archive_that_is_too_large_is_refused_before_it_is_read(site: Site) -> None:
    # 4 GiB are announced, and one byte is sent: only who does not wait answers.
    headers = {**ZIP, "Content-Length": str(4 << 30)}
    token = (site.home / "dicom_client" / "access-token").read_text()
    request = (
        f"POST /api/uploads HTTP/1.1\r\nHost: x\r\nAuthorization: token {token}\r\n"
        + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        + "\r\nP"
    )
    with socket.create_connection(("127.0.0.1", site.port), timeout=30) as line:
        line.sendall(request.encode())
        answer = b""
        while b"parts" not in answer and (piece := line.recv(65536)):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"send it in parts" in answer


def test_an_archive_that_does_not_say_its_size_is_cut_off_at_the_limit(
    site: Site,
) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(64):
            yield bytes(1 << 17)

    answer = site.call("POST", "uploads", content=endless(), headers=ZIP)
    assert answer.status_code == 413
    assert "4 MiB" in answer.json()["detail"]
    assert left_over(site) == []


def test_a_form_instead_of_the_file_is_told_what_to_send(site: Site) -> None:
    answer = site.call("POST", "uploads", files={"file": ("a.zip", b"PK")})
    assert answer.status_code == 400
    assert "--data-binary" in answer.json()["detail"]


def test_an_upload_is_followed_and_cancelled_while_it_is_sent(site: Site) -> None:
    content = zipped([], ("1.dcm", os.urandom(3 << 20)))
    go_on = threading.Event()

    def slowly() -> Iterator[bytes]:
        yield content[: 2 << 20]
        go_on.wait(30)
        yield content[2 << 20 :]

    headers = {**ZIP, "Content-Length": str(len(content))}
    answers: list[httpx.Response] = []
    sender = threading.Thread(
        target=lambda: answers.append(
            site.call("POST", "uploads", content=slowly(), headers=headers)
        )
    )
    sender.start()

    def going() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = site.ask("GET", "uploads")
        return [
            one for one in found if one["phase"] == "receiving" and one["percent"] > 30
        ]

    wait(going, "the upload is on its way")
    (one,) = going()
    site.ask("POST", f"uploads/{one['id']}/cancel")
    go_on.set()
    sender.join(30)
    assert answers[0].json()["phase"] == "cancelled"
    assert ended(site, one["id"])["phase"] == "cancelled"
    assert site.call("POST", f"uploads/{one['id']}/cancel").status_code == 409
    assert left_over(site) == []


def test_a_sender_that_goes_away_leaves_nothing(site: Site) -> None:
    def cut_off() -> Iterator[bytes]:
        yield bytes(1 << 20)
        raise OSError("the cable")

    headers = {**ZIP, "Content-Length": str(3 << 20)}
    with pytest.raises(OSError, match="cable"):
        site.call("POST", "uploads", content=cut_off(), headers=headers)
    wait(
        lambda: site.ask("GET", "uploads")[0]["phase"] == "failed",
        "the upload has failed",
    )
    assert "send it again" in site.ask("GET", "uploads")[0]["text"]
    assert left_over(site) == []


def test_the_page_takes_a_file_by_its_script_only_from_its_own_session(
    site: Site,
) -> None:
    token = (site.home / "dicom_client" / "access-token").read_text()
    with httpx.Client(base_url=site.url, follow_redirects=True, timeout=60) as http:
        http.post("/login", data={"token": token})
        visitor = Visitor(http)
        page = visitor.get("/upload")
        assert "at most 4 MiB" in page
        content = zipped(patient_series())
        assert http.put("/upload", content=content, headers=ZIP).status_code == 403
        mark = page.partition('X-XSRF-Token": "')[2][:64]
        meant = {**ZIP, "X-XSRF-Token": mark}
        answer = http.put("/upload", content=content, headers=meant)
        assert answer.status_code == 201
        ended(site, answer.json()["id"])
        assert "Taken" in visitor.get("/upload")
        bad = http.put("/upload", content=bytes(5 << 20), headers=meant)
        assert (bad.status_code, "4 MiB" in bad.json()["text"]) == (413, True)
        # Signed in anew, a page that stayed open is out of date.
        http.post("/login", data={"token": token})
        before = site.ask("GET", "uploads")
        late = http.put("/upload", content=content, headers=meant)
        assert late.status_code == 403
        assert site.ask("GET", "uploads") == before


def test_of_a_sign_in_no_more_is_read_than_a_form_has(site: Site) -> None:
    token = (site.home / "dicom_client" / "access-token").read_text()
    with socket.create_connection(("127.0.0.1", site.port), timeout=60) as sender:
        sender.sendall(
            b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n"
            b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
            + b"x" * 8192
            + f"&token={token}&".encode()
        )
        # Answered while the rest is still awaited.
        assert sender.recv(64).startswith(b"HTTP/1.1 403")


def test_an_upload_that_a_restart_cut_off_goes_on_or_is_told(tmp_path: Path) -> None:
    service = open_service(tmp_path, read({"min_free_bytes": 0}))
    try:
        first = Uploads(service)
        first._worker.shutdown()
        whole, half = first.begin("ada", None), first.begin("ada", None)
        folder = service.folders.root / "uploads"
        (folder / whole.id / "archive.zip").write_bytes(zipped(patient_series()))
        (folder / half.id / "archive.zip").write_bytes(b"PK half of it")
        first._change(whole.id, durable=True, phase="unpacking")
        second = Uploads(service)
        wait(lambda: second.get(whole.id).has_ended, "it goes on")
        assert (second.get(whole.id).phase, second.get(whole.id).images) == ("done", 12)
        assert second.get(half.id).phase == "failed"
        assert "restart" in second.get(half.id).text
        second.close()
        assert [path.name for path in folder.rglob("*") if path.is_file()] == [
            "state.json"
        ] * 2
    finally:
        service.close()
