"""Defects 24 to 30 of the published example: security and privacy."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from fastapi import FastAPI
from sqlalchemy.exc import OperationalError

from services.ia_api import answers
from tests.certificates import self_signed
from tests.pathology_server import PathologyServer, Status, case_scenario

from .running_site import Site, running_site, wait

# 24. Patient data is always requested, used in names, printed, and never deleted.
# 25. Bearer tokens in clear text on disk, for ever.


@pytest.fixture(scope="module")
def used_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site that has worked on a whole case: done, failed, cancelled, deleted."""
    with running_site(tmp_path_factory.mktemp("used")) as site:
        viewer = site.viewer()
        site.server.add(*case_scenario())
        slides = [one for one in case_scenario() if one.streamable]
        for slide in slides:
            viewer.create(slide.slide_id)
        files = site.file_slide()
        site.viewer("probe-files").create(files.slide_id)
        failing = site.slide("raise")
        viewer.create(failing.slide_id)
        held = site.slide("hold")
        cancelled = viewer.create(held.slide_id)
        notified = site.slide()
        viewer.notify(notified.slide_id)
        for slide in (*slides, notified):
            site.wait_done(slide)
        site.wait_done(files, "probe-files")
        site.wait_text(failing, "Analysis failed")
        viewer.cancel(cancelled)
        site.wait_text(held, "Cancelled")
        wait(lambda: not site.slide_files(), "no file of a slide is left")
        yield site


def test_patient_data_is_never_asked_for_unless_it_is_switched_on(
    used_site: Site,
) -> None:
    used_site.server.record.assert_no_phi_requested()


def test_no_patient_data_is_left_in_a_file_a_name_or_a_log(used_site: Site) -> None:
    texts = [text for text in used_site.server.secrets() if "token" not in text]
    assert len(texts) > 10
    assert [text for text in texts if used_site.containing(text)] == []
    # The message of an error that a node raised may hold anything.
    assert used_site.containing("PHI-MESSAGE") == []


def test_no_token_is_in_clear_text_on_the_disk_or_in_a_log(used_site: Site) -> None:
    assert used_site.server.tokens.issued
    assert used_site.containing("sps-token-") == []


def test_no_token_is_in_clear_text_while_a_job_runs(ia_api_site: Site) -> None:
    slide = ia_api_site.slide("hold")
    ia_api_site.viewer().create(slide.slide_id)
    ia_api_site.wait_runs(slide)
    assert ia_api_site.containing("sps-token-") == []
    for process in psutil.process_iter(["cmdline", "environ"]):
        told = f"{process.info['cmdline']} {process.info['environ']}"
        assert "sps-token-" not in told
    ia_api_site.note(slide, "")
    ia_api_site.wait_done(slide)


def test_slides_are_kept_for_their_owner_alone_and_go_with_the_job(
    ia_api_site: Site,
) -> None:
    slide = ia_api_site.file_slide("hold")
    ia_api_site.viewer("probe-files").create(slide.slide_id)
    ia_api_site.wait_runs(slide)
    kept = list((ia_api_site.home / "phi").rglob("*"))
    assert ia_api_site.slide_files()
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in kept}
    assert [path for path, mode in modes.items() if mode & 0o077] == []
    ia_api_site.note(slide, "")
    ia_api_site.wait_done(slide, "probe-files")
    wait(lambda: not ia_api_site.slide_files(), "the slide is removed")


# 26. A debugger on all interfaces.


def test_the_web_server_listens_on_this_machine_only_and_has_no_debugger(
    idle_site: Site,
) -> None:
    process = psutil.Process(idle_site.web_server.pid)
    listening = [
        one.laddr.ip
        for one in process.net_connections()
        if one.status == psutil.CONN_LISTEN
    ]
    assert listening == ["127.0.0.1"]
    for path in ("/console", "/?__debugger__=yes&cmd=resource", "/docs", "/debug"):
        assert httpx.get(f"{idle_site.url}{path}").status_code == 404


# 27. The error handler tells the text of an exception, as HTML.


BROKEN: dict[str, bytes] = {
    "no json": b"{",
    "no object": b"[]",
    "no text": b"\xff\xfe",
    "NaN": b'{"action": "create", "input": NaN}',
    "no fields": b'{"action": "create"}',
    "deep": b"[" * 5000 + b"]" * 5000,
    "empty": b"",
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN.keys())
def test_an_error_is_a_document_that_tells_nothing_of_the_inside(
    idle_site: Site, body: bytes
) -> None:
    answer = httpx.post(f"{idle_site.url}/apps/probe", content=body)
    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-sectra-apiversion"]
    assert answer.headers["x-sectra-softwareversion"]
    told = json.dumps(answer.json())
    for inner in ("Traceback", "pydantic", "File \\", str(idle_site.home), ".py"):
        assert inner not in told


