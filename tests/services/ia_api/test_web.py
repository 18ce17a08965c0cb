"""The web server's addresses and answers, as the pathology server meets them."""

from __future__ import annotations

import httpx
import pytest

from .running_site import Site

VERSIONS = ("X-Sectra-ApiVersion", "X-Sectra-SoftwareVersion")


def test_all_apps_are_listed_with_the_url_to_register(idle_site: Site) -> None:
    apps = httpx.get(f"{idle_site.url}/apps.json").json()["apps"]
    probe = next(app for app in apps if app["id"] == "probe")
    assert probe == {
        "id": "probe",
        "name": "Probe",
        "input": "wholeSlide",
        "url": f"{idle_site.url}/apps/probe",
        "notifications": True,
    }
    inputs = {app["id"]: app["input"] for app in apps}
    assert inputs["region"] == "multiArea"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/apps/probe", 200),
        ("GET", "/apps/probe/", 200),
        ("GET", "/apps/probe/info", 200),
        ("GET", "/apps/none", 404),
        ("GET", "/nowhere", 404),
        ("PUT", "/apps/probe", 405),
        ("POST", "/apps/probe", 400),
        ("POST", "/apps/none", 404),
        ("POST", "/apps/probe/imagenotification", 400),
    ],
)
def test_every_answer_is_json_with_both_versions(
    idle_site: Site, method: str, path: str, status: int
) -> None:
    answer = httpx.request(method, f"{idle_site.url}{path}", content=b"{")
    assert answer.status_code == status
    assert all(answer.headers.get(name) for name in VERSIONS)
    told = answer.json()
    if status >= 400:
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert told["error"]
        assert told["status"] == status


def test_a_body_beyond_the_limit_is_refused_while_it_comes(idle_site: Site) -> None:
    def endless() -> object:
        for _ in range(64):
            yield b" " * 65_536

    answer = httpx.post(f"{idle_site.url}/apps/probe", content=endless())  # type: ignore[arg-type]
    assert answer.status_code == 413


def test_a_notification_costs_no_callback_however_often_it_comes(
    idle_site: Site,
) -> None:
    slide = idle_site.slide()
    viewer = idle_site.viewer()
    since = idle_site.server.record.mark()
    for _ in range(3):
        assert viewer.notify(slide.slide_id).body == {}
    idle_site.server.record.assert_silent(since=since, slide_id=slide.slide_id)