def test_what_the_pathology_server_says_in_an_error_is_not_passed_on(
    idle_site: Site,
) -> None:
    slide = idle_site.slide()
    inner = "PHI-NAME of a patient in an error of the server"
    idle_site.server.faults.plan("slides.info", Status(400, text=inner))
    answer = idle_site.viewer().create(slide.slide_id, judge=False)
    assert answer.status >= 400
    assert "PHI-NAME" not in json.dumps(answer.body)
    assert idle_site.containing("PHI-NAME") == []


# 28. Certificates are not checked.


def test_a_certificate_is_checked_against_the_bundle_that_the_site_names(
    tmp_path: Path,
) -> None:
    bundle, context = self_signed(tmp_path)
    for settings, wanted in (({}, False), ({"ca_bundle": str(bundle)}, True)):
        folder = tmp_path / f"site-{wanted}"
        folder.mkdir()
        with (
            PathologyServer(tls=context) as server,
            Site(folder, server, answer_deadline_s=3.0, **settings) as site,
        ):
            assert server.origin.startswith("https://")
            site.serve()
            slide = site.slide()
            answer = site.viewer().create(slide.slide_id, judge=False)
            assert (answer.status == 200) == wanted
            assert bool(server.record.count("slides.info")) == wanted


# 29. Anyone may have requests sent to any host.


def test_a_callback_to_a_host_that_is_not_listed_is_never_called(
    ia_api_site: Site,
) -> None:
    viewer = ia_api_site.viewer()
    allowed = ia_api_site.server.origin.removeprefix("http://")
    with PathologyServer() as foreign:
        host = foreign.origin.removeprefix("http://")
        for url in (
            foreign.url,
            foreign.url + "/../..",
            f"http://{allowed}@{host}/v1",
            f"http://{host}#{allowed}/v1",
            foreign.url.replace("127.0.0.1", "localhost"),
            foreign.url.replace("127.0.0.1", "2130706433"),
            f"http://{allowed.replace('127.0.0.1', '127.0.0.1.example.org')}/v1",
            "file:///etc/passwd",
            f"https://{allowed}/v1",
        ):
            slide = ia_api_site.slide()
            for send in (viewer.create, viewer.notify):
                answer = send(slide.slide_id, callback_url=url, judge=False)
                assert answer.status in {400, 403}, url
        slide = ia_api_site.slide()
        viewer.create(slide.slide_id)
        ia_api_site.wait_done(slide)
        assert foreign.record.count() == 0


def test_a_redirect_to_another_host_is_not_followed(ia_api_site: Site) -> None:
    slide = ia_api_site.slide()
    with PathologyServer() as foreign:
        ia_api_site.server.faults.plan(
            "slides.info",
            *[Status(302, location=f"{foreign.url}/info")] * 3,
            slide_id=slide.slide_id,
        )
        answer = ia_api_site.viewer().create(slide.slide_id, judge=False)
        assert answer.status >= 400
        assert foreign.record.count() == 0
    ia_api_site.server.faults.clear()


# 30. No authentication, no limit of size or rate, no audit log.


def test_a_body_beyond_the_limit_is_refused(idle_site: Site) -> None:
    body = b'{"action": "' + b"x" * (2 << 20) + b'"}'
    for content in (body, iter([body[: 1 << 20], body[1 << 20 :]])):
        answer = httpx.post(f"{idle_site.url}/apps/probe", content=content)
        assert answer.status_code == 413


def test_polygons_without_measure_are_refused(idle_site: Site) -> None:
    viewer = idle_site.viewer("region")
    slide = idle_site.slide()

    def polygon(points: list[tuple[Any, Any]]) -> dict[str, Any]:
        return {"polygons": [{"points": [{"x": x, "y": y} for x, y in points]}]}

    many = [(0.1 + n * 1e-9, 0.2) for n in range(20_000)]
    for points in (many * 3, [(0, 0), (1, 0)], [(0, 0), ("1", 0), (1, 1)], []):
        answer = viewer.create(slide.slide_id, polygon(points), judge=False)
        assert answer.status in {400, 413}
    text = json.dumps(viewer.body("create", slide.slide_id, {"input": polygon(many)}))
    for number in ("NaN", "Infinity", "1e999"):
        body = text.replace("0.2}", f"{number}}}", 1)
        answer = httpx.post(
            f"{idle_site.url}/apps/region",
            content=body,
            headers={"Content-Type": "application/json"},
        )
        assert answer.status_code in {400, 413}
    assert idle_site.results(slide, "region") == []


def test_too_many_requests_are_told_when_to_come_again(site_folder: Path) -> None:
    with running_site(site_folder, workers=0, invocations_per_minute=6) as site:
        viewer = site.viewer()
        answers = [viewer.create(site.slide().slide_id, judge=False) for _ in range(12)]
        refused = [one for one in answers if one.status != 200]
        assert 4 <= len(refused) <= 8
        for one in refused:
            assert one.status in {429, 503}
            assert int(one.headers["retry-after"]) > 0


def test_a_caller_from_another_network_is_refused(site_folder: Path) -> None:
    with running_site(site_folder, workers=0, allow_clients=["10.1.2.0/24"]) as site:
        for path in ("/apps.json", "/apps/probe", "/apps/probe/info"):
            assert httpx.get(f"{site.url}{path}").status_code == 403
        # Nobody can say of himself that he comes from there.
        headers = {"X-Forwarded-For": "10.1.2.3"}
        answer = httpx.get(f"{site.url}/apps.json", headers=headers)
        assert answer.status_code == 403


def test_an_address_without_its_secret_segment_is_not_there(site_folder: Path) -> None:
    secret = "a-secret-segment-0001"
    with running_site(site_folder, workers=0, path_secret=secret) as site:
        for path in ("/apps.json", "/apps/probe", "/wrong/apps/probe"):
            assert httpx.get(f"{site.url}{path}").status_code == 404
        listed = httpx.get(f"{site.url}/{secret}/apps.json").json()["apps"]
        urls = {one["id"]: one["url"] for one in listed}
        assert urls["probe"] == f"{site.url}/{secret}/apps/probe"
        assert httpx.get(urls["probe"]).status_code == 200
        assert secret not in site.log_text()


def test_every_invocation_is_in_the_audit_log_without_patient_data(
    idle_site: Site,
) -> None:
    slide = idle_site.slide()
    viewer = idle_site.viewer()
    viewer.cancel(viewer.create(slide.slide_id))
    viewer.create(slide.slide_id, callback_url="http://evil.example/", judge=False)
    rows = _audit(idle_site)[-3:]
    assert [(row["action"], row["app"]) for row in rows] == [
        ("create", "probe"),
        ("cancel", "probe"),
        ("create", "probe"),
    ]
    assert {row["caller"] for row in rows} == {"127.0.0.1"}
    assert rows[-1]["outcome"].startswith("refused")


def test_what_is_refused_at_the_door_is_in_the_audit_log_as_well(
    site_folder: Path,
) -> None:
    with running_site(site_folder, workers=0) as site:
        address = f"{site.url}/apps/probe"
        assert httpx.post(address, content=b"no JSON").status_code == 400
        assert httpx.post(address, content=b" " * (2 << 20)).status_code == 413
        assert httpx.post(f"{site.url}/apps/PRIVATE", content=b"{}").status_code == 404
        rows = _audit(site)
        assert [(row["app"], row["outcome"]) for row in rows] == [
            ("probe", "refused: BadInvocation"),
            ("probe", "refused: TooLarge"),
            ("", "refused: NoSuchApp"),
        ]
        # A flood is not written down line by line.
        for _ in range(80):
            httpx.post(address, content=b"no JSON")
        assert len(_audit(site)) < 80
        assert "PRIVATE" not in str(_audit(site))


def test_a_person_who_asks_by_the_address_of_notifications_counts_as_a_person(
    site_folder: Path,
) -> None:
    with running_site(site_folder, workers=0, invocations_per_minute=6) as site:
        viewer = site.viewer()
        address = f"{site.url}/apps/probe/imagenotification"
        statuses = [
            httpx.post(
                address,
                json=viewer.body(
                    "create", site.slide().slide_id, {"input": {"type": "wholeSlide"}}
                ),
            ).status_code
            for _ in range(12)
        ]
        assert statuses.count(200) <= 8
        assert set(statuses) == {200, 503}


def test_a_database_that_is_away_is_no_error_of_the_request() -> None:
    app = FastAPI()
    answers.install(app)

    @app.get("/")
    def away() -> None:
        raise OperationalError("SELECT 'PRIVATE'", {}, Exception("PRIVATE"))

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as one:
            return await one.get("/")

    answer = asyncio.run(asked())
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "PRIVATE" not in answer.text


def _audit(site: Site) -> list[dict[str, Any]]:
    with sqlite3.connect(site.home / "ia_api" / "theatrum.sqlite") as database:
        database.row_factory = sqlite3.Row
        return [
            dict(row) for row in database.execute("SELECT * FROM ia_audit ORDER BY id")
        ]
